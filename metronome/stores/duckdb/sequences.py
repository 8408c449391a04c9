"""Event sequences, newest values and newest documents as SQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import duckdb

from metronome.stores.duckdb.segments import Snapshot
from metronome.stores.duckdb.sources import EventColumns, EventSource
from metronome.stores.duckdb.sql import SqlStatement, fetch_rows, where_condition
from metronome.stores.query import Filter
from metronome.stores.sequences import SequenceQuery, require_top_level_field

_SEARCH_WINDOWS: Final = tuple(timedelta(days=days) for days in (1, 4, 16, 64, 256))
FULL_SCAN_MAX_EVENTS: Final = 200_000
"""Up to this many events, a full scan is faster than windows."""


def compile_sequence_query(sequence_query: SequenceQuery, source: EventSource) -> SqlStatement:
    """Return the SQL whose rows are the events of sequences, in order: key, milliseconds since 1970, values."""
    statement, columns = SqlStatement(), EventColumns()
    start, end = sequence_query.start, sequence_query.end
    condition = where_condition(sequence_query.where, start, end, columns, statement.parameters)
    names = [f"value{index}" for index in range(len(sequence_query.fields))]
    fields = [f"{columns.text(field)} AS {name}" for field, name in zip(sequence_query.fields, names, strict=True)]
    key = columns.text(sequence_query.key_field)
    order = ", ".join(["ms", *(f"{name} NULLS FIRST" for name in names)])
    limit = ""
    if sequence_query.max_events is not None:
        limit = f"QUALIFY row_number() OVER (PARTITION BY key ORDER BY {order}) <= {sequence_query.max_events:d}"
    statement.sql = (
        f"SELECT * FROM (SELECT {key} AS key, epoch_ms(ts) AS ms, {', '.join(fields)} "
        f"FROM {columns.relation(source, start, end)} WHERE {condition}) "
        f"WHERE key IS NOT NULL {limit} ORDER BY key, {order}"
    )
    return statement


def find_newest_documents(
    cursor: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    limit: int,
    where: Filter | None,
    start: datetime | None,
    end: datetime | None,
) -> tuple[bytes, ...]:
    """Return the documents of the newest events, newest first (see `Store.newest_documents`).

    The times are searched first, since reading documents takes much longer, and only in the newest days if these have
    enough events.

    Args:
        cursor: the connection.
        snapshot: the events.
        limit: as in `Store.newest_documents`.
        where: as in `Store.newest_documents`.
        start: as in `Store.newest_documents`.
        end: as in `Store.newest_documents`.

    """
    first = start
    for window_start in (*_window_starts(cursor, snapshot, start, end, FULL_SCAN_MAX_EVENTS), start):
        statement = _compile_newest(snapshot, "ts", limit, where, window_start, end)
        times = fetch_rows(cursor.execute(statement.sql, statement.parameters))
        if times and (len(times) >= limit or window_start == start):
            first = times[-1][0].replace(tzinfo=UTC)
            break
    statement = _compile_newest(snapshot, "doc", limit, where, first, end)
    rows = fetch_rows(cursor.execute(statement.sql, statement.parameters))
    return tuple(document.encode() for (document,) in rows)


def _compile_newest(
    source: EventSource, column: str, limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> SqlStatement:
    statement, columns = SqlStatement(), EventColumns()
    condition = where_condition(where, start, end, columns, statement.parameters)
    relation = columns.relation(source, start, end, with_document=column == "doc")
    statement.sql = f"SELECT {column} FROM {relation} WHERE {condition} ORDER BY ts DESC LIMIT {limit:d}"
    return statement


def find_newest_values(  # noqa: PLR0913, PLR0917  # the method's, and what it reads
    cursor: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    field: str,
    limit: int,
    where: Filter | None,
    start: datetime | None,
    end: datetime | None,
    full_scan_max_events: int = FULL_SCAN_MAX_EVENTS,
) -> tuple[str, ...]:
    """Return the values of a field that have the newest events (see `Store.newest_values`).

    If the newest days have enough values, the result is correct: all other values are older. So older days are only
    read if they do not.

    Args:
        cursor: the connection.
        snapshot: the events.
        field: as in `Store.newest_values`.
        limit: as in `Store.newest_values`.
        where: as in `Store.newest_values`.
        start: as in `Store.newest_values`.
        end: as in `Store.newest_values`.
        full_scan_max_events: see `FULL_SCAN_MAX_EVENTS`.

    """
    rows: list[tuple[str]] = []
    for window_start in (*_window_starts(cursor, snapshot, start, end, full_scan_max_events), start):
        statement = compile_newest_values(snapshot, field, limit, where, window_start, end)
        rows = fetch_rows(cursor.execute(statement.sql, statement.parameters))
        if len(rows) >= limit:
            break
    return tuple(value for (value,) in rows)


def compile_newest_values(
    source: EventSource, field: str, limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> SqlStatement:
    """Return the SQL for the values of a field that have the newest events."""
    statement, columns = SqlStatement(), EventColumns()
    condition = where_condition(where, start, end, columns, statement.parameters)
    text = columns.text(require_top_level_field(field))
    statement.sql = (
        f"SELECT field FROM (SELECT {text} AS field, max(ts) AS last "
        f"FROM {columns.relation(source, start, end)} WHERE {condition} "
        f"GROUP BY 1) WHERE field IS NOT NULL ORDER BY last DESC, field DESC LIMIT {limit:d}"
    )
    return statement


def _window_starts(
    cursor: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    start: datetime | None,
    end: datetime | None,
    full_scan_max_events: int,
) -> Iterator[datetime]:
    """Yield the times from which to search, newest first, where that skips most of the events."""
    count, oldest, newest = measure_events(cursor, snapshot)
    if count <= full_scan_max_events or oldest is None or newest is None:
        return
    first = oldest if start is None else max(start, oldest)
    last = newest if end is None else min(end, newest)
    for window in _SEARCH_WINDOWS:
        if 4 * window < last - first:
            yield last - window


def measure_events(
    cursor: duckdb.DuckDBPyConnection, snapshot: Snapshot
) -> tuple[int, datetime | None, datetime | None]:
    """Return the number of events, and the times of the oldest and the newest one, without reading segments."""
    measured = [(segment.live_rows, segment.first, segment.last) for segment in snapshot.segments]
    for part in snapshot.tables:
        measured += cursor.execute(f"SELECT count(*), min(ts), max(ts) FROM {part.relation}").fetchall()
    measured = [entry for entry in measured if entry[0]]
    if not measured:
        return 0, None, None
    counts, firsts, lasts = zip(*measured, strict=True)
    return sum(counts), min(firsts).replace(tzinfo=UTC), max(lasts).replace(tzinfo=UTC)
