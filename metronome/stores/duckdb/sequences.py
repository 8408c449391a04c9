"""Event sequences, newest values and newest documents as SQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import duckdb

from metronome.stores.duckdb.sql import SqlStatement, countable_text, where_condition
from metronome.stores.query import Filter
from metronome.stores.sequences import SequenceQuery, require_top_level_field

_SEARCH_WINDOWS: Final = tuple(timedelta(days=days) for days in (1, 4, 16, 64, 256))
FULL_SCAN_MAX_EVENTS: Final = 200_000
"""Up to this many events, a full scan is faster than windows."""


def compile_sequence_query(sequence_query: SequenceQuery) -> SqlStatement:
    """Return the SQL whose rows are the events of sequences, in order: key, milliseconds since 1970, values."""
    statement = SqlStatement()
    condition = where_condition(sequence_query.where, sequence_query.start, sequence_query.end, statement.parameters)
    names = [f"f{index}" for index in range(len(sequence_query.fields))]
    fields = [f"{countable_text(field)} AS {name}" for field, name in zip(sequence_query.fields, names, strict=True)]
    order = ", ".join(["ms", *(f"{name} NULLS FIRST" for name in names)])
    limit = ""
    if sequence_query.max_events is not None:
        limit = f"QUALIFY row_number() OVER (PARTITION BY key ORDER BY {order}) <= {sequence_query.max_events:d}"
    statement.sql = (
        f"SELECT * FROM (SELECT {countable_text(sequence_query.key_field)} AS key, "
        f"epoch_ms(ts) AS ms, {', '.join(fields)} "
        f"FROM events WHERE {condition}) WHERE key IS NOT NULL {limit} ORDER BY key, {order}"
    )
    return statement


def compile_newest_documents(
    limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> SqlStatement:
    """Return the SQL for the documents of the newest events, newest first."""
    statement = SqlStatement()
    condition = where_condition(where, start, end, statement.parameters)
    statement.sql = (
        "SELECT doc FROM events WHERE rowid IN "
        f"(SELECT rowid FROM events WHERE {condition} ORDER BY ts DESC, rowid DESC LIMIT {limit:d}) "
        "ORDER BY ts DESC, rowid DESC"
    )
    return statement


def find_newest_values(
    cursor: duckdb.DuckDBPyConnection,
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
        field: as in `Store.newest_values`.
        limit: as in `Store.newest_values`.
        where: as in `Store.newest_values`.
        start: as in `Store.newest_values`.
        end: as in `Store.newest_values`.
        full_scan_max_events: see `FULL_SCAN_MAX_EVENTS`.

    """
    rows: list[tuple[str]] = []
    for window_start in (*_window_starts(cursor, start, end, full_scan_max_events), start):
        statement = compile_newest_values(field, limit, where, window_start, end)
        rows = cursor.execute(statement.sql, statement.parameters).fetchall()
        if len(rows) >= limit:
            break
    return tuple(value for (value,) in rows)


def compile_newest_values(
    field: str, limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> SqlStatement:
    """Return the SQL for the values of a field that have the newest events."""
    statement = SqlStatement()
    condition = where_condition(where, start, end, statement.parameters)
    statement.sql = (
        f"SELECT field FROM (SELECT {countable_text(require_top_level_field(field))} AS field, max(ts) AS last "
        f"FROM events WHERE {condition} "
        f"GROUP BY 1) WHERE field IS NOT NULL ORDER BY last DESC, field DESC LIMIT {limit:d}"
    )
    return statement


def _window_starts(
    cursor: duckdb.DuckDBPyConnection, start: datetime | None, end: datetime | None, full_scan_max_events: int
) -> Iterator[datetime]:
    """Yield the times from which to search, newest first, where that skips most of the events."""
    count, oldest, newest = cursor.execute("SELECT count(*), min(ts), max(ts) FROM events").fetchall()[0]
    if count <= full_scan_max_events:
        return
    oldest, newest = oldest.replace(tzinfo=UTC), newest.replace(tzinfo=UTC)
    first = oldest if start is None else max(start, oldest)
    last = newest if end is None else min(end, newest)
    for window in _SEARCH_WINDOWS:
        if 4 * window < last - first:
            yield last - window
