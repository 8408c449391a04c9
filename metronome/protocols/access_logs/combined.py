"""Common and Combined logs, as Apache and NGINX write them, and those with the virtual host before each line.

Server access logs of S3.

Source: Amazon's "Amazon S3 server access log format". Amazon has added columns at the end several times, so a line
may have fewer or more of them than are read here.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from metronome.errors import Malformed
from metronome.protocols.access_logs.formats import (
    MISSING,
    ODD_BYTES,
    LogFormat,
    Reader,
    add_client,
    add_request,
    bracket_stamp,
    without_port,
)

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


_SHOWN: Final = frozenset({"REST.GET.OBJECT", "WEBSITE.GET.OBJECT"})
"""The operations that show an object to somebody."""
# S3 escapes no quotes in a text: it ends where what has to follow does follow. There is nothing to go back to.
_REQUEST = r'(?:"((?:[^"]|"(?! (?:\d{3}|-) ))*+)"|-)'
_REFERER = r'(?:"((?:[^"]|"(?! (?:"|- )))*+)"|-)'
_AGENT = r'(?:"((?:[^"]|"(?=[^"]*+"))*+)"|-)'
_SHAPE = re.compile(
    r"(\S++) (\S++) \[([^\]]++)\] (\S++) (\S++) (\S++) ([A-Za-z0-9]++\.\S++) (\S++) "
    rf"{_REQUEST} (\d{{3}}|-) (\S++) (\d{{1,18}}|-) (\d{{1,18}}|-) (\d{{1,12}}|-) (\d{{1,12}}|-) "
    rf"{_REFERER} {_AGENT} (\S++)(?: (\S++) (\S++) (\S++) (\S++)(?: (\S++))?)?",
    re.ASCII,
)
_PLAIN = ("bucket", "operation", "request_id", "error_code", "version_id")
_SETTLED_PARTS = 8
_PATH_SAFE = "/!$&'()*+,;=:@~"


def read_s3(line: str) -> dict[str, Any]:
    """Read a line (see `Reader`).

    The ``url`` is the object's key as a path, whichever way the bucket was addressed, with the query of the request.
    """
    found = _SHAPE.match(line)
    if found is None:
        raise Malformed("its parts are not those of an S3 log: owner, bucket, [time], address, requester, request id …")
    _, bucket, time, client, user, request_id, operation, key, *rest = found.groups()
    request, status, error, sent, size, total, turnaround, referer, agent, version, *tail = rest
    fields: dict[str, Any] = {"@timestamp": bracket_stamp(time)}
    add_client(fields, client)
    if user != "-":
        fields["user"] = user
    add_request(fields, request or "")
    _add_key(fields, key)
    numbers = (
        ("status", status),
        ("bytes", sent),
        ("duration", total),
        ("turnaround", turnaround),
        ("object_size", size),
    )
    fields.update({name: int(text) for name, text in numbers if text != "-"})
    fields.update({name: text for name, text in (("referer", referer), ("agent", agent)) if text and text != "-"})
    plain = zip(_PLAIN, (bucket, operation, request_id, error, version), strict=True)
    fields.update({name: text for name, text in plain if text != "-"})
    host = tail[-1]
    if host is not None and host != "-":
        fields["host"] = without_port(host)
    return fields


def _add_key(fields: dict[str, Any], key: str) -> None:
    if key != "-":
        _, mark, query = fields.get("url", "").partition("?")
        # S3 encodes a key twice: once decoded, it is a path as others write it.
        path = quote(unquote(key, errors=ODD_BYTES), safe=_PATH_SAFE + "%")
        fields["url"] = f"/{path.removeprefix('/')}{mark}{query}"


def _shows_item(fields: Mapping[str, Any]) -> bool:
    return fields.get("operation") in _SHOWN


def _settle(line: bytes) -> bytes:
    """Return the first parts of a line, up to the operation: the request's own number is among them."""
    return b" ".join(line.strip().split(b" ", _SETTLED_PARTS)[:_SETTLED_PARTS])


def _reader() -> Reader:
    return read_s3


S3: Final = LogFormat("s3", _reader, _settle, shows_item=_shows_item)
