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

from metronome.errors import Malformed, TooLarge
from metronome.event import REPEATED, TIME_NAMES, Event
from metronome.protocol import Reading, Site
from metronome.protocols.forward.frames import Kind, read_head
from metronome.protocols.forward.transport import Transport
from metronome.protocols.records import record_event
from metronome.times import read_stamp, stamp_of

_EVENT_TIME: Final = 0
_SECONDS_AND_NANOSECONDS: Final = Struct(">II")
_USUAL: Final = b"\x92\xd7\x00"
"""How nearly all entries begin: an array of two, the first an EventTime of eight bytes."""
_USUAL_TIME: Final = len(_USUAL)
_USUAL_RECORD: Final = _USUAL_TIME + _SECONDS_AND_NANOSECONDS.size
_NANOSECONDS: Final = 10**9
_PER_MILLISECOND: Final = 10**6
_MILLISECONDS: Final = tuple(f".{number:03d}Z" for number in range(1000))
_SECONDS_END: Final = 2**32
_NO_TIME: Final = "1970-01-01T00:00:00"
"""Fluentd, too, takes a time of zero seconds for none."""
_OWN_FROM: Final = "1973-03-03"
"""An earlier time of a record's own is none, but how long something took, as `record_event` has it."""
_TIMES: Final = frozenset(TIME_NAMES)
_SIMPLE: Final = frozenset({str, int, bool, type(None)})
_NAMES: Final = frozenset({str})
_BESIDE_JSON: Final = 2
"""A value is at the most about so many times as large in msgpack as in JSON: a short float takes nine bytes."""


def read_entries(transport: Transport, ends: list[int], site: Site, max_bytes: int) -> Iterator[Reading]:
    """Read entries one by one as they are asked for.

    Args:
        transport: what has them, not compressed; its tag becomes the ``type`` of events that have none.
        ends: where each of them ends.
        site: what the operator says of what they publish.
        max_bytes: how large a document may be; an entry that can only make a larger one is not unpacked.

    """
    tag, entries = transport.tag, transport.entries
    begin, limit = 0, _BESIDE_JSON * max_bytes
    for end in ends:
        if end - begin > limit:
            yield TooLarge(f"an entry of {end - begin} bytes is over event_max_bytes ({max_bytes}): send less")
        else:
            try:
                yield _event(entries[begin:end], tag, site)
            except Malformed as error:
                yield error
            except (ValueError, TypeError) as error:
                yield Malformed(f"an entry cannot be unpacked: {error}")
            except RecursionError:
                yield Malformed("an entry is nested too deeply to be read: send it with fewer levels")
        begin = end


def _event(entry: bytes, tag: str, site: Site) -> Event:
    if entry.startswith(_USUAL):
        record, metadata = _unpack(entry[_USUAL_RECORD:]), None
        seconds, nanoseconds = _SECONDS_AND_NANOSECONDS.unpack_from(entry, _USUAL_TIME)
        stamp = _event_stamp(seconds, nanoseconds)
        head = entry[_USUAL_RECORD]
        # So begins a map of fewer than 16 fields.
        count = head & 0x0F if head & 0xF0 == 0x80 else _record_head(entry)[1]  # noqa: PLR2004
    else:
        time, metadata, record = _parts_of(_unpack(entry))
        stamp, count = _stamp(time), _record_head(entry)[1]
    if type(record) is not dict:
        raise Malformed(f"a record is a map, and this is {type(record).__name__}")
    original = _told_apart(entry, record) if count != len(record) else None
    if metadata:
        record.setdefault("metadata", metadata)
    if not (_SIMPLE.issuperset(map(type, record.values())) and _NAMES.issuperset(map(type, record))):
        record = _clean_map(record)
    event = record_event(record, site, original)
    fields: Any = event.fields
    if tag and "type" not in fields:
        fields["type"] = tag
    if stamp is not None and (_TIMES.isdisjoint(fields) or not _has_time(fields)):
        fields["@timestamp"] = stamp
    return event


def _parts_of(entry: Any) -> tuple[Any, dict[Any, Any] | None, Any]:
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


def _has_time(fields: Mapping[str, Any]) -> bool:
    value = next((fields[name] for name in TIME_NAMES if fields.get(name) is not None), None)
    try:
        return value is not None and read_stamp(value) >= _OWN_FROM
    except Malformed:
        return False


def _stamp(time: Any) -> str | None:
    """Return the stamp of an entry's time, or None for that at which it arrives."""
    if type(time) is str:
        return None if time.startswith(_NO_TIME) else read_stamp(time)
    if time is None or time == 0:
        return None
    if type(time) is int and 0 < time < _SECONDS_END:
        return f"{_second(time)}.000Z"
    return read_stamp(_clean(time))


def _extended(kind: int, content: bytes) -> object:
    """Return Fluentd's time (EventTime) as a stamp; other types stay what they are."""
    if kind != _EVENT_TIME or len(content) != _SECONDS_AND_NANOSECONDS.size:
        return ExtType(kind, content) if kind >= 0 else _shown_ext(kind, content)
    seconds, nanoseconds = _SECONDS_AND_NANOSECONDS.unpack(content)
    return _event_stamp(seconds, nanoseconds) or _NO_TIME + _MILLISECONDS[nanoseconds // _PER_MILLISECOND]


_unpack: Final = partial(unpackb, ext_hook=_extended, strict_map_key=False, unicode_errors="backslashreplace")


def _event_stamp(seconds: int, nanoseconds: int) -> str | None:
    if nanoseconds >= _NANOSECONDS:
        seconds += nanoseconds // _NANOSECONDS
        nanoseconds %= _NANOSECONDS
    return _second(seconds) + _MILLISECONDS[nanoseconds // _PER_MILLISECOND] if seconds else None


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[: len(_NO_TIME)]


def _record_head(entry: bytes) -> tuple[int, int]:
    """Return where the first field of an entry's record begins, and how many there are."""
    outer = read_head(entry, 0)
    at, values = (outer.start, 1) if outer is not None else (0, 0)
    head = read_head(entry, at)
    while values and head is not None:
        values += {Kind.ARRAY: head.size, Kind.MAP: 2 * head.size}.get(head.kind, 0) - 1
        at = head.start if head.kind in {Kind.ARRAY, Kind.MAP} else head.start + head.size
        head = read_head(entry, at)
    return (head.start, head.size) if head is not None else (at, 0)


def _told_apart(entry: bytes, record: dict[Any, Any]) -> bytes:
    """Keep what unpacking loses: of two fields of one name, it gives the last only."""
    at, count = _record_head(entry)
    # As an array, the record's fields all stay.
    listed = _unpack(b"\xdd" + (2 * count).to_bytes(4, "big") + entry[at:])
    names = [_name(name) for name in listed[::2]]
    record[REPEATED] = sorted(name for name, times in Counter(names).items() if times > 1)
    fields = [f"{_json(name)}:{_json(_clean(value))}" for name, value in zip(names, listed[1::2], strict=True)]
    return f"{{{','.join(fields)}}}".encode()


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _clean_map(record: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what JSON can say of a map: names are texts, numbers finite, bytes and types of their own text."""
    clean: dict[str, Any] = {}
    for name, value in record.items():
        text = name if type(name) is str else _name(name)
        while text in clean:
            text += "_"
        clean[text] = value if type(value) in _SIMPLE else _clean(value)
    return clean


def _clean(value: Any) -> Any:
    read = _CLEANED.get(type(value))
    return value if read is None else read(value)


def _clean_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _clean_list(values: Iterable[Any]) -> list[Any]:
    return [_clean(value) for value in values]


def _clean_bytes(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _clean_ext(value: ExtType) -> str:
    return _shown_ext(value.code, value.data)


def _clean_timestamp(value: Timestamp) -> str:
    try:
        return stamp_of(value.to_datetime())
    except (OverflowError, ValueError):
        return f"{value.seconds}.{value.nanoseconds:09d}"


_CLEANED: Final[Mapping[type, Callable[[Any], Any]]] = {
    float: _clean_number,
    dict: _clean_map,
    list: _clean_list,
    tuple: _clean_list,
    bytes: _clean_bytes,
    ExtType: _clean_ext,
    Timestamp: _clean_timestamp,
}
"""How what JSON has no word for is said; of what is not listed, JSON has one."""


def _shown_ext(kind: int, content: bytes) -> str:
    return f"ext {kind}: {content.hex()}"


def _name(name: object) -> str:
    clean = _clean(name)
    return clean if isinstance(clean, str) else _json(clean)
