"""Questions become searches, and responses answers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from metronome.errors import ConfigurationError, InvalidQuery, StoreUnavailable
from metronome.stores.elasticsearch.bulk import chunk_index_names, indices_before
from metronome.stores.elasticsearch.connection import ElasticsearchConfig, check_shards
from metronome.stores.elasticsearch.queries import (
    MAX_TERMS,
    CompositePlan,
    TermsPlan,
    TotalPlan,
    build_filter,
    build_query,
    build_search,
    field_path,
    first_plan,
    number_path,
)
from metronome.stores.elasticsearch.responses import QueryExecution, format_time_unit
from metronome.stores.query import (
    MAX_GROUPS,
    Equals,
    Exists,
    Metric,
    Not,
    OneOf,
    Prefix,
    Query,
    Range,
    SortKey,
    parse_time_zone,
)

DAY = datetime(2015, 1, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("id", "id"),
        ("k" * 100, "k" * 100),
        ("k" * 101, "params." + "k" * 101),
        ("a.b", "params.a.b"),
        ("1st", "params.1st"),
        ("_id", "params._id"),
        ("params", "params.params"),
        ("event.original", "params.event.original"),
        ("", "params._"),
        ("  ", "params._  "),
        ("a\0b", "params.a\ufffdb"),
        ("\ud800", "params.\ufffd"),
        ("é" * 300, "params." + "é" * 256),
    ],
)
def test_each_field_lies_where_the_event_put_it(field: str, expected: str) -> None:
    assert field_path(field) == expected


def test_numbers_lie_beside_the_text_and_params_have_none() -> None:
    assert number_path("n") == "n.num"
    assert number_path("a.b") == number_path("c d") == "params_have_no_numbers"


def test_many_values_are_asked_for_in_parts() -> None:
    values = tuple(str(number) for number in range(MAX_TERMS + 1))
    query = build_filter(OneOf("id", values))
    assert [len(each["terms"]["id"]) for each in query["bool"]["should"]] == [MAX_TERMS, 1]


def test_values_that_nothing_can_have_are_not_asked_for() -> None:
    assert build_filter(OneOf("id", ("a", "x" * 1025))) == {"terms": {"id": ["a"]}}
    assert build_filter(Prefix("id", "x" * 1025)) == {"match_none": {}}


@pytest.mark.parametrize("where", [Prefix("id", "x" * 1000), Prefix("event_id", "x")])
def test_what_elasticsearch_cannot_look_for_is_unaskable(where: Prefix) -> None:
    with pytest.raises(InvalidQuery):
        build_filter(Not(where))


@pytest.mark.parametrize(
    "question",
    [Query(group_by=("event_id",)), Query((Metric.parse("unique:event_id"),)), Query(group_by=("day", "event_id"))],
)
def test_identities_cannot_be_grouped_or_counted(question: Query) -> None:
    with pytest.raises(InvalidQuery):
        build_search(question, first_plan(question))


def test_ranges_of_time_are_whole_milliseconds() -> None:
    query = build_query(None, DAY - timedelta(microseconds=1), DAY + timedelta(microseconds=1))
    milliseconds = int(DAY.timestamp()) * 1000
    bounds = {"gte": milliseconds, "lt": milliseconds + 1, "format": "epoch_millis"}
    assert query == {"bool": {"filter": [{"range": {"@timestamp": bounds}}]}}
    assert build_query(None) == {"match_all": {}}


def test_no_bound_is_sent_that_json_has_not() -> None:
    assert build_filter(Range("n", above=float("-inf"), below=5)) == {"range": {"n.num": {"lt": 5}}}
    assert build_filter(Range("n", above=float("nan"))) == {"match_none": {}}


def test_keys_are_found_whatever_characters_they_have() -> None:
    assert build_filter(Exists("id")) == {"exists": {"field": "id"}}
    assert build_filter(Exists("utm.*")) == {"prefix": {"params.utm.*": ""}}


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ((), TotalPlan()),
        (("id",), TermsPlan()),
        (("a.b",), TermsPlan()),
        (("id", "a.b"), TermsPlan()),
        (("day",), TermsPlan()),
        (("minute",), CompositePlan(None, 20_000)),
        (("day", "id"), CompositePlan(None, 20_000)),
    ],
)
def test_each_question_begins_with_the_cheapest_search_that_can_be_exact(by: tuple[str, ...], expected: object) -> None:
    assert first_plan(Query(group_by=by)) == expected


def test_minutes_of_a_short_time_are_one_search() -> None:
    assert first_plan(Query(group_by=("minute",), start=DAY, end=DAY + timedelta(days=30))) == TermsPlan()
    assert first_plan(Query(group_by=("minute",), start=DAY, end=DAY + timedelta(days=60))) == CompositePlan(
        None, 20_000
    )


def test_every_search_can_be_written_as_json() -> None:
    metrics = tuple(map(Metric.parse, ("count", "unique:\ud800", "sum:n", "avg:n", "p50:n", "p99.9:n")))
    question = Query(metrics, ("day", "\udfff", "id"), Equals("\ud800", "\ud800"), time_zone="EST", start=DAY)
    body = orjson.loads(orjson.dumps(build_search(question, first_plan(question))))
    outermost = body["aggs"]["groups"]
    assert outermost["terms"]["field"] == "params.\ufffd"
    inner = outermost["aggs"]["groups"]
    assert inner["date_histogram"]["time_zone"] == "-05:00"
    innermost = inner["aggs"]["groups"]
    assert innermost["terms"]["field"] == "id"
    assert [next(iter(agg)) for agg in innermost["aggs"].values()] == ["cardinality", "stats", "percentiles"]
    assert innermost["aggs"]["m2"]["percentiles"]["percents"] == [50.0, 99.9]


def test_a_tree_that_lacks_groups_is_followed_by_pages_up_to_the_most_groups() -> None:
    question = Query(group_by=("id",), sort_keys=(SortKey("count", descending=True),), limit=1)
    reading = QueryExecution(question)
    reading.add_response(_groups([{"key": "top", "doc_count": 9}], sum_other_doc_count=5))
    asked = 0
    while isinstance(reading.plan, CompositePlan):
        names = range(asked, asked + reading.plan.size)
        asked += reading.plan.size
        reading.add_response(_groups([_page_bucket(f"{name:06}") for name in names], after_key={"0": f"{asked:06}"}))
    assert asked == MAX_GROUPS + 1
    answer = reading.result()
    assert answer.rows == (("top", 9),)
    assert not answer.exact


def test_pages_that_end_are_exact() -> None:
    reading = QueryExecution(Query(group_by=("day", "id")))
    bucket = {"key": {"0": int(DAY.timestamp()) * 1000, "1": "x"}, "doc_count": 3}
    reading.add_response(_groups([bucket], after_key=bucket["key"]))
    assert reading.plan is None
    assert reading.result().rows == (("2015-01-22", "x", 3),)
    assert reading.result().exact


def test_a_tree_of_params_that_is_too_large_is_asked_for_in_ever_more_parts() -> None:
    reading = QueryExecution(Query(group_by=("a.b", "id")))
    reading.add_response(_groups([{"key": "x", "doc_count": 2, "groups": {"sum_other_doc_count": 1, "buckets": []}}]))
    assert reading.plan == TermsPlan(0, 8)
    reading.use_smaller_plan()
    assert reading.plan == TermsPlan(0, 64)
    for part in range(64):
        assert reading.plan == TermsPlan(part, 64)
        inner = {"sum_other_doc_count": 0, "buckets": [{"key": "i", "doc_count": 1}]}
        reading.add_response(_groups([{"key": f"x{part:02}", "doc_count": 1, "groups": inner}]))
    assert reading.plan is None
    answer = reading.result()
    assert answer.rows[:2] == (("x00", "i", 1), ("x01", "i", 1))
    assert (answer.total, answer.exact) == (64, True)


def test_a_tree_that_no_parts_make_small_enough_is_not_exact() -> None:
    reading = QueryExecution(Query(group_by=("a.b",)))
    while reading.plan is not None:
        reading.add_response(_groups([{"key": "x", "doc_count": 2}], sum_other_doc_count=1))
    assert reading.result().rows == (("x", 2),)
    assert not reading.result().exact


def test_answers_with_estimates_are_not_exact_unless_there_was_nothing_to_estimate() -> None:
    question = Query((Metric.parse("visitors"), Metric.parse("p50:n")))
    for visitors, middle, exact in ((0, None, True), (3, None, False), (0, 1.5, False)):
        reading = QueryExecution(question)
        measures = {"m0": {"value": visitors}, "m1": {"values": [{"key": 50.0, "value": middle}]}}
        reading.add_response({"aggregations": {"groups": {"doc_count": 5, **measures}}})
        assert reading.result().rows == ((visitors, middle),)
        assert reading.result().exact is exact


@pytest.mark.parametrize(
    ("zone", "unit", "expected"),
    [
        ("UTC", "minute", "2015-06-30T23:00:00Z"),
        ("Europe/Zurich", "hour", "2015-07-01T01:00:00+02:00"),
        ("America/St_Johns", "minute", "2015-06-30T20:30:00-02:30"),
        ("Europe/Zurich", "day", "2015-07-01"),
        ("Europe/Zurich", "month", "2015-07"),
        ("UTC", "month", "2015-06"),
    ],
)
def test_times_are_named_as_answers_have_them(zone: str, unit: str, expected: str) -> None:
    moment = datetime(2015, 6, 30, 23, tzinfo=UTC)
    assert format_time_unit(int(moment.timestamp()) * 1000, unit, parse_time_zone(zone)) == expected


def test_an_answer_in_part_is_none() -> None:
    check_shards({"_shards": {"failed": 0}, "timed_out": False})
    with pytest.raises(StoreUnavailable):
        check_shards({"timed_out": True})
    with pytest.raises(StoreUnavailable, match="node left"):
        check_shards({"_shards": {"failed": 1, "failures": [{"reason": {"type": "gone", "reason": "node left"}}]}})


def test_only_days_that_lie_wholly_before_are_deleted_as_indices() -> None:
    days = ("p-2014.12.31", "p-2015.01.21", "p-2015.01.22", "p-2015.01.23")
    names = [*days, "p-x-2014.01.01", "p-2014", "xp-2014.01.01", "rollup-p-2014", "pp-2014.01.01"]
    assert indices_before(names, "p", DAY) == ["p-2014.12.31", "p-2015.01.21"]
    assert indices_before(names, "p", DAY + timedelta(hours=23)) == ["p-2014.12.31", "p-2015.01.21"]
    assert [len(part) for part in chunk_index_names(["x"] * 45)] == [20, 20, 5]


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("localhost:9200", "p"),
        ("ftp://localhost", "p"),
        ("http://", "p"),
        ("http://host:port", "p"),
        ("http://host", "Upper"),
        ("http://host", ""),
        ("http://host", "-p"),
        ("http://host", "p*"),
        ("http://host", "p,q"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(url: str, prefix: str) -> None:
    with pytest.raises(ConfigurationError):
        ElasticsearchConfig(url, prefix=prefix)


def test_a_configuration_does_not_show_its_secrets() -> None:
    config = ElasticsearchConfig("https://user:secret@host", api_key="secret")
    assert "secret" not in repr(config)


def _groups(buckets: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"aggregations": {"groups": {"buckets": buckets, **more}}}


def _page_bucket(name: str) -> dict[str, Any]:
    return {"key": {"0": name}, "doc_count": 1}
