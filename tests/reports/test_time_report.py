"""Time: a hand-made set of sessions whose lengths can be told by eye, and of timings, on both stores."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import pytest
import pytest_asyncio

from metronome.fields import TIMING_FIELDS
from metronome.reports.dwell_time import time_report
from metronome.reports.parameters import ReportParameters
from metronome.reports.sample import SampleLimits
from metronome.stores.base import Store
from tests.reports.filled import BACK_ENDS, Fill, filled, told

LIMITS = SampleLimits()

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""All tests ask the same stores, and so share the loop that these were opened in."""


def seen(session: str, at: str, item: str | None, event: str = "view", **fields: Any) -> dict[str, Any]:
    return {"session": session, "ts": f"2015-01-{at}Z", "id": item, "event": event, **fields}


STAYS: Final = [
    # A minute at a, and twenty seconds at b.
    seen("s1", "22T10:00:00", "a"),
    seen("s1", "22T10:00:30", "a", "heartbeat"),
    seen("s1", "22T10:01:00", "b"),
    seen("s1", "22T10:01:20", "b", "heartbeat"),
    # Nobody knows how long.
    seen("s2", "22T11:00:00", "a"),
    # Ten minutes, with a reload; then nothing for forty.
    seen("s3", "22T12:00:00", "a"),
    seen("s3", "22T12:10:00", "a"),
    seen("s3", "22T12:50:00", "b"),
    # Two minutes, over midnight.
    seen("s4", "22T23:59:30", "a"),
    seen("s4", "23T00:01:30", "c", "download"),
    # Forty-five seconds; what is about no item ends nothing.
    seen("s5", "22T13:00:00", "a"),
    seen("s5", "22T13:00:10", None),
    seen("s5", "22T13:00:45", "a", "download"),
    seen("bot", "22T14:00:00", "a", bot="crawler"),
    seen("bot", "22T14:00:01", "b", bot="crawler"),
]
TIMED: Final[list[dict[str, Any]]] = [
    {"ts": "2015-01-22T09:00:00Z", "id": "a", "event": "timing", "LCP": 1200, "CLS": 0.05},
    {"ts": "2015-01-22T23:30:00Z", "id": "a", "event": "timing", "LCP": "1200", "INP": "fast"},
    {"ts": "2015-01-20T09:00:00Z", "id": "a", "LCP": 800, "pf_srv": 90},
    {"ts": "2015-01-20T09:00:00Z", "id": "b", "LCP": 800},
    {"ts": "2015-01-20T09:00:00Z", "LCP": 800, "duration": 40, "value": 7},
    {"ts": "2015-01-20T09:00:00Z", "id": "a", "LCP": 90_000, "TTFB": 1, "bot": "crawler"},
]


def lengths(count: int, *percentiles: float | None) -> dict[str, Any]:
    return {"count": count, **dict(zip(("p50", "p75", "p95"), percentiles, strict=True))}


def same(count: int, number: float) -> dict[str, Any]:
    return lengths(count, number, number, number)


# 45 s, 1, 2 and 10 min.
ON_A: Final = lengths(4, 90_000, 240_000, 528_000)
TIMINGS_OF_A: Final = {
    "LCP": {"2015-01-22": same(2, 1200), "2015-01-20": same(1, 800)},
    "CLS": {"2015-01-22": same(1, 0.05)},
    "pf_srv": {"2015-01-20": same(1, 90)},
}


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, [*STAYS, *TIMED]) as store:
        yield store


def at(moment: str) -> datetime:
    return datetime.fromisoformat(f"2015-01-{moment}:00Z")


async def test_reports_the_stays_of_an_item(store: Store) -> None:
    found = told(store, await time_report(store, "a", ReportParameters()))
    assert found == {"on_item": ON_A, "timings": TIMINGS_OF_A}
    assert list(found["timings"]["LCP"]) == ["2015-01-22", "2015-01-20"]


async def test_reports_the_stays_of_all_items(store: Store) -> None:
    found = told(store, await time_report(store, None, ReportParameters()))
    # Those at a, and 20 s at b.
    assert found["on_item"] == lengths(5, 60_000, 120_000, 504_000)
    assert found["timings"] == TIMINGS_OF_A | {
        "LCP": {"2015-01-22": same(2, 1200), "2015-01-20": same(3, 800)},
        "duration": {"2015-01-20": same(1, 40)},
    }


async def test_without_timings_there_are_no_percentiles(store: Store) -> None:
    nothing = {"on_item": lengths(0, None, None, None), "timings": {}}
    assert await time_report(store, "nothing", ReportParameters()) == nothing
    assert (await time_report(store, "c", ReportParameters())) == nothing
    assert (await time_report(store, "a", ReportParameters(start=at("24T00:00")))) == nothing


async def test_days_are_those_of_the_time_zone(store: Store) -> None:
    found = await time_report(store, "a", ReportParameters(tz="Europe/Zurich"))
    assert found["timings"]["LCP"] == {
        "2015-01-23": same(1, 1200),
        "2015-01-22": same(1, 1200),
        "2015-01-20": same(1, 800),
    }
    assert found["on_item"] == ON_A


async def test_the_limit_applies_to_the_days_of_each_timing(store: Store) -> None:
    found = await time_report(store, "a", ReportParameters(limit=1))
    assert found["timings"] == TIMINGS_OF_A | {"LCP": {"2015-01-22": same(2, 1200)}}
    assert found["on_item"] == ON_A


async def test_includes_bots_on_request(store: Store) -> None:
    found = await time_report(store, "a", ReportParameters(include_bots=True))
    assert found["on_item"]["count"] == 5
    assert found["timings"]["TTFB"] == {"2015-01-20": same(1, 1)}


async def test_the_range_applies_to_stays_and_timings(store: Store) -> None:
    found = await time_report(store, "a", ReportParameters(start=at("22T09:01"), end=at("22T12:00")))
    assert found["on_item"] == same(1, 60_000)
    assert found["timings"] == {}
    # The stay goes on over the end of the range, so that its length is not known.
    found = await time_report(store, "a", ReportParameters(start=at("22T23:00"), end=at("23T00:00")))
    assert found["on_item"]["count"] == 0
    assert found["timings"] == {"LCP": {"2015-01-22": same(1, 1200)}}


async def test_reports_every_stored_timing(fill: Fill) -> None:
    events = [{"ts": "2015-01-22T09:00:00Z", "id": "a", name: at} for at, name in enumerate(TIMING_FIELDS, start=1)]
    store = await fill(events)
    found = await time_report(store, "a", ReportParameters())
    assert found["timings"] == {name: {"2015-01-22": same(1, at)} for at, name in enumerate(TIMING_FIELDS, start=1)}


async def test_estimated_percentiles_are_marked(fill: Fill) -> None:
    events = [{"ts": "2015-01-22T09:00:00Z", "id": "a", "LCP": 10 * number} for number in range(101)]
    store = await fill(events)
    found = await time_report(store, "a", ReportParameters())
    days = found["timings"]["LCP"]["2015-01-22"]
    assert days == pytest.approx(lengths(101, 500, 750, 950), abs=10)
    assert days == lengths(101, 500, 750, 950) or found["exact"] is False


async def test_of_many_sessions_the_newest_are_sampled(fill: Fill) -> None:
    start = at("22T00:00").timestamp()
    events = [
        {"ts": start + 10 * number + offset, "session": f"s{number}", "id": "a", "event": event}
        for number in range(LIMITS.sequences + 3)
        for offset, event in ((0, "view"), (9 if number < 3 else 2, "heartbeat"))
    ]
    store = await fill(events)
    sampled = {"exact": False, "sessions_looked_at": LIMITS.sequences}
    assert (
        await time_report(store, "a", ReportParameters())
        == {"on_item": same(LIMITS.sequences, 2000), "timings": {}} | sampled
    )
    assert (await time_report(store, None, ReportParameters()))["on_item"] == same(LIMITS.sequences, 2000)
    older = await time_report(store, "a", ReportParameters(end=datetime.fromtimestamp(start + 30).astimezone()))
    assert older == {"on_item": same(3, 9000), "timings": {}}
