"""Times: how long visitors stay on an item, and how long its pages take to load.

A stay starts with a view of an item. It lasts as long as the session's events are about this item: heartbeats,
downloads, timings, or further views, so that a reload does not start another stay. It ends

* with the session's next event about another item; or
* if none follows within 30 minutes of the last event about this item, with that event. A later view starts another
  stay.

Events without an item are ignored. A stay without any event after its first view has an unknown length and is ignored.
So the last page of a session counts only if the page sends heartbeats.

This is the usual definition of web analytics: time on a page is the time to the next action, and a visit ends after 30
minutes without one (Matomo's ``visit_standard_length``). Without its heartbeat timer, Matomo counts the last page of a
visit as 0 seconds (Matomo's FAQ 21824). Metronome does not, so that unknown lengths do not lower the percentiles.
"""

from collections.abc import Iterable, Iterator
from statistics import quantiles
from typing import Any, Final, NamedTuple

from metronome.fields import TIMING_FIELDS
from metronome.reports.parameters import IS_VIEW, ReportParameters, exactness_fields, item_filter, partial_fields
from metronome.reports.sample import SequenceSample
from metronome.reports.sessions import PAUSE_MS
from metronome.stores.base import Store
from metronome.stores.query import AllOf, AnyOf, Exists, Metric, Query, QueryResult, SortKey
from metronome.stores.sequences import SequenceEvent

PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots"})

_MIN_FOR_QUANTILES: Final = 2
_QUANTILES: Final = 20
_P50, _P75, _P95 = (percent * _QUANTILES // 100 - 1 for percent in (50, 75, 95))
_MEASURES: Final = ("count", "p50", "p75", "p95")


class DwellTime(NamedTuple):
    """A stay of known length.

    Attributes:
        item: the item ID.
        milliseconds: the length, above 0.

    """

    item: str
    milliseconds: int


def dwell_times(events: Iterable[SequenceEvent]) -> Iterator[DwellTime]:
    """Yield the stays of one session.

    Args:
        events: its events, oldest first; the first values of each are its item ID and its ``event``.

    """
    item, start, last = None, 0, 0
    for timestamp, (event_item, event, *_) in events:
        if event_item is None:
            continue
        if item is not None:
            is_over = timestamp - last > PAUSE_MS
            if event_item == item and not is_over:
                last = timestamp
                continue
            end = last if is_over else timestamp
            if end > start:
                yield DwellTime(item, end - start)
            item = None
        if event == "view":
            item, start, last = event_item, timestamp, timestamp
    if item is not None and last > start:
        yield DwellTime(item, last - start)


def percentiles(numbers: list[int]) -> dict[str, float | None]:
    """Return ``p50``, ``p75`` and ``p95``, interpolated linearly between the two nearest numbers; None without numbers.

    The result is that of DuckDB's ``quantile_cont``: definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical
    Packages", The American Statistician 50 (1996).
    """
    if len(numbers) < _MIN_FOR_QUANTILES:
        single = float(numbers[0]) if numbers else None
        return {"p50": single, "p75": single, "p95": single}
    cuts = quantiles(numbers, n=_QUANTILES, method="inclusive")
    return {"p50": cuts[_P50], "p75": cuts[_P75], "p95": cuts[_P95]}


async def time_report(store: Store, item: str | None, parameters: ReportParameters) -> dict[str, Any]:
    """Return how long people stay, and how long pages take to load.

    Stays are those of the newest sessions if there are many (see `SequenceSample`). Timings are those of all events.

    Args:
        store: runs the queries.
        item: the item ID, or None for all items.
        parameters: the time range, the time zone of days, and as ``limit`` how many of the newest days to report for
            each timing.

    Returns:
        ``on_item``: the ``count`` of stays of known length, and the percentiles of their lengths in milliseconds,
        ``p50``, ``p75`` and ``p95``, None without stays. ``timings``: for each of `metronome.fields.TIMING_FIELDS`
        that any event has, by day, newest first, how many events have it, and its percentiles.

        ``exact: false`` is added if the store estimated, and with ``sessions_looked_at`` for an incomplete sample.

    """
    sample = SequenceSample(
        store,
        "session",
        ("id", "event"),
        parameters,
        selecting=AllOf((IS_VIEW, item_filter(item))),
        included=Exists("id"),
    )
    lengths = [
        stay.milliseconds
        async for sequence in sample
        for stay in dwell_times(sequence.events)
        if item is None or stay.item == item
    ]
    return {
        "on_item": {"count": len(lengths), **percentiles(lengths)},
        **await _timings_report(store, item, parameters),
        **sample.completeness_fields(),
    }


async def _timings_report(store: Store, item: str | None, parameters: ReportParameters) -> dict[str, Any]:
    stored_fields = await store.list_fields()
    names = [name for name in TIMING_FIELDS if name in stored_fields]
    if not names:
        return {"timings": {}}
    has_timing = AnyOf(tuple(Exists(name) for name in names))
    (result,) = await store.query(
        Query(
            metrics=tuple(Metric.parse(f"{measure}:{name}") for name in names for measure in _MEASURES),
            group_by=("day",),
            where=parameters.build_filter(*(() if item is None else (item_filter(item),)), has_timing),
            start=parameters.start,
            end=parameters.end,
            time_zone=parameters.tz,
            sort_keys=(SortKey("day", descending=True),),
        )
    )
    days_by_name = {name: _percentiles_by_day(result, name, parameters.limit) for name in names}
    timings = {name: days for name, days in days_by_name.items() if days}
    labels = {day for days in timings.values() for day in days}
    return {"timings": timings} | exactness_fields(result) | partial_fields(parameters, "day", labels)


def _percentiles_by_day(result: QueryResult, name: str, limit: int | None) -> dict[str, dict[str, Any]]:
    at = result.columns.index(f"count:{name}")
    rows = [row for row in result.rows if row[at]][:limit]
    return {str(row[0]): dict(zip(_MEASURES, row[at : at + len(_MEASURES)], strict=True)) for row in rows}
