"""Fluentd's forward protocol, version 1.

`messages` splits bytes into frames and parses these as messages, `entries` converts a message's entries to events,
`handshake` authenticates clients, and `listener` serves connections. Sources: the Forward Protocol Specification v1
in Fluentd's wiki, and the behavior of Fluentd's ``in_forward`` and ``out_forward``.
"""
