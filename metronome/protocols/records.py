"""Convert records of log shippers to events.

Filebeat, Fluent Bit, Fluentd, Logstash, Vector, rsyslog, syslog-ng, pino and winston send records: a log line or its
parsed fields, and fields about its source. `event_from_record` uses the first rule that applies:

1. A record whose ``event`` is text is an event in Metronome's format, and stays as it is.
2. A record with the fields of a web server's request is that request (see `parse_hit_record`).
3. A record whose ``message``, ``log`` or ``MESSAGE`` is an access log line is that request, at the time in the line
   (see `parse_hit_line`).
4. A record with an ``id`` and without fields of log records is an event in Metronome's format.
5. Any other record is a ``log`` event, never a view.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from metronome.event import Event, IngestConfig
from metronome.fields import TIMESTAMP_FIELDS
from metronome.protocols.access_logs.json_formats import merge_fields
from metronome.protocols.access_logs.reader import parse_hit_line, parse_hit_record
from metronome.times import parse_record_timestamp

OriginalText = bytes | Callable[[Mapping[str, Any]], bytes] | None

LOG_EVENT: Final = "log"

_LINE_FIELDS: Final = ("message", "log", "MESSAGE")
_MESSAGE_FIELDS: Final = ("msg", "log", "short_message", "MESSAGE")
"""Other names of ``message``: in pino, Fluent Bit, GELF, and journald or syslog-ng."""
_HTTP_FIELDS: Final = frozenset(
    {"verb", "method", "request_method", "http.request.method", "http", "request"}
    | {"response", "code", "status", "http.response.status_code", "http.method", "http.status_code"}
)
"""A record without any of these fields is not a web server's request."""
_LOG_FIELDS: Final = frozenset({"message", "msg", "log", "level", "severity", "loglevel", "log.level", "short_message"})
_FLATTEN_MAX_FIELDS: Final = 256
_FLATTEN_MAX_DEPTH: Final = 8
_FLATTEN_MAX_NAME_CHARACTERS: Final = 256


def event_from_record(record: dict[str, Any], config: IngestConfig, original: OriginalText = None) -> Event:
    """Convert a record to an event.

    Fields of inner objects get names with dots (``host.name``), up to a limit. Without ``@timestamp``, the time is in
    ``timestamp``, ``ts`` or ``time``; an invalid time in these does not reject a log record, but is kept as
    ``record_timestamp``, ``record_ts`` or ``record_time``. Only events in Metronome's format have an ``event_id``: in
    other records it identifies a *kind* of event, and is kept as ``record_event_id``.

    Args:
        record: is changed, and may become the event's fields.
        config: of the server.
        original: the record as it was sent (see `Event`). Dropped for requests: it may have the client's IP address.

    """
    event = record.get("event")
    if event and type(event) is str:
        return Event(record, original)
    if not _HTTP_FIELDS.isdisjoint(record):
        hit = parse_hit_record(record, config.item_pattern, config.own_hosts, config.proxies)
        if hit is not None:
            return Event(_normalize_record(hit))
    for name in _LINE_FIELDS:
        line = record.get(name)
        if type(line) is str:
            hit = parse_hit_line(line, config.item_pattern, config.own_hosts, config.proxies)
            if hit is not None:
                return Event(_normalize_record(_merge_other_fields(hit, record, line)))
    if _is_native_event(record):
        return Event(record, original)
    return Event(_normalize_record(_as_log_event(record)), original)


def _is_native_event(record: Mapping[str, Any]) -> bool:
    item = record.get("id")
    if item is None:
        return False
    return type(item) in (str, int) and item != "" and record.get("event") is None and _LOG_FIELDS.isdisjoint(record)


def _merge_other_fields(hit: dict[str, Any], record: Mapping[str, Any], line: str) -> dict[str, Any]:
    """Add a record's other fields to a request, without copies of the line: it has the client's whole IP address."""
    rest = {
        name: _drop_line_copies(value, line) if isinstance(value, dict) else value
        for name, value in record.items()
        if name not in TIMESTAMP_FIELDS and not _contains_line(value, line)
    }
    return merge_fields(hit, rest)


def _drop_line_copies(group: Mapping[str, Any], line: str) -> dict[str, Any]:
    return {name: value for name, value in group.items() if not _contains_line(value, line)}


def _contains_line(value: object, line: str) -> bool:
    return isinstance(value, str) and line.strip() in value


def _as_log_event(record: dict[str, Any]) -> dict[str, Any]:
    event = record.pop("event", None)
    if isinstance(event, dict):
        record.update({f"event.{name}": value for name, value in event.items()})
    elif event is not None and event != "":
        record["record_event"] = event
    record["event"] = LOG_EVENT
    if "message" not in record:
        for name in _MESSAGE_FIELDS:
            if type(record.get(name)) is str:
                record["message"] = record.pop(name)
                break
    return record


def _normalize_record(fields: dict[str, Any]) -> dict[str, Any]:
    """Rename fields of a record that have another meaning in Metronome, and set the time."""
    if "event_id" in fields:
        fields["record_event_id"] = fields.pop("event_id")
    if fields.get("@timestamp") is None:
        for name in TIMESTAMP_FIELDS[1:]:
            value = fields.pop(name, None)
            stamp = parse_record_timestamp(value) if value is not None else None
            if stamp is not None:
                fields["@timestamp"] = stamp
                break
            if value is not None:
                fields[f"record_{name}"] = value
    return _flatten_objects(fields)


def _flatten_objects(fields: dict[str, Any]) -> dict[str, Any]:
    """Replace inner objects by fields with dots in their names, unless they are too deep, too many or too long."""
    if dict not in map(type, fields.values()):
        return fields
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if type(value) is dict:
            _flatten_into(name, value, flat, 1)
        else:
            flat[name] = value
    return flat


def _flatten_into(prefix: str, group: dict[str, Any], flat: dict[str, Any], level: int) -> None:
    if (
        level > _FLATTEN_MAX_DEPTH
        or len(prefix) > _FLATTEN_MAX_NAME_CHARACTERS
        or len(flat) + len(group) > _FLATTEN_MAX_FIELDS
    ):
        flat[prefix] = group
        return
    for name, value in group.items():
        if type(value) is dict:
            _flatten_into(f"{prefix}.{name}", value, flat, level + 1)
        else:
            flat.setdefault(f"{prefix}.{name}", value)
