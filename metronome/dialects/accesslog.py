"""Access logs of web servers, each line read as one hit.

A format is a name and a function from a line to fields; `FORMATS` lists them all. What the formats
share, the item, the referer and the identity of a hit, is added by `Log.event`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from metronome.dialects.items import ItemRule
from metronome.enrich.addresses import read_address
from metronome.enrich.referers import normalise_referer
from metronome.errors import Malformed, Misconfigured
from metronome.timestamps import read_stamp

LINE_MAX_BYTES: Final = 65_536
"""The longest line that is read: web servers take no request as long as that."""

_ODD_BYTES = "backslashreplace"
"""Bytes that are no UTF-8 read as ``\\xHH``, as servers write them: so they stay apart, and nothing is lost."""


class LogFormat(NamedTuple):
    """One way to write an access log.

    Attributes:
        name: what the operator calls it.
        read: turns a line into the fields of an event: ``@timestamp`` always; ``method``, ``url``,
            ``status``, ``bytes``, ``referer``, ``agent``, ``clientip`` and others where the line has
            them. Raises `Malformed` for a line that it cannot read.

    """

    name: str
    read: Callable[[str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Log:
    """One access log, and what has to be known to read it.

    Attributes:
        log_format: how its lines are written.
        fingerprint: tells it from other logs (see `fingerprint`).
        rule: says what an item is.
        own_hosts: hosts whose referers do not count (see `metronome.enrich.referers.own_hosts`).

    """

    log_format: LogFormat
    fingerprint: bytes
    rule: ItemRule
    own_hosts: frozenset[str] = frozenset()

    def event(self, line: bytes, offset: int) -> dict[str, Any]:
        """Read one line as the fields of an event, its identity among them.

        Args:
            line: the line, with or without its end.
            offset: how many bytes of the log, uncompressed, come before the line.

        Raises:
            Malformed: the line cannot be read; the message says why.

        """
        fields = read_line(line, self.log_format, self.rule, self.own_hosts)
        place = b"%b %d %b" % (self.fingerprint, offset, _settled(line))
        fields["event_id"] = blake2b(place, digest_size=16).hexdigest()
        return fields


def fingerprint(first_line: bytes) -> bytes:
    """Return what tells a log from others: a hash of its first line that is not empty."""
    return blake2b(_settled(first_line), digest_size=16).digest()


def detect(lines: Iterable[bytes]) -> LogFormat:
    """Find the format that gets the most out of the first *lines* of a log.

    Raises:
        Malformed: no format can read any of them.

    """
    sample = [line.strip().decode(errors=_ODD_BYTES) for line in lines if len(line) <= LINE_MAX_BYTES]
    best = max(FORMATS, key=lambda log_format: _yield_of(log_format, sample))
    if not _yield_of(best, sample):
        raise Malformed(f"no line reads as an access log; the formats known are {format_names()}")
    return best


def format_named(name: str) -> LogFormat:
    """Return the format that an operator names.

    Raises:
        Misconfigured: there is none of that name.

    """
    for log_format in FORMATS:
        if log_format.name == name:
            return log_format
    raise Misconfigured(f"no log format is called {name!r}; there are {format_names()}")


def format_names() -> str:
    """List the formats for a sentence."""
    return ", ".join(log_format.name for log_format in FORMATS)


def read_line(line: bytes, log_format: LogFormat, rule: ItemRule, own_hosts: frozenset[str]) -> dict[str, Any]:
    """Read one line as the fields of an event, without an identity.

    Args:
        line: the line, with or without its end.
        log_format: how it is written.
        rule: says what an item is.
        own_hosts: hosts whose referers do not count.

    Raises:
        Malformed: the line cannot be read; the message says why.

    """
    if len(line) > LINE_MAX_BYTES:
        raise Malformed(f"it is over {LINE_MAX_BYTES:,} bytes")
    fields = log_format.read(line.strip().decode(errors=_ODD_BYTES))
    event, item, form = rule.hit(fields.get("method"), fields.get("status"), _path(fields.get("url", "")))
    fields["event"] = event
    if item is not None:
        fields["id"] = item
    if form is not None:
        fields["format"] = form
    referer = fields.get("referer")
    if referer is not None and ("://" not in referer or normalise_referer(referer, own_hosts) is None):
        fields["referer_url"] = fields.pop("referer")
    return fields


def _settled(line: bytes) -> bytes:
    """Return the line up to its request's end, if it has one in quotes.

    A line that is still being written can be read once it is past this point: what is appended to it
    later must not make it another hit.
    """
    start = line.find(b'] "')
    end = line.find(b'"', start + 3)
    return line.strip() if start < 0 or end < 0 else line[:end].lstrip()


def _yield_of(log_format: LogFormat, sample: list[str]) -> int:
    found = 0
    for line in sample:
        try:
            found += len(log_format.read(line))
        except Malformed:
            continue
    return found


def _path(target: str) -> str:
    path = target.partition("?")[0]
    if path.startswith("/"):
        return path
    # A proxy's request names the whole URL; `OPTIONS *` and `CONNECT host:port` name no path.
    scheme, separator, rest = path.partition("://")
    return "/" + rest.partition("/")[2] if separator and scheme.isalpha() else ""


# Possessive quantifiers and atomic groups leave nothing to go back to: a line is read once, whatever is in it.
_QUOTED = r'"((?:[^"\\]++|\\.)*+)'
_HIT = rf'(\S++) \S++ (?>(.*?) \[)([^\]]++)\] {_QUOTED}" (\d{{3}}|-) (\d{{1,18}}|-)(?!\S)'
_VISITOR = rf'(?: {_QUOTED}"(?: {_QUOTED})?)?'
_COMMON = re.compile(_HIT, re.ASCII | re.DOTALL)
_COMBINED = re.compile(_HIT + _VISITOR, re.ASCII | re.DOTALL)
_METHOD = re.compile(r"[A-Za-z][A-Za-z_-]*+", re.ASCII)
_PORT = re.compile(r":\d++\Z", re.ASCII)
_MISSING = frozenset({"", "-", '""'})
_VISITOR_FIELDS = ("referer", "agent")


def _read_common(line: str) -> dict[str, Any]:
    return _fields(_COMMON, line)


def _read_combined(line: str) -> dict[str, Any]:
    return _fields(_COMBINED, line)


def _read_vhost_combined(line: str) -> dict[str, Any]:
    host, _, rest = line.partition(" ")
    # The client of a Combined line with a space in its user name stands where this has the host's
    # name, and a hyphen, its identity, where this has the client.
    if rest.startswith("- "):
        raise Malformed("it has no client after the host")
    fields = _fields(_COMBINED, rest)
    fields["host"] = _PORT.sub("", host)
    return fields


def _fields(shape: re.Pattern[str], line: str) -> dict[str, Any]:
    found = shape.match(line)
    if found is None:
        raise Malformed(_complaint(line))
    client, user, time, request, status, size, *visitor = found.groups()
    fields: dict[str, Any] = {"@timestamp": _stamp(time)}
    if client != "-":
        fields["clientip" if read_address(client) else "clienthost"] = client
    if user not in _MISSING:
        fields["user"] = _unescape(user)
    _add_request(fields, _unescape(request))
    if status != "-":
        fields["status"] = int(status)
    if size != "-":
        fields["bytes"] = int(size)
    for name, text in zip(_VISITOR_FIELDS, visitor, strict=False):
        if text and text != "-":
            fields[name] = _unescape(text)
    return fields


def _add_request(fields: dict[str, Any], request: str) -> None:
    method, _, rest = request.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    if not protocol.startswith("HTTP/"):
        target = rest
    if target and (method == "GET" or _METHOD.fullmatch(method)):
        fields["method"] = method
        fields["url"] = target
    elif request not in _MISSING:
        # Bytes that were no HTTP, as of a port scan.
        fields["request"] = request


_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|([\"\\bnrtv]))")
_ESCAPED = {b'"': b'"', b"\\": b"\\", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(_unescaped, text.encode()).decode(errors=_ODD_BYTES)


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[1].decode()) if found[1] else _ESCAPED[found[2]]


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})", re.ASCII)


@lru_cache(maxsize=4096)
def _stamp(time: str) -> str:
    found = _TIME.fullmatch(time)
    if found is None or found[2] not in _MONTHS:
        raise Malformed(_no_time(time))
    day, month, year, clock, zone = found.groups()
    try:
        return read_stamp(f"{year}-{_MONTHS.index(month) + 1:02}-{day}T{clock}{zone}")
    except Malformed:
        raise Malformed(_no_time(time)) from None


def _no_time(time: str) -> str:
    return f"{time[:40]!r} is no time as in 17/May/2015:10:05:03 +0000"


def _complaint(line: str) -> str:
    bracket = line.find(" [")
    request = line.find('] "', bracket)
    if bracket < 0:
        return "it has no time in brackets, as in [17/May/2015:10:05:03 +0000]"
    if request < 0 or line.find('"', request + 3) < 0:
        return "it has no whole request in quotes after the time"
    return 'its parts are not client, identity, user, [time], "request", status and size'


FORMATS: Final = (
    LogFormat("vhost-combined", _read_vhost_combined),
    LogFormat("common", _read_common),
    LogFormat("combined", _read_combined),
)
"""Every format known. Of those that get equally much out of a log, the first is taken."""
