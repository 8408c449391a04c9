"""What a question asks for: defaults, limits, bots, and the range that is compared with."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
import pytest

from metronome.errors import RequestError
from metronome.reports.query.parse import parse_query_json, parse_query_string
from metronome.reports.query.request import (
    MAX_FILTER_VALUES,
    MAX_FILTERS,
    MAX_GROUP_FIELDS,
    MAX_METRICS,
    MAX_ROWS,
    ParsedQuery,
    parse_query,
)
from metronome.stores.query import EXCLUDE_BOTS, AllOf, Equals, Exists, Filter, Not, OneOf, Prefix, Query

NOW: Final = datetime(2026, 3, 31, 12, 30, tzinfo=UTC)


def asked(query: str) -> ParsedQuery:
    return parse_query(parse_query_string(query), NOW)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_an_empty_query_counts_events() -> None:
    one = asked("")
    assert one.query == Query(where=AllOf((EXCLUDE_BOTS,)), limit=1000)
    assert one.is_single_query
    assert one.store_queries() == (one.query,)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("bots=1", None),
        ("bots=1&event=view", AllOf((Equals("event", "view"),))),
        ("event=view", AllOf((Equals("event", "view"), EXCLUDE_BOTS))),
        ("bot=*", AllOf((Exists("bot"),))),
        ("bots=0&by=bot_kind", None),
        ("metrics=unique:bot", None),
        ("by=bots", AllOf((EXCLUDE_BOTS,))),
    ],
)
def test_a_query_that_names_a_bot_field_includes_bots(query: str, where: Filter | None) -> None:
    assert asked(query).query.where == where


def test_a_nested_filter_on_a_bot_field_includes_bots() -> None:
    body = orjson.dumps({"where": {"or": [{"id": "a"}, {"not": {"bot": "x"}}]}})
    where = parse_query(parse_query_json(body), NOW).query.where
    assert isinstance(where, AllOf)
    assert EXCLUDE_BOTS not in where.filters


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("from=2026-03-01&to=2026-03-02", "2026-02-27T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("from=-48h", "2026-03-27T12:30:00Z", "2026-03-29T12:30:00Z"),
        ("from=2026-03-01T06:00:00Z&to=2026-03-01T18:00:00Z", "2026-02-28T18:00:00Z", "2026-03-01T06:00:00Z"),
        # The day on which clocks go forward has 23 hours, and the day before has 24.
        ("from=2026-03-29&to=2026-03-29&tz=Europe/Zurich", "2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z"),
        ("from=2026-03-30&to=2026-03-30&tz=Europe/Zurich", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
    ],
)
def test_the_previous_range_has_the_same_length_and_ends_at_the_start(query: str, start: str, end: str) -> None:
    before = asked(f"{query}&compare=previous").comparison
    assert before is not None
    assert (before.start, before.end) == (at(start), at(end))


def test_a_range_of_days_up_to_now_is_compared_with_the_same_parts_of_days() -> None:
    before = asked("from=-2d&compare=previous").comparison
    assert before is not None
    assert (before.start, before.end) == (at("2026-03-26T00:00:00Z"), at("2026-03-28T12:30:00Z"))


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("from=2026-03-01&to=2026-03-02", "2025-03-01T00:00:00Z", "2025-03-03T00:00:00Z"),
        ("from=2024-02-29&to=2024-02-29", "2023-02-28T00:00:00Z", "2023-03-01T00:00:00Z"),
        # In 2025 clocks went forward on that day, which had 23 hours.
        ("from=2026-03-30&to=2026-03-30&tz=Europe/Zurich", "2025-03-29T23:00:00Z", "2025-03-30T22:00:00Z"),
        ("from=-24h", "2025-03-30T12:30:00Z", "2025-03-31T12:30:00Z"),
        ("from=-1d", "2025-03-30T00:00:00Z", "2025-03-31T12:30:00Z"),
    ],
)
def test_the_range_one_year_earlier_has_the_same_dates(query: str, start: str, end: str) -> None:
    before = asked(f"{query}&compare=year").comparison
    assert before is not None
    assert (before.start, before.end) == (at(start), at(end))


def test_a_comparison_has_more_columns_and_queries_both_ranges_without_limit() -> None:
    one = asked("metrics=count,avg:LCP&by=id&from=-48h&compare=previous&order=-count:change&limit=5&offset=1")
    assert one.query.columns == (
        *("id", "count", "count:previous", "count:change", "avg:LCP", "avg:LCP:previous", "avg:LCP:change"),
    )
    now, before = one.store_queries()
    assert now.columns == before.columns == ("id", "count", "avg:LCP")
    assert (now.sort_keys, now.limit, now.offset) == ((), MAX_ROWS, 0)
    assert (now.start, now.end) == (NOW - timedelta(days=2), NOW)
    assert (before.start, before.end) == (NOW - timedelta(days=4), NOW - timedelta(days=2))


def test_collects_all_field_names() -> None:
    one = asked("metrics=count,avg:LCP,unique:id&by=day,format&a=1&b!=2&c^=3&d>4&e=*")
    assert one.fields == {"LCP", "id", "format", "a", "b", "c", "d", "e", "bot"}
    assert one.numeric_fields == {"LCP", "d"}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("metrics=cuont", "invalid metric 'cuont': expected count"),
        ("metrics=avg", "invalid metric 'avg'"),
        ("order=-visitors", "cannot sort by 'visitors': expected one of count"),
        ("by=id,id", "a column occurs twice"),
        ("metrics=count,count:previous&from=-1d&compare=previous", "a column occurs twice"),
        ("limit=-1", "invalid limit=-1: expected a number"),
        ("limit=100001", "limit=100001 is over the maximum of 100,000 rows"),
        ("limit=many", "invalid limit=many: expected a number"),
        ("limit=\u0663", "expected a number of up to 9 digits"),
        ("offset=1e3", "invalid offset=1e3: expected a number"),
        ("offset=" + "9" * 30, "expected a number of up to 9 digits"),
        ("fill=perhaps", "invalid fill=perhaps: expected 1 or 0"),
        ("bots=perhaps", "invalid bots=perhaps: expected 1 or 0"),
        ("fill=1", "fill=1 needs a series: group by exactly one of minute, hour"),
        ("fill=1&by=id", "group by exactly one of"),
        ("fill=1&by=day,hour", "group by exactly one of"),
        ("compare=before&from=-1d", "invalid compare=before: expected one of previous, year"),
        ("compare=year", "compare=year needs a range: add from"),
        ("compare=previous&to=-1d", "compare=previous needs a range"),
        ("compare=previous&from=-1d&to=-2d", "from=-1d is not before to=-2d"),
        ("from=2026-02&to=2026-01", "from=2026-02 is not before to=2026-01: the range is empty"),
        ("compare=previous&from=-700000d", "needs a range before the start of the calendar"),
        ("compare=year&from=-739700d&to=2026-01-01", "needs a range before the start of the calendar"),
        ("from=tomorrow", "invalid from=tomorrow: expected a time"),
        ("tz=Mars", "unknown time zone 'Mars'"),
        ("by=" + "x" * 257, ": expected 1 to 256 characters"),
        ("=5", "invalid field name ''"),
        ("by=" + ",".join(f"f{at}" for at in range(MAX_GROUP_FIELDS + 1)), f"by has {MAX_GROUP_FIELDS + 1} entries"),
        ("metrics=" + ",".join(f"avg:f{at}" for at in range(MAX_METRICS + 1)), f"use at most {MAX_METRICS}"),
        ("&".join(f"f{at}=1" for at in range(MAX_FILTERS + 1)), f"use at most {MAX_FILTERS} filters"),
        ("&".join(f"f={at}" for at in range(MAX_FILTER_VALUES + 1)), "10,001 values: use at most"),
    ],
)
def test_rejects_invalid_queries_with_a_sentence(query: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        asked(query)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "parameters",
    [{"limit": 100_000}, {"limit": 0}, {"limit": ""}, {"offset": 999_999_999}, {"fill": True, "by": "day"}],
)
def test_accepts_queries_at_the_limits(parameters: dict[str, Any]) -> None:
    question = parse_query(parse_query_json(orjson.dumps(parameters)), NOW).query
    assert question.limit is not None
    assert 0 < question.limit <= MAX_ROWS


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("format=CSV", Equals("format", "csv")),
        ("format!=CSV", Not(Equals("format", "csv"))),
        ("format=CSV&format=Pdf&format=csv", OneOf("format", ("csv", "pdf"))),
        ("format^=X", Prefix("format", "x")),
        ("referer=arcgis.com", Equals("referer", "arcgis.com")),
        (
            "referer=https://www.arcgis.com/apps/?a",
            OneOf("referer", ("arcgis.com/apps", "https://www.arcgis.com/apps/?a")),
        ),
        ("referer=newsletter", Equals("referer", "newsletter")),
        ("referer^=https://www.Arcgis.com/Apps", Prefix("referer", "arcgis.com/Apps")),
        ("clientip=2001:DB8::0", OneOf("clientip", ("2001:db8::", "2001:DB8::0"))),
        ("id=CSV", Equals("id", "CSV")),
    ],
)
def test_values_of_filters_are_normalized_like_those_of_events(query: str, where: Filter) -> None:
    assert asked(f"bots=1&{query}").query.where == AllOf((where,))
