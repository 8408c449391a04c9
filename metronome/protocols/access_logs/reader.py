"""Read access logs: detect the format, parse lines, and add event, item, referrer and event ID."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

from metronome.enrich.addresses import PRIVATE_PROXIES, ProxyNetworks, anonymize_text
from metronome.enrich.referrers import normalize_referrer
from metronome.errors import ConfigurationError, Malformed
from metronome.items import ItemPattern, request_path
from metronome.protocols.access_logs.common_log import (
    COMBINED,
    COMMON,
    S3,
    VHOST_COMBINED,
    parse_combined,
)
from metronome.protocols.access_logs.format_strings import (
    ALB,
    ELB,
    ENVOY,
    HAPROXY,
    NGINX_PROXY_MANAGER,
    compile_format,
    is_format_string,
)
from metronome.protocols.access_logs.formats import (
    CLIENT_CHAIN,
    DECODE_ERRORS,
    LINE_MAX_BYTES,
    LineParser,
    LogFormat,
    resolve_client_chain,
)
from metronome.protocols.access_logs.json_formats import (
    CADDY_JSON,
    JSON,
    NGINX_JSON,
    NOT_JSON,
    parse_access_record,
    parse_caddy_line,
    parse_caddy_record,
    parse_nginx_line,
)
from metronome.protocols.access_logs.prefixes import MAX_LAYERS, strip_layer
from metronome.protocols.access_logs.w3c import CLOUDFRONT, MAKE_DATA_COUNT, W3C

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

LOG_FORMATS: Final = (
    *(VHOST_COMBINED, COMMON, COMBINED, NGINX_JSON, CADDY_JSON, JSON, W3C, CLOUDFRONT, S3, ALB, ELB, HAPROXY, ENVOY),
    *(NGINX_PROXY_MANAGER, MAKE_DATA_COUNT),
)
"""All formats. Of those that parse equally many fields of a log, the first is used."""

_INVALID_BYTE_PATTERN = re.compile(r"\\x([0-9A-Fa-f]{2})", re.ASCII)
"""How `DECODE_ERRORS` writes a byte."""
_DIRECTIVE_PREFIX = b"#"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class AccessLog:
    """An access log that is read line by line from its beginning.

    Args:
        log_format: of its lines.
        fingerprint: identifies the log (see `log_fingerprint`).
        item_pattern: finds the item of a path.
        own_hosts: hosts whose referrers are not stored (see `metronome.enrich.referrers.normalize_own_hosts`).
        proxies: networks of proxies, which are never the client's.

    """

    def __init__(
        self,
        log_format: LogFormat,
        fingerprint: bytes,
        item_pattern: ItemPattern,
        own_hosts: frozenset[str] = frozenset(),
        proxies: ProxyNetworks = PRIVATE_PROXIES,
    ) -> None:
        self.log_format = log_format
        self.fingerprint = fingerprint
        self._item_pattern = item_pattern
        self._own_hosts = own_hosts
        self._proxies = proxies
        self._parse = log_format.new_parser()

    def parse_event(self, line: bytes, offset: int) -> dict[str, Any] | None:
        """Return the fields of a line's event with an ``event_id``; None if the line is not a request.

        Args:
            line: with or without its line end.
            offset: of the line in the uncompressed log, in bytes.

        Raises:
            Malformed: the line is invalid.

        """
        fields = _parse_bytes(line, self._parse)
        if fields is None:
            return None
        _add_item_fields(fields, self.log_format, self._item_pattern, self._own_hosts, self._proxies)
        identity = b"%b %d %b" % (self.fingerprint, offset, self.log_format.stable_part(line))
        fields["event_id"] = blake2b(identity, digest_size=16).hexdigest()
        return fields

    def skip_line(self, line: bytes) -> None:
        """Apply the line if it is a directive, and ignore it otherwise."""
        if self.log_format.has_directives and _is_directive(line):
            with suppress(Malformed):
                _parse_bytes(line, self._parse)


def header_lines(lines: Iterable[bytes], log_format: LogFormat) -> bytes | None:
    """Return the first lines of a log, which identify it.

    These are the lines up to the first that is neither empty nor a directive: all logs of a server may begin with the
    same directives.

    Returns:
        The lines without line ends, or None if there are only directives so far.

    """
    first: list[bytes] = []
    for line in lines:
        if line.strip():
            first.append(line.strip())
            if not (log_format.has_directives and _is_directive(line)):
                return b"\n".join(first)
    return None


def log_fingerprint(first_lines: bytes) -> bytes:
    """Return the hash of a log's first lines (see `header_lines`), which identifies the log.

    The hash includes the whole lines, since a monitor's requests may differ in nothing but the number of bytes sent. So
    a log has another fingerprint while its first line is still being written.
    """
    return blake2b(first_lines, digest_size=16).digest()


def detect_format(lines: Iterable[bytes]) -> LogFormat:
    """Return the format that parses the most fields of a log's first *lines*.

    Raises:
        Malformed: no format can parse any of them.

    """
    sample = list(lines)
    best = max(LOG_FORMATS, key=lambda log_format: _count_parsed_fields(log_format, sample))
    if not _count_parsed_fields(best, sample):
        raise Malformed(_describe_unknown(sample))
    return best


def _describe_unknown(sample: list[bytes]) -> str:
    """Return what a log of unknown format begins with, which format is nearest, and where it fails."""
    reason = f"unknown log format: no line matches any of {list_format_names()}"
    first = next((line for line in sample if line.strip() and not _is_directive(line)), b"")
    if not first:
        return reason
    text = _strip_mark(first).strip().decode(errors=DECODE_ERRORS)
    excerpt = text if len(text) <= _EXCERPT_CHARACTERS else f"{text[:_EXCERPT_CHARACTERS]}…"
    nearest = _nearest_format(text)
    directives = [line for line in sample if _is_directive(line)] if nearest.has_directives else []
    parse = nearest.new_parser()
    for line in directives:
        with suppress(Malformed):
            _parse_bytes(line, parse)
    try:
        _parse_bytes(first, parse)
    except Malformed as error:
        return (
            f"{reason}. The first line is {anonymize_text(excerpt)!r}; the nearest format is {nearest.name}: "
            f"{anonymize_text(str(error))}. If the server has a format of its own, name it with --format"
        )
    return reason


def _nearest_format(text: str) -> LogFormat:
    """Return the format that a line looks like."""
    if text.startswith("{"):
        return CADDY_JSON if '"request":{' in text.replace(" ", "") else NGINX_JSON
    if "\t" in text:
        return CLOUDFRONT if text.count("\t") > _COUNTER_TABS else MAKE_DATA_COUNT
    if _CLF_TIME_PATTERN.search(text) is not None:
        return S3 if _S3_START_PATTERN.match(text) is not None else COMBINED
    if _ISO_DATE_PATTERN.match(text) is not None:
        return W3C
    return ALB if _ALB_START_PATTERN.match(text) is not None else COMBINED


_EXCERPT_CHARACTERS: Final = 160
_COUNTER_TABS: Final = 25
_CLF_TIME_PATTERN: Final = re.compile(r"\[\d{1,2}/[A-Z][a-z]{2}/\d{4}:", re.ASCII)
_S3_START_PATTERN: Final = re.compile(r"[0-9a-f]{16,} \S+ \[", re.ASCII)
_ISO_DATE_PATTERN: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:", re.ASCII)
_ALB_START_PATTERN: Final = re.compile(r"(?:https?|h2|wss?) \d{4}-", re.ASCII)


def detect_growing_format(lines: Iterable[bytes]) -> LogFormat:
    """Return the format of a log that is still written; Combined if it is Common, as its next lines may be either."""
    log_format = detect_format(lines)
    return COMBINED if log_format is COMMON else log_format


def get_format(name: str) -> LogFormat:
    """Return the format of that name, or of a format string of NGINX or Apache (see `compile_format`).

    Raises:
        ConfigurationError: there is no such format, or the string has neither a time nor a request.

    """
    if is_format_string(name):
        return compile_format(name)
    for log_format in LOG_FORMATS:
        if log_format.name == name:
            return log_format
    raise ConfigurationError(f"unknown log format {name!r}: use one of {list_format_names()}")


def list_format_names() -> str:
    """Return the names of all formats, separated by commas."""
    return ", ".join(log_format.name for log_format in LOG_FORMATS)


def parse_line(
    line: bytes,
    log_format: LogFormat,
    item_pattern: ItemPattern,
    own_hosts: frozenset[str],
    proxies: ProxyNetworks = PRIVATE_PROXIES,
) -> dict[str, Any] | None:
    """Return the fields of a single line's event, without an ``event_id``; None if the line is not a request.

    Args:
        line: with or without its line end.
        log_format: of the line.
        item_pattern: finds the item of a path.
        own_hosts: hosts whose referrers are not stored.
        proxies: networks of proxies, which are never the client's.

    Raises:
        Malformed: the line is invalid.

    """
    fields = _parse_bytes(line, log_format.new_parser())
    return None if fields is None else _add_item_fields(fields, log_format, item_pattern, own_hosts, proxies)


def parse_hit_line(
    line: str | bytes,
    item_pattern: ItemPattern,
    own_hosts: frozenset[str],
    proxies: ProxyNetworks = PRIVATE_PROXIES,
) -> dict[str, Any] | None:
    """Return the fields of a line's event if it is an access log line, without an ``event_id``; otherwise None.

    Formats whose lines can be parsed on their own are recognized: all but those with directives, and S3.

    Args:
        line: with or without its line end.
        item_pattern: finds the item of a path.
        own_hosts: hosts whose referrers are not stored.
        proxies: networks of proxies, which are never the client's.

    """
    text = line if isinstance(line, str) else line.decode(errors=DECODE_ERRORS)
    if len(text) > LINE_MAX_BYTES:
        return None
    if not text.isascii():
        # Lone surrogates cannot be encoded.
        text = text.encode(errors=DECODE_ERRORS).decode()
    text = text.strip()
    for _ in range(MAX_LAYERS + 1):
        for parse in _candidate_parsers(text):
            try:
                fields = parse(text)
            except Malformed:
                continue
            if fields is not None:
                return _add_item_fields(fields, COMBINED, item_pattern, own_hosts, proxies)
        inner = strip_layer(text) if '"' in text else None
        if inner is None:
            break
        text = inner
    return None


def _candidate_parsers(text: str) -> tuple[LineParser, ...]:
    """Return the parsers of the formats that a line can have."""
    if text.startswith("{"):
        return _JSON_PARSERS
    if "[Client " in text:
        return (*_TEXT_PARSERS, *_OTHER_PARSERS)
    if '] "' in text:
        return _TEXT_PARSERS
    return _OTHER_PARSERS if " HTTP/" in text else ()


def parse_hit_record(
    record: Mapping[str, Any],
    item_pattern: ItemPattern,
    own_hosts: frozenset[str],
    proxies: ProxyNetworks = PRIVATE_PROXIES,
) -> dict[str, Any] | None:
    """Return the fields of a record's event if it is a parsed access log line; otherwise None.

    Args:
        record: of a log shipper or of Caddy, flat, with dotted names or nested (see `parse_access_record`).
        item_pattern: finds the item of a path.
        own_hosts: hosts whose referrers are not stored.
        proxies: networks of proxies, which are never the client's.

    """
    try:
        is_caddy = isinstance(record.get("request"), dict)
        fields = parse_caddy_record(record) if is_caddy else parse_access_record(record)
    except Malformed:
        return None
    return None if fields is None else _add_item_fields(fields, COMBINED, item_pattern, own_hosts, proxies)


_TEXT_PARSERS = (parse_combined, ENVOY.new_parser())
_OTHER_PARSERS = (HAPROXY.new_parser(), ALB.new_parser(), ELB.new_parser(), NGINX_PROXY_MANAGER.new_parser())
_JSON_PARSERS = (parse_caddy_line, parse_nginx_line)


def _parse_bytes(line: bytes, parse: LineParser) -> dict[str, Any] | None:
    if len(line) > LINE_MAX_BYTES:
        raise Malformed(f"longer than {LINE_MAX_BYTES:,} bytes")
    text = line.strip().decode(errors=DECODE_ERRORS)
    try:
        return parse(text)
    except Malformed as error:
        return _parse_inner(text, parse, error)


def _parse_inner(text: str, parse: LineParser, reason: Malformed) -> dict[str, Any] | None:
    """Parse what is left of a line without what other programs have written around it.

    Raises:
        Malformed: there is nothing around it, or what is left is invalid.

    """
    for _ in range(MAX_LAYERS):
        inner = text.removeprefix("\ufeff") if text.startswith("\ufeff") else strip_layer(text)
        if inner is None:
            break
        try:
            return parse(inner)
        except Malformed as error:
            text = inner
            if str(error) != NOT_JSON:
                reason = error
    raise reason


def _is_directive(line: bytes) -> bool:
    return _strip_mark(line).lstrip().startswith(_DIRECTIVE_PREFIX)


def _strip_mark(line: bytes) -> bytes:
    return line.removeprefix(_BYTE_ORDER_MARK)


def _add_item_fields(
    fields: dict[str, Any],
    log_format: LogFormat,
    item_pattern: ItemPattern,
    own_hosts: frozenset[str],
    proxies: ProxyNetworks,
) -> dict[str, Any]:
    """Add client, event, item and format, and rename a referrer that is not counted."""
    if CLIENT_CHAIN in fields:
        resolve_client_chain(fields, proxies)
    method = fields.get("method") if log_format.is_item_request(fields) else None
    if "event" not in fields:
        url = fields.get("url", "")
        if "\\x" in url:
            fields["url"] = url = _INVALID_BYTE_PATTERN.sub(r"%\1", url)
        event, item_id, file_format = item_pattern.classify(
            method,
            fields.get("status"),
            item_pattern.target(url, fields.get("host", "")) if item_pattern.match_url else request_path(url),
        )
        fields["event"] = event
        if item_id is not None:
            fields["id"] = item_id
        if file_format is not None:
            fields["format"] = file_format
    referer = fields.get("referer")
    if referer is not None and ("://" not in referer or normalize_referrer(referer, own_hosts) is None):
        fields["referer_url"] = fields.pop("referer")
    return fields


def _count_parsed_fields(log_format: LogFormat, sample: list[bytes]) -> int:
    parse = log_format.new_parser()
    count = 0
    for line in sample:
        try:
            count += len(_parse_bytes(line, parse) or ())
        except Malformed:
            continue
    return count
