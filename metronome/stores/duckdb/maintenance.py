"""What to do next with tables and segments in the background: pure functions.

A small store has no segments: DuckDB reads a table with less effort than files. Once it has more events, a segment is
written whenever enough events are in the hot table. Segments of about the same size are merged, so that an
event is rewritten a number of times that is logarithmic in their total. Where nothing was written for a while, segments
are also merged if that at least doubles the largest of them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final

from metronome.stores.duckdb.rollup import BASE_LEVEL_ROWS
from metronome.stores.duckdb.segments import FILTER_MIN_ROWS, Segment

_SEALED_SHARE: Final = 10


@dataclass(frozen=True, slots=True)
class StorageLimits:
    """When events move. The defaults were measured; tests use others.

    Attributes:
        table_rows: up to how many events a store without segments keeps all of them in the hot table.
        direct_rows: a batch with at least so many events of one month becomes a segment at once.
        hot_rows: the number of events from which on the hot table of a store with segments is emptied.
        old_rows: how many events of an older version's file are moved at once.
        merged_segments: how many segments of about the same size are merged.
        segment_rows: the maximum number of events of a merged segment.
        filter_rows: from how many events on a segment has a filter.
        rollup_rows: how many rows the lowest level of counts may have.
        quiet_seconds: how long nothing must have been written into a month before its segments are merged further.

    """

    table_rows: int = 1_000_000
    direct_rows: int = 5_000
    hot_rows: int = 250_000
    old_rows: int = 250_000
    merged_segments: int = 16
    segment_rows: int = 4_000_000
    filter_rows: int = FILTER_MIN_ROWS
    rollup_rows: int = BASE_LEVEL_ROWS
    quiet_seconds: float = 60.0

    def max_hot_rows(self, *, has_segments: bool) -> int:
        """Return how many events the hot table may have before it is emptied."""
        return self.hot_rows if has_segments else max(self.hot_rows, self.table_rows)


DEFAULT_LIMITS: Final = StorageLimits()


@dataclass(frozen=True, slots=True)
class MoveOldEvents:
    """Write a segment with the next events of an older version's table."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Write a segment with the events of a month that are in the hot table.

    Attributes:
        month: the first day of the month.
        last_seq: the last batch to include.
        rows: the number of events.

    """

    month: date
    last_seq: int
    rows: int


@dataclass(frozen=True, slots=True)
class Merge:
    """Replace segments of the same month by one, without dropped events."""

    segments: tuple[Segment, ...]


Job = MoveOldEvents | Seal | Merge


def choose_seal(
    hot: Mapping[date, tuple[int, int]], limits: StorageLimits, *, has_segments: bool = True
) -> Seal | None:
    """Return what to seal if the hot table has too many events: its oldest month, so that the newest events stay.

    Reports are mostly about these. A month with less than a tenth of the events waits for more.

    Args:
        hot: the number of events and the last batch of each month in the hot table.
        limits: of the store.
        has_segments: whether the store has any segment.

    """
    total = sum(rows for rows, _ in hot.values())
    if total < limits.max_hot_rows(has_segments=has_segments):
        return None
    large = [month for month, (rows, _) in hot.items() if rows * _SEALED_SHARE >= total]
    month = min(large) if large else max(hot, key=lambda month: hot[month][0])
    rows, last_seq = hot[month]
    return Seal(month, last_seq, rows)


def choose_merge(segments: Iterable[Segment], limits: StorageLimits) -> Merge | None:
    """Return segments of about the same size, if there are enough."""
    for _, month in groupby(segments, attrgetter("month")):
        sizes: dict[int, list[Segment]] = {}
        for segment in month:
            size = int(math.log(max(segment.live_rows, limits.direct_rows), limits.merged_segments))
            sizes.setdefault(size, []).append(segment)
        for candidates in sizes.values():
            if len(candidates) >= limits.merged_segments:
                chosen = _limit_rows(candidates, limits)
                if len(chosen) > 1:
                    return Merge(chosen)
    return None


def choose_quiet_merge(
    segments: Iterable[Segment], limits: StorageLimits, now: datetime
) -> tuple[Merge | None, float | None]:
    """Return segments to merge or to rewrite in a month into which nothing is written.

    Args:
        segments: all, by month.
        limits: of the store.
        now: the time, in UTC.

    Returns:
        What to do now, and after how many seconds there may be more to do; None for never.

    """
    waits: list[float] = []
    for _, of_month in groupby(segments, attrgetter("month")):
        month = sorted(of_month, key=attrgetter("live_rows"))
        merge = _find_doubling(month, limits) or _find_dropped(month)
        if merge is None:
            continue
        wait = (
            max(segment.written for segment in month) + timedelta(seconds=limits.quiet_seconds) - now
        ).total_seconds()
        if wait <= 0:
            return merge, 0.0
        waits.append(wait)
    return None, min(waits, default=None)


def choose_rewrite(segments: Iterable[Segment], *, at_once: bool) -> Merge | None:
    """Return a segment to rewrite without its dropped events.

    Args:
        segments: all.
        at_once: whether to rewrite any that has some, and not only those of which an eighth was dropped.

    """
    for segment in segments:
        if segment.dropped and (at_once or segment.dropped * 8 >= segment.rows):
            return Merge((segment,))
    return None


def _find_dropped(month: Sequence[Segment]) -> Merge | None:
    return next((Merge((segment,)) for segment in month if segment.dropped), None)


def _find_doubling(month: Sequence[Segment], limits: StorageLimits) -> Merge | None:
    """Return the most of the smallest segments of which the largest is no larger than all others together."""
    chosen: tuple[Segment, ...] = ()
    total = 0
    for at, segment in enumerate(month):
        if total + segment.live_rows > limits.segment_rows:
            break
        if at and segment.live_rows <= total:
            chosen = tuple(month[: at + 1])
        total += segment.live_rows
    return Merge(chosen) if chosen else None


def _limit_rows(candidates: Sequence[Segment], limits: StorageLimits) -> tuple[Segment, ...]:
    chosen: list[Segment] = []
    total = 0
    for segment in sorted(candidates, key=attrgetter("live_rows")):
        total += segment.live_rows
        if total > limits.segment_rows:
            break
        chosen.append(segment)
    return tuple(chosen)
