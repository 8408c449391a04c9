"""Stays: how long an item is looked at, told by what follows its view."""

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.reports.dwell_time import DwellTime, dwell_times, percentiles
from metronome.reports.sessions import PAUSE_MS
from metronome.stores.sequences import SequenceEvent

MINUTE = 60_000


def steps(*told: tuple[float, str | None, str]) -> list[SequenceEvent]:
    """Make steps of their minute, item and event."""
    return [SequenceEvent(int(minute * MINUTE), (item, event)) for minute, item, event in told]


@pytest.mark.parametrize(
    ("told", "stays"),
    [
        pytest.param([(0, "a", "view")], [], id="a view alone has no known length"),
        pytest.param([(0, "a", "view"), (2, "b", "view")], [("a", 2)], id="the next view ends a stay"),
        pytest.param([(0, "a", "view"), (2, "b", "download")], [("a", 2)], id="a download of another item, too"),
        pytest.param([(0, "a", "view"), (2, "b", "error")], [("a", 2)], id="any event about another item, too"),
        pytest.param(
            [(0, "a", "view"), (0.25, "a", "heartbeat"), (0.5, "a", "heartbeat")],
            [("a", 0.5)],
            id="where nothing else follows, the last heartbeat does",
        ),
        pytest.param(
            [(0, "a", "view"), (1, "a", "download"), (2, "a", "timing")], [("a", 2)], id="or the last event of any kind"
        ),
        pytest.param(
            [(0, "a", "view"), (0.5, "a", "heartbeat"), (3, "b", "view")],
            [("a", 3)],
            id="the next item ends it, not the last heartbeat before",
        ),
        pytest.param(
            [(0, "a", "view"), (5, "a", "view"), (9, "b", "view")], [("a", 9)], id="a second view goes on with it"
        ),
        pytest.param(
            [(0, "a", "view"), (1, "b", "view"), (3, "a", "view"), (7, "b", "view")],
            [("a", 1), ("b", 2), ("a", 4)],
            id="who comes back stays again",
        ),
        pytest.param([(0, "a", "view"), (30, "b", "view")], [("a", 30)], id="half an hour without a sign is no pause"),
        pytest.param(
            [(0, "a", "view"), (30.001, "b", "view"), (31, "c", "view")],
            [("b", 0.999)],
            id="after a pause nobody knows how long it was",
        ),
        pytest.param(
            [(0, "a", "view"), (4, "a", "heartbeat"), (35, "b", "view")],
            [("a", 4)],
            id="but until the last sign it was for sure",
        ),
        pytest.param(
            [(0, "a", "view"), (4, "a", "heartbeat"), (35, "a", "view"), (36, "a", "heartbeat")],
            [("a", 4), ("a", 1)],
            id="a view after a pause begins a new stay",
        ),
        pytest.param(
            [(0, "a", "view"), (4, "a", "heartbeat"), (35, "a", "heartbeat"), (36, "a", "heartbeat")],
            [("a", 4)],
            id="a heartbeat after a pause does not",
        ),
        pytest.param(
            [(0, "a", "view"), (20, "a", "heartbeat"), (40, "a", "heartbeat"), (60, "b", "view")],
            [("a", 60)],
            id="signs of life make a stay as long as they come",
        ),
        pytest.param(
            [(0, "a", "heartbeat"), (1, "a", "download"), (2, "b", "view"), (3, "b", "heartbeat")],
            [("b", 1)],
            id="only a view begins a stay",
        ),
        pytest.param(
            [(0, "a", "view"), (1, None, "view"), (2, None, "heartbeat"), (3, "b", "view")],
            [("a", 3)],
            id="what is about no item changes nothing",
        ),
        pytest.param(
            [(0, "a", "view"), (0, "a", "x"), (0, "b", "view"), (5, "b", "heartbeat")],
            [("b", 5)],
            id="what happens at the same time tells no length",
        ),
        pytest.param([], [], id="nothing has no stays"),
    ],
)
def test_a_stay_lasts_from_a_view_to_the_next_event(
    told: list[tuple[float, str | None, str]], stays: list[tuple[str, float]]
) -> None:
    assert list(dwell_times(steps(*told))) == [DwellTime(item, int(minutes * MINUTE)) for item, minutes in stays]


EVENTS = st.tuples(
    st.integers(0, 2 * PAUSE_MS),
    st.sampled_from(["a", "b", None]),
    st.sampled_from(["view", "heartbeat", "download"]),
)


@given(st.lists(EVENTS, max_size=20))
def test_stays_of_a_session_do_not_overlap_and_start_with_views(
    events: list[tuple[int, str | None, str]],
) -> None:
    told = [SequenceEvent(at, (item, event)) for at, item, event in sorted(events, key=lambda each: each[0])]
    stays = list(dwell_times(told))
    assert all(stay.milliseconds > 0 for stay in stays)
    assert sum(stay.milliseconds for stay in stays) <= (told[-1].timestamp_ms - told[0].timestamp_ms if told else 0)
    for item in "ab":
        views = sum(step.values == (item, "view") for step in told)
        assert sum(stay.item == item for stay in stays) <= views


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=50))
def test_percentiles_equal_those_of_duckdb(numbers: list[int]) -> None:
    sql = "SELECT quantile_cont(number, [0.5, 0.75, 0.95]) FROM (SELECT unnest(?::DOUBLE[]) AS number)"
    row = duckdb.execute(sql, [numbers]).fetchone()
    assert row is not None
    assert list(percentiles(numbers).values()) == pytest.approx(row[0], rel=1e-12)


def test_no_numbers_have_no_percentiles() -> None:
    assert percentiles([]) == {"p50": None, "p75": None, "p95": None}
