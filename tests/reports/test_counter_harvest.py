"""Harvests: what a dataset report can be asked with."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.reports.counter.dataset_report import (
    METRIC_TYPES,
    DatasetReportRequest,
    last_day,
    parse_dataset_report_request,
)
from metronome.reports.parameters import ReportParameters

NOW = datetime(2026, 3, 15, 23, 30, tzinfo=UTC)
TODAY = date(2026, 3, 15)
JANUARY = {"begin_date": "2026-01-01", "end_date": "2026-01-31"}
REQUESTS = ("total-dataset-requests", "unique-dataset-requests")


@pytest.mark.parametrize(
    ("query", "begin", "end"),
    [
        (JANUARY, date(2026, 1, 1), date(2026, 1, 31)),
        ({"begin_date": "2026-01", "end_date": "2026-02"}, date(2026, 1, 1), date(2026, 2, 28)),
        ({"begin_date": "2024-02", "end_date": "2024-02"}, date(2024, 2, 1), date(2024, 2, 29)),
        ({"begin_date": "2025-12-01", "end_date": "2025-12"}, date(2025, 12, 1), date(2025, 12, 31)),
        ({"begin_date": "2026-01-01", "end_date": "2026-01-10"}, date(2026, 1, 1), date(2026, 1, 10)),
        ({"begin_date": "2025-02", "end_date": "2026-01"}, date(2025, 2, 1), date(2026, 1, 31)),
        ({"begin_date": "2026-03", "end_date": "2026-12"}, date(2026, 3, 1), date(2026, 12, 31)),
        ({}, date(2026, 1, 1), TODAY),
        ({"begin_date": "", "end_date": ""}, date(2026, 1, 1), TODAY),
    ],
)
def test_a_range_has_days_or_months_and_defaults_to_this_year(query: dict[str, str], begin: date, end: date) -> None:
    assert parse_dataset_report_request(query, NOW) == DatasetReportRequest(begin, end, TODAY)


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"dataset_id": "10.5072/a"}, {"dataset": "10.5072/a"}),
        ({"metric_type": "unique-dataset-requests|total-dataset-requests"}, {"metric_types": REQUESTS}),
        ({"metric_type": "Total_Dataset_Requests|Unique_Dataset_Requests"}, {"metric_types": REQUESTS}),
        ({"access_method": "Machine"}, {"access_methods": ("machine",)}),
        ({"access_method": "regular|machine", "metric_type": "|".join(METRIC_TYPES)}, {}),
        ({"tz": "Pacific/Auckland"}, {"tz": "Pacific/Auckland", "today": date(2026, 3, 16)}),
        ({"release": "RD1", "api_key": "x", "customer_id": "y", "requestor_id": "z", "platform": "p"}, {}),
        ({"yop": "2015", "granularity": "month"}, {"ignored": ("yop", "granularity")}),
    ],
)
def test_parses_filters_and_lists_unknown_parameters(more: dict[str, str], asked: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"begin": date(2026, 1, 1), "end": date(2026, 1, 31), "today": TODAY}
    assert parse_dataset_report_request({**JANUARY, **more}, NOW) == DatasetReportRequest(**(plain | asked))


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"begin_date": "2026-01-01"}, "add the other"),
        ({"end_date": "2026-01-31"}, "add the other"),
        ({"begin_date": "2026-01-02", "end_date": "2026-01-31"}, "expected the first day of a month"),
        ({"begin_date": "2026-02-01", "end_date": "2026-01-31"}, "is before"),
        ({"begin_date": "2026-04-01", "end_date": "2026-04-30"}, "in the future"),
        ({"begin_date": "1969-12-01", "end_date": "2026-01-31"}, "expected 2026-01-31 or 2026-01"),
        ({"begin_date": "2026-01-01", "end_date": "9999-12-31"}, "expected 2026-01-31 or 2026-01"),
        ({"begin_date": "2026-01-01", "end_date": "2026-01-32"}, "invalid end_date=2026-01-32: expected 2026-01-31"),
        ({"begin_date": "20260101", "end_date": "2026-01-31"}, "invalid begin_date=20260101: expected 2026-01-31"),
        ({"begin_date": "2026-W01", "end_date": "2026-01-31"}, "expected 2026-01-31 or 2026-01"),
        ({"begin_date": "2026-1", "end_date": "2026-01-31"}, "expected 2026-01-31 or 2026-01"),
        ({**JANUARY, "metric_type": "total-item-requests"}, "expected some of total-dataset-investigations"),
        ({**JANUARY, "access_method": "robot|machine"}, "invalid access_method=robot"),
        ({**JANUARY, "release": "5.1"}, "expected rd1"),
        ({**JANUARY, "tz": "Mars/Olympus"}, "unknown time zone"),
    ],
)
def test_rejects_invalid_parameters_and_says_what_is_expected(query: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidQuery, match=says):
        parse_dataset_report_request(query, NOW)


def test_rejects_a_range_of_over_a_year() -> None:
    with pytest.raises(QueryTooExpensive, match="longer than 12 months"):
        parse_dataset_report_request({"begin_date": "2025-01-01", "end_date": "2026-01-01"}, NOW)


def test_a_range_into_the_future_ends_today() -> None:
    over, running = (
        DatasetReportRequest(date(2026, 3, 1), date(2026, 3, day), TODAY, tz="Europe/Zurich") for day in (14, 31)
    )
    assert not over.is_partial
    assert running.is_partial
    assert (over.available_until, running.available_until) == (date(2026, 3, 14), TODAY)
    start = datetime(2026, 2, 28, 23, tzinfo=UTC)
    assert over.parameters() == ReportParameters(start, datetime(2026, 3, 14, 23, tzinfo=UTC), "Europe/Zurich")
    assert running.parameters() == ReportParameters(start, datetime(2026, 3, 15, 23, tzinfo=UTC), "Europe/Zurich")


@pytest.mark.parametrize(
    ("day", "last"),
    [
        ("2024-02-29", "2024-02-29"),
        ("2025-02-01", "2025-02-28"),
        ("2025-12-31", "2025-12-31"),
        ("2026-04-30", "2026-04-30"),
    ],
)
def test_finds_the_last_day_of_a_month(day: str, last: str) -> None:
    assert last_day(date.fromisoformat(day)) == date.fromisoformat(last)


_NAMES = ("begin_date", "end_date", "dataset_id", "metric_type", "access_method", "tz", "release", "x")


@given(
    st.dictionaries(
        st.sampled_from(_NAMES),
        st.one_of(
            st.text(max_size=12), st.sampled_from(["2026-01", "2026-02-28", "2025-99", "0000-01", "machine", "|"])
        ),
    )
)
def test_any_parameters_are_parsed_or_rejected(query: dict[str, str]) -> None:
    try:
        asked = parse_dataset_report_request(query, NOW)
    except (InvalidQuery, QueryTooExpensive):
        return
    parameters = asked.parameters()
    assert parameters.start is not None
    assert parameters.end is not None
    assert parameters.start < parameters.end
