"""Time: how long people stay at an item, and how fast its pages are."""

from typing import Any, Final

from metronome.question import AllOf, Answer, AnyOf, Equals, Exists, Filter, Metric, Order, Question
from metronome.reports.parameters import Parameters
from metronome.reports.sampling import Sample
from metronome.reports.stays import percentiles, stays_of
from metronome.stores.store import Store

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

    Stays are those of `metronome.reports.stays`, of the newest sessions where there are many (see `Sample`). Timings
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
