"""The newest values of a field, found where new events are.

Trails as SQL, and out of its rows: pure functions.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import duckdb

from metronome.errors import Unaskable
from metronome.event import is_plain
from metronome.stores.duckdb.sql import Statement, condition, text_of
from metronome.stores.query import Filter
from metronome.stores.sequences import Step, Trail, Trails


def select_trails(asked: Trails) -> Statement:
    """Write trails as SQL whose rows are single steps, those of a trail one after the other."""
    statement = Statement()
    narrow = condition(asked.where, asked.start, asked.end, statement.values)
    names = [f"f{at}" for at in range(len(asked.fields))]
    fields = [f"{text_of(plain(field))} AS {name}" for field, name in zip(asked.fields, names, strict=True)]
    order = ", ".join(["ms", *(f"{name} NULLS FIRST" for name in names)])
    cut = ""
    if asked.most_steps is not None:
        cut = f"QUALIFY row_number() OVER (PARTITION BY key ORDER BY {order}) <= {asked.most_steps:d}"
    statement.sql = (
        f"SELECT * FROM (SELECT {text_of(plain(asked.key))} AS key, epoch_ms(ts) AS ms, {', '.join(fields)} "
        f"FROM events WHERE {narrow}) WHERE key IS NOT NULL {cut} ORDER BY key, {order}"
    )
    return statement


class Gathering:
    """Trails made of rows that come in pieces."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._steps: list[Step] = []

    def take(self, rows: list[tuple[Any, ...]]) -> Iterator[Trail]:
        """Yield the trails that are complete with these rows; without rows, the last one."""
        for key, members in groupby(rows, itemgetter(0)):
            if key != self._key:
                yield from self._rest()
                self._key = key
            self._steps.extend(Step(at, texts) for _, at, *rest in members for texts in (tuple(rest),))
        if not rows:
            yield from self._rest()

    def _rest(self) -> Iterator[Trail]:
        if self._key is not None:
            yield Trail(self._key, tuple(self._steps))
        self._key, self._steps = None, []


def plain(name: str) -> str:
    """Return a name that trails can be told of.

    Raises:
        Unaskable: it is none.

    """
    if not is_plain(name):
        raise Unaskable(f"{name[:60]!r} does not stand at the top level of documents: trails are told of what does")
    return name


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
