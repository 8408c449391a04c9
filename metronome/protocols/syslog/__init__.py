"""Syslog over TCP and UDP: RFC 5424, RFC 3164 and what programs send in their place.

`frames` splits a TCP connection into messages, `messages` converts a message to an event, and `listener` receives and
stores them.
"""
