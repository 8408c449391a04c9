"""Hits: when a path was viewed, as true-micro-analytics tells it.

All views of an item whose id is a path count, whichever protocol they came by, and those of bots too.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Filter, Order, Prefix, Question

MAX_VIEWS: Final = 100_000
"""So many views are listed at the most: the newest."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_VIEW: Final = Equals("event", "view")


@dataclass(frozen=True, slots=True)
class View:
    """One view.

    Attributes:
        path: of what.
        ts: when, in milliseconds since 1970.

    """

    path: str
    ts: int


@dataclass(frozen=True, slots=True)
class Views:
    """Views, oldest first.

    Attributes:
        views: the newest that there are.
        left_out: how many older ones there are besides.

    """

    views: tuple[View, ...]
    left_out: int = 0

    def by_path(self) -> dict[str, list[int]]:
        """Return the times of each path's views."""
        paths: dict[str, list[int]] = {}
        for view in self.views:
            paths.setdefault(view.path, []).append(view.ts)
        return paths


async def count(store: Store, path: str) -> int:
    """Return how often a path was viewed."""
    (answer,) = await store.ask(Question(where=_of(path)))
    return sum(int(number or 0) for (number,) in answer.rows)


async def views(store: Store, path: str | None, limit: int = MAX_VIEWS) -> Views:
    """Return the views of a path, or of all paths.

    Args:
        store: is asked.
        path: or None for all items whose id begins with a slash.
        limit: how many views at the most.

    """
    where = _of(path)
    # The newest are the last of what a store yields: the days say where these begin.
    (days,) = await store.ask(Question(by=("day",), where=where, order=(Order("day", descending=True),)))
    start, total = None, 0
    for day, number in days.mapping().items():
        if total < limit:
            start = datetime.fromisoformat(day).replace(tzinfo=UTC)
        total += int(number or 0)
    if start is None:
        return Views(())
    found: deque[View] = deque(maxlen=limit)
    async for line in store.documents(where, start):
        found.append(_view(line))
    return Views(tuple(found), max(0, total - len(found)))


def _of(path: str | None) -> Filter:
    return AllOf((_VIEW, Prefix("id", "/") if path is None else Equals("id", path)))


def _view(line: bytes) -> View:
    document = orjson.loads(line)
    moment = datetime.fromisoformat(document["@timestamp"])
    return View(document["id"], (moment - _EPOCH) // _MILLISECOND)
