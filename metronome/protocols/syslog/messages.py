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
from metronome.event import NUMBER_NAMES, REFERER_NAMES, TIME_NAMES, Event, is_plain
from metronome.protocol import Outcome, Reading, Readings, Reply, Request, Site
from metronome.protocols.access_logs.formats import ODD_BYTES
from metronome.protocols.access_logs.reader import read_hit, web_fields
from metronome.times import read_stamp

SEPARATOR: Final = b"\0"
"""Stands between the messages of one request: none has it in itself (see `metronome.protocols.syslog.frames`)."""

SEVERITIES: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
FACILITIES: Final = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "security", "console", "solaris-cron"),
    *(f"local{number}" for number in range(8)),
)

_PRIORITY: Final = re.compile(r"<(0|[1-9]\d{0,2})>", re.ASCII)
_STAMP: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_HEADER: Final = re.compile(
    rf"[1-9]\d{{0,2}} (?P<time>-|{_STAMP}) (?P<host>\S{{1,255}}) (?P<program>\S{{1,128}})"
    r" (?P<procid>\S{1,128}) (?P<msgid>\S{1,128})(?: |\Z)",
    re.ASCII,
)
_OLD_TIME: Final = re.compile(
    # Several spaces are an empty host, as NGINX writes it while it starts.
    rf"(?:(?P<iso>{_STAMP})"
    r"|(?P<month>[A-Z][a-z]{2}) (?P<day>[ 0-3]?\d)(?: (?P<year>\d{4}))?"
    r" (?P<clock>\d\d:\d\d:\d\d)(?P<fraction>\.\d{1,9})?:?) +",
    re.ASCII,
)
_TAG: Final = re.compile(r"(?P<program>[^\s:\[\]]{1,128})(?:\[(?P<procid>[^\s\]]{0,128})\])?:(?: |\Z)")
_HOST: Final = re.compile(r"(?P<host>\S{1,255}) ")
_ELEMENT: Final = re.compile(
    r'\[(?P<id>[^\s=\]"]{1,255})(?P<parameters>(?: +[^\s=\]"]{1,255}="(?:[^"\\\]]|\\.)*+")*+) *\]', re.DOTALL
)
_PARAMETER: Final = re.compile(r'([^\s=\]"]+)="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_ESCAPED: Final = re.compile(r'\\(["\\\]])')
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NIL: Final = "-"
_NO_DATA: Final = re.compile(r"-(?: |\Z)")
_MARK: Final = "\ufeff"
_EARLIEST_SECONDS: Final = 100_000_000
"""Smaller numbers under the name of a time are how long something took."""
_COOKIE: Final = "@cee:"
_EVENT: Final = "log"
_GIVEN_BY_THE_EVENT: Final = frozenset(
    {"id", "event", "format", "event_id", "clientip", "visitor", "session", "bot", "url", "message"}
    | {*TIME_NAMES, *REFERER_NAMES, *NUMBER_NAMES, "referer_url"}
)
"""What structured data cannot say: a log is no view of anything."""


def key(_: Request) -> str:
    """Return nothing: there is no place for a key (see `Dialect.key`)."""
    return ""


def read(request: Request) -> Readings:
    """Read the messages of a request, with `SEPARATOR` between them (see `Dialect.read`)."""
    return Readings(_readings(request), batch=True)


def reply(_: Request, __: Readings, ___: Outcome) -> Reply:
    """Answer nothing (see `Dialect.reply`)."""
    return Reply(200)


def refuse(_: Request, __: MetronomeError, status: int) -> Reply:
    """Answer nothing (see `Dialect.refuse`)."""
    return Reply(status)


def read_message(frame: bytes, arrival: str, sender: str, site: Site) -> Event:
    """Read one message.

    Args:
        frame: the message.
        arrival: when it came, as a stamp: a time without a year is the one nearest to it.
        sender: the address of whoever sent it, which is the host where the message names none.
        site: what the operator says of what they publish.

    """
    header, text = _header(frame.decode(errors=ODD_BYTES), arrival)
    said = _said(text, site)
    _settle_time(header, said, arrival)
    if sender:
        header.setdefault("host", sender)
    return Event({**header, **said}, frame)


def _readings(request: Request) -> Iterator[Reading]:
    for frame in request.body.split(SEPARATOR):
        try:
            yield read_message(frame, request.arrival, request.sender, request.site)
        except Malformed as error:
            yield error


def _said(text: str, site: Site) -> dict[str, Any]:
    """Return what the message itself says."""
    content = text.lstrip().removeprefix(_COOKIE).lstrip()
    record = _record(content) if content.startswith("{") else None
    if record is None:
        hit = read_hit(text, site.rule, site.own_hosts)
        return {"event": _EVENT, "message": text} if hit is None else hit
    hit = web_fields(record, site.rule, site.own_hosts)
    if hit is not None:
        return hit
    # Without either of them it would be a view, of nothing.
    named = any(record.get(name) not in (None, "") for name in ("event", "id"))
    return record if named else {**record, "event": _EVENT}


def _settle_time(header: dict[str, Any], said: dict[str, Any], arrival: str) -> None:
    """Leave the header's time away where the message has its own; what only bears the name of one is no time."""
    name = next((name for name in TIME_NAMES if said.get(name) is not None), None)
    if name is None:
        return
    if _is_time(said[name]):
        header.pop("@timestamp", None)
        return
    if name == "@timestamp":
        said[f"record_{name}"] = said.pop(name)
    header.setdefault("@timestamp", arrival)


def _is_time(value: object) -> bool:
    if isinstance(value, (int, float)) and value < _EARLIEST_SECONDS:
        return False
    try:
        read_stamp(value)
    except Malformed:
        return False
    return True


def _record(text: str) -> dict[str, Any] | None:
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _header(text: str, arrival: str) -> tuple[dict[str, Any], str]:
    """Return what a message says of itself, and the rest of it; without a header, the rest is the whole."""
    fields: dict[str, Any] = {}
    found = _PRIORITY.match(text)
    facility, severity = divmod(int(found[1]), len(SEVERITIES)) if found else (len(FACILITIES), 0)
    if found is None or facility >= len(FACILITIES):
        return fields, text
    fields |= {"facility": FACILITIES[facility], "severity": SEVERITIES[severity]}
    text = text[found.end() :]
    try:
        new = _HEADER.match(text)
        return _new_header(new, text, fields) if new else _old_header(text, fields, arrival)
    except Malformed:
        return fields, text


def _new_header(found: re.Match[str], text: str, fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Read the header of RFC 5424.

    Raises:
        Malformed: its time is none.

    """
    time, *names = found.group("time", "host", "program", "procid", "msgid")
    stamp = {} if time == _NIL else {"@timestamp": read_stamp(time)}
    told = dict(zip(("host", "program", "procid", "msgid"), names, strict=True))
    fields |= stamp | {name: value for name, value in told.items() if value != _NIL}
    at, parameters = _structured_data(text, found.end())
    for (element, name), values in parameters.items():
        free = is_plain(name) and name not in _GIVEN_BY_THE_EVENT and name not in fields
        fields[name if free else f"{element}.{name}"] = values[0] if len(values) == 1 else values
    return fields, text[at:].removeprefix(_MARK)


def _structured_data(text: str, at: int) -> tuple[int, Mapping[tuple[str, str], list[str]]]:
    """Return where the message begins, and the parameters of the elements before it, by the elements' names."""
    parameters: dict[tuple[str, str], list[str]] = {}
    if nothing := _NO_DATA.match(text, at):
        return nothing.end(), parameters
    while found := _ELEMENT.match(text, at):
        for name, value in _PARAMETER.findall(found["parameters"]):
            parameters.setdefault((found["id"], name), []).append(_ESCAPED.sub(r"\1", value))
        at = found.end()
    return at + text.startswith(" ", at), parameters


def _old_header(text: str, fields: dict[str, Any], arrival: str) -> tuple[dict[str, Any], str]:
    """Read the header that RFC 3164 found, in which host and tag may be missing.

    Raises:
        Malformed: its time is none.

    """
    found = _OLD_TIME.match(text)
    if found is None:
        return fields, text
    fields["@timestamp"] = read_stamp(found["iso"]) if found["iso"] else _old_stamp(found, arrival)
    at = found.end()
    tag = _TAG.match(text, at)
    host = None if tag else _HOST.match(text, at)
    if host is not None:
        fields["host"] = host["host"]
        at = host.end()
        tag = _TAG.match(text, at)
    if tag is not None:
        fields |= {name: value for name, value in tag.groupdict().items() if value}
        at = tag.end()
    return fields, text[at:]


def _old_stamp(found: re.Match[str], arrival: str) -> str:
    """Return the time nearest to the arrival, where it has no year; without a zone it is UTC.

    Raises:
        Malformed: it is none.

    """
    if found["month"] not in _MONTHS:
        raise Malformed(f"{found['month']!r} is no month")
    month, day = _MONTHS.index(found["month"]) + 1, int(found["day"])
    rest = f"-{month:02}-{day:02}T{found['clock']}{found['fraction'] or ''}Z"
    if found["year"]:
        return read_stamp(found["year"] + rest)
    now = datetime.fromisoformat(arrival)
    stamps = []
    for year in (now.year - 1, now.year, now.year + 1):
        try:
            stamps.append(read_stamp(f"{year:04}{rest}"))
        except Malformed:
            # There is no 29 February in three years of four.
            continue
    if not stamps:
        raise Malformed(f"{found[0]!r} is no time")
    return min(stamps, key=lambda stamp: abs(datetime.fromisoformat(stamp) - now))
