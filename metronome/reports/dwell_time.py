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

from metronome.reports.parameters import ReportParameters
from metronome.reports.sample import SequenceSample
from metronome.stores.base import Store
from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Metric, Query, QueryResult, SortKey
from metronome.stores.sequences import SequenceEvent

INACTIVITY_MS: Final = 30 * 60 * 1000
"""A longer time without a sign of life ends a stay."""

_MIN_FOR_QUANTILES: Final = 2
_QUANTILES: Final = 20
_P50, _P75, _P95 = (percent * _QUANTILES // 100 - 1 for percent in (50, 75, 95))


class DwellTime(NamedTuple):
    """A stay of known length.

    Attributes:
        item: at which item.
        ms: how long, in milliseconds; above 0.

    """

    item: str
    milliseconds: int


def dwell_times(events: Iterable[SequenceEvent]) -> Iterator[DwellTime]:
    """Yield the stays of one session.

    Args:
        events: its events, oldest first; each tells its item's id and what happened (``event``).

    """
    item, began, last = None, 0, 0
    for at, (about, event) in events:
        if about is None:
            continue
        if item is not None:
            is_over = at - last > INACTIVITY_MS
            if about == item and not is_over:
                last = at
                continue
            ended = last if is_over else at
            if ended > began:
                yield DwellTime(item, ended - began)
            item = None
        if event == "view":
            item, began, last = about, at, at
    if item is not None and last > began:
        yield DwellTime(item, last - began)


def percentiles(numbers: list[int]) -> dict[str, float | None]:
    """Return ``p50``, ``p75`` and ``p95`` of numbers, interpolated linearly between the two nearest; None of none.

    It is what DuckDB's ``quantile_cont`` gives: definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical
    Packages", The American Statistician 50 (1996).
    """
    if len(numbers) < _MIN_FOR_QUANTILES:
        only = float(numbers[0]) if numbers else None
        return {"p50": only, "p75": only, "p95": only}
    cuts = quantiles(numbers, n=_QUANTILES, method="inclusive")
    return {"p50": cuts[_P50], "p75": cuts[_P75], "p95": cuts[_P95]}


PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots"})

TIMING_FIELDS: Final = (
    *("pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
    *("TTFB", "FCP", "LCP", "CLS", "INP"),
    "duration",
)
"""The fields that are told by day: Matomo's page performance, web vitals, and how long something took.

All are milliseconds but ``CLS``, the cumulative layout shift: a score without unit, good up to 0.1."""

_MEASURES: Final = ("count", "p50", "p75", "p95")
_VIEW_EVENT: Final = Equals("event", "view")


async def time_report(store: Store, item: str | None, parameters: ReportParameters) -> dict[str, Any]:
    """Answer how long people stay, and how long pages take.

    Stays are those of all, of the newest sessions where there are many (see `SequenceSample`). Timings
    are those of all events.

    Args:
        store: what is asked.
        item: the item's id, or None for all.
        parameters: the range and the zone of days, and of how many days each timing is told at the most, the newest.

    Returns:
        ``on_item``: of how many stays the length is known, ``count``, and its percentiles in milliseconds,
        ``p50``, ``p75`` and ``p95``, which are None where there is no stay. ``timings``: for each of `TIMING_FIELDS`
        that any event has, by day, newest first, how many have it and its percentiles.

        ``exact: false`` is added where a store could only estimate, and with ``sessions_looked_at`` where not
        all sessions are looked at.

    """
    on_item, note = await _dwell_time(store, item, parameters)
    timings, exact = await _timing_percentiles(store, item, parameters)
    return {"on_item": on_item, "timings": timings} | ({} if exact else {"exact": False}) | note


async def _dwell_time(
    store: Store, item: str | None, parameters: ReportParameters
) -> tuple[dict[str, Any], dict[str, Any]]:
    sessions = SequenceSample(
        store,
        "session",
        ("id", "event"),
        parameters,
        selecting=AllOf((_VIEW_EVENT, _item_filter(item))),
        included=Exists("id"),
    )
    lengths = [
        stay.milliseconds
        async for trail in sessions
        for stay in dwell_times(trail.events)
        if item is None or stay.item == item
    ]
    return {"count": len(lengths), **percentiles(lengths)}, sessions.completeness_fields()


async def _timing_percentiles(
    store: Store, item: str | None, parameters: ReportParameters
) -> tuple[dict[str, Any], bool]:
    known = await store.list_fields()
    names = [name for name in TIMING_FIELDS if name in known]
    if not names:
        return {}, True
    where = AnyOf(tuple(Exists(name) for name in names))
    (answer,) = await store.query(
        Query(
            metrics=tuple(Metric.parse(f"{measure}:{name}") for name in names for measure in _MEASURES),
            group_by=("day",),
            where=parameters.build_filter(where)
            if item is None
            else parameters.build_filter(_item_filter(item), where),
            start=parameters.start,
            end=parameters.end,
            time_zone=parameters.tz,
            sort_keys=(SortKey("day", descending=True),),
        )
    )
    found = {name: _percentiles_by_day(answer, name, parameters.limit) for name in names}
    return {name: days for name, days in found.items() if days}, answer.exact


def _percentiles_by_day(answer: QueryResult, name: str, limit: int | None) -> dict[str, dict[str, Any]]:
    at = answer.columns.index(f"count:{name}")
    rows = [row for row in answer.rows if row[at]][:limit]
    return {str(row[0]): dict(zip(_MEASURES, row[at : at + len(_MEASURES)], strict=True)) for row in rows}


def _item_filter(item: str | None) -> Filter:
    return Exists("id") if item is None else Equals("id", item)
