"""The newest values of a field, found where new events are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import duckdb

from metronome.question import Filter
from metronome.stores.duckdb.filters import condition, text_of
from metronome.stores.duckdb.questions import Statement
from metronome.stores.duckdb.trails import plain

_WINDOWS: Final = tuple(timedelta(days=days) for days in (1, 4, 16, 64, 256))
FEW_EVENTS: Final = 200_000
"""So few are sooner looked through at once."""


def find_newest(
    cursor: duckdb.DuckDBPyConnection,
    field: str,
    limit: int,
    where: Filter | None,
    start: datetime | None,
    end: datetime | None,
    few_events: int = FEW_EVENTS,
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
        few_events: see `FEW_EVENTS`.

    """
    found: list[tuple[str]] = []
    for since in (*_beginnings(cursor, start, end, few_events), start):
        statement = select_newest(field, limit, where, since, end)
        found = cursor.execute(statement.sql, statement.values).fetchall()
        if len(found) >= limit:
            break
    return tuple(value for (value,) in found)


def select_newest(
    field: str, limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> Statement:
    """Write which values of a field have the newest events."""
    statement = Statement()
    narrow = condition(where, start, end, statement.values)
    statement.sql = (
        f"SELECT field FROM (SELECT {text_of(plain(field))} AS field, max(ts) AS last FROM events WHERE {narrow} "
        f"GROUP BY 1) WHERE field IS NOT NULL ORDER BY last DESC, field DESC LIMIT {limit:d}"
    )
    return statement


def _beginnings(
    cursor: duckdb.DuckDBPyConnection, start: datetime | None, end: datetime | None, few_events: int
) -> Iterator[datetime]:
    """Yield the times from which to look, later ones first, as far as that spares much of what there is."""
    number, oldest, latest = cursor.execute("SELECT count(*), min(ts), max(ts) FROM events").fetchall()[0]
    if number <= few_events:
        return
    oldest, latest = oldest.replace(tzinfo=UTC), latest.replace(tzinfo=UTC)
    first = oldest if start is None else max(start, oldest)
    last = latest if end is None else min(end, latest)
    for window in _WINDOWS:
        if 4 * window < last - first:
            yield last - window
