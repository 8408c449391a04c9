"""Funnels: sessions counted by eye on both stores, and random ones against a search of all ways."""

from collections.abc import AsyncIterator
from datetime import datetime
from itertools import combinations, pairwise
from typing import Any, Final

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery
from metronome.reports.funnel import MAX_STEPS, build_predicate, funnel_report, parse_funnel, take_steps
from metronome.reports.parameters import ReportParameters
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Exists, Not, OneOf, Prefix
from tests.reports.filled import BACK_ENDS, filled

pytestmark = pytest.mark.asyncio(loop_scope="module")

VISITOR: Final = "v9"
EVENTS: Final[list[dict[str, Any]]] = [
    # home, data, download: the way that the funnel is about.
    {"ts": "2015-01-22T10:00:00Z", "session": "s1", "visitor": "v1", "id": "home"},
    {"ts": "2015-01-22T10:00:10Z", "session": "s1", "visitor": "v1", "id": "data/a"},
    {"ts": "2015-01-22T10:01:10Z", "session": "s1", "visitor": "v1", "id": "data/a", "format": "CSV"},
    # A download before home takes no step, and one an hour later is outside 30 minutes.
    {"ts": "2015-01-22T10:00:00Z", "session": "s2", "visitor": "v1", "id": "data/b", "format": "csv"},
    {"ts": "2015-01-22T10:10:00Z", "session": "s2", "visitor": "v1", "id": "home"},
    {"ts": "2015-01-22T11:10:00Z", "session": "s2", "visitor": "v1", "id": "data/b", "format": "csv"},
    # Home alone; errors of home are no views.
    {"ts": "2015-01-22T10:00:00Z", "session": "s3", "id": "home"},
    {"ts": "2015-01-22T10:00:00Z", "session": "s4", "visitor": "v4", "id": "home", "event": "error"},
    {"ts": "2015-01-22T10:00:01Z", "session": "s4", "visitor": "v4", "id": "data/a", "format": "csv"},
    # A visitor's session ends with a pause of over 30 minutes, but goes on with heartbeats.
    {"ts": "2015-01-22T10:00:00Z", "session": VISITOR, "visitor": VISITOR, "id": "home"},
    {"ts": "2015-01-22T10:31:00Z", "session": VISITOR, "visitor": VISITOR, "id": "x", "format": "csv"},
    {"ts": "2015-01-22T12:00:00Z", "session": VISITOR, "visitor": VISITOR, "id": "home"},
    {"ts": "2015-01-22T12:30:00Z", "session": VISITOR, "visitor": VISITOR, "id": "home", "event": "heartbeat"},
    {"ts": "2015-01-22T13:00:00Z", "session": VISITOR, "visitor": VISITOR, "id": "x", "format": "csv"},
    # Not of people, and of no session.
    {"ts": "2015-01-22T10:00:00Z", "session": "bot", "id": "home", "bot": "crawler"},
    {"ts": "2015-01-22T10:00:00Z", "id": "home"},
]
STEPS: Final = ("event:view,id:home", "event:download,format:csv")


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, EVENTS) as store:
        yield store


async def numbers(store: Store, *steps: str, within: str = "", **parameters: Any) -> list[tuple[Any, ...]]:
    report = await funnel_report(store, parse_funnel(steps, (within,)), ReportParameters(**parameters))
    assert [*report] == ["steps"]
    assert [step["step"] for step in report["steps"]] == [*steps]
    return [tuple(step.values())[1:] for step in report["steps"]]


async def test_counts_sessions_and_visitors_of_each_step(store: Store) -> None:
    # s1, s2, s3 and both sessions of v9; of these, s1, s2 and the second of v9.
    assert await numbers(store, *STEPS) == [(5, 2, None, 1.0, None), (3, 2, 0.6, 0.6, 3_600_000.0)]
    assert await numbers(store, STEPS[0], "id^:data/", STEPS[1]) == [
        (5, 2, None, 1.0, None),
        (2, 1, 0.4, 0.4, 1_805_000.0),
        (1, 1, 0.5, 0.2, 60_000.0),
    ]


async def test_the_last_step_follows_the_first_within_the_time(store: Store) -> None:
    assert await numbers(store, *STEPS, within="30m") == [(5, 2, None, 1.0, None), (1, 1, 0.2, 0.2, 70_000.0)]
    assert (await numbers(store, *STEPS, within="1h"))[1][0] == 3
    assert (await numbers(store, *STEPS, within="69s"))[1][0] == 0


async def test_only_the_part_of_a_session_in_the_range_counts(store: Store) -> None:
    found = await numbers(store, *STEPS, start=datetime.fromisoformat("2015-01-22T12:00:00Z"))
    assert found == [(1, 1, None, 1.0, None), (1, 1, 1.0, 1.0, 3_600_000.0)]
    assert await numbers(store, "id:never", "event:view") == [(0, 0, None, None, None)] * 2


async def test_includes_bots_on_request(store: Store) -> None:
    assert (await numbers(store, *STEPS, include_bots=True))[0][0] == 6


async def test_steps_have_the_operators_of_queries(store: Store) -> None:
    assert (await numbers(store, "event:view,event:error,id:home", "format:*"))[0][0] == 6
    assert (await numbers(store, "format!:*,event:view", "event!:view"))[1][:2] == (3, 2)


@pytest.mark.parametrize(
    ("step", "where"),
    [
        ("event:view", Equals("event", "view")),
        ("event:view,event:download", OneOf("event", ("view", "download"))),
        ("format:CSV", Equals("format", "csv")),
        ("id^:a,id^:b", AllOf((Prefix("id", "a"), Prefix("id", "b")))),
        ("id!:a,id!:b", Not(OneOf("id", ("a", "b")))),
        ("id:*,id:a", Exists("id")),
        ("id!:*", Not(Exists("id"))),
        (r"id:a\,b\\,event:", AllOf((Equals("id", r"a,b" + "\\"), Equals("event", "")))),
        (r"title:a\,", Equals("title", "a,")),
        ("id:a:b!:c", Equals("id", "a:b!:c")),
    ],
)
async def test_parses_steps(step: str, where: object) -> None:
    assert parse_funnel((step, step)).steps[0].where == where


@pytest.mark.parametrize(
    ("steps", "within", "message"),
    [
        ((), (), "at least two steps"),
        (("event:view",), (), "at least two steps"),
        (("event:view",) * (MAX_STEPS + 1), (), "use at most 10"),
        (("event:view", "download"), (), "invalid step=download: expected conditions such as event:view"),
        (("event:view", ""), (), "invalid step="),
        (("event:view", "id:a,"), (), "invalid step=id:a,"),
        (("event:view", "a.b:c"), (), "invalid step=a.b:c"),
        (("event:view", "@timestamp:c"), (), "invalid step=@timestamp"),
        (("event:view", "event_id:c"), (), "every event has an event_id"),
        (("event:view", ",".join(["id:a"] * 11)), (), "11 conditions"),
        (("event:view", "id^:" + "x" * 501), (), "over 500 bytes"),
        (("event:view", "id:a"), ("30",), "invalid within=30"),
        (("event:view", "id:a"), ("0m",), "invalid within=0m"),
        (("event:view", "id:a"), ("1h", "2h"), "within is repeated"),
    ],
)
async def test_invalid_steps_are_rejected_with_the_reason(
    steps: tuple[str, ...], within: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidQuery) as raised:
        parse_funnel(steps, within)
    assert message in str(raised.value)


def furthest_by_all_ways(events: list[tuple[int, str]], steps: list[str], within: int | None) -> int:
    """Return how far a session gets, by trying every choice of events."""
    for count in range(len(steps), 0, -1):
        for chosen in combinations(events, count):
            fits = all(letter == step for (_, letter), step in zip(chosen, steps, strict=False))
            if fits and (within is None or chosen[-1][0] - chosen[0][0] <= within):
                return count
    return 0


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc")), max_size=9),
    st.lists(st.sampled_from("abc"), min_size=2, max_size=4),
    st.none() | st.integers(1, 8),
)
async def test_a_session_gets_as_far_as_any_choice_of_its_events(
    drawn: list[tuple[int, str]], steps: list[str], within: int | None
) -> None:
    events, now = [], 0
    for pause, letter in drawn:
        now += pause
        events.append((now, letter))
    predicates = [build_predicate(Equals("event", step), ("event",)) for step in steps]
    times = take_steps([(at, (letter,)) for at, letter in events], predicates, within)
    assert len(times) == furthest_by_all_ways(events, steps, within)
    assert all(first <= second for first, second in pairwise(times))
    assert within is None or not times or times[-1] - times[0] <= within
