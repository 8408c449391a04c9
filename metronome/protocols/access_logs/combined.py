"""Common and Combined logs, as Apache and NGINX write them, and those with the virtual host before each line.

Server access logs of S3.

Source: Amazon's "Amazon S3 server access log format". Amazon has added columns at the end several times, so a line
may have fewer or more of them than are read here.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from metronome.enrich.addresses import set_client
from metronome.errors import Malformed
from metronome.protocols.access_logs.formats import (
    DECODE_ERRORS,
    EMPTY_VALUES,
    LineParser,
    LogFormat,
    set_request_line,
    strip_port,
)
from metronome.times import parse_clf_timestamp

# Possessive quantifiers and atomic groups leave nothing to go back to: a line is read once, whatever is in it.
_QUOTED_PATTERN = r'"((?:[^"\\]++|\\.)*+)'
_HIT_PATTERN = rf'(\S++) \S++ (?>(.*?) \[)([^\]]++)\] {_QUOTED_PATTERN}" (\d{{3}}|-) (\d{{1,18}}|-)(?!\S)'
_VISITOR_PATTERN = rf'(?: {_QUOTED_PATTERN}"(?: {_QUOTED_PATTERN})?)?'
_COMMON_PATTERN = re.compile(_HIT_PATTERN, re.ASCII | re.DOTALL)
_COMBINED_PATTERN = re.compile(_HIT_PATTERN + _VISITOR_PATTERN, re.ASCII | re.DOTALL)
_VISITOR_FIELDS = ("referer", "agent")
_ESCAPE_PATTERN = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|([\"\\bnrtv]))")
_ESCAPED_CHARACTERS = {b'"': b'"', b"\\": b"\\", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def combined_stable_part(line: bytes) -> bytes:
    """Return a line up to its request's end, if it has one in quotes (see `LogFormat.settle`)."""
    start = line.find(b'] "')
    end = line.find(b'"', start + 3)
    return line.strip() if start < 0 or end < 0 else line[:end].lstrip()


def parse_common(line: str) -> dict[str, Any]:
    """Read a line without the visitor's referer and agent (see `LineParser`)."""
    return _parse_fields(_COMMON_PATTERN, line)


def parse_combined(line: str) -> dict[str, Any]:
    """Read a line with the visitor's referer and agent, if it has them (see `LineParser`)."""
    return _parse_fields(_COMBINED_PATTERN, line)


def parse_vhost_combined(line: str) -> dict[str, Any]:
    """Read a line with the virtual host before it (see `LineParser`)."""
    host, _, rest = line.partition(" ")
    # The client of a Combined line with a space in its user name stands where this has the host's
    # name, and a hyphen, its identity, where this has the client.
    if rest.startswith("- "):
        raise Malformed("it has no client after the host")
    fields = _parse_fields(_COMBINED_PATTERN, rest)
    fields["host"] = strip_port(host)
    return fields


def unescape(text: str) -> str:
    r"""Undo the escapes of Apache and NGINX: ``\xHH``, ``\"`` and those of C."""
    if "\\" not in text:
        return text
    return _ESCAPE_PATTERN.sub(_replace_escape, text.encode()).decode(errors=DECODE_ERRORS)


def _parse_fields(pattern: re.Pattern[str], line: str) -> dict[str, Any]:
    found = pattern.match(line)
    if found is None:
        raise Malformed(_describe_mismatch(line))
    client, user, time, request, status, size, *visitor = found.groups()
    fields: dict[str, Any] = {"@timestamp": parse_clf_timestamp(time)}
    set_client(fields, client)
    if user not in EMPTY_VALUES:
        fields["user"] = unescape(user)
    set_request_line(fields, unescape(request))
    if status != "-":
        fields["status"] = int(status)
    if size != "-":
        fields["bytes"] = int(size)
    for name, text in zip(_VISITOR_FIELDS, visitor, strict=False):
        if text and text != "-":
            fields[name] = unescape(text)
    return fields


def _replace_escape(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[1].decode()) if found[1] else _ESCAPED_CHARACTERS[found[2]]


def _describe_mismatch(line: str) -> str:
    bracket = line.find(" [")
    request = line.find('] "', bracket)
    if bracket < 0:
        return "it has no time in brackets, as in [17/May/2015:10:05:03 +0000]"
    if request < 0 or line.find('"', request + 3) < 0:
        return "it has no whole request in quotes after the time"
    return 'its parts are not client, identity, user, [time], "request", status and size'


def _new_common_parser() -> LineParser:
    return parse_common


def _new_combined_parser() -> LineParser:
    return parse_combined


def _new_vhost_combined_parser() -> LineParser:
    return parse_vhost_combined


COMMON: Final = LogFormat("common", _new_common_parser, combined_stable_part)
COMBINED: Final = LogFormat("combined", _new_combined_parser, combined_stable_part)
VHOST_COMBINED: Final = LogFormat("vhost-combined", _new_vhost_combined_parser, combined_stable_part)


_ITEM_OPERATIONS: Final = frozenset({"REST.GET.OBJECT", "WEBSITE.GET.OBJECT"})
"""The operations that show an object to somebody."""
# S3 escapes no quotes in a text: it ends where what has to follow does follow. There is nothing to go back to.
_S3_REQUEST_PATTERN = r'(?:"((?:[^"]|"(?! (?:\d{3}|-) ))*+)"|-)'
_S3_REFERRER_PATTERN = r'(?:"((?:[^"]|"(?! (?:"|- )))*+)"|-)'
_S3_USER_AGENT_PATTERN = r'(?:"((?:[^"]|"(?=[^"]*+"))*+)"|-)'
_S3_LINE_PATTERN = re.compile(
    r"(\S++) (\S++) \[([^\]]++)\] (\S++) (\S++) (\S++) ([A-Za-z0-9]++\.\S++) (\S++) "
    rf"{_S3_REQUEST_PATTERN} (\d{{3}}|-) (\S++) (\d{{1,18}}|-) (\d{{1,18}}|-) (\d{{1,12}}|-) (\d{{1,12}}|-) "
    rf"{_S3_REFERRER_PATTERN} {_S3_USER_AGENT_PATTERN} (\S++)(?: (\S++) (\S++) (\S++) (\S++)(?: (\S++))?)?",
    re.ASCII,
)
_S3_TEXT_FIELDS = ("bucket", "operation", "request_id", "error_code", "version_id")
_S3_STABLE_PARTS = 8
_S3_PATH_SAFE = "/!$&'()*+,;=:@~"


def parse_s3(line: str) -> dict[str, Any]:
    """Read a line (see `LineParser`).

    The ``url`` is the object's key as a path, whichever way the bucket was addressed, with the query of the request.
    """
    found = _S3_LINE_PATTERN.match(line)
    if found is None:
        raise Malformed("its parts are not those of an S3 log: owner, bucket, [time], address, requester, request id …")
    _, bucket, time, client, user, request_id, operation, key, *rest = found.groups()
    request, status, error, sent, size, total, turnaround, referer, agent, version, *tail = rest
    fields: dict[str, Any] = {"@timestamp": parse_clf_timestamp(time)}
    set_client(fields, client)
    if user != "-":
        fields["user"] = user
    set_request_line(fields, request or "")
    _set_object_url(fields, key)
    numbers = (
        ("status", status),
        ("bytes", sent),
        ("duration", total),
        ("turnaround", turnaround),
        ("object_size", size),
    )
    fields.update({name: int(text) for name, text in numbers if text != "-"})
    fields.update({name: text for name, text in (("referer", referer), ("agent", agent)) if text and text != "-"})
    plain = zip(_S3_TEXT_FIELDS, (bucket, operation, request_id, error, version), strict=True)
    fields.update({name: text for name, text in plain if text != "-"})
    host = tail[-1]
    if host is not None and host != "-":
        fields["host"] = strip_port(host)
    return fields


def _set_object_url(fields: dict[str, Any], key: str) -> None:
    if key != "-":
        _, mark, query = fields.get("url", "").partition("?")
        # S3 encodes a key twice: once decoded, it is a path as others write it.
        path = quote(unquote(key, errors=DECODE_ERRORS), safe=_S3_PATH_SAFE + "%")
        fields["url"] = f"/{path.removeprefix('/')}{mark}{query}"


def _is_item_operation(fields: Mapping[str, Any]) -> bool:
    return fields.get("operation") in _ITEM_OPERATIONS


def _s3_stable_part(line: bytes) -> bytes:
    """Return the first parts of a line, up to the operation: the request's own number is among them."""
    return b" ".join(line.strip().split(b" ", _S3_STABLE_PARTS)[:_S3_STABLE_PARTS])


def _new_s3_parser() -> LineParser:
    return parse_s3


S3: Final = LogFormat("s3", _new_s3_parser, _s3_stable_part, is_item_request=_is_item_operation)
