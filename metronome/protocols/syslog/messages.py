"""Convert syslog messages (RFC 5424 and RFC 3164) to events.

A line of an access log becomes a hit, and a JSON object, with or without ``@cee:`` before it, an event with its
fields. Any other message becomes an event ``log``.

The header becomes the fields ``host``, ``program``, ``procid``, ``msgid``, ``facility`` and ``severity``, the last two
with the names of ``syslog.conf``; parameters of structured data become fields of the same name. Fields in the message
itself take precedence.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from metronome.errors import Malformed
from metronome.event import Event, IngestConfig
from metronome.fields import CONVERTED_NUMBERS, REFERRER_FIELDS, TIMESTAMP_FIELDS, is_top_level_name
from metronome.protocol import ParsedEvent
from metronome.protocols.access_logs.formats import DECODE_ERRORS
from metronome.protocols.access_logs.reader import parse_hit_line, parse_hit_record
from metronome.times import MONTH_NUMBERS, parse_record_timestamp, parse_timestamp

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
    # Several spaces are an empty host, as NGINX sends it during its start.
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
_NIL_VALUE: Final = "-"
_NO_STRUCTURED_DATA_PATTERN: Final = re.compile(r"-(?: |\Z)")
_BYTE_ORDER_MARK: Final = "\ufeff"
_CEE_COOKIE: Final = "@cee:"
_LOG_EVENT: Final = "log"
_RESERVED_FIELDS: Final = frozenset(
    {"id", "event", "format", "event_id", "clientip", "visitor", "session", "bot", "url", "message"}
    | {*TIMESTAMP_FIELDS, *REFERRER_FIELDS, *CONVERTED_NUMBERS, "referer_url"}
)
"""Fields that structured data cannot set: a log message is not a view."""


def parse_message(frame: bytes, received_at: str, client_ip: str, config: IngestConfig) -> Event:
    """Return the event of one message.

    Args:
        frame: the message.
        received_at: the timestamp of its arrival; a time without a year is the one nearest to it.
        client_ip: the IP address of the sender, which is the host of a message that names none.
        config: of the server.

    """
    header, text = _parse_header(frame.decode(errors=DECODE_ERRORS), received_at)
    content = _parse_content(text, config)
    _resolve_timestamp(header, content, received_at)
    if client_ip:
        header.setdefault("host", client_ip)
    return Event({**header, **content}, frame)


def parse_messages(
    frames: Iterable[bytes], received_at: str, client_ip: str, config: IngestConfig
) -> Iterator[ParsedEvent]:
    """Lazily convert messages to events (see `parse_message`)."""
    for frame in frames:
        try:
            yield parse_message(frame, received_at, client_ip, config)
        except Malformed as error:
            yield error


def _parse_content(text: str, config: IngestConfig) -> dict[str, Any]:
    """Return the fields of a message without its header."""
    content = text.lstrip().removeprefix(_CEE_COOKIE).lstrip()
    record = _parse_json_object(content) if content.startswith("{") else None
    if record is None:
        hit = parse_hit_line(text, config.item_pattern, config.own_hosts)
        return {"event": _LOG_EVENT, "message": text} if hit is None else hit
    hit = parse_hit_record(record, config.item_pattern, config.own_hosts)
    if hit is not None:
        return hit
    # Without either field, the record would count as a view.
    is_native = any(record.get(name) not in (None, "") for name in ("event", "id"))
    return record if is_native else {**record, "event": _LOG_EVENT}


def _resolve_timestamp(header: dict[str, Any], content: dict[str, Any], received_at: str) -> None:
    """Use the time in the message if it has a valid one, otherwise that in the header or the time of arrival."""
    name = next((name for name in TIMESTAMP_FIELDS if content.get(name) is not None), None)
    if name is None:
        return
    timestamp = parse_record_timestamp(content[name])
    if timestamp is not None:
        del content[name]
        content["@timestamp"] = timestamp
        return
    if name == "@timestamp":
        content[f"record_{name}"] = content.pop(name)
    header.setdefault("@timestamp", received_at)


def _parse_json_object(text: str) -> dict[str, Any] | None:
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _parse_header(text: str, received_at: str) -> tuple[dict[str, Any], str]:
    """Return the fields of the header and the text after it."""
    fields: dict[str, Any] = {}
    priority = _PRIORITY_PATTERN.match(text)
    facility, severity = divmod(int(priority[1]), len(SEVERITIES)) if priority else (len(FACILITIES), 0)
    if priority is None or facility >= len(FACILITIES):
        return fields, text
    fields |= {"facility": FACILITIES[facility], "severity": SEVERITIES[severity]}
    text = text[priority.end() :]
    try:
        header = _RFC5424_HEADER_PATTERN.match(text)
        if header is not None:
            return _parse_rfc5424_header(header, text, fields)
        return _parse_rfc3164_header(text, fields, received_at)
    except Malformed:
        return fields, text


def _parse_rfc5424_header(match: re.Match[str], text: str, fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Parse the header of RFC 5424.

    Raises:
        Malformed: its time is invalid.

    """
    if match["time"] != _NIL_VALUE:
        fields["@timestamp"] = parse_timestamp(match["time"])
    for name in ("host", "program", "procid", "msgid"):
        if match[name] != _NIL_VALUE:
            fields[name] = match[name]
    end, parameters = _parse_structured_data(text, match.end())
    for (element, name), values in parameters.items():
        is_free = is_top_level_name(name) and name not in _RESERVED_FIELDS and name not in fields
        fields[name if is_free else f"{element}.{name}"] = values[0] if len(values) == 1 else values
    return fields, text[end:].removeprefix(_BYTE_ORDER_MARK)


def _parse_structured_data(text: str, offset: int) -> tuple[int, Mapping[tuple[str, str], list[str]]]:
    """Return where the message begins, and the values by the element and the name of their parameter."""
    parameters: dict[tuple[str, str], list[str]] = {}
    if nil := _NO_STRUCTURED_DATA_PATTERN.match(text, offset):
        return nil.end(), parameters
    while element := _SD_ELEMENT_PATTERN.match(text, offset):
        for name, value in _SD_PARAMETER_PATTERN.findall(element["parameters"]):
            parameters.setdefault((element["id"], name), []).append(_SD_ESCAPE_PATTERN.sub(r"\1", value))
        offset = element.end()
    return offset + text.startswith(" ", offset), parameters


def _parse_rfc3164_header(text: str, fields: dict[str, Any], received_at: str) -> tuple[dict[str, Any], str]:
    """Parse the header of RFC 3164, in which host and tag are optional.

    Raises:
        Malformed: its time is invalid.

    """
    time = _RFC3164_TIME_PATTERN.match(text)
    if time is None:
        return fields, text
    fields["@timestamp"] = parse_timestamp(time["iso"]) if time["iso"] else _parse_rfc3164_timestamp(time, received_at)
    end = time.end()
    tag = _TAG_PATTERN.match(text, end)
    host = None if tag else _HOST_PATTERN.match(text, end)
    if host is not None:
        fields["host"] = host["host"]
        end = host.end()
        tag = _TAG_PATTERN.match(text, end)
    if tag is not None:
        fields |= {name: value for name, value in tag.groupdict().items() if value}
        end = tag.end()
    return fields, text[end:]


def _parse_rfc3164_timestamp(match: re.Match[str], received_at: str) -> str:
    """Return the time in UTC; without a year it is the one nearest to the arrival.

    Raises:
        Malformed: it is invalid.

    """
    if match["month"] not in MONTH_NUMBERS:
        raise Malformed(f"invalid month {match['month']!r}")
    rest = f"-{MONTH_NUMBERS[match['month']]:02}-{int(match['day']):02}T{match['clock']}{match['fraction'] or ''}Z"
    if match["year"]:
        return parse_timestamp(match["year"] + rest)
    now = datetime.fromisoformat(received_at)
    timestamps = []
    for year in (now.year - 1, now.year, now.year + 1):
        try:
            timestamps.append(parse_timestamp(f"{year:04}{rest}"))
        except Malformed:
            # Most years have no 29 February.
            continue
    if not timestamps:
        raise Malformed(f"invalid time {match[0]!r}")
    return min(timestamps, key=lambda timestamp: abs(datetime.fromisoformat(timestamp) - now))
