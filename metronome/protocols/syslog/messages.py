"""Convert syslog messages (RFC 5424 and RFC 3164) to events.

A line of an access log becomes a hit, and a JSON object, with or without ``@cee:`` before it, an event with its
fields. Any other message becomes an event ``log``.

The header becomes the fields ``host``, ``program``, ``procid``, ``msgid``, ``facility`` and ``severity``, the last two
with the names of ``syslog.conf``; parameters of structured data become fields of the same name. Fields in the message
itself take precedence. Before the header of RFC 3164, Cisco's devices send a sequence number, and their own name.

Syslog has no replies, so no message is rejected for its time: one that cannot be true is kept as ``record_time``, and
the message gets the time in its header, or of its arrival.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import Malformed
from metronome.event import Event, IngestConfig
from metronome.fields import CONVERTED_NUMBERS, REFERRER_FIELDS, TIMESTAMP_FIELDS, is_top_level_name
from metronome.protocol import ParsedEvent
from metronome.protocols.access_logs.formats import DECODE_ERRORS
from metronome.protocols.access_logs.reader import parse_hit_line, parse_hit_record
from metronome.times import MONTH_NUMBERS, format_timestamp, parse_record_timestamp, parse_timestamp

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
_ZONE_HOURS: Final = {
    name: hours
    for hours, names in (
        (0, "UTC GMT WET"),
        (1, "WEST BST CET MET"),
        (2, "CEST MEST EET"),
        (3, "EEST"),
        (9, "JST"),
        (-4, "EDT"),
        (-5, "EST CDT"),
        (-6, "CST MDT"),
        (-7, "MST PDT"),
        (-8, "PST"),
    )
    for name in names.split()
}
_RFC3164_TIME_PATTERN: Final = re.compile(
    # Several spaces are an empty host, as NGINX sends it during its start.
    rf"(?P<unsynchronized>[*.])?(?:(?P<iso>{_TIMESTAMP_PATTERN})"
    r"|(?:(?P<first_year>\d{4}) )?(?P<month>[A-Z][a-z]{2}) (?P<day>[ 0-3]?\d)(?: (?P<year>\d{4}))?"
    rf" (?P<clock>\d\d:\d\d:\d\d)(?P<fraction>\.\d{{1,9}})?(?: (?P<last_year>(?:19|20)\d\d)(?=:? ))?"
    rf"(?: (?P<zone>{'|'.join(_ZONE_HOURS)}|[+-]\d\d:?\d\d) ?(?=:))?(?: ?:)?) +",
    re.ASCII,
)
_CISCO_PREFIX_PATTERN: Final = re.compile(
    r"(?P<sequence>\d{1,18})?: (?:(?P<host>[A-Za-z][^\s:]{0,254}): ?)?(?:(?P<sequence_number>\d{1,18}): )?", re.ASCII
)
_CISCO_UPTIME_PATTERN: Final = re.compile(
    r"(?:(?:\d{1,4}[ywdhms]){1,4}|\d{1,3}:\d\d:\d\d(?:\.\d{1,9})?): (?=%)", re.ASCII
)
"""The time since the device has started, which says nothing about the time."""
_CISCO_MESSAGE: Final = "%"
_CISCO_CLOCK_NOT_SET: Final = "*"
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
_RECORD_TIME_FIELD: Final = "record_time"
_MAX_CLOCK_SKEW: Final = timedelta(days=1)
_AGE_MARGIN: Final = timedelta(minutes=1)
"""An event is stored later than it is parsed, and must not be too old by then."""
_LEAP_YEARS_APART: Final = 8
_RESERVED_FIELDS: Final = frozenset(
    {"id", "event", "format", "event_id", "clientip", "visitor", "session", "bot", "url", "message"}
    | {*TIMESTAMP_FIELDS, *REFERRER_FIELDS, *CONVERTED_NUMBERS, "referer_url"}
)
"""Fields that structured data cannot set: a log message is not a view."""


class _Arrival(NamedTuple):
    """When a message has arrived, and between which times it can have been sent; no earliest one for any."""

    received_at: str
    earliest: str
    latest: str

    def accepts(self, timestamp: str) -> bool:
        return self.earliest <= timestamp <= self.latest


@lru_cache(maxsize=16)
def _arrival(received_at: str, max_age: timedelta | None) -> _Arrival:
    now = datetime.fromisoformat(received_at)
    earliest = "" if max_age is None else format_timestamp(now - max_age + _AGE_MARGIN)
    return _Arrival(received_at, earliest, format_timestamp(now + _MAX_CLOCK_SKEW))


def parse_message(
    frame: bytes, received_at: str, client_ip: str, config: IngestConfig, *, is_trusted: bool = False
) -> Event:
    """Return the event of one message.

    Args:
        frame: the message.
        received_at: the timestamp of its arrival. A time without a year is in the latest year in which it is not more
            than a day ahead.
        client_ip: the IP address of the sender, which is the host of a message that names none.
        config: of the server.
        is_trusted: whether the sender may set any time in the past.

    """
    arrival = _arrival(received_at, None if is_trusted else config.max_age)
    header, text = _parse_header(frame.decode(errors=DECODE_ERRORS), arrival)
    content = _parse_content(text, config)
    _resolve_timestamp(header, content, arrival)
    if client_ip:
        header.setdefault("host", client_ip)
    return Event({**header, **content}, frame)


def parse_messages(
    frames: Iterable[bytes], received_at: str, client_ip: str, config: IngestConfig, *, is_trusted: bool = False
) -> Iterator[ParsedEvent]:
    """Lazily convert messages to events (see `parse_message`)."""
    for frame in frames:
        try:
            yield parse_message(frame, received_at, client_ip, config, is_trusted=is_trusted)
        except Malformed as error:
            yield error


def _parse_content(text: str, config: IngestConfig) -> dict[str, Any]:
    """Return the fields of a message without its header."""
    content = text.lstrip().removeprefix(_CEE_COOKIE).lstrip()
    record = _parse_json_object(content) if content.startswith("{") else None
    if record is None:
        hit = parse_hit_line(text, config.item_pattern, config.own_hosts, config.proxies)
        return {"event": _LOG_EVENT, "message": text} if hit is None else hit
    hit = parse_hit_record(record, config.item_pattern, config.own_hosts, config.proxies)
    if hit is not None:
        return hit
    # Without either field, the record would count as a view.
    is_native = any(record.get(name) not in (None, "") for name in ("event", "id"))
    return record if is_native else {**record, "event": _LOG_EVENT}


def _resolve_timestamp(header: dict[str, Any], content: dict[str, Any], arrival: _Arrival) -> None:
    """Use the time in the message if that can be true, otherwise that in the header or the time of arrival."""
    header_time = header.get("@timestamp")
    if header_time is not None and not arrival.accepts(header_time):
        header[_RECORD_TIME_FIELD] = header.pop("@timestamp")
    name = next((name for name in TIMESTAMP_FIELDS if content.get(name) is not None), None)
    if name is None:
        return
    timestamp = parse_record_timestamp(content[name])
    if timestamp is not None:
        del content[name]
        content["@timestamp" if arrival.accepts(timestamp) else _RECORD_TIME_FIELD] = timestamp
    elif name == "@timestamp":
        content[f"record_{name}"] = content.pop(name)
    if "@timestamp" not in content:
        header.setdefault("@timestamp", arrival.received_at)


def _parse_json_object(text: str) -> dict[str, Any] | None:
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _parse_header(text: str, arrival: _Arrival) -> tuple[dict[str, Any], str]:
    """Return the fields of the header and the text after it."""
    fields: dict[str, Any] = {}
    priority = _PRIORITY_PATTERN.match(text)
    facility, severity = divmod(int(priority[1]), len(SEVERITIES)) if priority else (len(FACILITIES), 0)
    if priority is None or facility >= len(FACILITIES):
        return fields, text
    fields |= {"facility": FACILITIES[facility], "severity": SEVERITIES[severity]}
    text = text[priority.end() :].lstrip(" ")
    try:
        header = _RFC5424_HEADER_PATTERN.match(text)
        if header is not None:
            return _parse_rfc5424_header(header, text, fields)
        return _parse_rfc3164_header(text, fields, arrival)
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


def _parse_rfc3164_header(text: str, fields: dict[str, Any], arrival: _Arrival) -> tuple[dict[str, Any], str]:
    """Parse the header of RFC 3164, in which host and tag are optional.

    Raises:
        Malformed: its time is invalid.

    """
    prefix = _CISCO_PREFIX_PATTERN.match(text)
    begin = prefix.end() if prefix else 0
    time = _RFC3164_TIME_PATTERN.match(text, begin)
    if time is not None and (prefix is not None or not time["first_year"]):
        end = time.end()
        timestamp = parse_timestamp(time["iso"]) if time["iso"] else _parse_rfc3164_timestamp(time, arrival)
        is_set = time["unsynchronized"] != _CISCO_CLOCK_NOT_SET or _is_within_a_day(timestamp, arrival)
        fields["@timestamp" if is_set else _RECORD_TIME_FIELD] = timestamp
    else:
        uptime = _CISCO_UPTIME_PATTERN.match(text, begin)
        end = uptime.end() if uptime else begin
        if not text.startswith(_CISCO_MESSAGE, end):
            return fields, text
    if prefix is not None:
        fields |= {name: int(prefix[name]) for name in ("sequence", "sequence_number") if prefix[name]}
        fields |= {"host": prefix["host"]} if prefix["host"] else {}
    tag = _TAG_PATTERN.match(text, end)
    host = None if tag or prefix else _HOST_PATTERN.match(text, end)
    if host is not None:
        fields["host"] = host["host"]
        end = host.end()
        # Cisco's firewalls send a colon of its own after their name.
        end += 2 * text.startswith(f": {_CISCO_MESSAGE}", end)
        tag = _TAG_PATTERN.match(text, end)
    if tag is not None:
        fields |= {name: value for name, value in tag.groupdict().items() if value}
        end = tag.end()
    return fields, text[end:]


def _is_within_a_day(timestamp: str, arrival: _Arrival) -> bool:
    distance = datetime.fromisoformat(timestamp) - datetime.fromisoformat(arrival.received_at)
    return abs(distance) <= _MAX_CLOCK_SKEW


def _parse_rfc3164_timestamp(match: re.Match[str], arrival: _Arrival) -> str:
    """Return the time in UTC; without a year it is in the latest one in which it is not more than a day ahead.

    Raises:
        Malformed: it is invalid.

    """
    if match["month"] not in MONTH_NUMBERS:
        raise Malformed(f"invalid month {match['month']!r}")
    zone = match["zone"] or ""
    zone = zone if zone.startswith(("+", "-")) else f"{_ZONE_HOURS.get(zone, 0):+03}:00"
    rest = f"-{MONTH_NUMBERS[match['month']]:02}-{int(match['day']):02}T{match['clock']}{match['fraction'] or ''}{zone}"
    if year := match["year"] or match["first_year"] or match["last_year"]:
        return parse_timestamp(year + rest)
    last = int(arrival.received_at[:4]) + 1
    for number in range(last, last - _LEAP_YEARS_APART - 2, -1):
        try:
            timestamp = parse_timestamp(f"{number:04}{rest}")
        except Malformed:
            # Most years have no 29 February.
            continue
        if timestamp <= arrival.latest:
            return timestamp
    raise Malformed(f"invalid time {match[0]!r}")
