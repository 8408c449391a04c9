"""Fluentd's forward protocol, version 1, as far as it needs no socket.

Bytes become frames (`frames`), a frame a transport: a tag, packed entries, a chunk's id (`transport`), and entries
events (`entries`); `dialect` puts these together, `handshake` says who may send. Source of the format: the Forward
Protocol Specification v1 in the wiki of Fluentd, and how Fluentd's own ``in_forward`` and ``out_forward`` go on.
"""
