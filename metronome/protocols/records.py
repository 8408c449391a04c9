"""A record of a log shipper, read as an event.

Filebeat, Fluent Bit, Fluentd, Logstash, Vector, rsyslog, syslog-ng, pino and winston all send records: what
they read somewhere, with what they know of where they read it. `record_event` says what each of them is:

1. Metronome's own, if its ``event`` is a text: it stays as it is.
2. A hit of a web server, if a parser has read one already (see `web_fields`).
3. A hit, if its ``message``, ``log`` or ``MESSAGE`` is a line of an access log (see `read_hit`). The time in the line
   counts, and not when the shipper read it.
4. Metronome's own, if it has an ``id`` and nothing that log records have.
5. A log record. It is a ``log``, never a view, whatever it holds.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from metronome.errors import Malformed
from metronome.event import TIME_NAMES, Event
from metronome.protocol import Site
from metronome.protocols.access_logs.formats import bracket_stamp
from metronome.protocols.access_logs.json_formats import joined
from metronome.protocols.access_logs.reader import read_hit, web_fields
from metronome.times import read_stamp

Original = bytes | Callable[[Mapping[str, Any]], bytes] | None

LOG_EVENT: Final = "log"

_LINES: Final = ("message", "log", "MESSAGE")
_MESSAGES: Final = ("msg", "log", "short_message", "MESSAGE")
"""Where a message stands that is not called so: of pino, of Fluent Bit, of GELF, of journald and syslog-ng."""
_TELLING: Final = frozenset(
    {"verb", "method", "request_method", "http.request.method", "http", "request"}
    | {"response", "code", "status", "http.response.status_code"}
)
"""Without any of these names, no record tells of a web server's hit."""
_OF_LOGS: Final = frozenset({"message", "msg", "log", "level", "severity", "loglevel", "log.level", "short_message"})
_EARLIEST_SECONDS: Final = 100_000_000
"""A smaller number under the name of a time is none, but how long something took."""
_FLAT_MAX_FIELDS: Final = 256
_FLAT_MAX_LEVELS: Final = 8
_FLAT_MAX_NAME: Final = 256


def record_event(record: dict[str, Any], site: Site, original: Original = None) -> Event:
    """Read a record as an event.

    What lies in objects inside the record gets a name with dots (``host.name``), as far as there is not too much of
    it. A record without ``@timestamp`` has its time in ``timestamp``, ``ts`` or ``time``; what stands there and is no
    time does not fail a log record, but is kept as ``record_time``. Only Metronome's own events bring an
    ``event_id``: elsewhere that is the number of a *kind* of event, and is kept as ``record_event_id``.

    Args:
        record: its fields; their names are texts. It may be changed, and become the event's fields.
        site: what the operator says of what they publish.
        original: what came in (see `Event`). Of hits it is not kept: it may have the client's address.

    """
    event = record.get("event")
    if event and type(event) is str:
        return Event(record, original)
    if not _TELLING.isdisjoint(record):
        hit = web_fields(record, site.rule, site.own_hosts)
        if hit is not None:
            return Event(_settled(hit))
    for name in _LINES:
        line = record.get(name)
        if type(line) is str:
            hit = read_hit(line, site.rule, site.own_hosts)
            if hit is not None:
                return Event(_settled(_with_the_rest(hit, record, line)))
    if _is_own(record):
        return Event(record, original)
    return Event(_settled(_log_record(record)), original)


def _is_own(record: Mapping[str, Any]) -> bool:
    item = record.get("id")
    if item is None:
        return False
    return type(item) in (str, int) and item != "" and record.get("event") is None and _OF_LOGS.isdisjoint(record)


def _with_the_rest(hit: dict[str, Any], record: Mapping[str, Any], line: str) -> dict[str, Any]:
    """Add to a hit what else its record has; but no copy of the line, which has the client's whole address."""
    rest = {
        name: _without_copies(value, line) if isinstance(value, dict) else value
        for name, value in record.items()
        if name not in TIME_NAMES and not _is_copy(value, line)
    }
    return joined(hit, rest)


def _without_copies(group: Mapping[str, Any], line: str) -> dict[str, Any]:
    return {name: value for name, value in group.items() if not _is_copy(value, line)}


def _is_copy(value: object, line: str) -> bool:
    return isinstance(value, str) and line.strip() in value


def _log_record(record: dict[str, Any]) -> dict[str, Any]:
    event = record.pop("event", None)
    if isinstance(event, dict):
        record.update({f"event.{name}": value for name, value in event.items()})
    elif event is not None and event != "":
        record["record_event"] = event
    record["event"] = LOG_EVENT
    if "message" not in record:
        for name in _MESSAGES:
            if type(record.get(name)) is str:
                record["message"] = record.pop(name)
                break
    return record


def _settled(fields: dict[str, Any]) -> dict[str, Any]:
    """Set what would be misread of a shipper's record under a name where it is not."""
    if "event_id" in fields:
        fields["record_event_id"] = fields.pop("event_id")
    if fields.get("@timestamp") is None:
        for name in TIME_NAMES[1:]:
            value = fields.pop(name, None)
            stamp = _stamp(value) if value is not None else None
            if stamp is not None:
                fields["@timestamp"] = stamp
                break
            if value is not None:
                fields[f"record_{name}"] = value
    return _flat(fields)


def _stamp(value: object) -> str | None:
    if isinstance(value, (int, float)) and not value >= _EARLIEST_SECONDS:
        return None
    try:
        return bracket_stamp(value) if isinstance(value, str) and "/" in value else read_stamp(value)
    except Malformed:
        return None


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Give what lies in objects names with dots; what is too deep, too much or too long of name stays an object."""
    if dict not in map(type, fields.values()):
        return fields
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if type(value) is dict:
            _flatten(name, value, flat, 1)
        else:
            flat[name] = value
    return flat


def _flatten(prefix: str, group: dict[str, Any], flat: dict[str, Any], level: int) -> None:
    if level > _FLAT_MAX_LEVELS or len(prefix) > _FLAT_MAX_NAME or len(flat) + len(group) > _FLAT_MAX_FIELDS:
        flat[prefix] = group
        return
    for name, value in group.items():
        if type(value) is dict:
            _flatten(f"{prefix}.{name}", value, flat, level + 1)
        else:
            flat.setdefault(f"{prefix}.{name}", value)
