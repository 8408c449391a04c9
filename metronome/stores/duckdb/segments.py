"""Segments: immutable Parquet files with the events of one UTC month, sorted by item and time.

A segment belongs to the store once a transaction of ``metronome.duckdb`` has recorded it in the table ``segments``.
Files that no transaction has recorded are deleted at the next start. Known fields and the frequent other fields are
columns, numbers as numbers; ``doc`` is the whole document, unchanged. Events that are deleted or replaced are listed in
the table ``dropped`` until the segment is rewritten without them.
"""

import contextlib
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson
from rbloom import Bloom

from metronome.fields import COLUMN_FIELDS, FIELDS_BY_NAME, NUMERIC_FIELDS, RESERVED_FIELDS
from metronome.files import fsync_path
from metronome.stores.duckdb.rollup import item_hash_sql
from metronome.stores.duckdb.sources import (
    EMPTY,
    EVENT_ID,
    LENGTH_LIMITED_FIELDS,
    NUMBER,
    PARAMS_PREFIX,
    TEXT,
    WHOLE_NUMBER,
    EventColumns,
    EventSource,
    Part,
    json_pointer,
    limit_text,
    quote_literal,
    quote_name,
)

FOLDER_NAME: Final = "segments"
FILTER_MIN_ROWS: Final = 250_000
"""Of a smaller segment, all identities are read: that costs less than testing each identity of a batch."""

_FALSE_POSITIVE_RATE: Final = 1e-6
"""A false positive costs a read of all identities, so there should be none in most batches."""
_FILTER_CACHE_BYTES: Final = 128 * 2**20
_FETCH_ROWS: Final = 10_000
_PAGES: Final = f"ROW_GROUP_SIZE {30 * 2048}, DATA_PAGE_SIZE_LIMIT {2 * 2**20}, WRITE_PAGE_INDEX true"
"""Readers of a few documents then skip most others: 15 ms instead of 106 ms for those of one item of 460,000 events."""
_FAST_LEVEL: Final = 3
_SMALL_LEVEL: Final = 6
"""Of merged segments: a tenth smaller than by the fast level, for 3 µs more an event."""
_SAMPLE_DOCUMENTS: Final = 1000
_SAMPLE_BLOCKS: Final = 10
_FREQUENT_SHARE: Final = 0.05
_MAX_EXTRA_COLUMNS: Final = 32
_MAX_COLUMNS: Final = len(COLUMN_FIELDS) + 2 * _MAX_EXTRA_COLUMNS
_LONG_VALUE_CHARACTERS: Final = 16
_EXTRA_COLUMN_PATTERN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,99}")
_FIXED_COLUMNS: Final = ("ts", "doc", "part", "seq", "month", "json", EVENT_ID, *COLUMN_FIELDS)
_TAKEN_NAMES: Final = frozenset(name.lower() for name in _FIXED_COLUMNS)
_NOT_COLUMNS: Final = RESERVED_FIELDS | {EVENT_ID, "enrich_version", "enrich_kept", "message"}

CREATE_TABLES: Final = """
CREATE TABLE IF NOT EXISTS segments(
    id BIGINT, month DATE, row_count BIGINT, dropped_count BIGINT, first TIMESTAMP, last TIMESTAMP, written TIMESTAMP,
    columns VARCHAR);
CREATE TABLE IF NOT EXISTS dropped(segment BIGINT, event_id VARCHAR, ts TIMESTAMP);
"""
DROP_GONE: Final = "INSERT INTO dropped SELECT part, event_id, ts FROM gone WHERE part = ?"
COUNT_DROPPED: Final = "UPDATE segments SET dropped_count = dropped_count + ? WHERE id = ?"
_SELECT_SEGMENTS: Final = """
SELECT id, month, row_count, dropped_count, first, last, written, columns FROM segments
"""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment.

    Attributes:
        id: its number; not used again while the server runs.
        month: the first day of its UTC month.
        rows: the number of events in the file.
        dropped: the number of these that were deleted or replaced.
        first: the time of its first event, in UTC.
        last: the time of its last event, in UTC.
        written: when it was written, in UTC.
        columns: the type of each column (see `metronome.stores.duckdb.sources.Part`).

    """

    id: int
    month: date
    rows: int
    dropped: int
    first: datetime
    last: datetime
    written: datetime
    columns: Mapping[str, str]

    @property
    def live_rows(self) -> int:
        """The number of events that are neither deleted nor replaced."""
        return self.rows - self.dropped


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All events at one time: those of tables, and those of segments."""

    tables: tuple[Part, ...]
    segments: tuple[Segment, ...]
    folder: Path

    def parts(
        self, columns: Iterable[str], start: datetime | None, end: datetime | None, *, separate: bool = False
    ) -> list[Part]:
        """Return the tables, and the segments of a time range: those with the same columns as one part."""
        first, last = (
            None if moment is None else moment.astimezone(UTC).replace(tzinfo=None) for moment in (start, end)
        )
        used = tuple(columns)
        groups: dict[object, list[Segment]] = {}
        for segment in self.segments:
            if (first is None or segment.last >= first) and (last is None or segment.first < last):
                types = tuple(segment.columns.get(column) for column in used)
                groups.setdefault(segment.id if separate or segment.dropped else types, []).append(segment)
        return [*self.tables, *(segments_part(self.folder, group) for group in groups.values())]

    def only(self, segments: Iterable[Segment]) -> "Snapshot":
        """Return a snapshot of some of the segments, without tables."""
        return Snapshot((), tuple(segments), self.folder)


def segments_part(folder: Path, segments: Sequence[Segment]) -> Part:
    """Return the part of segments with the same columns, without dropped events."""
    first = segments[0]
    files = ", ".join(quote_literal(str(segment_path(folder, segment))) for segment in segments)
    relation = f"read_parquet([{files}])"
    if first.dropped:
        relation = (
            f"(SELECT * FROM {relation} AS e WHERE NOT EXISTS (SELECT 1 FROM dropped AS d "
            f"WHERE d.segment = {first.id} AND d.event_id = e.event_id AND d.ts = e.ts))"
        )
    return Part(relation, first.columns, has_long_texts=False, number=first.id)


def segment_path(folder: Path, segment: Segment) -> Path:
    """Return the file of a segment."""
    return folder / FOLDER_NAME / f"{segment.month:%Y-%m}" / f"{segment.id:08}.parquet"


def filter_path(folder: Path, segment: Segment) -> Path:
    """Return the file with the filter of a segment's identities, which large segments have."""
    return segment_path(folder, segment).with_suffix(".filter")


def read_segments(cursor: duckdb.DuckDBPyConnection) -> tuple[Segment, ...]:
    """Return the segments that the store has, by month."""
    found = [
        Segment(number, month, rows, dropped, first, last, written, _parse_columns(columns))
        for number, month, rows, dropped, first, last, written, columns in cursor.execute(_SELECT_SEGMENTS).fetchall()
    ]
    # Half as fast in SQL, of so few rows.
    return tuple(sorted(found, key=lambda segment: (segment.month, segment.id)))


@lru_cache(maxsize=1024)
def _parse_columns(text: str) -> dict[str, str]:
    columns: dict[str, str] = orjson.loads(text)
    return columns


def record_segment(cursor: duckdb.DuckDBPyConnection, segment: Segment) -> None:
    """Add a segment to the store, in the transaction of the caller."""
    cursor.execute(
        "INSERT INTO segments VALUES (?, ?, ?, 0, ?, ?, ?, ?)",
        [
            segment.id,
            segment.month,
            segment.rows,
            segment.first,
            segment.last,
            segment.written,
            orjson.dumps(dict(segment.columns)).decode(),
        ],
    )


def forget_segments(cursor: duckdb.DuckDBPyConnection, segments: Iterable[Segment]) -> None:
    """Remove segments from the store, in the transaction of the caller."""
    ids = [segment.id for segment in segments]
    cursor.execute("DELETE FROM segments WHERE id IN (SELECT unnest(?::BIGINT[]))", [ids])
    cursor.execute("DELETE FROM dropped WHERE segment IN (SELECT unnest(?::BIGINT[]))", [ids])


def sample_extra_columns(documents: Sequence[bytes]) -> dict[str, str]:
    """Return the columns of frequent fields without a fixed column, most frequent first, and the likely types.

    Unknown fields with long texts that differ in most documents get no column: nothing is grouped by them.

    Args:
        documents: a sample of the documents.

    """
    values: dict[str, list[str]] = {}
    for document in documents:
        for name, value in _iterate_fields(document):
            values.setdefault(name, []).append(value if isinstance(value, str) else orjson.dumps(value).decode())
    frequency = Counter({name: len(texts) for name, texts in values.items()})
    columns: dict[str, str] = {}
    taken = set(_TAKEN_NAMES)
    for name, count in frequency.most_common():
        if count < len(documents) * _FREQUENT_SHARE or len(columns) == _MAX_EXTRA_COLUMNS:
            break
        is_useful = name in FIELDS_BY_NAME or not _is_free_text(values[name])
        if is_useful and name.lower() not in taken and _EXTRA_COLUMN_PATTERN.fullmatch(name):
            taken.add(name.lower())
            columns[name] = _guess_type(values[name])
    return columns


def sample_lines(body: bytes) -> list[bytes]:
    """Return some of the lines of a batch, from all over it."""
    sample: list[bytes] = []
    for block in range(_SAMPLE_BLOCKS):
        at = len(body) * block // _SAMPLE_BLOCKS
        start = 0 if at == 0 else body.find(b"\n", at) + 1
        end = body.find(b"\n", min(len(body), start + len(body) // _SAMPLE_BLOCKS))
        sample += body[start:end].split(b"\n")[: _SAMPLE_DOCUMENTS // _SAMPLE_BLOCKS]
    return [line for line in sample if line]


def _iterate_fields(document: bytes) -> Iterator[tuple[str, Any]]:
    try:
        fields = orjson.loads(document)
    except orjson.JSONDecodeError:
        return
    if not isinstance(fields, dict):
        return
    params = fields.get("params")
    for name, value in fields.items():
        if value is not None and name not in _NOT_COLUMNS:
            yield name, value
    for name, value in params.items() if isinstance(params, dict) else ():
        yield PARAMS_PREFIX + name, value


def _is_free_text(texts: list[str]) -> bool:
    return len(set(texts)) * 2 > len(texts) > 1 and sum(map(len, texts)) > _LONG_VALUE_CHARACTERS * len(texts)


def _guess_type(texts: list[str]) -> str:
    if all(re.fullmatch(r"-?\d{1,18}", text) for text in texts):
        return WHOLE_NUMBER
    return NUMBER if all(re.fullmatch(r"-?\d+\.\d+", text) for text in texts) else TEXT


class SegmentWriter:
    """Writes segments into files. A file is complete and synced when a method returns.

    Args:
        folder: the data folder.
        next_id: the first number that no segment had.
        filter_min_rows: see `FILTER_MIN_ROWS`.

    """

    def __init__(self, folder: Path, next_id: int, filter_min_rows: int = FILTER_MIN_ROWS) -> None:
        self._folder = folder
        self._next_id = next_id
        self._id_lock = threading.Lock()
        self._filter_min_rows = filter_min_rows

    def write_events(
        self,
        cursor: duckdb.DuckDBPyConnection,
        relation: str,
        month: date,
        likely_types: Mapping[str, str],
        now: datetime,
    ) -> Segment:
        """Write the events of a table into a segment.

        Args:
            cursor: the connection.
            relation: the SQL relation of the events, with ``event_id``, ``ts``, ``doc`` and the texts of all columns.
            month: their month.
            likely_types: the columns, and what they may be if all values allow it.
            now: the time, in UTC.

        """
        checks = ["count(*)", "min(ts)", "max(ts)"]
        for name, likely_type in likely_types.items():
            column = quote_name(name)
            checks.append(f"count({column})")
            checks += (
                [_all_are(column, kind) for kind in (WHOLE_NUMBER, NUMBER)] if likely_type != TEXT else ["false"] * 2
            )
        rows, first, last, *results = cursor.execute(f"SELECT {', '.join(checks)} FROM {relation}").fetchall()[0]
        types = {
            name: EMPTY if not count else WHOLE_NUMBER if whole else NUMBER if numbers else TEXT
            for name, count, whole, numbers in zip(
                likely_types, results[::3], results[1::3], results[2::3], strict=True
            )
        }
        selection = [
            f"{_limited(name) if kind == TEXT else f'{quote_name(name)}::{kind}'} AS {quote_name(name)}"
            for name, kind in types.items()
            if kind != EMPTY
        ]
        segment = Segment(self._take_id(), month, rows, 0, first, last, now, {EVENT_ID: TEXT, **types})
        self._write(
            cursor, segment, f"SELECT event_id, ts, {', '.join([*selection, 'doc'])} FROM {relation}", _FAST_LEVEL
        )
        return segment

    def merge(self, cursor: duckdb.DuckDBPyConnection, segments: Sequence[Segment], now: datetime) -> Segment:
        """Write one segment with the events of several of the same month, without those that were dropped.

        Args:
            cursor: the connection.
            segments: at least one.
            now: the time, in UTC.

        """
        types = _merge_types(segments)
        selections = []
        for part in Snapshot((), tuple(segments), self._folder).parts(types, None, None):
            fields = [
                f"{_as_type(part, name, kind)} AS {quote_name(name)}" for name, kind in types.items() if kind != EMPTY
            ]
            selections.append(f"SELECT ts, {', '.join([*fields, 'doc'])} FROM {part.relation}")
        rows = sum(segment.live_rows for segment in segments)
        first, last = min(segment.first for segment in segments), max(segment.last for segment in segments)
        merged = Segment(self._take_id(), segments[0].month, rows, 0, first, last, now, types)
        self._write(cursor, merged, " UNION ALL ".join(selections), _SMALL_LEVEL)
        return merged

    def _take_id(self) -> int:
        with self._id_lock:
            self._next_id += 1
            return self._next_id - 1

    def _write(self, cursor: duckdb.DuckDBPyConnection, segment: Segment, select: str, level: int) -> None:
        path = segment_path(self._folder, segment)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            order = "ts" if segment.columns.get("id", EMPTY) == EMPTY else "id, ts"
            (written,) = cursor.execute(
                f"COPY (SELECT * FROM ({select}) ORDER BY {order}) TO {quote_literal(str(path))} "
                f"(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL {level:d}, {_PAGES})"
            ).fetchall()[0]
            if written != segment.rows:
                raise duckdb.InternalException(f"{path}: expected {segment.rows} events, but wrote {written}")
            if segment.rows >= self._filter_min_rows:
                self._write_filter(cursor, segment)
        except BaseException:
            delete_files(self._folder, [segment])
            raise
        for changed in (path, filter_path(self._folder, segment), path.parent, path.parent.parent, self._folder):
            if changed.exists():
                fsync_path(changed)

    def _write_filter(self, cursor: duckdb.DuckDBPyConnection, segment: Segment) -> None:
        identities = Bloom(segment.rows, _FALSE_POSITIVE_RATE, hash_func=int)
        path = quote_literal(str(segment_path(self._folder, segment)))
        result = cursor.execute(f"SELECT {item_hash_sql(EVENT_ID)} FROM read_parquet({path})")
        while rows := result.fetchmany(_FETCH_ROWS):
            identities.update([row[0] for row in rows])
        identities.save(str(filter_path(self._folder, segment)))


def _all_are(column: str, kind: str) -> str:
    """Return the SQL that checks whether all texts of a column are exactly those of its values of a type."""
    return f"bool_and({column} IS NULL OR coalesce(try_cast({column} AS {kind})::VARCHAR = {column}, false))"


def _limited(name: str) -> str:
    column = quote_name(name)
    return column if name in LENGTH_LIMITED_FIELDS or name.startswith(PARAMS_PREFIX) else limit_text(column)


def likely_type(name: str) -> str:
    """Return what the values of a known field's column may be if all allow it."""
    return WHOLE_NUMBER if name in NUMERIC_FIELDS else TEXT


def _merge_types(segments: Sequence[Segment]) -> dict[str, str]:
    """Return the columns of merged segments: those that at least a quarter of the events have a column for."""
    rows = sum(segment.rows for segment in segments)
    counts: Counter[str] = Counter()
    for segment in segments:
        counts.update(dict.fromkeys(segment.columns, segment.rows))
    names: dict[str, None] = {}
    taken: set[str] = set()
    for name, count in counts.items():
        is_fixed = name in COLUMN_FIELDS or name == EVENT_ID
        if is_fixed or (count * 4 >= rows and name.lower() not in taken and len(names) < _MAX_COLUMNS):
            names[name] = None
            taken.add(name.lower())
    return {name: _merge_type([segment.columns.get(name, TEXT) for segment in segments]) for name in names}


def _merge_type(types: list[str]) -> str:
    present = {kind for kind in types if kind != EMPTY}
    if not present:
        return EMPTY
    return present.pop() if len(present) == 1 else TEXT


def _as_type(part: Part, name: str, kind: str) -> str:
    present = part.columns.get(name)
    if present is None:
        value = f"json_extract_string(doc, {quote_literal(json_pointer(name))})"
        return value if name.startswith(PARAMS_PREFIX) else limit_text(value)
    return f"NULL::{kind}" if present == EMPTY else f"{quote_name(name)}::{kind}"


def delete_files(folder: Path, segments: Iterable[Segment]) -> None:
    """Delete the files of segments; idempotent."""
    for segment in segments:
        segment_path(folder, segment).unlink(missing_ok=True)
        filter_path(folder, segment).unlink(missing_ok=True)


def link_files(folder: Path, other: Path, segments: Iterable[Segment]) -> None:
    """Make the files of segments appear in another data folder of the same file system, and sync its folders."""
    folders = {other / FOLDER_NAME}
    for segment in segments:
        for path in (segment_path(folder, segment), filter_path(folder, segment)):
            if path.exists():
                link = other / path.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.hardlink_to(path)
                folders.add(link.parent)
    for changed in folders:
        if changed.exists():
            fsync_path(changed)


def delete_unknown_files(folder: Path, segments: Iterable[Segment]) -> int:
    """Delete the files that no transaction has recorded, which a crash may leave, and return their number."""
    known = {path for segment in segments for path in (segment_path(folder, segment), filter_path(folder, segment))}
    unknown = [path for path in (folder / FOLDER_NAME).glob("*/*") if path not in known]
    for path in unknown:
        path.unlink()
    return len(unknown)


class FileKeeper:
    """Deletes the files of segments that were replaced, once no query that may read them runs.

    Args:
        folder: the data folder.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._readers: set[object] = set()
        self._removed: list[tuple[set[object], list[Segment]]] = []

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep all files that exist now until the end of the block."""
        reader = object()
        with self._lock:
            self._readers.add(reader)
        try:
            yield
        finally:
            with self._lock:
                self._readers.discard(reader)
                for readers, _ in self._removed:
                    readers.discard(reader)
            self._sweep()

    def remove(self, segments: Iterable[Segment]) -> None:
        """Delete the files of segments that the store no longer has, now or later."""
        with self._lock:
            self._removed.append((set(self._readers), list(segments)))
        self._sweep()

    def _sweep(self) -> None:
        with self._lock:
            ready = [segments for readers, segments in self._removed if not readers]
            self._removed = [entry for entry in self._removed if entry[0]]
        for segments in ready:
            delete_files(self._folder, segments)


class Filters:
    """The filters of large segments, of which the last used are in memory.

    Args:
        folder: the data folder.
        min_rows: see `FILTER_MIN_ROWS`.

    """

    def __init__(self, folder: Path, min_rows: int = FILTER_MIN_ROWS) -> None:
        self._folder = folder
        self._min_rows = min_rows
        self._loaded: OrderedDict[int, Bloom] = OrderedDict()

    def has_filter(self, segment: Segment) -> bool:
        """Return whether a segment is so large that it has a filter."""
        return segment.rows >= self._min_rows and filter_path(self._folder, segment).exists()

    def find_possible(self, segment: Segment, hashes: Iterable[int]) -> list[int]:
        """Return those hashes of identities that a segment may have: all that it has, and very few others."""
        try:
            identities = self._load(segment)
        except (OSError, ValueError, EOFError):
            # Without a filter, any may be there: the segment itself is read.
            filter_path(self._folder, segment).unlink(missing_ok=True)
            return list(hashes)
        return [number for number in hashes if number in identities]

    def _load(self, segment: Segment) -> Bloom:
        identities = self._loaded.pop(segment.id, None)
        if identities is None:
            identities = Bloom.load(str(filter_path(self._folder, segment)), hash_func=int)
        self._loaded[segment.id] = identities
        while sum(bloom.size_in_bits for bloom in self._loaded.values()) > 8 * _FILTER_CACHE_BYTES:
            if len(self._loaded) == 1:
                break
            self._loaded.popitem(last=False)
        return identities


def events_relation(source: EventSource, names: Iterable[str]) -> str:
    """Return the SQL relation of events as `SegmentWriter.write_events` needs it.

    Args:
        source: has the events.
        names: the columns to read as texts.

    """
    columns = EventColumns()
    aliases = {name: columns.raw_column(name) for name in (EVENT_ID, *names)}
    selection = ", ".join(f"{alias} AS {quote_name(name)}" for name, alias in aliases.items())
    return f"(SELECT ts, doc, {selection} FROM {columns.relation(source, with_document=True)})"
