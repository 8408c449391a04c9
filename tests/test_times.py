"""Timestamps in the forms that senders write, and labels of time units."""

import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metronome.errors import Malformed
from metronome.times import (
    format_time_unit,
    format_timestamp,
    from_milliseconds,
    parse_time_unit,
    parse_timestamp,
    to_milliseconds,
    to_milliseconds_ceil,
)

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_moments = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)).map(lambda naive: naive.replace(tzinfo=UTC))  # noqa: DTZ001  # the zone is added
_offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize(
    ("given", "stamp"),
    [
        ("2015-01-22T09:30:00.000Z", "2015-01-22T09:30:00.000Z"),
        ("2015-01-22T09:30:00.123456Z", "2015-01-22T09:30:00.123Z"),
        ("2015-01-22T09:30:00.999999Z", "2015-01-22T09:30:00.999Z"),
        ("2015-01-22T09:30:00,5Z", "2015-01-22T09:30:00.500Z"),
        ("2015-01-22T09:30:00Z", "2015-01-22T09:30:00.000Z"),
        ("2015-01-22T09:30Z", "2015-01-22T09:30:00.000Z"),
        ("2015-01-22T09Z", "2015-01-22T09:00:00.000Z"),
        ("2015-01-22T09:30:00", "2015-01-22T09:30:00.000Z"),
        ("2015-01-22 09:30:00", "2015-01-22T09:30:00.000Z"),
        ("2015-01-22T09:30:00+01:00", "2015-01-22T08:30:00.000Z"),
        ("2015-01-22T09:30:00-0730", "2015-01-22T17:00:00.000Z"),
        ("2015-01-22T00:30:00.000+01:00", "2015-01-21T23:30:00.000Z"),
        ("2015-01-22", "2015-01-22T00:00:00.000Z"),
        ("20150122", "2015-01-22T00:00:00.000Z"),
        ("20150122T093000Z", "2015-01-22T09:30:00.000Z"),
        ("2015-W04-4", "2015-01-22T00:00:00.000Z"),
        ("2015-W04-4T09:30:00.000Z", "2015-01-22T09:30:00.000Z"),
        ("2015-01-22T093000.000000Z", "2015-01-22T09:30:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ("1970-01-01", "1970-01-01T00:00:00.000Z"),
        ("2015", "2015-01-01T00:00:00.000Z"),
        (2015, "2015-01-01T00:00:00.000Z"),
        ("2015-01", "2015-01-01T00:00:00.000Z"),
        ("201502", "2015-02-01T00:00:00.000Z"),
        (201502, "2015-02-01T00:00:00.000Z"),
        ("2015-Q2", "2015-04-01T00:00:00.000Z"),
        ("2015-W04", "2015-01-19T00:00:00.000Z"),
        (20150122, "2015-01-22T00:00:00.000Z"),
        ("201501220930", "2015-01-22T09:30:00.000Z"),
        ("20150122093015", "2015-01-22T09:30:15.000Z"),
        (100_000_000, "1973-03-03T09:46:40.000Z"),
        (1421919000, "2015-01-22T09:30:00.000Z"),
        (1421919000.25, "2015-01-22T09:30:00.250Z"),
        (1421919000123, "2015-01-22T09:30:00.123Z"),
        (1421919000123.0, "2015-01-22T09:30:00.123Z"),
        ("1421919000", "2015-01-22T09:30:00.000Z"),
        ("1421919000.5", "2015-01-22T09:30:00.500Z"),
        ("1421919000123", "2015-01-22T09:30:00.123Z"),
        ("1.421919e9", "2015-01-22T09:30:00.000Z"),
        (" 1421919000 ", "2015-01-22T09:30:00.000Z"),
        (99_999_999_999, "5138-11-16T09:46:39.000Z"),
        (100_000_000_000, "1973-03-03T09:46:40.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (1421919000123456, "2015-01-22T09:30:00.123Z"),
        (1421919000999999999, "2015-01-22T09:30:00.999Z"),
        (1421919000123456.0, "2015-01-22T09:30:00.123Z"),
        ("1421919000123456", "2015-01-22T09:30:00.123Z"),
        ("1421919000999999999", "2015-01-22T09:30:00.999Z"),
        ("\t2015-01-22T09:30:00Z\n", "2015-01-22T09:30:00.000Z"),
        ("2015-01-22T09:30:00z", "2015-01-22T09:30:00.000Z"),
        ("2015-01-22t09:30:00.5z", "2015-01-22T09:30:00.500Z"),
        ("2015-06-30T23:59:60Z", "2015-06-30T23:59:59.000Z"),
        ("2015-07-01T01:59:60.5+02:00", "2015-06-30T23:59:59.500Z"),
        ("20150630T235960z", "2015-06-30T23:59:59.000Z"),
        ("Thu, 22 Jan 2015 09:30:00 +0100", "2015-01-22T08:30:00.000Z"),
        ("Thu,22 Jan 2015 09:30:00 GMT", "2015-01-22T09:30:00.000Z"),
        ("1 Jan 2015 09:30 EST", "2015-01-01T14:30:00.000Z"),
        ("Thu, 22 Jan 2015 09:30:00 -0000 (UTC)", "2015-01-22T09:30:00.000Z"),
        ("thu,  22 jan 15 09:30:00 utc", "2015-01-22T09:30:00.000Z"),
        ("Thursday, 22-Jan-15 09:30:00 GMT", "2015-01-22T09:30:00.000Z"),
        ("Thu Jan 22 09:30:00 2015", "2015-01-22T09:30:00.000Z"),
        ("Fri Jan  2 09:30:00 2015", "2015-01-02T09:30:00.000Z"),
        ("2015-01-22 09:30:00 UTC", "2015-01-22T09:30:00.000Z"),
        ("2015-01-22 09:30:00.5 +0000 UTC", "2015-01-22T09:30:00.500Z"),
        # Its digits could also be read as a day and a time of day in the year 1712.
        ("1712010112345", "2024-04-01T22:21:52.345Z"),
    ],
)
def test_parses_usual_timestamps(given: object, stamp: str) -> None:
    assert parse_timestamp(given) == stamp


@pytest.mark.parametrize(
    "given",
    [
        "",
        " ",
        "yesterday",
        "09:30",
        "22.01.2015",
        "Thu, 32 Jan 2015 09:30:00 +0000",
        "22 Foo 2015 09:30:00 +0000",
        "22 Jan 2015 09:30:00 +9999",
        "2015-01-22T09:60:00Z",
        "2015-01-22T09:30:61Z",
        "01/22/2015",
        "2015-13-01",
        "2015-02-29",
        "2015-01-22T25:00:00Z",
        "2015-01-22T09:30:00.000Q",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "+292278995-01-01T00:00:00Z",
        "10000-01-01",
        "0",
        "12",
        "2015-1",
        "201513",
        "20150230",
        "2015-Q5",
        "2015-W60",
        "2015-01-22-05:00",
        "2015-01-22 UTC",
        "2015-01-22 09:30:00 -0500 UTC",
        "22 Jan 2015 09:30:00 CEST",
        "-30d",
        "today",
        0,
        -0.0,
        2015.5,
        86_400,
        99_999_999,
        "nan",
        "inf",
        "-1",
        "9" * 10_000,
        "\ud800",
        -1,
        -0.001,
        253_402_300_800_000,
        10**30,
        pytest.param(10**10_000, id="ten thousand digits"),
        pytest.param(-(10**10_000), id="minus ten thousand digits"),
        1e300,
        math.nan,
        math.inf,
        -math.inf,
        True,
        False,
        None,
        {},
        {"a": 1},
        [],
        ["2015-01-22"],
        b"2015-01-22",
    ],
)
def test_rejects_invalid_timestamps_with_a_short_message(given: object) -> None:
    with pytest.raises(Malformed, match=r"invalid timestamp .*: expected ISO 8601") as caught:
        parse_timestamp(given)
    assert len(str(caught.value)) < 200


@given(_moments, _offsets)
def test_time_zone_of_a_timestamp_does_not_matter(moment: datetime, zone: timezone) -> None:
    stamp = format_timestamp(moment)
    assert parse_timestamp(moment.astimezone(zone).isoformat()) == stamp
    assert format_timestamp(moment.astimezone(zone)) == stamp
    assert parse_timestamp(stamp) == stamp


@given(_moments, _moments)
def test_timestamps_sort_chronologically(one: datetime, other: datetime) -> None:
    if format_timestamp(one) < format_timestamp(other):
        assert one < other
    assert STAMP.fullmatch(format_timestamp(one))
    assert format_timestamp(one)[:10] == f"{one:%Y-%m-%d}".zfill(10)


@given(st.integers(100_000_000_000, 253_402_300_799_999))
def test_milliseconds_may_be_a_number_or_a_text(number: int) -> None:
    # Twelve and fourteen digits may be a time of day, such as 201501220930.
    assume(len(str(number)) == len("1421919000123") or str(number) > "21")
    stamp = parse_timestamp(number)
    assert parse_timestamp(str(number)) == stamp
    assert datetime.fromisoformat(stamp) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)


@given(
    st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.datetimes().map(str), st.from_regex(r"[0-9TZ:.W-]+"))
)
def test_any_value_is_a_timestamp_or_malformed(given: object) -> None:
    try:
        stamp = parse_timestamp(given)
    except Malformed:
        return
    assert STAMP.fullmatch(stamp)
    assert parse_timestamp(stamp) == stamp


@given(_moments)
def test_converts_to_milliseconds_and_back(moment: datetime) -> None:
    floor, ceil = to_milliseconds(moment), to_milliseconds_ceil(moment)
    assert from_milliseconds(floor) <= moment <= from_milliseconds(ceil)
    assert ceil - floor == (moment.microsecond % 1000 != 0)


@pytest.mark.parametrize(
    ("start", "unit", "label"),
    [
        (date(2015, 1, 22), "day", "2015-01-22"),
        (datetime(2015, 1, 22, 9, tzinfo=UTC), "hour", "2015-01-22T09:00:00Z"),
        (datetime(2015, 1, 22, 9, 30, tzinfo=ZoneInfo("Europe/Zurich")), "minute", "2015-01-22T09:30:00+01:00"),
        (datetime(2015, 1, 22, tzinfo=ZoneInfo("Europe/Zurich")), "day", "2015-01-22"),
        (datetime(2015, 1, 19, tzinfo=ZoneInfo("Europe/Zurich")), "week", "2015-01-19"),
        (datetime(2015, 1, 1, tzinfo=ZoneInfo("Europe/Zurich")), "month", "2015-01"),
    ],
)
def test_formats_and_parses_time_units(start: date, unit: str, label: str) -> None:
    assert format_time_unit(start, unit) == label
    if isinstance(start, datetime):
        zone = start.tzinfo if isinstance(start.tzinfo, ZoneInfo) else ZoneInfo("UTC")
        assert parse_time_unit(label, unit, zone) == start
