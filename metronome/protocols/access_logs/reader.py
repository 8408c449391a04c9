"""Access logs of web servers, each line read as one hit.

A format is a name and what reads a log of it to fields; `FORMATS` lists them all. What the formats
share, the item, the referer and the identity of a hit, is added here.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

from metronome.enrich.referrers import normalise_referer
from metronome.errors import Malformed, Misconfigured
from metronome.items import ItemRule
from metronome.protocols.access_logs.combined import (
    COMBINED,
    COMMON,
    S3,
    VHOST_COMBINED,
    read_combined,
    read_vhost_combined,
)
from metronome.protocols.access_logs.formats import LINE_MAX_BYTES, ODD_BYTES, LogFormat, Reader, path_of
from metronome.protocols.access_logs.json_formats import (
    CADDY_JSON,
    NGINX_JSON,
    read_caddy_json,
    read_caddy_record,
    read_nginx_json,
    read_record,
)
from metronome.protocols.access_logs.w3c import CLOUDFRONT, W3C

__all__ = [
    "FORMATS",
    "LINE_MAX_BYTES",
    "Log",
    "LogFormat",
    "detect",
    "detect_begun",
    "fingerprint",
    "format_named",
    "format_names",
    "head",
    "read_hit",
    "read_line",
    "web_fields",
]

FORMATS: Final = (VHOST_COMBINED, COMMON, COMBINED, NGINX_JSON, CADDY_JSON, W3C, CLOUDFRONT, S3)
"""Every format known. Of those that get equally much out of a log, the first is taken."""

_DIRECTIVE = b"#"


class Log:
    """One access log, and what has to be known to read it, line by line from its beginning.

    Args:
        log_format: how its lines are written.
        fingerprint: tells it from other logs (see `fingerprint`).
        rule: says what an item is.
        own_hosts: hosts whose referers do not count (see `metronome.enrich.referrers.own_hosts`).

    """

    def __init__(
        self, log_format: LogFormat, fingerprint: bytes, rule: ItemRule, own_hosts: frozenset[str] = frozenset()
    ) -> None:
        self.log_format = log_format
        self.fingerprint = fingerprint
        self._rule = rule
        self._own_hosts = own_hosts
        self._read = log_format.reader()

    def event(self, line: bytes, offset: int) -> dict[str, Any] | None:
        """Read one line as the fields of an event, its identity among them; None if it is no hit.

        Args:
            line: the line, with or without its end.
            offset: how many bytes of the log, uncompressed, come before the line.

        Raises:
            Malformed: the line cannot be read; the message says why.

        """
        fields = _read_bytes(line, self._read)
        if fields is None:
            return None
        _complete(fields, self.log_format, self._rule, self._own_hosts)
        place = b"%b %d %b" % (self.fingerprint, offset, self.log_format.settle(line))
        fields["event_id"] = blake2b(place, digest_size=16).hexdigest()
        return fields

    def pass_by(self, line: bytes) -> None:
        """Take only from a line what it says of those that follow: its hit is known already."""
        if self.log_format.directives and line.lstrip().startswith(_DIRECTIVE):
            with suppress(Malformed):
                _read_bytes(line, self._read)


def head(lines: Iterable[bytes], log_format: LogFormat) -> bytes | None:
    """Return what of a log's first lines tells it from others.

    That is its first line that is not empty. Where lines may be directives, it is all lines up to the first that is
    none: all logs of a server may begin with the same directives.

    Returns:
        The lines, without their ends, or None if there is no line yet that is no directive.

    """
    first: list[bytes] = []
    for line in lines:
        if line.strip():
            first.append(line.strip())
            if not (log_format.directives and line.lstrip().startswith(_DIRECTIVE)):
                return b"\n".join(first)
    return None


def fingerprint(first_lines: bytes) -> bytes:
    """Return what tells a log from others: a hash of its first lines (see `head`).

    All of them counts: a monitor's requests may differ in how many bytes they were answered with, and in nothing else.
    So a log whose very first line is still being written is another one than when it is whole.
    """
    return blake2b(first_lines, digest_size=16).digest()


def detect(lines: Iterable[bytes]) -> LogFormat:
    """Find the format that gets the most out of the first *lines* of a log.

    Raises:
        Malformed: no format can read any of them.

    """
    sample = [line.strip().decode(errors=ODD_BYTES) for line in lines if len(line) <= LINE_MAX_BYTES]
    best = max(FORMATS, key=lambda log_format: _yield_of(log_format, sample))
    if not _yield_of(best, sample):
        raise Malformed(f"no line reads as an access log; the formats known are {format_names()}")
    return best


def detect_begun(lines: Iterable[bytes]) -> LogFormat:
    """Find the format of a log that has only begun; as `detect`, but what could be Combined later is Combined now."""
    found = detect(lines)
    return COMBINED if found is COMMON else found


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


def read_line(line: bytes, log_format: LogFormat, rule: ItemRule, own_hosts: frozenset[str]) -> dict[str, Any] | None:
    """Read one line alone as the fields of an event, without an identity; None if it is no hit.

    Args:
        line: the line, with or without its end.
        log_format: how it is written.
        rule: says what an item is.
        own_hosts: hosts whose referers do not count.

    Raises:
        Malformed: the line cannot be read; the message says why.

    """
    fields = _read_bytes(line, log_format.reader())
    return None if fields is None else _complete(fields, log_format, rule, own_hosts)


def read_hit(line: str | bytes, rule: ItemRule, own_hosts: frozenset[str]) -> dict[str, Any] | None:
    """Read a line that may be of an access log, of a format whose lines each stand alone.

    These are Combined, Common, those with the virtual host before each line, and JSON of NGINX and Caddy.

    Args:
        line: the line, with or without its end.
        rule: says what an item is.
        own_hosts: hosts whose referers do not count.

    Returns:
        The fields of an event, without an identity; or None if the line is none of these.

    """
    text = line if isinstance(line, str) else line.decode(errors=ODD_BYTES)
    if len(text) > LINE_MAX_BYTES:
        return None
    if not text.isascii():
        # A text may hold lone surrogates, which have no bytes.
        text = text.encode(errors=ODD_BYTES).decode()
    text = text.strip()
    for read in _JSON_HITS if text.startswith("{") else _TEXT_HITS if '] "' in text else ():
        try:
            fields = read(text)
        except Malformed:
            continue
        if fields is not None:
            return _complete(fields, COMBINED, rule, own_hosts)
    return None


def web_fields(record: Mapping[str, Any], rule: ItemRule, own_hosts: frozenset[str]) -> dict[str, Any] | None:
    """Read a record that may tell of a hit, as shippers send them that have parsed a log already.

    Args:
        record: its fields, flat, with dotted names or nested, under the usual names of `read_record`; or
            one of Caddy's.
        rule: says what an item is.
        own_hosts: hosts whose referers do not count.

    Returns:
        The fields of an event, those that are not known under their own names; or None if the record has
        no request or path, or neither a method nor a status.

    """
    try:
        nested = isinstance(record.get("request"), dict)
        fields = read_caddy_record(record) if nested else read_record(record)
    except Malformed:
        return None
    return None if fields is None else _complete(fields, COMBINED, rule, own_hosts)


_TEXT_HITS = (read_vhost_combined, read_combined)
_JSON_HITS = (read_caddy_json, read_nginx_json)


def _read_bytes(line: bytes, read: Reader) -> dict[str, Any] | None:
    if len(line) > LINE_MAX_BYTES:
        raise Malformed(f"it is over {LINE_MAX_BYTES:,} bytes")
    return read(line.strip().decode(errors=ODD_BYTES))


def _complete(
    fields: dict[str, Any], log_format: LogFormat, rule: ItemRule, own_hosts: frozenset[str]
) -> dict[str, Any]:
    """Add to a hit what it counts as, and set apart a referer that does not count."""
    method = fields.get("method") if log_format.shows_item(fields) else None
    event, item, form = rule.hit(method, fields.get("status"), path_of(fields.get("url", "")))
    fields["event"] = event
    if item is not None:
        fields["id"] = item
    if form is not None:
        fields["format"] = form
    referer = fields.get("referer")
    if referer is not None and ("://" not in referer or normalise_referer(referer, own_hosts) is None):
        fields["referer_url"] = fields.pop("referer")
    return fields


def _yield_of(log_format: LogFormat, sample: list[str]) -> int:
    read = log_format.reader()
    found = 0
    for line in sample:
        try:
            found += len(read(line) or ())
        except Malformed:
            continue
    return found
