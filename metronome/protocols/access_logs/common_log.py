"""The Common Log Format and formats derived from it: Combined, Combined with the virtual host, and S3.

Source for S3: Amazon's "Amazon S3 server access log format". Amazon has added columns at the end several times, so a
line may have fewer or more columns than are parsed here.
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
    LogFormat,
    set_request_line,
    strip_port,
)
from metronome.times import parse_clf_timestamp

# Possessive quantifiers and atomic groups prevent backtracking: matching is linear for any line.
_QUOTED_PATTERN = r'"((?:[^"\\]++|\\.)*+)'
_HIT_PATTERN = rf'(\S++) \S++ (?>(.*?) \[)([^\]]++)\] {_QUOTED_PATTERN}" (\d{{3}}|-) (\d{{1,18}}|-)(?!\S)'
_VISITOR_PATTERN = rf'(?: {_QUOTED_PATTERN}"(?: {_QUOTED_PATTERN})?)?'
_COMMON_PATTERN = re.compile(_HIT_PATTERN, re.ASCII | re.DOTALL)
_COMBINED_PATTERN = re.compile(_HIT_PATTERN + _VISITOR_PATTERN, re.ASCII | re.DOTALL)
_VISITOR_FIELDS = ("referer", "agent")
_ESCAPE_PATTERN = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|([\"\\bnrtv]))")
_ESCAPED_CHARACTERS = {b'"': b'"', b"\\": b"\\", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def _combined_stable_part(line: bytes) -> bytes:
    """Return a line up to the end of its request, if that is in quotes (see `LogFormat.stable_part`)."""
    start = line.find(b'] "')
    end = line.find(b'"', start + 3)
    return line.strip() if start < 0 or end < 0 else line[:end].lstrip()


def parse_common(line: str) -> dict[str, Any]:
    """Parse a line of the Common Log Format (see `LineParser`)."""
    return _parse_fields(_COMMON_PATTERN, line)


def parse_combined(line: str) -> dict[str, Any]:
    """Parse a line of the Combined Log Format; referrer and user agent may be missing (see `LineParser`)."""
    return _parse_fields(_COMBINED_PATTERN, line)


def parse_vhost_combined(line: str) -> dict[str, Any]:
    """Parse a line of the Combined Log Format after its virtual host (see `LineParser`)."""
    host, _, rest = line.partition(" ")
    # A Combined line whose user name has a space would match as well, with its client as the host and a hyphen, its
    # identity, as the client.
    if rest.startswith("- "):
        raise Malformed("no client after the host")
    fields = _parse_fields(_COMBINED_PATTERN, rest)
    fields["host"] = strip_port(host)
    return fields


def unescape(text: str) -> str:
    r"""Decode the escapes of Apache and NGINX: ``\xHH``, ``\"`` and those of C."""
    if "\\" not in text:
        return text
    return _ESCAPE_PATTERN.sub(_replace_escape, text.encode()).decode(errors=DECODE_ERRORS)


def _parse_fields(pattern: re.Pattern[str], line: str) -> dict[str, Any]:
    match = pattern.match(line)
    if match is None:
        raise Malformed(_describe_mismatch(line))
    client, user, time, request, status, size, *visitor = match.groups()
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


def _replace_escape(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode()) if match[1] else _ESCAPED_CHARACTERS[match[2]]


def _describe_mismatch(line: str) -> str:
    bracket = line.find(" [")
    request = line.find('] "', bracket)
    if bracket < 0:
        return "no time in brackets, as in [17/May/2015:10:05:03 +0000]"
    if request < 0 or line.find('"', request + 3) < 0:
        return "no complete request in quotes after the time"
    return 'expected client, identity, user, [time], "request", status and size'


COMMON: Final = LogFormat("common", lambda: parse_common, _combined_stable_part)
COMBINED: Final = LogFormat("combined", lambda: parse_combined, _combined_stable_part)
VHOST_COMBINED: Final = LogFormat("vhost-combined", lambda: parse_vhost_combined, _combined_stable_part)


_ITEM_OPERATIONS: Final = frozenset({"REST.GET.OBJECT", "WEBSITE.GET.OBJECT"})
"""The operations that deliver an object."""
# S3 does not escape quotes in a value: the value ends at the quote before the next column. No backtracking.
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
    """Parse a line of an S3 log (see `LineParser`).

    The ``url`` is the object's key as a path, with the query of the request, whether the bucket is in the host or path.
    """
    match = _S3_LINE_PATTERN.match(line)
    if match is None:
        raise Malformed("not an S3 log line: expected owner, bucket, [time], address, requester, request ID …")
    _, bucket, time, client, user, request_id, operation, key, *rest = match.groups()
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
        # S3 encodes a key twice: decoded once, it is a percent-encoded path.
        path = quote(unquote(key, errors=DECODE_ERRORS), safe=_S3_PATH_SAFE + "%")
        fields["url"] = f"/{path.removeprefix('/')}{mark}{query}"


def _is_item_operation(fields: Mapping[str, Any]) -> bool:
    return fields.get("operation") in _ITEM_OPERATIONS


def _s3_stable_part(line: bytes) -> bytes:
    """Return the columns up to the operation: they include the request ID."""
    return b" ".join(line.strip().split(b" ", _S3_STABLE_PARTS)[:_S3_STABLE_PARTS])


S3: Final = LogFormat("s3", lambda: parse_s3, _s3_stable_part, is_item_request=_is_item_operation)
