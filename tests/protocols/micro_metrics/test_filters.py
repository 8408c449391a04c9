"""What the reports of micro-metrics are asked with."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery, Malformed
from metronome.protocols.micro_metrics.documents import PROTOCOL_MARKER
from metronome.protocols.micro_metrics.reports import ALL_TIME, QUERY_PARAMETERS, parse_metrics_query
from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Range

NOW = datetime(2017, 4, 28, 14, 57, 25, 458_000, UTC)


def time_range(query: dict[str, str], last: str = "30d") -> list[str | None]:
    asked = parse_metrics_query(query, NOW, default_last=last)
    return [None if moment is None else moment.isoformat()[:23] for moment in (asked.start, asked.end)]


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        # Whole days go back from this day's beginning, and this minute is the last one.
        ({}, "2017-03-29T00:00:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": ""}, "2017-03-29T00:00:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "30d"}, "2017-03-29T00:00:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "0d"}, "2017-04-28T00:00:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "25m"}, "2017-04-28T14:32:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "2d3h25m"}, "2017-04-26T11:32:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "4h1d"}, "2017-04-27T10:57:00+00:", "2017-04-28T14:58:00.001"),
        ({"last": "0"}, None, None),
        # A date alone is enough, and no other range is put beside it.
        ({"startDate": "2017-04-26"}, "2017-04-26T00:00:00+00:", None),
        ({"endDate": "2017-04-26"}, None, "2017-04-26T00:00:00.001"),
        (
            {"startDate": "Apr 26, 2017", "endDate": "1493381845458"},
            "2017-04-26T00:00:00+00:",
            "2017-04-28T12:17:25.459",
        ),
        ({"startDate": "2017-04-26T12:00:00 02:00"}, "2017-04-26T10:00:00+00:", None),
        ({"startDate": "2017-04-26", "last": "0"}, "2017-04-26T00:00:00+00:", None),
        # Where both are given, the last words count.
        ({"startDate": "2010-01-01", "last": "1h"}, "2017-04-28T13:57:00+00:", "2017-04-28T14:58:00.001"),
        ({"startDate": "", "endDate": ""}, "2017-03-29T00:00:00+00:", "2017-04-28T14:58:00.001"),
    ],
)
def test_a_range_of_time_is_read(query: dict[str, str], start: str | None, end: str | None) -> None:
    assert time_range(query) == [start, end]


def test_a_report_may_look_at_everything_if_nothing_is_said() -> None:
    assert time_range({}, ALL_TIME) == [None, None]
    assert time_range({"last": "1d"}, ALL_TIME) == ["2017-04-27T00:00:00+00:", "2017-04-28T14:58:00.001"]


def test_the_end_of_the_calendar_is_no_end() -> None:
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
def test_the_other_filters_are_read(query: dict[str, str], filters: tuple[Filter, ...]) -> None:
    assert parse_metrics_query(query, NOW).where == AllOf((Equals(*PROTOCOL_MARKER), *filters))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"typ": "a"}, '"typ" is not allowed: there are type, tags, fields, value'),
        ({"groupby": "a"}, '"groupby" is not allowed'),
        ({"period": "w"}, "must be one of d, h, m"),
        ({"last": "3"}, "write how far back"),
        ({"last": "d"}, "write how far back"),
        ({"last": "3w"}, "write how far back"),
        ({"last": "3d3d"}, "write how far back"),
        ({"last": "-3d"}, "write how far back"),
        ({"last": "9999999d"}, "from before the year 1"),
        ({"last": "99999999999999d"}, "write how far back"),
        ({"startDate": "soon"}, "\"startDate\": 'soon' is no time"),
        ({"endDate": "2017-02-30"}, '"endDate"'),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason(query: dict[str, str], sentence: str) -> None:
    with pytest.raises((InvalidQuery, Malformed)) as caught:
        parse_metrics_query(query, NOW)
    assert sentence in str(caught.value)


def test_a_report_has_a_parameter_of_its_own_and_the_key_is_none() -> None:
    assert parse_metrics_query({"groupby": "a", "key": "secret"}, NOW, "groupby").period == "d"


@given(st.dictionaries(st.sampled_from(QUERY_PARAMETERS), st.text(max_size=30) | st.from_regex(r"(\d{1,9}[dhm]){1,3}")))
def test_whatever_is_asked_only_unaskable_and_malformed_leave(query: dict[str, str]) -> None:
    try:
        asked = parse_metrics_query(query, NOW)
    except (InvalidQuery, Malformed):
        return
    assert asked.where.filters[0] == Equals(*PROTOCOL_MARKER)
