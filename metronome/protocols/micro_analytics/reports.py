"""Hits: when a path was viewed, as true-micro-analytics tells it.

All views of an item whose id is a path count, whichever protocol they came by, and those of bots too.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Filter, Prefix, Query, SortKey

MAX_VIEWS: Final = 100_000
"""So many views are listed at the most: the newest."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_VIEW_FILTER: Final = Equals("event", "view")


@dataclass(frozen=True, slots=True)
class PathView:
    """One view.

    Attributes:
        path: of what.
        ts: when, in milliseconds since 1970.

    """

    path: str
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class PathViews:
    """Views, oldest first.

    Attributes:
        views: the newest that there are.
        left_out: how many older ones there are besides.

    """

    views: tuple[PathView, ...]
    omitted: int = 0

    def timestamps_by_path(self) -> dict[str, list[int]]:
        """Return the times of each path's views."""
        paths: dict[str, list[int]] = {}
        for view in self.views:
            paths.setdefault(view.path, []).append(view.timestamp_ms)
        return paths


async def count_views(store: Store, path: str) -> int:
    """Return how often a path was viewed."""
    (answer,) = await store.query(Query(where=_views_filter(path)))
    return sum(int(number or 0) for (number,) in answer.rows)


async def list_views(store: Store, path: str | None, limit: int = MAX_VIEWS) -> PathViews:
    """Return the views of a path, or of all paths.

    Args:
        store: is asked.
        path: or None for all items whose id begins with a slash.
        limit: how many views at the most.

    """
    where = _views_filter(path)
    # The newest are the last of what a store yields: the days say where these begin.
    (days,) = await store.query(Query(group_by=("day",), where=where, sort_keys=(SortKey("day", descending=True),)))
    start, total = None, 0
    for day, number in days.to_dict().items():
        if total < limit:
            start = datetime.fromisoformat(day).replace(tzinfo=UTC)
        total += int(number or 0)
    if start is None:
        return PathViews(())
    found: deque[PathView] = deque(maxlen=limit)
    async for line in store.iterate_documents(where, start):
        found.append(_parse_view(line))
    return PathViews(tuple(found), max(0, total - len(found)))


def _views_filter(path: str | None) -> Filter:
    return AllOf((_VIEW_FILTER, Prefix("id", "/") if path is None else Equals("id", path)))


def _parse_view(line: bytes) -> PathView:
    document = orjson.loads(line)
    moment = datetime.fromisoformat(document["@timestamp"])
    return PathView(document["id"], (moment - _EPOCH) // _MILLISECOND)
