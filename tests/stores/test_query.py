"""Questions are checked as they are made, and answers arranged as they were asked for."""

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
def test_a_metric_is_read_from_its_text(text: str, metric: Metric) -> None:
    assert Metric.parse(text) == metric


@pytest.mark.parametrize(
    "text",
    [
        *("", "counts", "COUNT", "count:", "first:id", "visitors:id", "unique", "unique:", "sum", "sum:", "p", "p50"),
        *("p:x", "p0:x", "p0.0:x", "p100:x", "p-1:x", "p50.:x", "percentile:x", "median:x", "avg:a\nb", " count"),
        "x" * 10_000,
    ],
)
def test_what_is_no_metric_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuery, match="is no metric: ask for count"):
        Metric.parse(text)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("count", SortKey("count")),
        ("-count", SortKey("count", descending=True)),
        ("--x", SortKey("-x", descending=True)),
    ],
)
def test_an_order_is_read_from_its_text(text: str, order: SortKey) -> None:
    assert SortKey.parse(text) == order


def test_a_question_s_columns_are_its_groups_and_its_metrics() -> None:
    question = Query((COUNT, Metric.parse("p95:duration")), group_by=("day", "id"))
    assert question.columns == ("day", "id", "count", "p95:duration")
    assert Query().columns == ("count",)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"metrics": ()}, "needs a metric"),
        ({"time_zone": "Europe/Atlantis"}, "'Europe/Atlantis' is no time zone"),
        ({"limit": -1}, "cannot be negative"),
        ({"offset": -1}, "cannot be negative"),
        ({"group_by": ("id", "id")}, "each column can be asked for once: id, id, count"),
        ({"group_by": ("count",)}, "each column can be asked for once"),
        ({"metrics": (COUNT, COUNT)}, "each column can be asked for once"),
        ({"sort_keys": (SortKey("id"),)}, "'id' is no column of this question: order by one of count"),
    ],
)
def test_what_no_store_could_answer_is_refused_at_once(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidQuery, match=complaint):
        Query(**arguments)


@pytest.mark.parametrize("limit", [None, 0, 1])
def test_any_limit_from_nought_can_be_asked_for(limit: int | None) -> None:
    assert Query(limit=limit).limit == limit


@pytest.mark.parametrize("name", ["UTC", "Europe/Zurich", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_zones_are_known_by_their_iana_names(name: str) -> None:
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
def test_what_is_no_zone_is_refused_in_few_words(name: str) -> None:
    with pytest.raises(InvalidQuery, match="is no time zone: name one as Europe/Zurich or UTC") as caught:
        parse_time_zone(name)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_any_text_is_a_zone_or_refused(name: str) -> None:
    try:
        parse_time_zone(name)
    except InvalidQuery:
        return


def test_an_answer_of_pairs_is_a_mapping_in_its_order() -> None:
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
def test_rows_come_in_the_order_and_number_that_was_asked_for(
    order: tuple[SortKey, ...], limit: int | None, offset: int, ids: str
) -> None:
    question = Query((COUNT, Metric.parse("avg:n")), group_by=("id",), sort_keys=order, limit=limit, offset=offset)
    answer = build_result(question, ROWS.copy())
    assert "".join(str(row[0]) for row in answer.rows) == ids
    assert (answer.total, answer.exact, answer.columns) == (4, True, ("id", "count", "avg:n"))
    assert not build_result(question, [], exact=False).exact


@given(
    st.permutations(ROWS), st.lists(st.sampled_from(["id", "-id", "count", "-count", "avg:n", "-avg:n"]), max_size=3)
)
def test_the_order_that_rows_come_in_does_not_matter(rows: list[tuple[Any, ...]], order: list[str]) -> None:
    question = Query((COUNT, Metric.parse("avg:n")), group_by=("id",), sort_keys=tuple(map(SortKey.parse, order)))
    assert build_result(question, rows) == build_result(question, ROWS.copy())


def test_two_hours_that_a_clock_shows_alike_are_sorted_by_time() -> None:
    first, second = "2015-10-25T02:00:00+02:00", "2015-10-25T02:00:00+01:00"
    rows: list[tuple[Any, ...]] = [(second, 1), (first, 1)]
    by_hour = Query(group_by=("hour",))
    assert [row[0] for row in build_result(by_hour, list(rows)).rows] == [first, second]
    newest_first = Query(group_by=("hour",), sort_keys=(SortKey("hour", descending=True),))
    assert [row[0] for row in build_result(newest_first, list(rows)).rows] == [second, first]


def test_hours_at_the_ends_of_time_can_be_sorted() -> None:
    hours = ["0001-01-01T00:00:00+05:00", "0001-01-01T01:00:00+05:00", "9999-12-31T23:00:00-12:00"]
    rows: list[tuple[Any, ...]] = [(hour, 1) for hour in reversed(hours)]
    assert [row[0] for row in build_result(Query(group_by=("hour",)), rows).rows] == hours
