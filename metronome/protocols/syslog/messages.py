"""Syslog, as RFC 5424 has it and as RFC 3164 found it: each message is an event.

A message that is a line of an access log is the hit that it tells of; one that is an object of JSON, also behind
``@cee:``, has its fields. Any other is an event ``log``, which is no view.

The header becomes ``host``, ``program``, ``procid``, ``msgid``, ``facility`` and ``severity``, the latter two under
the names of ``syslog.conf``; structured data is kept under the plain names of its parameters. What the message itself
says of any of these stands. The protocol has no answers and no place for a key.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from metronome.errors import Malformed, MetronomeError
from metronome.event import Event, IngestConfig
from metronome.fields import CONVERTED_NUMBERS, REFERRER_FIELDS, TIMESTAMP_FIELDS, is_top_level_name
from metronome.protocol import IngestResult, ParsedEvent, ParsedRequest, Reply, Request
from metronome.protocols.access_logs.formats import DECODE_ERRORS
from metronome.protocols.access_logs.reader import parse_hit_line, parse_hit_record
from metronome.times import parse_timestamp

MESSAGE_SEPARATOR: Final = b"\0"
"""Stands between the messages of one request: none has it in itself (see `metronome.protocols.syslog.frames`)."""

SEVERITIES: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
FACILITIES: Final = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "security", "console", "solaris-cron"),
    *(f"local{number}" for number in range(8)),
)

_PRIORITY_PATTERN: Final = re.compile(r"<(0|[1-9]\d{0,2})>", re.ASCII)
_TIMESTAMP_PATTERN: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_RFC5424_HEADER_PATTERN: Final = re.compile(
    rf"[1-9]\d{{0,2}} (?P<time>-|{_TIMESTAMP_PATTERN}) (?P<host>\S{{1,255}}) (?P<program>\S{{1,128}})"
    r" (?P<procid>\S{1,128}) (?P<msgid>\S{1,128})(?: |\Z)",
    re.ASCII,
)
_RFC3164_TIME_PATTERN: Final = re.compile(
    # Several spaces are an empty host, as NGINX writes it while it starts.
    rf"(?:(?P<iso>{_TIMESTAMP_PATTERN})"
    r"|(?P<month>[A-Z][a-z]{2}) (?P<day>[ 0-3]?\d)(?: (?P<year>\d{4}))?"
    r" (?P<clock>\d\d:\d\d:\d\d)(?P<fraction>\.\d{1,9})?:?) +",
    re.ASCII,
)
_TAG_PATTERN: Final = re.compile(r"(?P<program>[^\s:\[\]]{1,128})(?:\[(?P<procid>[^\s\]]{0,128})\])?:(?: |\Z)")
_HOST_PATTERN: Final = re.compile(r"(?P<host>\S{1,255}) ")
_SD_ELEMENT_PATTERN: Final = re.compile(
    r'\[(?P<id>[^\s=\]"]{1,255})(?P<parameters>(?: +[^\s=\]"]{1,255}="(?:[^"\\\]]|\\.)*+")*+) *\]', re.DOTALL
)
_SD_PARAMETER_PATTERN: Final = re.compile(r'([^\s=\]"]+)="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_SD_ESCAPE_PATTERN: Final = re.compile(r'\\(["\\\]])')
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NIL_VALUE: Final = "-"
_NO_STRUCTURED_DATA_PATTERN: Final = re.compile(r"-(?: |\Z)")
_BYTE_ORDER_MARK: Final = "\ufeff"
_MIN_EPOCH_SECONDS: Final = 100_000_000
"""Smaller numbers under the name of a time are how long something took."""
_CEE_COOKIE: Final = "@cee:"
_LOG_EVENT: Final = "log"
_RESERVED_FIELDS: Final = frozenset(
    {"id", "event", "format", "event_id", "clientip", "visitor", "session", "bot", "url", "message"}
    | {*TIMESTAMP_FIELDS, *REFERRER_FIELDS, *CONVERTED_NUMBERS, "referer_url"}
)
"""What structured data cannot say: a log is no view of anything."""


def extract_key(_: Request) -> str:
    """Return nothing: there is no place for a key (see `Dialect.key`)."""
    return ""


def parse(request: Request) -> ParsedRequest:
    """Read the messages of a request, with `MESSAGE_SEPARATOR` between them (see `Dialect.read`)."""
    return ParsedRequest(_iter_events(request), is_batch=True)


def reply(_: Request, __: ParsedRequest, ___: IngestResult) -> Reply:
    """Answer nothing (see `Dialect.reply`)."""
    return Reply(200)


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Answer nothing (see `Dialect.refuse`)."""
    return Reply(error.http_status)


def parse_message(frame: bytes, received_at: str, client_ip: str, config: IngestConfig) -> Event:
    """Read one message.

    Args:
        frame: the message.
        received_at: when it came, as a stamp: a time without a year is the one nearest to it.
        client_ip: the address of whoever sent it, which is the host where the message names none.
        config: of the server.

    """
    header, text = _parse_header(frame.decode(errors=DECODE_ERRORS), received_at)
    said = _parse_content(text, config)
    _resolve_timestamp(header, said, received_at)
    if client_ip:
        header.setdefault("host", client_ip)
    return Event({**header, **said}, frame)


def _iter_events(request: Request) -> Iterator[ParsedEvent]:
    for frame in request.body.split(MESSAGE_SEPARATOR):
        try:
            yield parse_message(frame, request.received_at, request.client_ip, request.config)
        except Malformed as error:
            yield error


def _parse_content(text: str, config: IngestConfig) -> dict[str, Any]:
    """Return what the message itself says."""
    content = text.lstrip().removeprefix(_CEE_COOKIE).lstrip()
    record = _parse_json_object(content) if content.startswith("{") else None
    if record is None:
        hit = parse_hit_line(text, config.item_pattern, config.own_hosts)
        return {"event": _LOG_EVENT, "message": text} if hit is None else hit
    hit = parse_hit_record(record, config.item_pattern, config.own_hosts)
    if hit is not None:
        return hit
    # Without either of them it would be a view, of nothing.
    named = any(record.get(name) not in (None, "") for name in ("event", "id"))
    return record if named else {**record, "event": _LOG_EVENT}


def _resolve_timestamp(header: dict[str, Any], content: dict[str, Any], received_at: str) -> None:
    """Leave the header's time away where the message has its own; what only bears the name of one is no time."""
    name = next((name for name in TIMESTAMP_FIELDS if content.get(name) is not None), None)
    if name is None:
        return
    if _is_timestamp(content[name]):
        header.pop("@timestamp", None)
        return
    if name == "@timestamp":
        content[f"record_{name}"] = content.pop(name)
    header.setdefault("@timestamp", received_at)


def _is_timestamp(value: object) -> bool:
    if isinstance(value, (int, float)) and value < _MIN_EPOCH_SECONDS:
        return False
    try:
        parse_timestamp(value)
    except Malformed:
        return False
    return True


def _parse_json_object(text: str) -> dict[str, Any] | None:
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _parse_header(text: str, received_at: str) -> tuple[dict[str, Any], str]:
    """Return what a message says of itself, and the rest of it; without a header, the rest is the whole."""
    fields: dict[str, Any] = {}
    found = _PRIORITY_PATTERN.match(text)
    facility, severity = divmod(int(found[1]), len(SEVERITIES)) if found else (len(FACILITIES), 0)
    if found is None or facility >= len(FACILITIES):
        return fields, text
    fields |= {"facility": FACILITIES[facility], "severity": SEVERITIES[severity]}
    text = text[found.end() :]
    try:
        new = _RFC5424_HEADER_PATTERN.match(text)
        return _parse_rfc5424_header(new, text, fields) if new else _parse_rfc3164_header(text, fields, received_at)
    except Malformed:
        return fields, text


def _parse_rfc5424_header(match: re.Match[str], text: str, fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Read the header of RFC 5424.

    Raises:
        Malformed: its time is none.

    """
    time, *names = match.group("time", "host", "program", "procid", "msgid")
    stamp = {} if time == _NIL_VALUE else {"@timestamp": parse_timestamp(time)}
    told = dict(zip(("host", "program", "procid", "msgid"), names, strict=True))
    fields |= stamp | {name: value for name, value in told.items() if value != _NIL_VALUE}
    at, parameters = _parse_structured_data(text, match.end())
    for (element, name), values in parameters.items():
        free = is_top_level_name(name) and name not in _RESERVED_FIELDS and name not in fields
        fields[name if free else f"{element}.{name}"] = values[0] if len(values) == 1 else values
    return fields, text[at:].removeprefix(_BYTE_ORDER_MARK)


def _parse_structured_data(text: str, offset: int) -> tuple[int, Mapping[tuple[str, str], list[str]]]:
    """Return where the message begins, and the parameters of the elements before it, by the elements' names."""
    parameters: dict[tuple[str, str], list[str]] = {}
    if nothing := _NO_STRUCTURED_DATA_PATTERN.match(text, offset):
        return nothing.end(), parameters
    while found := _SD_ELEMENT_PATTERN.match(text, offset):
        for name, value in _SD_PARAMETER_PATTERN.findall(found["parameters"]):
            parameters.setdefault((found["id"], name), []).append(_SD_ESCAPE_PATTERN.sub(r"\1", value))
        offset = found.end()
    return offset + text.startswith(" ", offset), parameters


def _parse_rfc3164_header(text: str, fields: dict[str, Any], received_at: str) -> tuple[dict[str, Any], str]:
    """Read the header that RFC 3164 found, in which host and tag may be missing.

    Raises:
        Malformed: its time is none.

    """
    found = _RFC3164_TIME_PATTERN.match(text)
    if found is None:
        return fields, text
    fields["@timestamp"] = (
        parse_timestamp(found["iso"]) if found["iso"] else _parse_rfc3164_timestamp(found, received_at)
    )
    at = found.end()
    tag = _TAG_PATTERN.match(text, at)
    host = None if tag else _HOST_PATTERN.match(text, at)
    if host is not None:
        fields["host"] = host["host"]
        at = host.end()
        tag = _TAG_PATTERN.match(text, at)
    if tag is not None:
        fields |= {name: value for name, value in tag.groupdict().items() if value}
        at = tag.end()
    return fields, text[at:]


def _parse_rfc3164_timestamp(match: re.Match[str], received_at: str) -> str:
    """Return the time nearest to the arrival, where it has no year; without a zone it is UTC.

    Raises:
        Malformed: it is none.

    """
    if match["month"] not in _MONTHS:
        raise Malformed(f"{match['month']!r} is no month")
    month, day = _MONTHS.index(match["month"]) + 1, int(match["day"])
    rest = f"-{month:02}-{day:02}T{match['clock']}{match['fraction'] or ''}Z"
    if match["year"]:
        return parse_timestamp(match["year"] + rest)
    now = datetime.fromisoformat(received_at)
    stamps = []
    for year in (now.year - 1, now.year, now.year + 1):
        try:
            stamps.append(parse_timestamp(f"{year:04}{rest}"))
        except Malformed:
            # There is no 29 February in three years of four.
            continue
    if not stamps:
        raise Malformed(f"{match[0]!r} is no time")
    return min(stamps, key=lambda stamp: abs(datetime.fromisoformat(stamp) - now))
