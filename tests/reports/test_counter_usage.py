"""COUNTER usage of an item, from each store: hand-counted, and against a naive program over the same events."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from metronome.errors import QueryTooExpensive
from metronome.reports.counter.tally import Deadline, count_usage, usage_report
from metronome.reports.parameters import ReportParameters
from tests.reports.filled import Fill

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""Stores are opened in the loop that the tests share."""

TOTALS: Final = ("total_investigations", "unique_investigations", "total_requests", "unique_requests")
NOTHING: Final = dict.fromkeys(TOTALS, 0)


def numbers(*four: int) -> dict[str, int]:
    return dict(zip(TOTALS, four, strict=True))


def on(day: str, time: str, **fields: Any) -> dict[str, Any]:
    return {"id": "a", "ts": f"2026-{day}T{time}Z", **fields}


HAND_MADE: Final = [
    # Visitor v, whose sessions nobody logged: one in hour 10, one in hour 11.
    on("01-10", "10:00:00", visitor="v", session="v", country="CH"),
    on("01-10", "10:00:20", visitor="v", session="v", country="CH"),
    on("01-10", "10:00:45", visitor="v", session="v", country="CH"),
    on("01-10", "10:01:00", visitor="v", session="v", country="CH", format="csv"),
    on("01-10", "10:01:10", visitor="v", session="v", country="CH", format="kml"),
    on("01-10", "11:00:00", visitor="v", session="v", country="CH"),
    # Session s, which its site logged, over two hours and under two addresses; of no known country.
    on("01-10", "10:00:00", visitor="w1", session="s"),
    on("01-10", "11:30:00", visitor="w2", session="s", format="csv"),
    # Visitor x, without any session.
    on("01-10", "10:00:00", visitor="x", session="", country="DE"),
    on("01-10", "10:00:30", visitor="x", country="DE"),
    on("01-10", "10:01:01", visitor="x", country="DE"),
    # Nobody: each counts.
    on("01-10", "10:00:00", country="DE"),
    on("01-10", "10:00:01", country="DE", visitor=""),
    on("01-10", "10:00:02", format="csv"),
    # A script's.
    on("01-11", "09:00:00", visitor="m", session="m", device="script", format="csv", country="US"),
    on("01-11", "09:00:10", visitor="m", session="m", device="script", format="csv", country="US"),
    on("01-11", "09:10:00", visitor="m", session="m", device="script", format="csv", country="US"),
    on("01-11", "09:00:00", device="script"),
    # A double click over the end of a month is of the month of its second click.
    on("01-31", "23:59:50", visitor="v", session="v"),
    on("02-01", "00:00:20", visitor="v", session="v"),
    # What does not count.
    on("01-10", "12:00:00", visitor="b", session="b", bot="Googlebot"),
    on("01-10", "12:00:00", bot="Googlebot"),
    on("01-10", "12:00:00", visitor="v", session="v", event="heartbeat"),
    on("01-10", "12:00:00", visitor="v", session="v", event="error", status=404),
    on("01-10", "12:00:00", visitor="v", session="v", status=206),
    on("01-10", "12:00:00", visitor="v", session="v") | {"id": "a/b"},
    # What was answered well, does.
    on("03-01", "12:00:00", visitor="y", session="y", status=200, format="csv"),
    on("03-01", "12:10:00", visitor="y", session="y", status="304"),
]


async def test_usage_equals_a_count_by_hand(fill: Fill) -> None:
    store = await fill(HAND_MADE)
    found = await usage_report(store, "a", ReportParameters())
    assert found == {
        "months": {
            "2026-03": {**numbers(2, 1, 1, 1), "machine": NOTHING},
            "2026-02": {**numbers(1, 1, 0, 0), "machine": NOTHING},
            "2026-01": {
                **numbers(11, 7, 4, 3),
                "countries": {"CH": numbers(4, 2, 2, 1), "DE": numbers(4, 3, 0, 0)},
                "machine": {**numbers(3, 2, 2, 1), "countries": {"US": numbers(2, 1, 2, 1)}},
            },
        }
    }
    assert list(found["months"]) == ["2026-03", "2026-02", "2026-01"]
    assert await usage_report(store, "a/b", ReportParameters()) == {
        "months": {"2026-01": {**numbers(1, 1, 0, 0), "machine": NOTHING}}
    }
    assert await usage_report(store, "never", ReportParameters()) == {"months": {}}


async def test_clicks_on_two_urls_are_not_a_double_click_and_fragments_are_ignored(fill: Fill) -> None:
    clicks = [("10:00:00", "/a?page=1"), ("10:00:10", "/a?page=2"), ("10:00:20", "/a?page=1#top"), ("10:00:25", "/a")]
    store = await fill([on("01-10", time, session="s", url=url) for time, url in clicks])
    assert (await usage_report(store, "a", ReportParameters()))["months"]["2026-01"] == {
        **numbers(3, 1, 0, 0),
        "machine": NOTHING,
    }


async def test_months_and_hours_are_those_of_the_time_zone(fill: Fill) -> None:
    # Both in one hour of Kolkata, 5:30 ahead; and after its new year.
    store = await fill([on("01-31", f"{time}:00", visitor="v", session="v") for time in ("18:30", "19:25")])
    utc, kolkata = [
        (await usage_report(store, "a", ReportParameters(tz=tz)))["months"] for tz in ("UTC", "Asia/Kolkata")
    ]
    assert utc == {"2026-01": {**numbers(2, 2, 0, 0), "machine": NOTHING}}
    assert kolkata == {"2026-02": {**numbers(2, 1, 0, 0), "machine": NOTHING}}


async def test_a_double_click_across_the_end_of_the_range_does_not_count(fill: Fill) -> None:
    store = await fill([on("01-10", f"10:00:{second}", session="s") for second in ("00", "40", "59")])
    middle = datetime(2026, 1, 10, 10, 0, 50, tzinfo=UTC)
    before, after = [
        await usage_report(store, "a", ReportParameters(start, end)) for start, end in ((None, middle), (middle, None))
    ]
    assert before["months"] == {"2026-01": {**numbers(1, 1, 0, 0), "machine": NOTHING}}
    assert after["months"] == before["months"]


async def test_counting_times_out(fill: Fill) -> None:
    store = await fill(HAND_MADE)
    with pytest.raises(QueryTooExpensive, match="counting takes over 0 s"):
        await usage_report(store, "a", ReportParameters(), timeout_seconds=0)


def random_events(random: Random, number: int) -> list[dict[str, Any]]:
    """Draw events that are close together, some of them around the end of a month and a change of clocks."""
    bases = [datetime.fromisoformat(text) for text in ("2026-01-31T22:30:00Z", "2026-03-28T23:30:00Z")]
    events = []
    for _ in range(number):
        at = random.choice(bases) + timedelta(milliseconds=random.choice((1, 500, 1000)) * random.randrange(12_000))
        fields: dict[str, Any] = {"id": random.choice("ab"), "ts": at.isoformat(timespec="milliseconds")}
        fields |= random.choice(({}, {}, {"format": "csv"}, {"format": "kml"}, {"event": "error"}))
        fields |= random.choice(({}, {"url": "/1"}, {"url": "/2"}, {"url": "/1#x"}))
        fields |= random.choice(
            ({}, {"visitor": "v"}, {"visitor": "v", "session": "v"}, {"visitor": "v", "session": "s"}, {"session": "s"})
        )
        fields |= random.choice(({}, {}, {}, {"device": "script"}, {"bot": "b"}))
        fields |= random.choice(({}, {"country": "CH"}, {"country": "DE"}))
        fields |= random.choice(({}, {"status": 200}, {"status": 500}))
        events.append(fields)
    return events


def naive(events: Iterable[dict[str, Any]], tz: str) -> dict[tuple[str, str, bool], list[int]]:
    """Count as the Code of Practice is written: each click compared with each other one."""
    clicks = []
    for number, event in enumerate(events):
        kind = event.get("event") or ("download" if "format" in event else "view")
        if kind == "error" or "bot" in event or event.get("status", 200) not in (200, 304):
            continue
        at = datetime.fromisoformat(event["ts"])
        local = at.astimezone(ZoneInfo(tz))
        session, visitor = event.get("session"), event.get("visitor")
        if session and session != visitor:
            user: object = session
            during: object = local.date()
        elif session or visitor:
            # A session that has the visitor's name is told beside sessions, and a visitor without one beside visitors.
            user = (session, visitor)
            during = (local.date(), local.hour)
        else:
            user = during = number
        url = (event.get("url") or "").split("#")[0]
        target = (event["id"], kind, event.get("format"), url)
        machine = event.get("device") == "script"
        clicks.append((at, user, target, during, kind == "download", (event["id"], f"{local:%Y-%m}", machine)))
    clicks.sort(key=lambda one: one[0])
    found: dict[tuple[str, str, bool], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    sessions: set[tuple[object, ...]] = set()
    for number, (at, user, target, during, requested, cell) in enumerate(clicks):
        if any(
            later[1:3] == (user, target) and later[0] - at <= timedelta(seconds=30) for later in clicks[number + 1 :]
        ):
            continue
        for place, counts in ((0, True), (2, requested)):
            if counts:
                found[cell][place] += 1
                found[cell][place + 1] += (place, user, during, cell) not in sessions
                sessions.add((place, user, during, cell))
    return dict(found)


@pytest.mark.parametrize("tz", ["UTC", "Europe/Zurich", "Asia/Kolkata"])
async def test_usage_equals_a_naive_count(fill: Fill, tz: str) -> None:
    events = random_events(Random(len(tz)), 1_500)
    store = await fill(events)
    tally = await count_usage(store, None, ReportParameters(tz=tz), Deadline(60))
    expected = naive(events, tz)
    assert {tuple(cell): counts.totals for cell, counts in tally.counts.items()} == expected
    for item in "ab":
        alone = await count_usage(store, item, ReportParameters(tz=tz), Deadline(60))
        assert {tuple(cell): counts.totals for cell, counts in alone.counts.items()} == {
            cell: four for cell, four in expected.items() if cell[0] == item
        }
    for counts in tally.counts.values():
        assert all(
            sum(four) <= all_
            for four, all_ in zip(zip(*counts.by_country.values(), strict=True), counts.totals, strict=True)
        )


async def test_counting_in_spans_gives_the_same_numbers(fill: Fill) -> None:
    store = await fill(random_events(Random(5), 1_000))
    asked = ReportParameters(tz="Europe/Zurich")
    together, apart = [await count_usage(store, None, asked, Deadline(60), most) for most in (1_000_000, 1)]
    assert {cell: (one.totals, one.by_country) for cell, one in apart.counts.items()} == {
        cell: (one.totals, one.by_country) for cell, one in together.counts.items()
    }


async def test_totals_of_consecutive_ranges_add_up(fill: Fill) -> None:
    events = random_events(Random(7), 1_000)
    store = await fill(events)
    cuts = [None, *(datetime(2026, 1, 31, 23, minute, 13, 500_000, UTC) for minute in (5, 20, 40)), None]
    parts = [
        await count_usage(store, None, ReportParameters(start, end), Deadline(60)) for start, end in pairwise(cuts)
    ]
    whole = await count_usage(store, None, ReportParameters(), Deadline(60))
    for cell, counts in whole.counts.items():
        found = [part.counts[cell].totals for part in parts if cell in part.counts]
        assert [sum(four[at] for four in found) for at in (0, 2)] == [counts.totals[at] for at in (0, 2)]
