"""Trails, and the newest values of a field, as SQL: pure functions."""

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from metronome.errors import Unaskable
from metronome.event import is_plain
from metronome.question import Filter
from metronome.stores.duckdb.questions import Statement, condition, text_of
from metronome.trails import Step, Trail, Trails


def select_newest(
    field: str, limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> Statement:
    """Write which values of a field have the newest events (see `Store.newest`)."""
    statement = Statement()
    narrow = condition(where, start, end, statement.values)
    statement.sql = (
        f"SELECT field FROM (SELECT {text_of(_plain(field))} AS field, max(ts) AS last FROM events WHERE {narrow} "
        f"GROUP BY 1) WHERE field IS NOT NULL ORDER BY last DESC, field DESC LIMIT {limit:d}"
    )
    return statement


def select_trails(asked: Trails) -> Statement:
    """Write trails as SQL whose rows are single steps, those of a trail one after the other."""
    statement = Statement()
    narrow = condition(asked.where, asked.start, asked.end, statement.values)
    names = [f"f{at}" for at in range(len(asked.fields))]
    fields = [f"{text_of(_plain(field))} AS {name}" for field, name in zip(asked.fields, names, strict=True)]
    order = ", ".join(f"{name} NULLS FIRST" for name in names)
    statement.sql = (
        f"SELECT * FROM (SELECT {text_of(_plain(asked.key))} AS key, epoch_ms(ts) AS ms, {', '.join(fields)} "
        f"FROM events WHERE {narrow}) WHERE key IS NOT NULL ORDER BY key, ms, {order}"
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


def _plain(name: str) -> str:
    if not is_plain(name):
        raise Unaskable(f"{name[:60]!r} does not stand at the top level of documents: trails are told of what does")
    return name
