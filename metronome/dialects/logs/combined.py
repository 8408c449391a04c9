"""Common and Combined logs, as Apache and NGINX write them, and those with the virtual host before each line."""

import re
from typing import Any, Final

from metronome.dialects.logs.form import ODD_BYTES, LogFormat, Reader
from metronome.dialects.logs.requests import MISSING, add_client, add_request, bracket_stamp, without_port
from metronome.errors import Malformed

# Possessive quantifiers and atomic groups leave nothing to go back to: a line is read once, whatever is in it.
_QUOTED = r'"((?:[^"\\]++|\\.)*+)'
_HIT = rf'(\S++) \S++ (?>(.*?) \[)([^\]]++)\] {_QUOTED}" (\d{{3}}|-) (\d{{1,18}}|-)(?!\S)'
_VISITOR = rf'(?: {_QUOTED}"(?: {_QUOTED})?)?'
_COMMON = re.compile(_HIT, re.ASCII | re.DOTALL)
_COMBINED = re.compile(_HIT + _VISITOR, re.ASCII | re.DOTALL)
_VISITOR_FIELDS = ("referer", "agent")
_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|([\"\\bnrtv]))")
_ESCAPED = {b'"': b'"', b"\\": b"\\", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def settle(line: bytes) -> bytes:
    """Return a line up to its request's end, if it has one in quotes (see `LogFormat.settle`)."""
    start = line.find(b'] "')
    end = line.find(b'"', start + 3)
    return line.strip() if start < 0 or end < 0 else line[:end].lstrip()


def read_common(line: str) -> dict[str, Any]:
    """Read a line without the visitor's referer and agent (see `Reader`)."""
    return _fields(_COMMON, line)


def read_combined(line: str) -> dict[str, Any]:
    """Read a line with the visitor's referer and agent, if it has them (see `Reader`)."""
    return _fields(_COMBINED, line)


def read_vhost_combined(line: str) -> dict[str, Any]:
    """Read a line with the virtual host before it (see `Reader`)."""
    host, _, rest = line.partition(" ")
    # The client of a Combined line with a space in its user name stands where this has the host's
    # name, and a hyphen, its identity, where this has the client.
    if rest.startswith("- "):
        raise Malformed("it has no client after the host")
    fields = _fields(_COMBINED, rest)
    fields["host"] = without_port(host)
    return fields


def unescape(text: str) -> str:
    r"""Undo the escapes of Apache and NGINX: ``\xHH``, ``\"`` and those of C."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(_unescaped, text.encode()).decode(errors=ODD_BYTES)


def _fields(shape: re.Pattern[str], line: str) -> dict[str, Any]:
    found = shape.match(line)
    if found is None:
        raise Malformed(_complaint(line))
    client, user, time, request, status, size, *visitor = found.groups()
    fields: dict[str, Any] = {"@timestamp": bracket_stamp(time)}
    add_client(fields, client)
    if user not in MISSING:
        fields["user"] = unescape(user)
    add_request(fields, unescape(request))
    if status != "-":
        fields["status"] = int(status)
    if size != "-":
        fields["bytes"] = int(size)
    for name, text in zip(_VISITOR_FIELDS, visitor, strict=False):
        if text and text != "-":
            fields[name] = unescape(text)
    return fields


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[1].decode()) if found[1] else _ESCAPED[found[2]]


def _complaint(line: str) -> str:
    bracket = line.find(" [")
    request = line.find('] "', bracket)
    if bracket < 0:
        return "it has no time in brackets, as in [17/May/2015:10:05:03 +0000]"
    if request < 0 or line.find('"', request + 3) < 0:
        return "it has no whole request in quotes after the time"
    return 'its parts are not client, identity, user, [time], "request", status and size'


def _common() -> Reader:
    return read_common


def _combined() -> Reader:
    return read_combined


def _vhost_combined() -> Reader:
    return read_vhost_combined


COMMON: Final = LogFormat("common", _common, settle)
COMBINED: Final = LogFormat("combined", _combined, settle)
VHOST_COMBINED: Final = LogFormat("vhost-combined", _vhost_combined, settle)
