"""Convert the entries of a forward message to events: each is an array of a time and a record."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from struct import Struct
from types import MappingProxyType
from typing import Any, Final

import orjson
from msgpack import ExtType, Timestamp, Unpacker, unpackb

from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import Event, IngestConfig, mark_duplicates
from metronome.fields import TIMESTAMP_FIELDS
from metronome.protocol import ParsedEvent
from metronome.protocols.forward.messages import EntryEnds, ForwardMessage
from metronome.protocols.records import event_from_record
from metronome.times import format_timestamp, parse_timestamp

_EVENT_TIME_EXT_TYPE: Final = 0
_EVENT_TIME_STRUCT: Final = Struct(">II")
_EVENT_TIME_ENTRY_PREFIX: Final = b"\x92\xd7\x00"
"""The first bytes of nearly all entries: an array of two, the first of them an EventTime of eight bytes."""
_EVENT_TIME_OFFSET: Final = len(_EVENT_TIME_ENTRY_PREFIX)
_RECORD_OFFSET: Final = _EVENT_TIME_OFFSET + _EVENT_TIME_STRUCT.size
_NANOSECONDS_PER_SECOND: Final = 10**9
_NANOSECONDS_PER_MILLISECOND: Final = 10**6
_MILLISECOND_SUFFIXES: Final = tuple(f".{number:03d}Z" for number in range(1000))
_MAX_EPOCH_SECONDS: Final = 2**32
_EPOCH_START: Final = "1970-01-01T00:00:00"
"""Like Fluentd, take a time of zero seconds as no time."""
_MIN_RECORD_TIMESTAMP: Final = "1973-03-03"
"""An earlier value in a time field of a record is a duration, as in `event_from_record`."""
_TIME_FIELDS: Final = frozenset(TIMESTAMP_FIELDS)
_GROUP_START: Final = 2**32 - 1
_GROUP_END: Final = 2**32 - 2
"""The seconds of Fluent Bit's group markers."""
_GROUP_MARKER_TIMES: Final = {"2106-02-07T06:28:15": _GROUP_START, "2106-02-07T06:28:14": _GROUP_END}
_GROUP_MARKER_BYTES: Final = (_GROUP_START.to_bytes(4, "big"), _GROUP_END.to_bytes(4, "big"))
_JSON_TYPES: Final = frozenset({str, int, bool, type(None)})
_KEY_TYPES: Final = frozenset({str})
_MSGPACK_SIZE_FACTOR: Final = 2
"""How many times larger than in JSON a value can be in msgpack, where a short float takes nine bytes."""


GroupFields = Mapping[str, Any]
"""The fields that the records of a group have in common.

Fluent Bit puts a marker before and after records of the same origin, as in OpenTelemetry's protocol. Markers are
entries with an impossible time.
"""
NO_GROUP: Final[GroupFields] = MappingProxyType({})


def group_after(message: ForwardMessage, entry_ends: EntryEnds, group: GroupFields) -> GroupFields:
    """Return the group that is open after a message's entries, of the one that is open before them."""
    if not any(marker in message.entries for marker in _GROUP_MARKER_BYTES):
        return group
    begin = 0
    for end in entry_ends.offsets:
        entry = message.entries[begin:end]
        begin = end
        if any(marker in entry for marker in _GROUP_MARKER_BYTES):
            with contextlib.suppress(Malformed, ValueError, TypeError, RecursionError):
                time, _, record = _split_entry(_unpack(entry))
                marker_seconds = _marker_seconds(time)
                if marker_seconds is not None:
                    group = _next_group(marker_seconds, record)
    return group


def _next_group(marker_seconds: int, record: object) -> GroupFields:
    return _group_fields(record) if marker_seconds == _GROUP_START else NO_GROUP


def _marker_seconds(time: object) -> int | None:
    """Return the seconds of a group marker's time, or None if the entry is no marker."""
    if type(time) is str:
        return _GROUP_MARKER_TIMES.get(time[: len(_EPOCH_START)])
    return time if type(time) is int and time in {_GROUP_START, _GROUP_END} else None


def _group_fields(marker: object) -> dict[str, Any]:
    """Return the attributes of a marker's resource, and the name and version of its scope as OpenTelemetry has them."""
    resource, scope = _map_at(marker, "resource"), _map_at(marker, "scope")
    fields = {f"otel.scope.{name}": scope[name] for name in ("name", "version") if scope.get(name)}
    return {**_map_at(scope, "attributes"), **fields, **_map_at(resource, "attributes")}


def _map_at(group: object, name: str) -> dict[Any, Any]:
    value = group.get(name) if isinstance(group, dict) else None
    return value if isinstance(value, dict) else {}


def parse_entries(
    message: ForwardMessage, entry_ends: EntryEnds, config: IngestConfig, group: GroupFields = NO_GROUP
) -> Iterator[ParsedEvent]:
    """Lazily convert a message's entries to events.

    Args:
        message: not compressed; its tag becomes the ``type`` of events that have none.
        entry_ends: where each entry ends.
        config: of the server; an entry that can only become a document over ``event_max_bytes`` is not unpacked.
        group: the group that is open before the first entry.

    """
    tag, entries = message.tag, message.entries
    begin, limit = 0, _MSGPACK_SIZE_FACTOR * config.event_max_bytes
    for end in entry_ends.offsets:
        if end - begin > limit:
            yield PayloadTooLarge(
                f"an entry of {end - begin} bytes is over event_max_bytes ({config.event_max_bytes}): send less"
            )
        else:
            try:
                entry = _parse_entry(entries[begin:end], tag, config, group)
                if isinstance(entry, Event):
                    yield entry
                else:
                    group = entry
            except Malformed as error:
                yield error
            except (ValueError, TypeError) as error:
                yield Malformed(f"invalid entry: {error}")
            except RecursionError:
                yield Malformed("invalid entry: nested too deeply")
        begin = end
    if entry_ends.error is not None:
        yield entry_ends.error


def _parse_entry(entry: bytes, tag: str, config: IngestConfig, group: GroupFields) -> Event | GroupFields:
    """Return the event of an entry, or the group that follows if the entry is a marker."""
    if entry.startswith(_EVENT_TIME_ENTRY_PREFIX):
        record, metadata = _unpack(entry[_RECORD_OFFSET:]), None
        seconds, nanoseconds = _EVENT_TIME_STRUCT.unpack_from(entry, _EVENT_TIME_OFFSET)
        if seconds >= _GROUP_END:
            return _next_group(seconds, record)
        timestamp = _format_event_time(seconds, nanoseconds)
        header = entry[_RECORD_OFFSET]
    else:
        time, metadata, record = _split_entry(_unpack(entry))
        if (marker_seconds := _marker_seconds(time)) is not None:
            return _next_group(marker_seconds, record)
        timestamp = _entry_timestamp(time)
        header = 0
    if type(record) is not dict:
        raise Malformed(f"invalid record: expected a map, got {type(record).__name__}")
    # The first byte of a map with fewer than 16 fields holds their number.
    count = header & 0x0F if header & 0xF0 == 0x80 else _read_record_header(entry)[1]  # noqa: PLR2004
    original = _encode_with_duplicates(entry, record) if count != len(record) else None
    if metadata:
        record.setdefault("metadata", metadata)
    if group:
        # A record's own fields win.
        record |= {name: value for name, value in group.items() if name not in record}
    if not (_JSON_TYPES.issuperset(map(type, record.values())) and _KEY_TYPES.issuperset(map(type, record))):
        record = _map_to_json(record)
    event = event_from_record(record, config, original)
    fields: Any = event.fields
    if tag and "type" not in fields:
        fields["type"] = tag
    if timestamp is not None and (_TIME_FIELDS.isdisjoint(fields) or not _has_timestamp(fields)):
        fields["@timestamp"] = timestamp
    return event


def _split_entry(entry: Any) -> tuple[Any, dict[Any, Any] | None, Any]:
    """Return an entry's time, its metadata (Fluent Bit sends them with the time) or None, and its record."""
    if type(entry) is not list or len(entry) != len(("time", "record")):
        raise Malformed("invalid entry: expected an array of a time and a record")
    time, record = entry
    if type(time) is not list:
        return time, None, record
    if not time:
        raise Malformed("invalid entry: it has no time")
    metadata = time[1] if len(time) > 1 else None
    return time[0], metadata if type(metadata) is dict else None, record


def _has_timestamp(fields: Mapping[str, Any]) -> bool:
    value = next((fields[name] for name in TIMESTAMP_FIELDS if fields.get(name) is not None), None)
    try:
        return value is not None and parse_timestamp(value) >= _MIN_RECORD_TIMESTAMP
    except Malformed:
        return False


def _entry_timestamp(time: Any) -> str | None:
    """Return the timestamp of an entry's time, or None if the time of arrival counts."""
    if type(time) is str:
        return None if time.startswith(_EPOCH_START) else parse_timestamp(time)
    if time is None or time == 0:
        return None
    if type(time) is int and 0 < time < _MAX_EPOCH_SECONDS:
        return f"{_format_second(time)}.000Z"
    return parse_timestamp(_to_json_value(time))


def _decode_ext(kind: int, content: bytes) -> object:
    """Return Fluentd's time (EventTime) as a timestamp, and other types as they are."""
    if kind != _EVENT_TIME_EXT_TYPE or len(content) != _EVENT_TIME_STRUCT.size:
        return ExtType(kind, content) if kind >= 0 else _format_ext(kind, content)
    seconds, nanoseconds = _EVENT_TIME_STRUCT.unpack(content)
    return (
        _format_event_time(seconds, nanoseconds)
        or _EPOCH_START + _MILLISECOND_SUFFIXES[nanoseconds // _NANOSECONDS_PER_MILLISECOND]
    )


_unpack: Final = partial(unpackb, ext_hook=_decode_ext, strict_map_key=False, unicode_errors="backslashreplace")


def _format_event_time(seconds: int, nanoseconds: int) -> str | None:
    if nanoseconds >= _NANOSECONDS_PER_SECOND:
        seconds += nanoseconds // _NANOSECONDS_PER_SECOND
        nanoseconds %= _NANOSECONDS_PER_SECOND
    return (
        _format_second(seconds) + _MILLISECOND_SUFFIXES[nanoseconds // _NANOSECONDS_PER_MILLISECOND]
        if seconds
        else None
    )


@lru_cache(maxsize=1024)
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[: len(_EPOCH_START)]


def _read_record_header(entry: bytes) -> tuple[int, int]:
    """Return where the first field of an entry's record begins, and the number of its fields."""
    unpacker = Unpacker(max_buffer_size=len(entry))
    unpacker.feed(entry)
    unpacker.read_array_header()
    unpacker.skip()
    count: int = unpacker.read_map_header()
    return unpacker.tell(), count


def _encode_with_duplicates(entry: bytes, record: dict[Any, Any]) -> bytes:
    """Return the record as JSON with its duplicate fields, and add their names to *record*, which has lost them."""
    begin, count = _read_record_header(entry)
    # As an array, the record keeps all of its fields.
    names_and_values = _unpack(b"\xdd" + (2 * count).to_bytes(4, "big") + entry[begin:])
    names = [_field_name(name) for name in names_and_values[::2]]
    mark_duplicates(record, names)
    fields = [
        f"{_encode_json_text(name)}:{_encode_json_text(_to_json_value(value))}"
        for name, value in zip(names, names_and_values[1::2], strict=True)
    ]
    return f"{{{','.join(fields)}}}".encode()


def _encode_json_text(value: object) -> str:
    return orjson.dumps(value).decode()


def _map_to_json(record: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a map as JSON can hold it: with strings as names, finite numbers, and text for bytes and extensions."""
    clean: dict[str, Any] = {}
    for name, value in record.items():
        text = name if type(name) is str else _field_name(name)
        while text in clean:
            text += "_"
        clean[text] = value if type(value) in _JSON_TYPES else _to_json_value(value)
    return clean


def _to_json_value(value: Any) -> Any:
    convert = _JSON_CONVERTERS.get(type(value))
    return value if convert is None else convert(value)


def _number_to_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _list_to_json(values: Iterable[Any]) -> list[Any]:
    return [_to_json_value(value) for value in values]


def _bytes_to_text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _ext_to_text(value: ExtType) -> str:
    return _format_ext(value.code, value.data)


def _timestamp_to_text(value: Timestamp) -> str:
    try:
        return format_timestamp(value.to_datetime())
    except (OverflowError, ValueError):
        return f"{value.seconds}.{value.nanoseconds:09d}"


_JSON_CONVERTERS: Final[Mapping[type, Callable[[Any], Any]]] = {
    float: _number_to_json,
    dict: _map_to_json,
    list: _list_to_json,
    tuple: _list_to_json,
    bytes: _bytes_to_text,
    ExtType: _ext_to_text,
    Timestamp: _timestamp_to_text,
}
"""How values are converted that JSON cannot hold as they are."""


def _format_ext(kind: int, content: bytes) -> str:
    return f"ext {kind}: {content.hex()}"


def _field_name(name: object) -> str:
    clean = _to_json_value(name)
    return clean if isinstance(clean, str) else _encode_json_text(clean)
