"""Clicks: double ones are folded, and sessions told apart, as the Code of Practice says."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import QueryTooExpensive
from metronome.reports.counter.clicks import DOUBLE_CLICK_MS, Click, parse_clicks, remove_double_clicks
from metronome.reports.counter.tally import UsageKey, UsageTally
from metronome.stores.sequences import EventSequence, SequenceEvent

UTC = ZoneInfo("UTC")
HALF_PAST_ONE = 1_497_533_700_000
"""2017-06-15T13:35:00Z, of the Code's own example."""


def click(seconds: float, target: str = "a", *, is_request: bool = False, hour: int | None = None) -> Click:
    return Click(
        timestamp_ms=round(seconds * 1000),
        item=target[:1],
        target=(target,),
        is_request=is_request,
        is_machine=False,
        country=None,
        month="1970-01",
        user_session=(719_163, hour),
    )


def seconds_of(clicks: Sequence[Click]) -> list[float]:
    return [one.timestamp_ms / 1000 for one in clicks]


@pytest.mark.parametrize(
    ("clicks", "kept"),
    [
        ([], []),
        ([7], [7]),
        ([0, 29], [29]),
        ([0, 30], [30]),
        ([0, 30.001], [0, 30.001]),
        ([0, 35], [0, 35]),
        ([0, 20, 45], [45]),
        ([0, 20, 45, 76, 100], [45, 100]),
        ([0, 0, 0], [0]),
    ],
)
def test_of_two_clicks_within_thirty_seconds_the_second_counts(clicks: list[float], kept: list[float]) -> None:
    assert seconds_of(remove_double_clicks([click(at) for at in clicks])) == kept


def test_clicks_on_other_targets_do_not_affect_double_clicks() -> None:
    clicks = [click(0, "a"), click(5, "b"), click(10, "a"), click(12, "c"), click(35, "b")]
    assert [(one.target, one.timestamp_ms) for one in remove_double_clicks(clicks)] == [
        (("a",), 10_000),
        (("c",), 12_000),
        (("b",), 35_000),
    ]


@given(st.lists(st.tuples(st.integers(0, 200_000), st.sampled_from("abc")), max_size=60))
def test_a_click_counts_only_if_no_other_follows_within_the_time(moments: list[tuple[int, str]]) -> None:
    clicks = [click(at / 1000, target) for at, target in sorted(moments)]
    naive = [
        one
        for at, one in enumerate(clicks)
        if not any(
            later.target == one.target and later.timestamp_ms - one.timestamp_ms <= DOUBLE_CLICK_MS
            for later in clicks[at + 1 :]
        )
    ]
    assert remove_double_clicks(clicks) == naive


def test_parses_the_target_of_a_click() -> None:
    trail = EventSequence(
        "s", (SequenceEvent(HALF_PAST_ONE, ("a", "download", "csv", "/a.csv?x=1#top", "script", "CH", "v")),)
    )
    assert parse_clicks(trail, UTC) == [
        Click(
            timestamp_ms=HALF_PAST_ONE,
            item="a",
            target=("a", "download", "csv", "/a.csv?x=1"),
            is_request=True,
            is_machine=True,
            country="CH",
            month="2017-06",
            user_session=(736_495, None),
        )
    ]


@pytest.mark.parametrize(
    ("key", "visitor", "zone", "session"),
    [
        ("logged", "v", "UTC", (736_495, None)),
        ("logged", None, "UTC", (736_495, None)),
        ("v", "v", "UTC", (736_495, 13)),
        ("v", "v", "America/New_York", (736_495, 9)),
        ("v", "v", "Pacific/Auckland", (736_496, 1)),
    ],
)
def test_a_logged_session_lasts_a_day_and_that_of_a_visitor_an_hour(
    key: str, visitor: str | None, zone: str, session: tuple[int, int | None]
) -> None:
    trail = EventSequence(key, (SequenceEvent(HALF_PAST_ONE, ("a", "view", None, None, None, None, visitor)),))
    (found,) = parse_clicks(trail, ZoneInfo(zone))
    assert found.user_session == session
    assert not found.is_request
    assert not found.is_machine


def test_months_are_those_of_the_time_zone() -> None:
    new_year = 1_483_228_799_999
    trail = EventSequence("v", (SequenceEvent(new_year, ("a", "view", None, None, None, None, "v")),))
    months = [parse_clicks(trail, ZoneInfo(zone))[0].month for zone in ("UTC", "Europe/Zurich", "America/New_York")]
    assert months == ["2016-12", "2017-01", "2016-12"]


def test_an_item_counts_once_per_session_as_investigation_and_as_request() -> None:
    tally = UsageTally()
    views = [click(0, hour=1), click(100, hour=1), click(3600, hour=2)]
    requests = [click(200, "a.csv", is_request=True, hour=1), click(300, "a.pdf", is_request=True, hour=1)]
    tally.add_clicks([*views, *requests, click(400, "b", is_request=True, hour=1)])
    assert {cell.item: counts.totals for cell, counts in tally.counts.items()} == {
        "a": [5, 2, 2, 1],
        "b": [1, 1, 1, 1],
    }


def test_a_unique_click_belongs_to_the_country_where_its_session_started() -> None:
    tally = UsageTally()
    clicks = [click(at)._replace(country=country) for at, country in ((0, None), (100, "CH"), (200, "DE"))]
    tally.add_clicks(clicks)
    tally.add_clicks(clicks[1:])
    (counts,) = tally.counts.values()
    assert counts.totals == [5, 2, 0, 0]
    assert counts.by_country == {"CH": [2, 1, 0, 0], "DE": [2, 0, 0, 0]}


def test_machines_are_counted_separately_in_the_same_session() -> None:
    tally = UsageTally()
    tally.add_clicks([click(0), click(100)._replace(is_machine=True)])
    assert [(cell.is_machine, counts.totals) for cell, counts in tally.counts.items()] == [
        (False, [1, 1, 0, 0]),
        (True, [1, 1, 0, 0]),
    ]


def test_every_anonymous_click_is_unique() -> None:
    tally = UsageTally()
    cell = UsageKey("a", "1970-01", is_machine=False)
    tally.add_anonymous_clicks(cell, "CH", 3, are_requests=False)
    tally.add_anonymous_clicks(cell, None, 2, are_requests=True)
    assert tally.counts[cell].totals == [5, 5, 2, 2]
    assert tally.counts[cell].by_country == {"CH": [3, 3, 0, 0]}


def test_rejects_more_keys_than_the_limit() -> None:
    tally = UsageTally(max_keys=2)
    tally.add_clicks([click(0, "a"), click(1, "b"), click(100, "a")])
    with pytest.raises(QueryTooExpensive, match="combinations of items and months"):
        tally.add_clicks([click(0, "c")])
    assert len(tally.counts) == 2
