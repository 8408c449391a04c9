"""Access logs of web servers, each line read as one hit.

A format is a name and what reads a log of it to fields; `LOG_FORMATS` lists them all. What the formats
share, the item, the referer and the identity of a hit, is added here.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

from metronome.enrich.referrers import normalize_referrer
from metronome.errors import ConfigurationError, Malformed
from metronome.items import ItemPattern, request_path
from metronome.protocols.access_logs.combined import (
    COMBINED,
    COMMON,
    S3,
    VHOST_COMBINED,
    parse_combined,
    parse_vhost_combined,
)
from metronome.protocols.access_logs.formats import DECODE_ERRORS, LINE_MAX_BYTES, LineParser, LogFormat
from metronome.protocols.access_logs.json_formats import (
    CADDY_JSON,
    NGINX_JSON,
    parse_access_record,
    parse_caddy_line,
    parse_caddy_record,
    parse_nginx_line,
)
from metronome.protocols.access_logs.w3c import CLOUDFRONT, W3C

__all__ = [
    "LINE_MAX_BYTES",
    "LOG_FORMATS",
    "AccessLog",
    "LogFormat",
    "detect_format",
    "detect_growing_format",
    "get_format",
    "header_lines",
    "list_format_names",
    "log_fingerprint",
    "parse_hit_line",
    "parse_hit_record",
    "parse_line",
]

LOG_FORMATS: Final = (VHOST_COMBINED, COMMON, COMBINED, NGINX_JSON, CADDY_JSON, W3C, CLOUDFRONT, S3)
"""Every format known. Of those that get equally much out of a log, the first is taken."""

_DIRECTIVE_PREFIX = b"#"


class AccessLog:
    """One access log, and what has to be known to read it, line by line from its beginning.

    Args:
        log_format: how its lines are written.
        fingerprint: tells it from other logs (see `log_fingerprint`).
        item_pattern: says what an item is.
        own_hosts: hosts whose referers do not count (see `metronome.enrich.referrers.own_hosts`).

    """

    def __init__(
        self,
        log_format: LogFormat,
        fingerprint: bytes,
        item_pattern: ItemPattern,
        own_hosts: frozenset[str] = frozenset(),
    ) -> None:
        self.log_format = log_format
        self.fingerprint = fingerprint
        self._item_pattern = item_pattern
        self._own_hosts = own_hosts
        self._parse = log_format.new_parser()

    def parse_event(self, line: bytes, offset: int) -> dict[str, Any] | None:
        """Read one line as the fields of an event, its identity among them; None if it is no hit.

        Args:
            line: the line, with or without its end.
            offset: how many bytes of the log, uncompressed, come before the line.

        Raises:
            Malformed: the line cannot be read; the message says why.

        """
        fields = _parse_bytes(line, self._parse)
        if fields is None:
            return None
        _add_item_fields(fields, self.log_format, self._item_pattern, self._own_hosts)
        place = b"%b %d %b" % (self.fingerprint, offset, self.log_format.stable_part(line))
        fields["event_id"] = blake2b(place, digest_size=16).hexdigest()
        return fields

    def skip_line(self, line: bytes) -> None:
        """Take only from a line what it says of those that follow: its hit is known already."""
        if self.log_format.has_directives and line.lstrip().startswith(_DIRECTIVE_PREFIX):
            with suppress(Malformed):
                _parse_bytes(line, self._parse)


def header_lines(lines: Iterable[bytes], log_format: LogFormat) -> bytes | None:
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
            if not (log_format.has_directives and line.lstrip().startswith(_DIRECTIVE_PREFIX)):
                return b"\n".join(first)
    return None


def log_fingerprint(first_lines: bytes) -> bytes:
    """Return what tells a log from others: a hash of its first lines (see `header_lines`).

    All of them counts: a monitor's requests may differ in how many bytes they were answered with, and in nothing else.
    So a log whose very first line is still being written is another one than when it is whole.
    """
    return blake2b(first_lines, digest_size=16).digest()


def detect_format(lines: Iterable[bytes]) -> LogFormat:
    """Find the format that gets the most out of the first *lines* of a log.

    Raises:
        Malformed: no format can read any of them.

    """
    sample = [line.strip().decode(errors=DECODE_ERRORS) for line in lines if len(line) <= LINE_MAX_BYTES]
    best = max(LOG_FORMATS, key=lambda log_format: _count_parsed_fields(log_format, sample))
    if not _count_parsed_fields(best, sample):
        raise Malformed(f"no line reads as an access log; the formats known are {list_format_names()}")
    return best


def detect_growing_format(lines: Iterable[bytes]) -> LogFormat:
    """Detect the format of a log from its first lines; a log that could turn out to be Combined counts as Combined."""
    found = detect_format(lines)
    return COMBINED if found is COMMON else found


def get_format(name: str) -> LogFormat:
    """Return the format that an operator names.

    Raises:
        ConfigurationError: there is none of that name.

    """
    for log_format in LOG_FORMATS:
        if log_format.name == name:
            return log_format
    raise ConfigurationError(f"no log format is called {name!r}; there are {list_format_names()}")


def list_format_names() -> str:
    """List the formats for a sentence."""
    return ", ".join(log_format.name for log_format in LOG_FORMATS)


def parse_line(
    line: bytes, log_format: LogFormat, item_pattern: ItemPattern, own_hosts: frozenset[str]
) -> dict[str, Any] | None:
    """Read one line alone as the fields of an event, without an identity; None if it is no hit.

    Args:
        line: the line, with or without its end.
        log_format: how it is written.
        item_pattern: says what an item is.
        own_hosts: hosts whose referers do not count.

    Raises:
        Malformed: the line cannot be read; the message says why.

    """
    fields = _parse_bytes(line, log_format.new_parser())
    return None if fields is None else _add_item_fields(fields, log_format, item_pattern, own_hosts)


def parse_hit_line(line: str | bytes, item_pattern: ItemPattern, own_hosts: frozenset[str]) -> dict[str, Any] | None:
    """Read a line that may be of an access log, of a format whose lines each stand alone.

    These are Combined, Common, those with the virtual host before each line, and JSON of NGINX and Caddy.

    Args:
        line: the line, with or without its end.
        item_pattern: says what an item is.
        own_hosts: hosts whose referers do not count.

    Returns:
        The fields of an event, without an identity; or None if the line is none of these.

    """
    text = line if isinstance(line, str) else line.decode(errors=DECODE_ERRORS)
    if len(text) > LINE_MAX_BYTES:
        return None
    if not text.isascii():
        # A text may hold lone surrogates, which have no bytes.
        text = text.encode(errors=DECODE_ERRORS).decode()
    text = text.strip()
    for read in _JSON_PARSERS if text.startswith("{") else _TEXT_PARSERS if '] "' in text else ():
        try:
            fields = read(text)
        except Malformed:
            continue
        if fields is not None:
            return _add_item_fields(fields, COMBINED, item_pattern, own_hosts)
    return None


def parse_hit_record(
    record: Mapping[str, Any], item_pattern: ItemPattern, own_hosts: frozenset[str]
) -> dict[str, Any] | None:
    """Read a record that may tell of a hit, as shippers send them that have parsed a log already.

    Args:
        record: its fields, flat, with dotted names or nested, under the usual names of `parse_access_record`; or
            one of Caddy's.
        item_pattern: says what an item is.
        own_hosts: hosts whose referers do not count.

    Returns:
        The fields of an event, those that are not known under their own names; or None if the record has
        no request or path, or neither a method nor a status.

    """
    try:
        nested = isinstance(record.get("request"), dict)
        fields = parse_caddy_record(record) if nested else parse_access_record(record)
    except Malformed:
        return None
    return None if fields is None else _add_item_fields(fields, COMBINED, item_pattern, own_hosts)


_TEXT_PARSERS = (parse_vhost_combined, parse_combined)
_JSON_PARSERS = (parse_caddy_line, parse_nginx_line)


def _parse_bytes(line: bytes, parse: LineParser) -> dict[str, Any] | None:
    if len(line) > LINE_MAX_BYTES:
        raise Malformed(f"it is over {LINE_MAX_BYTES:,} bytes")
    return parse(line.strip().decode(errors=DECODE_ERRORS))


def _add_item_fields(
    fields: dict[str, Any], log_format: LogFormat, item_pattern: ItemPattern, own_hosts: frozenset[str]
) -> dict[str, Any]:
    """Add to a hit what it counts as, and set apart a referer that does not count."""
    method = fields.get("method") if log_format.is_item_request(fields) else None
    event, item, form = item_pattern.classify(method, fields.get("status"), request_path(fields.get("url", "")))
    fields["event"] = event
    if item is not None:
        fields["id"] = item
    if form is not None:
        fields["format"] = form
    referer = fields.get("referer")
    if referer is not None and ("://" not in referer or normalize_referrer(referer, own_hosts) is None):
        fields["referer_url"] = fields.pop("referer")
    return fields


def _count_parsed_fields(log_format: LogFormat, sample: list[str]) -> int:
    read = log_format.new_parser()
    found = 0
    for line in sample:
        try:
            found += len(read(line) or ())
        except Malformed:
            continue
    return found
