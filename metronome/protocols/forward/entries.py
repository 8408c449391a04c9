"""Packed entries, read as events: each an array of a time and a record."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from struct import Struct
from typing import Any, Final

import orjson
from msgpack import ExtType, Timestamp, unpackb

from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import REPEATED_FIELDS, Event, IngestConfig
from metronome.fields import TIMESTAMP_FIELDS
from metronome.protocol import ParsedEvent
from metronome.protocols.forward.frames import MsgpackKind, parse_head
from metronome.protocols.forward.transport import ForwardMessage
from metronome.protocols.records import event_from_record
from metronome.times import format_timestamp, parse_timestamp

_EVENT_TIME_EXT_TYPE: Final = 0
_EVENT_TIME_STRUCT: Final = Struct(">II")
_EVENT_TIME_ENTRY_PREFIX: Final = b"\x92\xd7\x00"
"""How nearly all entries begin: an array of two, the first an EventTime of eight bytes."""
_EVENT_TIME_OFFSET: Final = len(_EVENT_TIME_ENTRY_PREFIX)
_RECORD_OFFSET: Final = _EVENT_TIME_OFFSET + _EVENT_TIME_STRUCT.size
_NANOSECONDS_PER_SECOND: Final = 10**9
_NANOSECONDS_PER_MILLISECOND: Final = 10**6
_MILLISECOND_SUFFIXES: Final = tuple(f".{number:03d}Z" for number in range(1000))
_MAX_EPOCH_SECONDS: Final = 2**32
_EPOCH_START: Final = "1970-01-01T00:00:00"
"""Fluentd, too, takes a time of zero seconds for none."""
_MIN_RECORD_TIMESTAMP: Final = "1973-03-03"
"""An earlier time of a record's own is none, but how long something took, as `event_from_record` has it."""
_TIME_FIELDS: Final = frozenset(TIMESTAMP_FIELDS)
_JSON_TYPES: Final = frozenset({str, int, bool, type(None)})
_KEY_TYPES: Final = frozenset({str})
_MSGPACK_SIZE_FACTOR: Final = 2
"""A value is at the most about so many times as large in msgpack as in JSON: a short float takes nine bytes."""


def parse_entries(
    message: ForwardMessage, entry_ends: list[int], config: IngestConfig, max_bytes: int
) -> Iterator[ParsedEvent]:
    """Read entries one by one as they are asked for.

    Args:
        message: what has them, not compressed; its tag becomes the ``type`` of events that have none.
        entry_ends: where each of them ends.
        config: of the server.
        max_bytes: how large a document may be; an entry that can only make a larger one is not unpacked.

    """
    tag, entries = message.tag, message.entries
    begin, limit = 0, _MSGPACK_SIZE_FACTOR * max_bytes
    for end in entry_ends:
        if end - begin > limit:
            yield PayloadTooLarge(f"an entry of {end - begin} bytes is over event_max_bytes ({max_bytes}): send less")
        else:
            try:
                yield _parse_entry(entries[begin:end], tag, config)
            except Malformed as error:
                yield error
            except (ValueError, TypeError) as error:
                yield Malformed(f"an entry cannot be unpacked: {error}")
            except RecursionError:
                yield Malformed("an entry is nested too deeply to be read: send it with fewer levels")
        begin = end


def _parse_entry(entry: bytes, tag: str, config: IngestConfig) -> Event:
    if entry.startswith(_EVENT_TIME_ENTRY_PREFIX):
        record, metadata = _unpack(entry[_RECORD_OFFSET:]), None
        seconds, nanoseconds = _EVENT_TIME_STRUCT.unpack_from(entry, _EVENT_TIME_OFFSET)
        stamp = _format_event_time(seconds, nanoseconds)
        head = entry[_RECORD_OFFSET]
        # So begins a map of fewer than 16 fields.
        count = head & 0x0F if head & 0xF0 == 0x80 else _find_record_head(entry)[1]  # noqa: PLR2004
    else:
        time, metadata, record = _split_entry(_unpack(entry))
        stamp, count = _entry_timestamp(time), _find_record_head(entry)[1]
    if type(record) is not dict:
        raise Malformed(f"a record is a map, and this is {type(record).__name__}")
    original = _encode_with_duplicates(entry, record) if count != len(record) else None
    if metadata:
        record.setdefault("metadata", metadata)
    if not (_JSON_TYPES.issuperset(map(type, record.values())) and _KEY_TYPES.issuperset(map(type, record))):
        record = _map_to_json(record)
    event = event_from_record(record, config, original)
    fields: Any = event.fields
    if tag and "type" not in fields:
        fields["type"] = tag
    if stamp is not None and (_TIME_FIELDS.isdisjoint(fields) or not _has_timestamp(fields)):
        fields["@timestamp"] = stamp
    return event


def _split_entry(entry: Any) -> tuple[Any, dict[Any, Any] | None, Any]:
    """Return an entry's time, what Fluent Bit has beside it (the metadata, if any), and its record."""
    if type(entry) is not list or len(entry) != len(("time", "record")):
        raise Malformed("an entry is an array of a time and a record, and this is none")
    time, record = entry
    if type(time) is not list:
        return time, None, record
    if not time:
        raise Malformed("an entry has no time")
    metadata = time[1] if len(time) > 1 else None
    return time[0], metadata if type(metadata) is dict else None, record


def _has_timestamp(fields: Mapping[str, Any]) -> bool:
    value = next((fields[name] for name in TIMESTAMP_FIELDS if fields.get(name) is not None), None)
    try:
        return value is not None and parse_timestamp(value) >= _MIN_RECORD_TIMESTAMP
    except Malformed:
        return False


def _entry_timestamp(time: Any) -> str | None:
    """Return the stamp of an entry's time, or None for that at which it arrives."""
    if type(time) is str:
        return None if time.startswith(_EPOCH_START) else parse_timestamp(time)
    if time is None or time == 0:
        return None
    if type(time) is int and 0 < time < _MAX_EPOCH_SECONDS:
        return f"{_format_second(time)}.000Z"
    return parse_timestamp(_to_json_value(time))


def _decode_ext(kind: int, content: bytes) -> object:
    """Return Fluentd's time (EventTime) as a stamp; other types stay what they are."""
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


def _find_record_head(entry: bytes) -> tuple[int, int]:
    """Return where the first field of an entry's record begins, and how many there are."""
    outer = parse_head(entry, 0)
    at, values = (outer.content_start, 1) if outer is not None else (0, 0)
    head = parse_head(entry, at)
    while values and head is not None:
        values += {MsgpackKind.ARRAY: head.size, MsgpackKind.MAP: 2 * head.size}.get(head.kind, 0) - 1
        at = head.content_start if head.kind in {MsgpackKind.ARRAY, MsgpackKind.MAP} else head.content_start + head.size
        head = parse_head(entry, at)
    return (head.content_start, head.size) if head is not None else (at, 0)


def _encode_with_duplicates(entry: bytes, record: dict[Any, Any]) -> bytes:
    """Keep what unpacking loses: of two fields of one name, it gives the last only."""
    at, count = _find_record_head(entry)
    # As an array, the record's fields all stay.
    listed = _unpack(b"\xdd" + (2 * count).to_bytes(4, "big") + entry[at:])
    names = [_field_name(name) for name in listed[::2]]
    record[REPEATED_FIELDS] = sorted(name for name, times in Counter(names).items() if times > 1)
    fields = [
        f"{_encode_json_text(name)}:{_encode_json_text(_to_json_value(value))}"
        for name, value in zip(names, listed[1::2], strict=True)
    ]
    return f"{{{','.join(fields)}}}".encode()


def _encode_json_text(value: object) -> str:
    return orjson.dumps(value).decode()


def _map_to_json(record: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what JSON can say of a map: names are texts, numbers finite, bytes and types of their own text."""
    clean: dict[str, Any] = {}
    for name, value in record.items():
        text = name if type(name) is str else _field_name(name)
        while text in clean:
            text += "_"
        clean[text] = value if type(value) in _JSON_TYPES else _to_json_value(value)
    return clean


def _to_json_value(value: Any) -> Any:
    read = _JSON_CONVERTERS.get(type(value))
    return value if read is None else read(value)


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
"""How what JSON has no word for is said; of what is not listed, JSON has one."""


def _format_ext(kind: int, content: bytes) -> str:
    return f"ext {kind}: {content.hex()}"


def _field_name(name: object) -> str:
    clean = _to_json_value(name)
    return clean if isinstance(clean, str) else _encode_json_text(clean)
