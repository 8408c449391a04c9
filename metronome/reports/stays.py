"""Stays: how long people look at an item, worked out of what their sessions tell.

A stay begins with a view of an item. It lasts as long as events about the item follow, whatever they are: heartbeats,
downloads, timings, or further views, so that a reload is no new stay. It ends

* with the next event of the session about another item, whatever that is; or,
* where none follows, or only after over 30 minutes without a sign of life, with the last event about this item. What
  is viewed after such a pause begins a new stay.

Events that are about no item say nothing of stays. A stay whose only sign is the view that it began with is of unknown
length, and left out, so that the last page of a session counts only where heartbeats or the like come from it.

This is the usual reckoning of web analytics: time on a page is the time to the next action, and a visit is over after
30 minutes without one (Matomo's ``visit_standard_length``). Matomo counts a page after which nothing more comes as
0 seconds (its FAQ 21824), where its heartbeat timer is not in use; here that would be taken for a short stay, which it
need not have been.
"""

from collections.abc import Iterable, Iterator
from statistics import quantiles
from typing import Final, NamedTuple

from metronome.trails import Step

PAUSE_MS: Final = 30 * 60 * 1000
"""A longer time without a sign of life ends a stay."""

_FEWEST_TO_CUT: Final = 2
_CUTS: Final = 20
_P50, _P75, _P95 = (percent * _CUTS // 100 - 1 for percent in (50, 75, 95))


class Stay(NamedTuple):
    """A stay of known length.

    Attributes:
        item: at which item.
        ms: how long, in milliseconds; above 0.

    """

    item: str
    ms: int


def stays_of(steps: Iterable[Step]) -> Iterator[Stay]:
    """Yield the stays of one session.

    Args:
        steps: its events, oldest first; each tells its item's id and what happened (``event``).

    """
    item, began, last = None, 0, 0
    for at, (about, event) in steps:
        if about is None:
            continue
        if item is not None:
            is_over = at - last > PAUSE_MS
            if about == item and not is_over:
                last = at
                continue
            ended = last if is_over else at
            if ended > began:
                yield Stay(item, ended - began)
            item = None
        if event == "view":
            item, began, last = about, at, at
    if item is not None and last > began:
        yield Stay(item, last - began)


def percentiles(numbers: list[int]) -> dict[str, float | None]:
    """Return ``p50``, ``p75`` and ``p95`` of numbers, interpolated linearly between the two nearest; None of none.

    It is what DuckDB's ``quantile_cont`` gives: definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical
    Packages", The American Statistician 50 (1996).
    """
    if len(numbers) < _FEWEST_TO_CUT:
        only = float(numbers[0]) if numbers else None
        return {"p50": only, "p75": only, "p95": only}
    cuts = quantiles(numbers, n=_CUTS, method="inclusive")
    return {"p50": cuts[_P50], "p75": cuts[_P75], "p95": cuts[_P95]}
