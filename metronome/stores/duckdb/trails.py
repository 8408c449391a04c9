"""Trails as SQL, and out of its rows: pure functions."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from metronome.errors import Unaskable
from metronome.event import is_plain
from metronome.stores.duckdb.filters import condition, text_of
from metronome.stores.duckdb.questions import Statement
from metronome.trails import Step, Trail, Trails


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
