"""The newest values of a field, found where new events are.

Trails as SQL, and out of its rows: pure functions.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import duckdb

from metronome.errors import InvalidQuery
from metronome.fields import is_top_level_name
from metronome.stores.duckdb.sql import SqlStatement, countable_text, where_condition
from metronome.stores.query import Filter
from metronome.stores.sequences import EventSequence, SequenceEvent, SequenceQuery


def compile_sequence_query(sequence_query: SequenceQuery) -> SqlStatement:
    """Write trails as SQL whose rows are single steps, those of a trail one after the other."""
    statement = SqlStatement()
    narrow = where_condition(sequence_query.where, sequence_query.start, sequence_query.end, statement.parameters)
    names = [f"f{at}" for at in range(len(sequence_query.fields))]
    fields = [
        f"{countable_text(require_top_level_field(field))} AS {name}"
        for field, name in zip(sequence_query.fields, names, strict=True)
    ]
    order = ", ".join(["ms", *(f"{name} NULLS FIRST" for name in names)])
    cut = ""
    if sequence_query.max_events is not None:
        cut = f"QUALIFY row_number() OVER (PARTITION BY key ORDER BY {order}) <= {sequence_query.max_events:d}"
    statement.sql = (
        f"SELECT * FROM (SELECT {countable_text(require_top_level_field(sequence_query.key_field))} AS key, "
        f"epoch_ms(ts) AS ms, {', '.join(fields)} "
        f"FROM events WHERE {narrow}) WHERE key IS NOT NULL {cut} ORDER BY key, {order}"
    )
    return statement


class RowSequenceBuilder:
    """Trails made of rows that come in pieces."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._events: list[SequenceEvent] = []

    def add(self, rows: list[tuple[Any, ...]]) -> Iterator[EventSequence]:
        """Yield the trails that are complete with these rows; without rows, the last one."""
        for key, members in groupby(rows, itemgetter(0)):
            if key != self._key:
                yield from self._flush()
                self._key = key
            self._events.extend(SequenceEvent(at, texts) for _, at, *rest in members for texts in (tuple(rest),))
        if not rows:
            yield from self._flush()

    def _flush(self) -> Iterator[EventSequence]:
        if self._key is not None:
            yield EventSequence(self._key, tuple(self._events))
        self._key, self._events = None, []


def require_top_level_field(name: str) -> str:
    """Return a name that trails can be told of.

    Raises:
        InvalidQuery: it is none.

    """
    if not is_top_level_name(name):
        raise InvalidQuery(f"{name[:60]!r} does not stand at the top level of documents: trails are told of what does")
    return name


_SEARCH_WINDOWS: Final = tuple(timedelta(days=days) for days in (1, 4, 16, 64, 256))
FULL_SCAN_MAX_EVENTS: Final = 200_000
"""So few are sooner looked through at once."""


def find_newest_values(
    cursor: duckdb.DuckDBPyConnection,
    field: str,
    limit: int,
    where: Filter | None,
    start: datetime | None,
    end: datetime | None,
    full_scan_max_events: int = FULL_SCAN_MAX_EVENTS,
) -> tuple[str, ...]:
    """Return which values of a field have the newest events (see `Store.newest`).

    What the newest days alone answer is right if it is as much as is asked for: values that have no event
    in them are older. So the rest is read only where these days do not give enough.

    Args:
        cursor: the connection.
        field: see `Store.newest`, as for those that follow.
        limit: how many values at most.
        where: which events count.
        start: events from then on.
        end: events before then.
        full_scan_max_events: see `FULL_SCAN_MAX_EVENTS`.

    """
    found: list[tuple[str]] = []
    for since in (*_window_starts(cursor, start, end, full_scan_max_events), start):
        statement = compile_newest_values(field, limit, where, since, end)
        found = cursor.execute(statement.sql, statement.parameters).fetchall()
        if len(found) >= limit:
            break
    return tuple(value for (value,) in found)


def compile_newest_values(
    field: str, limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> SqlStatement:
    """Write which values of a field have the newest events."""
    statement = SqlStatement()
    narrow = where_condition(where, start, end, statement.parameters)
    statement.sql = (
        f"SELECT field FROM (SELECT {countable_text(require_top_level_field(field))} AS field, max(ts) AS last "
        f"FROM events WHERE {narrow} "
        f"GROUP BY 1) WHERE field IS NOT NULL ORDER BY last DESC, field DESC LIMIT {limit:d}"
    )
    return statement


def _window_starts(
    cursor: duckdb.DuckDBPyConnection, start: datetime | None, end: datetime | None, full_scan_max_events: int
) -> Iterator[datetime]:
    """Yield the times from which to look, later ones first, as far as that spares much of what there is."""
    number, oldest, latest = cursor.execute("SELECT count(*), min(ts), max(ts) FROM events").fetchall()[0]
    if number <= full_scan_max_events:
        return
    oldest, latest = oldest.replace(tzinfo=UTC), latest.replace(tzinfo=UTC)
    first = oldest if start is None else max(start, oldest)
    last = latest if end is None else min(end, latest)
    for window in _SEARCH_WINDOWS:
        if 4 * window < last - first:
            yield last - window
