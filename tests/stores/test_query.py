"""Queries are validated, and results sorted and limited."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery
from metronome.stores.query import COUNT, Metric, MetricKind, Query, QueryResult, SortKey, build_result, parse_time_zone


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("count", Metric(MetricKind.COUNT, name="count")),
        ("count:duration", Metric(MetricKind.VALUE_COUNT, "duration", name="count:duration")),
        ("first", Metric(MetricKind.FIRST, name="first")),
        ("last", Metric(MetricKind.LAST, name="last")),
        ("visitors", Metric(MetricKind.UNIQUE, "visitor", name="visitors")),
        ("sessions", Metric(MetricKind.UNIQUE, "session", name="sessions")),
        ("unique:id", Metric(MetricKind.UNIQUE, "id", name="unique:id")),
        ("sum:duration", Metric(MetricKind.SUM, "duration", name="sum:duration")),
        ("avg:a.b:c", Metric(MetricKind.AVG, "a.b:c", name="avg:a.b:c")),
        ("min: ", Metric(MetricKind.MIN, " ", name="min: ")),
        ("max:é", Metric(MetricKind.MAX, "é", name="max:é")),
        ("p50:duration", Metric(MetricKind.PERCENTILE, "duration", 50.0, "p50:duration")),
        ("p99.9:duration", Metric(MetricKind.PERCENTILE, "duration", 99.9, "p99.9:duration")),
        ("p0.1:duration", Metric(MetricKind.PERCENTILE, "duration", 0.1, "p0.1:duration")),
    ],
)
def test_parses_metrics(text: str, metric: Metric) -> None:
    assert Metric.parse(text) == metric


@pytest.mark.parametrize(
    "text",
    [
        *("", "counts", "COUNT", "count:", "first:id", "visitors:id", "unique", "unique:", "sum", "sum:", "p", "p50"),
        *("p:x", "p0:x", "p0.0:x", "p100:x", "p-1:x", "p50.:x", "percentile:x", "median:x", "avg:a\nb", " count"),
        "x" * 10_000,
    ],
)
def test_rejects_invalid_metrics(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^invalid metric .*: expected count"):
        Metric.parse(text)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("count", SortKey("count")),
        ("-count", SortKey("count", descending=True)),
        ("--x", SortKey("-x", descending=True)),
    ],
)
def test_parses_sort_keys(text: str, order: SortKey) -> None:
    assert SortKey.parse(text) == order


def test_columns_are_groups_and_metrics() -> None:
    query = Query((COUNT, Metric.parse("p95:duration")), group_by=("day", "id"))
    assert query.columns == ("day", "id", "count", "p95:duration")
    assert Query().columns == ("count",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ()}, "needs a metric"),
        ({"time_zone": "Europe/Atlantis"}, "unknown time zone 'Europe/Atlantis'"),
        ({"limit": -1}, "cannot be negative"),
        ({"offset": -1}, "cannot be negative"),
        ({"group_by": ("id", "id")}, "a column occurs twice: id, id, count"),
        ({"group_by": ("count",)}, "a column occurs twice"),
        ({"metrics": (COUNT, COUNT)}, "a column occurs twice"),
        ({"sort_keys": (SortKey("id"),)}, "cannot sort by 'id': expected one of count"),
    ],
)
def test_rejects_invalid_queries(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        Query(**arguments)


@pytest.mark.parametrize("limit", [None, 0, 1])
def test_accepts_any_limit_from_zero(limit: int | None) -> None:
    assert Query(limit=limit).limit == limit


@pytest.mark.parametrize("name", ["UTC", "Europe/Zurich", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_parses_iana_names(name: str) -> None:
    assert parse_time_zone(name).key == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "+01:00",
        "Europe",
        "Europe/",
        "/etc/passwd",
        "../UTC",
        "zone.tab",
        "a\0b",
        "x" * 5000,
        "é",
        "\ud800",
        ".",
        "localtime",
        "posixrules",
        "Factory",
        "posix/Europe/Zurich",
        "right/UTC",
    ],
)
def test_rejects_invalid_time_zones_in_a_short_message(name: str) -> None:
    with pytest.raises(
        InvalidQuery, match=r"^unknown time zone .*: expected a name such as Europe/Zurich or UTC"
    ) as caught:
        parse_time_zone(name)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_parses_or_rejects_any_text_as_a_time_zone(name: str) -> None:
    try:
        parse_time_zone(name)
    except InvalidQuery:
        return


def test_converts_a_result_to_a_mapping() -> None:
    assert list(QueryResult(("id", "count"), (("b", 2), ("a", 1)), 2).to_dict().items()) == [("b", 2), ("a", 1)]


ROWS: list[tuple[Any, ...]] = [("b", 2, None), ("d", 2, 1.5), ("a", 1, 0.5), ("c", 2, 1.5)]


@pytest.mark.parametrize(
    ("order", "limit", "offset", "ids"),
    [
        ((), None, 0, "abcd"),
        ((SortKey("id", descending=True),), None, 0, "dcba"),
        ((SortKey("count"),), None, 0, "abcd"),
        ((SortKey("count", descending=True),), None, 0, "bcda"),
        ((SortKey("avg:n"),), None, 0, "bacd"),
        ((SortKey("avg:n", descending=True),), None, 0, "cdab"),
        ((SortKey("count", descending=True), SortKey("avg:n", descending=True)), None, 0, "cdba"),
        ((SortKey("count", descending=True), SortKey("id", descending=True)), None, 0, "dcba"),
        ((), 2, 0, "ab"),
        ((), 2, 3, "d"),
        ((), 2, 9, ""),
        ((), None, 1, "bcd"),
        ((), 0, 0, ""),
    ],
)
def test_sorts_and_limits_rows(order: tuple[SortKey, ...], limit: int | None, offset: int, ids: str) -> None:
    query = Query((COUNT, Metric.parse("avg:n")), group_by=("id",), sort_keys=order, limit=limit, offset=offset)
    result = build_result(query, ROWS.copy())
    assert "".join(str(row[0]) for row in result.rows) == ids
    assert (result.total, result.exact, result.columns) == (4, True, ("id", "count", "avg:n"))
    assert not build_result(query, [], exact=False).exact


@given(
    st.permutations(ROWS), st.lists(st.sampled_from(["id", "-id", "count", "-count", "avg:n", "-avg:n"]), max_size=3)
)
def test_sorts_rows_independently_of_their_initial_order(rows: list[tuple[Any, ...]], order: list[str]) -> None:
    query = Query((COUNT, Metric.parse("avg:n")), group_by=("id",), sort_keys=tuple(map(SortKey.parse, order)))
    assert build_result(query, rows) == build_result(query, ROWS.copy())


def test_sorts_a_repeated_hour_by_time() -> None:
    first, second = "2015-10-25T02:00:00+02:00", "2015-10-25T02:00:00+01:00"
    rows: list[tuple[Any, ...]] = [(second, 1), (first, 1)]
    by_hour = Query(group_by=("hour",))
    assert [row[0] for row in build_result(by_hour, list(rows)).rows] == [first, second]
    newest_first = Query(group_by=("hour",), sort_keys=(SortKey("hour", descending=True),))
    assert [row[0] for row in build_result(newest_first, list(rows)).rows] == [second, first]


def test_sorts_hours_of_the_first_and_last_year() -> None:
    hours = ["0001-01-01T00:00:00+05:00", "0001-01-01T01:00:00+05:00", "9999-12-31T23:00:00-12:00"]
    rows: list[tuple[Any, ...]] = [(hour, 1) for hour in reversed(hours)]
    assert [row[0] for row in build_result(Query(group_by=("hour",)), rows).rows] == hours
