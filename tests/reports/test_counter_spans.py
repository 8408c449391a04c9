"""Spans: days are put together as long as they have few events."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.reports.counter.tally import TimeSpan, split_into_spans
from metronome.times import from_milliseconds, to_milliseconds_ceil

ZURICH = ZoneInfo("Europe/Zurich")


def at(text: str) -> int:
    return to_milliseconds_ceil(datetime.fromisoformat(text))


def test_combines_days_up_to_the_limit_of_events() -> None:
    days = [("2025-11-30", 3), ("2025-12-01", 4), ("2026-02-28", 3), ("2026-03-01", 11), ("2026-03-02", 1)]
    assert split_into_spans(days, ZoneInfo("UTC"), None, None, max_events=10) == [
        TimeSpan(at("2025-11-30T00:00Z"), at("2026-03-01T00:00Z")),
        TimeSpan(at("2026-03-01T00:00Z"), at("2026-03-02T00:00Z")),
        TimeSpan(at("2026-03-02T00:00Z"), at("2026-03-03T00:00Z")),
    ]


def test_spans_start_with_days_of_the_time_zone_and_stay_in_the_range() -> None:
    start, end = datetime(2026, 3, 28, 8, tzinfo=UTC), datetime(2026, 3, 29, 20, tzinfo=UTC)
    assert split_into_spans([("2026-03-28", 1), ("2026-03-29", 1)], ZURICH, start, end, max_events=1) == [
        TimeSpan(to_milliseconds_ceil(start), at("2026-03-28T23:00Z")),
        TimeSpan(at("2026-03-28T23:00Z"), to_milliseconds_ceil(end)),
    ]
    # Clocks go forward that night.
    assert split_into_spans([("2026-03-29", 1)], ZURICH, None, None) == [
        TimeSpan(at("2026-03-28T23:00Z"), at("2026-03-29T22:00Z"))
    ]
    # And here they do so at midnight: the day begins at one.
    assert split_into_spans([("2022-09-11", 1)], ZoneInfo("America/Santiago"), None, None) == [
        TimeSpan(at("2022-09-11T04:00Z"), at("2022-09-12T03:00Z"))
    ]


def test_no_days_give_no_spans() -> None:
    assert split_into_spans([], ZURICH, None, datetime(2026, 3, 20, tzinfo=UTC)) == []


@pytest.mark.parametrize(("micros", "ms"), [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (-1, 0), (-1000, -1)])
def test_rounds_times_up_to_milliseconds(micros: int, ms: int) -> None:
    assert to_milliseconds_ceil(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)) == ms


@given(
    st.dictionaries(st.dates(date(1970, 1, 2), date(2030, 1, 1)), st.integers(1, 9), max_size=30),
    st.sampled_from(["UTC", "Europe/Zurich", "America/St_Johns", "America/Santiago", "Pacific/Auckland"]),
    st.integers(1, 20),
)
def test_every_day_is_in_exactly_one_span(counts: dict[date, int], name: str, most: int) -> None:
    zone = ZoneInfo(name)
    days = [(day.isoformat(), counts[day]) for day in sorted(counts)]
    found = split_into_spans(days, zone, None, None, most)
    assert all(one.end <= other.start for one, other in pairwise(found))
    for day in counts:
        moments = [
            to_milliseconds_ceil(datetime.combine(day, one, zone)) for one in (time(2), time(23, 59, 59, 999_000))
        ]
        assert [sum(span.start <= moment < span.end for span in found) for moment in moments] == [1, 1]
        assert len({span for span in found for moment in moments if span.start <= moment < span.end}) == 1
    for span in found:
        dates = {
            from_milliseconds(ms).astimezone(zone).date() for ms in (span.start - 1, span.start, span.end - 1, span.end)
        }
        assert len(dates) >= 3
