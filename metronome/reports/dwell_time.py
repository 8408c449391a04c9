"""Time: how long people stay at an item, and how fast its pages are.

Stays: how long people look at an item, worked out of what their sessions tell.

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
from typing import Any, Final, NamedTuple

from metronome.reports.parameters import Parameters
from metronome.reports.sample import Sample
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Answer, AnyOf, Equals, Exists, Filter, Metric, Order, Question
from metronome.stores.sequences import Step

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


PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots"})

TIMINGS: Final = (
    *("pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
    *("TTFB", "FCP", "LCP", "CLS", "INP"),
    "duration",
)
"""The fields that are told by day: Matomo's page performance, web vitals, and how long something took.

All are milliseconds but ``CLS``, the cumulative layout shift: a score without unit, good up to 0.1."""

_MEASURES: Final = ("count", "p50", "p75", "p95")
_VIEW: Final = Equals("event", "view")


async def time(store: Store, item: str | None, asked: Parameters) -> dict[str, Any]:
    """Answer how long people stay, and how long pages take.

    Stays are those of all, of the newest sessions where there are many (see `Sample`). Timings
    are those of all events.

    Args:
        store: what is asked.
        item: the item's id, or None for all.
        asked: the range and the zone of days, and of how many days each timing is told at the most, the newest.

    Returns:
        ``on_item``: of how many stays the length is known, ``count``, and its percentiles in milliseconds,
        ``p50``, ``p75`` and ``p95``, which are None where there is no stay. ``timings``: for each of `TIMINGS`
        that any event has, by day, newest first, how many have it and its percentiles.

        ``exact: false`` is added where a store could only estimate, and with ``sessions_looked_at`` where not
        all sessions are looked at.

    """
    on_item, note = await _time_on(store, item, asked)
    timings, exact = await _timings(store, item, asked)
    return {"on_item": on_item, "timings": timings} | ({} if exact else {"exact": False}) | note


async def _time_on(store: Store, item: str | None, asked: Parameters) -> tuple[dict[str, Any], dict[str, Any]]:
    sessions = Sample(
        store,
        "session",
        ("id", "event"),
        asked,
        touching=AllOf((_VIEW, _of(item))),
        told=Exists("id"),
    )
    lengths = [
        stay.ms async for trail in sessions for stay in stays_of(trail.steps) if item is None or stay.item == item
    ]
    return {"count": len(lengths), **percentiles(lengths)}, sessions.note()


async def _timings(store: Store, item: str | None, asked: Parameters) -> tuple[dict[str, Any], bool]:
    known = await store.fields()
    names = [name for name in TIMINGS if name in known]
    if not names:
        return {}, True
    where = AnyOf(tuple(Exists(name) for name in names))
    (answer,) = await store.ask(
        Question(
            metrics=tuple(Metric.parse(f"{measure}:{name}") for name in names for measure in _MEASURES),
            by=("day",),
            where=asked.only(where) if item is None else asked.only(_of(item), where),
            start=asked.start,
            end=asked.end,
            tz=asked.tz,
            order=(Order("day", descending=True),),
        )
    )
    found = {name: _by_day(answer, name, asked.limit) for name in names}
    return {name: days for name, days in found.items() if days}, answer.exact


def _by_day(answer: Answer, name: str, limit: int | None) -> dict[str, dict[str, Any]]:
    at = answer.columns.index(f"count:{name}")
    rows = [row for row in answer.rows if row[at]][:limit]
    return {str(row[0]): dict(zip(_MEASURES, row[at : at + len(_MEASURES)], strict=True)) for row in rows}


def _of(item: str | None) -> Filter:
    return Exists("id") if item is None else Equals("id", item)
