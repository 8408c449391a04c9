"""Units of time: each that a range has a part of, across clock changes, as found by walking every minute."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.reports.query.series import empty_value, fill_gaps, find_partial_units, list_time_units
from metronome.stores.query import TIME_UNITS, Metric
from metronome.times import parse_time_unit

ZONES: Final = (
    *("UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu"),
    # Half an hour of summer time; a day that was left out; midnights that were left out.
    *("Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo"),
)
CHANGES: Final = (
    *("2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2026-03-08T07:00:00Z", "2026-11-01T06:00:00Z"),
    *("2026-04-04T15:00:00Z", "2026-10-03T15:30:00Z", "2011-12-30T10:00:00Z", "2017-10-15T03:00:00Z"),
    *("2018-02-18T02:00:00Z", "2024-02-29T12:00:00Z", "2026-01-01T00:00:00Z"),
)
MINUTE: Final = timedelta(minutes=1)
NAIVE_TIMES: Final = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1))  # noqa: DTZ001  # made aware below
LONGEST: Final = {
    unit: timedelta(days=days) for unit, days in (("week", 8), ("month", 32), ("quarter", 93), ("year", 367))
}


def label_of(moment: datetime, unit: str, zone: ZoneInfo) -> str:  # noqa: PLR0911  # one for each unit
    local = moment.astimezone(zone)
    if unit == "all":
        return unit
    if unit == "year":
        return f"{local:%Y}"
    if unit == "quarter":
        return f"{local:%Y}-Q{(local.month + 2) // 3}"
    if unit == "month":
        return f"{local:%Y-%m}"
    if unit == "week":
        return f"{local.date() - timedelta(days=local.weekday())}"
    if unit == "day":
        return f"{local.date()}"
    fixed = local.replace(tzinfo=timezone(local.utcoffset() or timedelta()), second=0, microsecond=0)
    whole = fixed if unit == "minute" else fixed.replace(minute=0)
    return whole.isoformat().replace("+00:00", "Z")


@given(
    st.sampled_from(CHANGES),
    st.integers(-3000, 3000),
    st.integers(0, 5000),
    st.sampled_from(TIME_UNITS),
    st.sampled_from(ZONES),
)
def test_time_units_are_those_of_every_minute(change: str, shift: int, minutes: int, unit: str, name: str) -> None:
    zone = ZoneInfo(name)
    start = datetime.fromisoformat(change) + shift * MINUTE
    walked = dict.fromkeys(label_of(start + at * MINUTE, unit, zone) for at in range(minutes))
    found = list_time_units(unit, start, start + minutes * MINUTE, zone)
    # A week or month is there though its own first day may have been left out.
    assert found == [*walked]


@pytest.mark.parametrize(
    ("unit", "start", "end", "zone", "found"),
    [
        ("day", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "Europe/Zurich", ["2026-03-29"]),
        ("day", "2026-03-28T22:59:59.999Z", "2026-03-29T22:00:00.001Z", "Europe/Zurich",
         ["2026-03-28", "2026-03-29", "2026-03-30"]),
        ("day", "2011-12-29T12:00:00Z", "2011-12-31T12:00:00Z", "Pacific/Apia",
         ["2011-12-29", "2011-12-31", "2012-01-01"]),
        ("hour", "2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z", "Europe/Zurich",
         ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"]),
        ("hour", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "Europe/Zurich",
         ["2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"]),
        ("hour", "2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z", "Asia/Kolkata", ["2026-01-01T05:00:00+05:30"]),
        ("week", "2026-01-01T00:00:00Z", "2026-01-06T00:00:00Z", "UTC", ["2025-12-29", "2026-01-05"]),
        ("month", "2026-01-31T00:00:00Z", "2026-03-01T00:00:00Z", "UTC", ["2026-01", "2026-02"]),
        ("quarter", "2025-12-31T23:59:00Z", "2026-04-01T00:00:00Z", "UTC", ["2025-Q4", "2026-Q1"]),
        ("year", "2025-12-31T22:59:00Z", "2025-12-31T23:01:00Z", "Europe/Zurich", ["2025", "2026"]),
        ("all", "2025-12-31T22:59:00Z", "2026-12-31T23:01:00Z", "UTC", ["all"]),
        ("minute", "2026-01-01T00:00:30Z", "2026-01-01T00:01:01Z", "UTC",
         ["2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"]),
        ("day", "2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z", "UTC", []),
        ("day", "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "UTC", []),
    ],
)  # fmt: skip
def test_lists_time_units(unit: str, start: str, end: str, zone: str, found: list[str]) -> None:
    assert list_time_units(unit, datetime.fromisoformat(start), datetime.fromisoformat(end), ZoneInfo(zone)) == found


@given(st.sampled_from(TIME_UNITS[:-1]), st.sampled_from(ZONES), NAIVE_TIMES)
def test_a_unit_starts_no_later_than_its_content(unit: str, name: str, naive: datetime) -> None:
    zone, moment = ZoneInfo(name), naive.replace(tzinfo=UTC)
    begin = parse_time_unit(label_of(moment, unit, zone), unit, zone)
    # A midnight that was left out begins the day an hour late.
    assert begin <= moment + timedelta(hours=1)
    assert moment - begin <= LONGEST.get(unit, timedelta(hours=26))


@pytest.mark.slow
def test_rejects_too_many_time_units_early() -> None:
    start, end = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
    for unit in ("minute", "hour", "day", "week"):
        with pytest.raises(QueryTooExpensive, match=f"over 100,000 {unit}s"):
            list_time_units(unit, start, end, ZoneInfo("UTC"))


def test_rejects_ranges_beyond_the_calendar() -> None:
    end = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    for unit in TIME_UNITS[:-1]:
        with pytest.raises(InvalidQuery, match="exceeds the calendar"):
            list_time_units(unit, end - timedelta(days=1), end, ZoneInfo("Asia/Tokyo"))


METRICS: Final = tuple(map(Metric.parse, ("count", "sum:a", "avg:a", "visitors", "count:a", "last")))


def test_empty_counts_and_sums_are_zero_and_other_metrics_none() -> None:
    assert [empty_value(metric) for metric in METRICS] == [0, 0.0, None, 0, 0, None]
    assert fill_gaps([], ("day",), METRICS[:3], ["2026-01-01"]) == [("2026-01-01", 0, 0.0, None)]


def test_each_group_has_every_time_unit() -> None:
    rows = [("a", "2026-01-02", "x", 5), ("b", "2026-01-01", "x", 6)]
    found = fill_gaps(rows, ("id", "day", "event"), METRICS[:1], ["2026-01-01", "2026-01-02"])
    assert sorted(found) == [
        ("a", "2026-01-01", "x", 0),
        ("a", "2026-01-02", "x", 5),
        ("b", "2026-01-01", "x", 6),
        ("b", "2026-01-02", "x", 0),
    ]
    assert fill_gaps([], ("id", "day"), METRICS[:1], ["2026-01-01"]) == []


def test_rejects_too_many_rows() -> None:
    rows = [(f"i{at}", "2026-01-01", 1) for at in range(1001)]
    with pytest.raises(QueryTooExpensive, match="100 days for each of 1,001 groups exceed 100,000 rows"):
        fill_gaps(rows, ("id", "day"), METRICS[:1], [f"d{at}" for at in range(100)])


@pytest.mark.parametrize(
    ("unit", "labels", "start", "end", "partial"),
    [
        # Now is noon on a Wednesday.
        ("day", ["2026-03-30", "2026-03-31", "2026-04-01"], "2026-03-30T00:00:00Z", None, ["2026-04-01"]),
        ("day", ["2026-03-30", "2026-03-31", "2026-04-01"], "2026-03-30T12:00:00Z", None, ["2026-03-30", "2026-04-01"]),
        ("day", ["2026-03-30", "2026-03-31"], "2026-03-30T00:00:00Z", "2026-04-01T00:00:00Z", []),
        ("day", ["2026-03-30", "2026-03-31"], "2026-03-30T00:00:00Z", "2026-03-31T09:00:00Z", ["2026-03-31"]),
        ("day", ["2026-04-01", "2026-04-02"], None, "2026-05-01T00:00:00Z", ["2026-04-01", "2026-04-02"]),
        ("day", ["2026-03-30"], None, None, []),
        (
            "hour",
            ["2026-04-01T11:00:00Z", "2026-04-01T12:00:00Z"],
            "2026-04-01T11:30:00Z",
            None,
            ["2026-04-01T11:00:00Z", "2026-04-01T12:00:00Z"],
        ),
        ("week", ["2026-03-23", "2026-03-30"], "2026-03-25T00:00:00Z", None, ["2026-03-23", "2026-03-30"]),
        ("month", ["2026-03", "2026-04"], "2026-03-01T00:00:00Z", None, ["2026-04"]),
        ("quarter", ["2026-Q1", "2026-Q2"], "2026-02-01T00:00:00Z", "2026-07-01T00:00:00Z", ["2026-Q1", "2026-Q2"]),
        ("year", ["2025", "2026"], None, None, ["2026"]),
        ("all", ["all"], "2026-03-25T00:00:00Z", None, []),
    ],
)
def test_time_units_that_the_range_or_the_present_cuts_are_partial(
    unit: str, labels: list[str], start: str | None, end: str | None, partial: list[str]
) -> None:
    first, last = (None if text is None else datetime.fromisoformat(text) for text in (start, end))
    now = datetime(2026, 4, 1, 12, tzinfo=UTC)
    assert find_partial_units(unit, labels, first, last, now, ZoneInfo("UTC")) == partial


def test_without_a_present_every_unit_is_over() -> None:
    assert find_partial_units("day", ["2026-03-30"], None, None, None, ZoneInfo("UTC")) == []
