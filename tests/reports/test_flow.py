"""Flow: a hand-made set of sessions whose walks can be counted by eye, on both stores."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import pytest_asyncio

from metronome.reports.flow import flow_report
from metronome.reports.parameters import ReportParameters
from metronome.reports.sample import SampleLimits
from metronome.stores.base import Store
from tests.reports.filled import BACK_ENDS, Fill, filled

LIMITS = SampleLimits()

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""All tests ask the same stores, and so share the loop that these were opened in."""


def session(name: str, begin: str, *steps: str, **fields: Any) -> list[dict[str, Any]]:
    """Have a session view an item each minute; after a colon stands another event than a view."""
    start = datetime.fromisoformat(f"2015-01-{begin}:00Z").timestamp()
    found = []
    for minute, step in enumerate(steps):
        item, _, event = step.partition(":")
        at = datetime.fromtimestamp(start + 60 * minute, UTC).isoformat()
        found.append({"ts": at, "session": name, "id": item or None, "event": event or "view", **fields})
    return found


EVENTS: Final = [
    *session("s1", "22T10:00", "a", "b", "c"),
    # The walk is a b a: a second view of the same item is no step.
    *session("s2", "22T11:00", "a", "a", "b:download", "a"),
    *session("s3", "22T23:59", "c", "a"),
    *session("s4", "22T12:00", "b"),
    # The walk is d: what is no use of an item does not lie between.
    *session("s5", "22T13:00", "d", "c:error", "", "b:heartbeat", "d", "a:timing"),
    *session("bot", "22T14:00", "a", "c", bot="crawler"),
    {"ts": "2015-01-22T15:00:00Z", "id": "a"},
    *session("s6", "22T16:00", "dir/Ünï file", "e"),
]
OF_A: Final = {
    "sessions": 3,  # s1, s2 and s3
    "entries": 2,  # s1 and s2
    "exits": 2,  # s2 and s3
    "entry_share": 0.6667,
    "exit_share": 0.6667,
    "previous": {"b": 1, "c": 1},
    "next": {"b": 2},
}
NOTHING: Final[dict[str, Any]] = {
    "sessions": 0,
    "entries": 0,
    "exits": 0,
    "entry_share": None,
    "exit_share": None,
    "previous": {},
    "next": {},
}


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, EVENTS) as store:
        yield store


def at(moment: str) -> datetime:
    return datetime.fromisoformat(f"2015-01-{moment}:00Z")


async def test_flow_of_an_item_has_what_precedes_and_follows_it(store: Store) -> None:
    found = await flow_report(store, "a", ReportParameters())
    assert found == OF_A
    assert list(found) == list(OF_A)
    assert list(found["previous"]) == ["b", "c"]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        # In s1 and s2 between others, in s4 alone.
        ("b", {"sessions": 3, "entries": 1, "exits": 1, "previous": {"a": 2}, "next": {"a": 1, "c": 1}}),
        ("d", {"sessions": 1, "entries": 1, "exits": 1, "previous": {}, "next": {}}),
        ("dir/Ünï file", {"sessions": 1, "entries": 1, "exits": 0, "previous": {}, "next": {"e": 1}}),
        ("nothing", NOTHING),
    ],
)
async def test_accepts_any_item_id(store: Store, item: str, expected: dict[str, Any]) -> None:
    found = await flow_report(store, item, ReportParameters())
    assert {name: found[name] for name in expected} == expected


async def test_reports_several_steps_by_distance(store: Store) -> None:
    found = await flow_report(store, "a", ReportParameters(steps=3))
    assert found == OF_A | {
        # Two steps before the second a of s2 there is the first one.
        "before": [{"b": 1, "c": 1}, {"a": 1}, {}],
        "after": [{"b": 2}, {"a": 1, "c": 1}, {}],
    }


async def test_flow_of_all_items_has_transitions(store: Store) -> None:
    found = await flow_report(store, None, ReportParameters())
    assert found == {
        "sessions": 6,
        "entries": {"a": 2, "b": 1, "c": 1, "d": 1, "dir/Ünï file": 1},
        "exits": {"a": 2, "b": 1, "c": 1, "d": 1, "e": 1},
        "transitions": [
            {"from": "a", "to": "b", "count": 2},
            {"from": "b", "to": "a", "count": 1},
            {"from": "b", "to": "c", "count": 1},
            {"from": "c", "to": "a", "count": 1},
            {"from": "dir/Ünï file", "to": "e", "count": 1},
        ],
    }
    assert list(found["entries"]) == ["a", "b", "c", "d", "dir/Ünï file"]


async def test_the_limit_applies_to_each_ranking(store: Store) -> None:
    everything = await flow_report(store, None, ReportParameters(limit=1))
    assert (everything["entries"], everything["exits"]) == ({"a": 2}, {"a": 2})
    assert everything["transitions"] == [{"from": "a", "to": "b", "count": 2}]
    of_a = await flow_report(store, "a", ReportParameters(limit=1, steps=2))
    assert (of_a["previous"], of_a["after"]) == ({"b": 1}, [{"b": 2}, {"a": 1}])
    assert await flow_report(store, "a", ReportParameters(limit=None)) == OF_A


async def test_includes_bots_on_request(store: Store) -> None:
    found = await flow_report(store, "a", ReportParameters(include_bots=True))
    assert (found["sessions"], found["entries"], found["next"]) == (4, 3, {"b": 2, "c": 1})
    assert (await flow_report(store, None, ReportParameters(include_bots=True)))["sessions"] == 7


async def test_only_the_part_of_a_session_in_the_range_counts(store: Store) -> None:
    # Of s2 this is b and the last a, of s3 all.
    found = await flow_report(store, "a", ReportParameters(start=at("22T11:02")))
    assert (found["sessions"], found["entries"]) == (2, 0)
    assert (found["previous"], found["next"]) == ({"b": 1, "c": 1}, {})
    found = await flow_report(store, None, ReportParameters(start=at("22T10:00"), end=at("22T10:02")))
    assert found["transitions"] == [{"from": "a", "to": "b", "count": 1}]
    assert await flow_report(store, "a", ReportParameters(start=at("24T00:00"))) == NOTHING


async def test_items_viewed_at_the_same_time_are_ordered_by_id(fill: Fill) -> None:
    same = [{"ts": "2015-01-22T10:00:00.500Z", "session": "s", "id": item} for item in ("c", "a", "é", "b", "a")]
    store = await fill(same)
    found = await flow_report(store, None, ReportParameters())
    assert [(step["from"], step["to"]) for step in found["transitions"]] == [("a", "b"), ("b", "c"), ("c", "é")]
    assert (found["entries"], found["exits"]) == ({"a": 1}, {"é": 1})


async def test_of_many_sessions_the_newest_are_sampled(fill: Fill) -> None:
    start = at("22T00:00").timestamp()
    events = [
        {"ts": start + 10 * number + step, "session": f"s{number}", "id": item}
        for number in range(LIMITS.sequences + 3)
        for step, item in enumerate(("old" if number < 3 else "new", "end"))
    ]
    store = await fill(events)
    assert await flow_report(store, None, ReportParameters()) == {
        "sessions": LIMITS.sequences,
        "entries": {"new": LIMITS.sequences},
        "exits": {"end": LIMITS.sequences},
        "transitions": [{"from": "new", "to": "end", "count": LIMITS.sequences}],
        "exact": False,
        "sessions_looked_at": LIMITS.sequences,
    }
    # Each item has sessions of its own.
    assert "exact" not in await flow_report(store, "new", ReportParameters())
    assert (await flow_report(store, "old", ReportParameters()))["sessions"] == 3
    assert (await flow_report(store, "end", ReportParameters()))["previous"] == {"new": LIMITS.sequences}


async def test_of_a_very_long_session_the_start_is_sampled(fill: Fill) -> None:
    start = at("22T00:00").timestamp()
    names = ["first", *(f"i{number % 2}" for number in range(3 * LIMITS.events_per_sequence)), "last"]
    events = [{"ts": start + number, "session": "crawler", "id": item} for number, item in enumerate(names)]
    store = await fill(events)
    found = await flow_report(store, None, ReportParameters())
    assert sum(step["count"] for step in found["transitions"]) == LIMITS.events_per_sequence - 1
    assert found["entries"] == {"first": 1}
    assert (found["exact"], found["sessions_looked_at"]) == (False, 1)
    assert (await flow_report(store, "last", ReportParameters()))["sessions"] == 0
