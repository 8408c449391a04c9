"""The parameters of micro-metrics' reports."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery, Malformed
from metronome.protocols.micro_metrics.documents import PROTOCOL_MARKER
from metronome.protocols.micro_metrics.reports import ALL_TIME, PERIODS, QUERY_PARAMETERS, parse_metrics_query
from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Range

NOW = datetime(2017, 4, 28, 14, 57, 25, 458_000, UTC)


def time_range(query: dict[str, str], last: str = "30d") -> list[str | None]:
    parsed = parse_metrics_query(query, NOW, default_last=last)
    return [None if moment is None else moment.isoformat()[:23] for moment in (parsed.start, parsed.end)]


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        # Whole days count back from the start of this day, and this minute is the last one.
        ({}, "2017-03-29T00:00:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": ""}, "2017-03-29T00:00:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "30d"}, "2017-03-29T00:00:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "0d"}, "2017-04-28T00:00:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "25m"}, "2017-04-28T14:32:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "2d3h25m"}, "2017-04-26T11:32:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "4h1d"}, "2017-04-27T10:57:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "0"}, None, None),
        # A date alone is a range; the default range does not apply.
        ({"startDate": "2017-04-26"}, "2017-04-26T00:00:00+00:", None),
        ({"endDate": "2017-04-26"}, None, "2017-04-26T00:00:00.001"),
        (
            {"startDate": "Apr 26, 2017", "endDate": "1493381845458"},
            "2017-04-26T00:00:00+00:",
            "2017-04-28T12:17:25.459",
        ),
        ({"startDate": "2017-04-26T12:00:00 02:00"}, "2017-04-26T10:00:00+00:", None),
        ({"startDate": "2017-04-26", "last": "0"}, "2017-04-26T00:00:00+00:", None),
        # "last" takes precedence over dates.
        ({"startDate": "2010-01-01", "last": "1h"}, "2017-04-28T13:57:00+00:", "2017-04-28T14:58:00.001"),
        ({"startDate": "", "endDate": ""}, "2017-03-29T00:00:00+00:", "2017-04-28T14:58:00.001"),
    ],
)
def test_parses_the_time_range(query: dict[str, str], start: str | None, end: str | None) -> None:
    assert time_range(query) == [start, end]


def test_the_default_range_may_be_all_of_the_time() -> None:
    assert time_range({}, ALL_TIME) == [None, None]
    assert time_range({"last": "1d"}, ALL_TIME) == ["2017-04-27T00:00:00+00:", "2017-04-28T14:58:00.001"]


def test_the_end_of_the_year_9999_is_no_limit() -> None:
    assert time_range({"endDate": "+009999-12-31T23:59:59.999Z"}) == [None, None]


@pytest.mark.parametrize(
    ("query", "filters"),
    [
        ({}, ()),
        ({"type": ""}, ()),
        ({"type": "sale"}, (Equals("event", "sale"),)),
        ({"tags": "a"}, (Exists("tags.a"),)),
        ({"tags": "a=1,b:2,c"}, (Equals("tags.a", "1"), Equals("tags.b", "2"), Exists("tags.c"))),
        ({"tags": "a="}, (Equals("tags.a", ""),)),
        ({"fields": "f=x"}, (Equals("fields.f", "x"),)),
        ({"value": "red"}, (Equals("metric.value", "red"),)),
        ({"value": "inf"}, (Equals("metric.value", "inf"),)),
        (
            {"value": "0.15"},
            (AnyOf((Range("value", at_least=0.15, at_most=0.15), Equals("metric.value", "0.15"))),),
        ),
        ({"value": ""}, ()),
    ],
)
def test_parses_the_other_filters(query: dict[str, str], filters: tuple[Filter, ...]) -> None:
    assert parse_metrics_query(query, NOW).where == AllOf((Equals(*PROTOCOL_MARKER), *filters))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"typ": "a"}, '"typ" is not allowed: expected type, tags, fields, value'),
        ({"groupby": "a"}, '"groupby" is not allowed'),
        ({"period": "w"}, "'w': expected d, h, m"),
        ({"last": "3"}, "expected a range such as 30d"),
        ({"last": "d"}, "expected a range such as 30d"),
        ({"last": "3w"}, "expected a range such as 30d"),
        ({"last": "3d3d"}, "expected a range such as 30d"),
        ({"last": "-3d"}, "expected a range such as 30d"),
        ({"last": "9999999d"}, "goes back before the year 1"),
        ({"last": "99999999999999d"}, "expected a range such as 30d"),
        ({"startDate": "soon"}, "\"startDate\": invalid time 'soon'"),
        ({"endDate": "2017-02-30"}, '"endDate"'),
    ],
)
def test_rejects_invalid_parameters(query: dict[str, str], sentence: str) -> None:
    with pytest.raises((InvalidQuery, Malformed)) as caught:
        parse_metrics_query(query, NOW)
    assert sentence in str(caught.value)


def test_accepts_a_report_s_own_parameter_and_ignores_the_key() -> None:
    assert parse_metrics_query({"groupby": "a", "key": "secret"}, NOW, "groupby").period == PERIODS["d"]


@given(st.dictionaries(st.sampled_from(QUERY_PARAMETERS), st.text(max_size=30) | st.from_regex(r"(\d{1,9}[dhm]){1,3}")))
def test_any_query_is_parsed_or_rejected(query: dict[str, str]) -> None:
    try:
        parsed = parse_metrics_query(query, NOW)
    except (InvalidQuery, Malformed):
        return
    assert parsed.where.filters[0] == Equals(*PROTOCOL_MARKER)
