"""The parameters of reports are read from a query string, or refused by name."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery
from metronome.reports.parameters import ReportParameters, parse_report_parameters
from metronome.stores.query import EXCLUDE_BOTS, AllOf, Exists

NOW = datetime(2015, 1, 22, 12, tzinfo=UTC)
KNOWN = frozenset({"from", "to", "tz", "interval", "limit", "bots", "order"})


def read(**query: str) -> ReportParameters:
    return parse_report_parameters({name.rstrip("_"): text for name, text in query.items()}, NOW, KNOWN)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_defaults_are_all_time_by_day_without_bots() -> None:
    assert read() == ReportParameters(None, None, "UTC", "day", 100, include_bots=False, order="", now=NOW)
    assert read(from_="", to="", tz="", interval="", limit="", order="") == read()


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2015-01-22", "2015-01-22T00:00Z", "2015-01-23T00:00Z"),
        ("1969-07-20", "1969-07-20T00:00Z", "1969-07-21T00:00Z"),
        ("2015-01-22T09:30:00Z", "2015-01-22T09:30Z", "2015-01-22T09:30Z"),
        ("2015-01-22T09:30:00+01:00", "2015-01-22T08:30Z", "2015-01-22T08:30Z"),
        ("2015-01-22T09:30:00 01:00", "2015-01-22T08:30Z", "2015-01-22T08:30Z"),
        ("2015-01-22 09:30", "2015-01-22T09:30Z", "2015-01-22T09:30Z"),
        ("1421919000", "2015-01-22T09:30Z", "2015-01-22T09:30Z"),
        ("1421919000000", "2015-01-22T09:30Z", "2015-01-22T09:30Z"),
        ("-30s", "2015-01-22T11:59:30Z", "2015-01-22T11:59:30Z"),
        ("-5m", "2015-01-22T11:55Z", "2015-01-22T11:55Z"),
        ("-12h", "2015-01-22T00:00Z", "2015-01-22T00:00Z"),
        ("now", "2015-01-22T12:00Z", "2015-01-22T12:00Z"),
        ("-30d", "2014-12-23T00:00Z", "2014-12-24T00:00Z"),
        ("-0d", "2015-01-22T00:00Z", "2015-01-23T00:00Z"),
        ("-2w", "2015-01-08T00:00Z", "2015-01-09T00:00Z"),
        ("-2mo", "2014-11-22T00:00Z", "2014-11-23T00:00Z"),
        ("-1q", "2014-10-22T00:00Z", "2014-10-23T00:00Z"),
        ("-1y", "2014-01-22T00:00Z", "2014-01-23T00:00Z"),
        ("today", "2015-01-22T00:00Z", "2015-01-23T00:00Z"),
        ("yesterday", "2015-01-21T00:00Z", "2015-01-22T00:00Z"),
        ("this-week", "2015-01-19T00:00Z", "2015-01-26T00:00Z"),
        ("last-week", "2015-01-12T00:00Z", "2015-01-19T00:00Z"),
        ("this-month", "2015-01-01T00:00Z", "2015-02-01T00:00Z"),
        ("last-month", "2014-12-01T00:00Z", "2015-01-01T00:00Z"),
        ("this-quarter", "2015-01-01T00:00Z", "2015-04-01T00:00Z"),
        ("last-quarter", "2014-10-01T00:00Z", "2015-01-01T00:00Z"),
        ("this-year", "2015-01-01T00:00Z", "2016-01-01T00:00Z"),
        ("last-year", "2014-01-01T00:00Z", "2015-01-01T00:00Z"),
        ("2014", "2014-01-01T00:00Z", "2015-01-01T00:00Z"),
        ("2014-Q4", "2014-10-01T00:00Z", "2015-01-01T00:00Z"),
        ("2014-12", "2014-12-01T00:00Z", "2015-01-01T00:00Z"),
        ("201412", "2014-12-01T00:00Z", "2015-01-01T00:00Z"),
        ("2015-W04", "2015-01-19T00:00Z", "2015-01-26T00:00Z"),
        ("2015W04", "2015-01-19T00:00Z", "2015-01-26T00:00Z"),
        ("2015-W04-4", "2015-01-22T00:00Z", "2015-01-23T00:00Z"),
        ("20150122", "2015-01-22T00:00Z", "2015-01-23T00:00Z"),
        ("20150122T0930", "2015-01-22T09:30Z", "2015-01-22T09:30Z"),
        ("201501220930", "2015-01-22T09:30Z", "2015-01-22T09:30Z"),
        ("1969-12-31T23:00:00Z", "1969-12-31T23:00Z", "1969-12-31T23:00Z"),
    ],
)
def test_a_range_has_days_times_or_offsets_from_now(text: str, start: str, end: str) -> None:
    assert (read(from_=text).start, read(to=text).end) == (at(start), at(end))


@pytest.mark.parametrize(
    ("day", "start", "end"),
    [
        ("2015-01-22", "2015-01-21T23:00Z", "2015-01-22T23:00Z"),
        ("2015-03-29", "2015-03-28T23:00Z", "2015-03-29T22:00Z"),
        ("2015-10-25", "2015-10-24T22:00Z", "2015-10-25T23:00Z"),
        ("2015-03", "2015-02-28T23:00Z", "2015-03-31T22:00Z"),
        ("today", "2015-01-21T23:00Z", "2015-01-22T23:00Z"),
        ("2015-07-10T00:00", "2015-07-09T22:00Z", "2015-07-09T22:00Z"),
        ("2015-07-10 09:30", "2015-07-10T07:30Z", "2015-07-10T07:30Z"),
        ("2015-07-10T00:00Z", "2015-07-10T00:00Z", "2015-07-10T00:00Z"),
    ],
)
def test_days_belong_to_the_time_zone(day: str, start: str, end: str) -> None:
    asked = read(from_=day, to=day, tz="Europe/Zurich")
    assert (asked.start, asked.end, asked.tz) == (at(start), at(end), "Europe/Zurich")


@pytest.mark.parametrize(
    ("text", "limit"), [("1", 1), ("0", None), ("000", None), ("100", 100), ("999999999", 999_999_999)]
)
def test_a_limit_of_zero_is_no_limit(text: str, limit: int | None) -> None:
    assert read(limit=text).limit == limit


@pytest.mark.parametrize(
    ("text", "bots"),
    [("1", True), ("true", True), ("YES", True), ("", True), ("0", False), ("False", False), ("no", False)],
)
def test_parses_booleans(text: str, *, bots: bool) -> None:
    assert read(bots=text).include_bots == bots


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ({"form": "x"}, "unknown parameter 'form': expected one of bots, from, interval, limit, order, to, tz"),
        ({"x" * 1000: ""}, "xxx': expected one of"),
        ({"tz": "Mars"}, "unknown time zone 'Mars'"),
        ({"interval": "decade"}, "invalid interval=decade: expected one of minute, hour, day, week, month"),
        ({"limit": "-1"}, "invalid limit=-1"),
        ({"limit": "1.5"}, "invalid limit=1.5"),
        ({"limit": "٣"}, "invalid limit=٣"),
        ({"limit": "1234567890"}, "expected a number of up to 9 digits"),
        ({"bots": "maybe"}, "invalid bots=maybe: expected 1 or 0"),
        *(
            ({name: text}, f"invalid {name}={text[:60]}: expected a time")
            for name in ("from", "to")
            for text in [
                *(
                    "tomorrow",
                    "2015-02-29",
                    "2015-1-2",
                    "2015-13",
                    "2015-Q5",
                    "2015-W54",
                    "-999999w",
                    "-1Y",
                    "-1234567d",
                ),
                *("30d", "100", "86400", "201513", "20150230", "2015-01-22-05:00", "1" * 5000),
            ]
        ),
        ({"to": "9999-12-31"}, "invalid to=9999-12-31: expected a time"),
        ({"from": "0001-01-01", "tz": "Asia/Tokyo"}, "invalid from=0001-01-01: expected a time"),
    ],
)
def test_rejects_invalid_parameters_by_name(query: dict[str, str], complaint: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_report_parameters(query, NOW, KNOWN)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), st.text() | st.from_regex(r"-?[0-9TZ:dhmsw-]+"), max_size=3))
def test_any_query_string_is_parsed_or_rejected(query: dict[str, Any]) -> None:
    try:
        asked = parse_report_parameters(query, NOW, KNOWN)
    except InvalidQuery:
        return
    assert all(moment is None or moment.tzinfo is not None for moment in (asked.start, asked.end))


def test_filters_exclude_bots_by_default() -> None:
    assert ReportParameters().build_filter(Exists("id")) == AllOf((Exists("id"), EXCLUDE_BOTS))
    assert ReportParameters(include_bots=True).build_filter(Exists("id")) == AllOf((Exists("id"),))
