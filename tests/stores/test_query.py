"""Questions are checked as they are made, and answers arranged as they were asked for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Unaskable
from metronome.stores.query import COUNT, Answer, Kind, Metric, Order, Question, arrange, read_zone


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("count", Metric(Kind.COUNT, name="count")),
        ("count:duration", Metric(Kind.VALUES, "duration", name="count:duration")),
        ("first", Metric(Kind.FIRST, name="first")),
        ("last", Metric(Kind.LAST, name="last")),
        ("visitors", Metric(Kind.UNIQUE, "visitor", name="visitors")),
        ("sessions", Metric(Kind.UNIQUE, "session", name="sessions")),
        ("unique:id", Metric(Kind.UNIQUE, "id", name="unique:id")),
        ("sum:duration", Metric(Kind.SUM, "duration", name="sum:duration")),
        ("avg:a.b:c", Metric(Kind.AVG, "a.b:c", name="avg:a.b:c")),
        ("min: ", Metric(Kind.MIN, " ", name="min: ")),
        ("max:é", Metric(Kind.MAX, "é", name="max:é")),
        ("p50:duration", Metric(Kind.PERCENTILE, "duration", 50.0, "p50:duration")),
        ("p99.9:duration", Metric(Kind.PERCENTILE, "duration", 99.9, "p99.9:duration")),
        ("p0.1:duration", Metric(Kind.PERCENTILE, "duration", 0.1, "p0.1:duration")),
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
    with pytest.raises(Unaskable, match="is no metric: ask for count"):
        Metric.parse(text)


@pytest.mark.parametrize(
    ("text", "order"),
    [("count", Order("count")), ("-count", Order("count", descending=True)), ("--x", Order("-x", descending=True))],
)
def test_an_order_is_read_from_its_text(text: str, order: Order) -> None:
    assert Order.parse(text) == order


def test_a_question_s_columns_are_its_groups_and_its_metrics() -> None:
    question = Question((COUNT, Metric.parse("p95:duration")), by=("day", "id"))
    assert question.columns == ("day", "id", "count", "p95:duration")
    assert Question().columns == ("count",)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"metrics": ()}, "needs a metric"),
        ({"tz": "Europe/Atlantis"}, "'Europe/Atlantis' is no time zone"),
        ({"limit": -1}, "cannot be negative"),
        ({"offset": -1}, "cannot be negative"),
        ({"by": ("id", "id")}, "each column can be asked for once: id, id, count"),
        ({"by": ("count",)}, "each column can be asked for once"),
        ({"metrics": (COUNT, COUNT)}, "each column can be asked for once"),
        ({"order": (Order("id"),)}, "'id' is no column of this question: order by one of count"),
    ],
)
def test_what_no_store_could_answer_is_refused_at_once(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Unaskable, match=complaint):
        Question(**arguments)


@pytest.mark.parametrize("limit", [None, 0, 1])
def test_any_limit_from_nought_can_be_asked_for(limit: int | None) -> None:
    assert Question(limit=limit).limit == limit


@pytest.mark.parametrize("name", ["UTC", "Europe/Zurich", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_zones_are_known_by_their_iana_names(name: str) -> None:
    assert read_zone(name).key == name


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
    with pytest.raises(Unaskable, match="is no time zone: name one as Europe/Zurich or UTC") as caught:
        read_zone(name)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_any_text_is_a_zone_or_refused(name: str) -> None:
    try:
        read_zone(name)
    except Unaskable:
        return


def test_an_answer_of_pairs_is_a_mapping_in_its_order() -> None:
    assert list(Answer(("id", "count"), (("b", 2), ("a", 1)), 2).mapping().items()) == [("b", 2), ("a", 1)]


ROWS: list[tuple[Any, ...]] = [("b", 2, None), ("d", 2, 1.5), ("a", 1, 0.5), ("c", 2, 1.5)]


@pytest.mark.parametrize(
    ("order", "limit", "offset", "ids"),
    [
        ((), None, 0, "abcd"),
        ((Order("id", descending=True),), None, 0, "dcba"),
        ((Order("count"),), None, 0, "abcd"),
        ((Order("count", descending=True),), None, 0, "bcda"),
        ((Order("avg:n"),), None, 0, "bacd"),
        ((Order("avg:n", descending=True),), None, 0, "cdab"),
        ((Order("count", descending=True), Order("avg:n", descending=True)), None, 0, "cdba"),
        ((Order("count", descending=True), Order("id", descending=True)), None, 0, "dcba"),
        ((), 2, 0, "ab"),
        ((), 2, 3, "d"),
        ((), 2, 9, ""),
        ((), None, 1, "bcd"),
        ((), 0, 0, ""),
    ],
)
def test_rows_come_in_the_order_and_number_that_was_asked_for(
    order: tuple[Order, ...], limit: int | None, offset: int, ids: str
) -> None:
    question = Question((COUNT, Metric.parse("avg:n")), by=("id",), order=order, limit=limit, offset=offset)
    answer = arrange(question, ROWS.copy())
    assert "".join(str(row[0]) for row in answer.rows) == ids
    assert (answer.total, answer.exact, answer.columns) == (4, True, ("id", "count", "avg:n"))
    assert not arrange(question, [], exact=False).exact


@given(
    st.permutations(ROWS), st.lists(st.sampled_from(["id", "-id", "count", "-count", "avg:n", "-avg:n"]), max_size=3)
)
def test_the_order_that_rows_come_in_does_not_matter(rows: list[tuple[Any, ...]], order: list[str]) -> None:
    question = Question((COUNT, Metric.parse("avg:n")), by=("id",), order=tuple(map(Order.parse, order)))
    assert arrange(question, rows) == arrange(question, ROWS.copy())


def test_two_hours_that_a_clock_shows_alike_are_sorted_by_time() -> None:
    first, second = "2015-10-25T02:00:00+02:00", "2015-10-25T02:00:00+01:00"
    rows: list[tuple[Any, ...]] = [(second, 1), (first, 1)]
    by_hour = Question(by=("hour",))
    assert [row[0] for row in arrange(by_hour, list(rows)).rows] == [first, second]
    newest_first = Question(by=("hour",), order=(Order("hour", descending=True),))
    assert [row[0] for row in arrange(newest_first, list(rows)).rows] == [second, first]


def test_hours_at_the_ends_of_time_can_be_sorted() -> None:
    hours = ["0001-01-01T00:00:00+05:00", "0001-01-01T01:00:00+05:00", "9999-12-31T23:00:00-12:00"]
    rows: list[tuple[Any, ...]] = [(hour, 1) for hour in reversed(hours)]
    assert [row[0] for row in arrange(Question(by=("hour",)), rows).rows] == hours
