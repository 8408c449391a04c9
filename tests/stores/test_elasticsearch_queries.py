"""Queries become searches, and responses results."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from metronome.errors import ConfigurationError, InvalidQuery, StoreUnavailable
from metronome.stores.elasticsearch.bulk import chunk_index_names, indices_before
from metronome.stores.elasticsearch.connection import ElasticsearchConfig, check_shards
from metronome.stores.elasticsearch.queries import (
    GROUPS_AGGREGATION,
    MAX_TERMS,
    CompositePlan,
    TermsPlan,
    TotalPlan,
    build_filter,
    build_query,
    build_search,
    field_path,
    first_plan,
    merge_searches,
    number_path,
)
from metronome.stores.elasticsearch.responses import QueryExecution
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
)

DAY = datetime(2015, 1, 22, tzinfo=UTC)


def test_queries_of_the_same_events_are_one_search() -> None:
    views, downloads = Equals("event", "view"), Equals("event", "download")
    queries = [
        Query(group_by=("day",), where=views),
        Query(group_by=("format",), where=downloads),
        Query(group_by=("event",), where=downloads),
        Query(group_by=("format", "id"), where=downloads),
        Query(group_by=("format",), where=downloads, start=DAY),
    ]
    searches = [build_search(query, first_plan(query)) for query in queries]
    merged, places = merge_searches(searches)
    assert places == [(0, "groups"), (1, "groups"), (1, "groups1"), (2, "groups"), (3, "groups")]
    assert merged[0] == searches[0]
    assert merged[1]["aggs"] == {"groups": searches[1]["aggs"]["groups"], "groups1": searches[2]["aggs"]["groups"]}
    assert (merged[2], merged[3]) == (searches[3], searches[4])
    # The searches that were given are not changed.
    assert list(searches[1]["aggs"]) == ["groups"]


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
def test_finds_fields_where_documents_have_them(field: str, expected: str) -> None:
    assert field_path(field) == expected


def test_numbers_are_a_subfield_and_params_have_none() -> None:
    assert number_path("n") == "n.num"
    assert number_path("a.b") == number_path("c d") == "params_have_no_numbers"


def test_splits_many_values_into_several_clauses() -> None:
    values = tuple(str(number) for number in range(MAX_TERMS + 1))
    query = build_filter(OneOf("id", values))
    assert [len(clause["terms"]["id"]) for clause in query["bool"]["should"]] == [MAX_TERMS, 1]


def test_omits_values_that_are_too_long_to_be_indexed() -> None:
    assert build_filter(OneOf("id", ("a", "x" * 1025))) == {"terms": {"id": ["a"]}}
    assert build_filter(Prefix("id", "x" * 1025)) == {"match_none": {}}


@pytest.mark.parametrize("where", [Prefix("id", "x" * 1000), Prefix("event_id", "x")])
def test_rejects_prefixes_that_elasticsearch_cannot_search(where: Prefix) -> None:
    with pytest.raises(InvalidQuery):
        build_filter(Not(where))


@pytest.mark.parametrize(
    "query",
    [Query(group_by=("event_id",)), Query((Metric.parse("unique:event_id"),)), Query(group_by=("day", "event_id"))],
)
def test_rejects_grouping_or_counting_by_event_id(query: Query) -> None:
    with pytest.raises(InvalidQuery):
        build_search(query, first_plan(query))


def test_rounds_time_ranges_up_to_milliseconds() -> None:
    query = build_query(None, DAY - timedelta(microseconds=1), DAY + timedelta(microseconds=1))
    milliseconds = int(DAY.timestamp()) * 1000
    bounds = {"gte": milliseconds, "lt": milliseconds + 1, "format": "epoch_millis"}
    assert query == {"bool": {"filter": [{"range": {"@timestamp": bounds}}]}}
    assert build_query(None) == {"match_all": {}}


def test_omits_bounds_that_json_cannot_represent() -> None:
    assert build_filter(Range("n", above=float("-inf"), below=5)) == {"range": {"n.num": {"lt": 5}}}
    assert build_filter(Range("n", above=float("nan"))) == {"match_none": {}}


def test_finds_params_with_an_asterisk_in_their_name() -> None:
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
def test_chooses_the_cheapest_plan_that_can_be_exact(by: tuple[str, ...], expected: object) -> None:
    assert first_plan(Query(group_by=by)) == expected


def test_chooses_one_search_for_the_minutes_of_a_short_range() -> None:
    assert first_plan(Query(group_by=("minute",), start=DAY, end=DAY + timedelta(days=30))) == TermsPlan()
    assert first_plan(Query(group_by=("minute",), start=DAY, end=DAY + timedelta(days=60))) == CompositePlan(
        None, 20_000
    )


def test_searches_can_be_encoded_as_json() -> None:
    metrics = tuple(map(Metric.parse, ("count", "unique:\ud800", "sum:n", "avg:n", "p50:n", "p99.9:n")))
    query = Query(metrics, ("day", "\udfff", "id"), Equals("\ud800", "\ud800"), time_zone="EST", start=DAY)
    body = orjson.loads(orjson.dumps(build_search(query, first_plan(query))))
    outermost = body["aggs"]["groups"]
    assert outermost["terms"]["field"] == "params.\ufffd"
    inner = outermost["aggs"]["groups"]
    assert inner["date_histogram"]["time_zone"] == "-05:00"
    innermost = inner["aggs"]["groups"]
    assert innermost["terms"]["field"] == "id"
    assert [next(iter(agg)) for agg in innermost["aggs"].values()] == ["cardinality", "stats", "percentiles"]
    assert innermost["aggs"]["m2"]["percentiles"]["percents"] == [50.0, 99.9]


def test_pages_through_groups_up_to_the_limit_if_terms_are_incomplete() -> None:
    query = Query(group_by=("id",), sort_keys=(SortKey("count", descending=True),), limit=1)
    execution = QueryExecution(query)
    execution.add_response(_groups([{"key": "top", "doc_count": 9}], sum_other_doc_count=5))
    groups = 0
    while isinstance(execution.plan, CompositePlan):
        names = range(groups, groups + execution.plan.size)
        groups += execution.plan.size
        execution.add_response(_groups([_page_bucket(f"{name:06}") for name in names], after_key={"0": f"{groups:06}"}))
    assert groups == MAX_GROUPS + 1
    result = execution.result()
    assert result.rows == (("top", 9),)
    assert not result.exact


def test_complete_pages_are_exact() -> None:
    execution = QueryExecution(Query(group_by=("day", "id")))
    bucket = {"key": {"0": int(DAY.timestamp()) * 1000, "1": "x"}, "doc_count": 3}
    execution.add_response(_groups([bucket], after_key=bucket["key"]))
    assert execution.plan is None
    assert execution.result().rows == (("2015-01-22", "x", 3),)
    assert execution.result().exact


def test_partitions_terms_of_params_until_they_are_complete() -> None:
    execution = QueryExecution(Query(group_by=("a.b", "id")))
    execution.add_response(_groups([{"key": "x", "doc_count": 2, "groups": {"sum_other_doc_count": 1, "buckets": []}}]))
    assert execution.plan == TermsPlan(0, 8)
    execution.use_smaller_plan()
    assert execution.plan == TermsPlan(0, 64)
    for part in range(64):
        assert execution.plan == TermsPlan(part, 64)
        inner = {"sum_other_doc_count": 0, "buckets": [{"key": "i", "doc_count": 1}]}
        execution.add_response(_groups([{"key": f"x{part:02}", "doc_count": 1, "groups": inner}]))
    assert execution.plan is None
    result = execution.result()
    assert result.rows[:2] == (("x00", "i", 1), ("x01", "i", 1))
    assert (result.total, result.exact) == (64, True)


def test_terms_incomplete_in_all_partitions_are_not_exact() -> None:
    execution = QueryExecution(Query(group_by=("a.b",)))
    while execution.plan is not None:
        execution.add_response(_groups([{"key": "x", "doc_count": 2}], sum_other_doc_count=1))
    assert execution.result().rows == (("x", 2),)
    assert not execution.result().exact


def test_results_with_estimates_are_not_exact_unless_they_are_zero() -> None:
    query = Query((Metric.parse("visitors"), Metric.parse("p50:n")))
    for visitors, middle, exact in ((0, None, True), (3, None, False), (0, 1.5, False)):
        execution = QueryExecution(query)
        measures = {"m0": {"value": visitors}, "m1": {"values": [{"key": 50.0, "value": middle}]}}
        execution.add_response({"aggregations": {"groups": {"doc_count": 5, **measures}}})
        assert execution.result().rows == ((visitors, middle),)
        assert execution.result().exact is exact


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
def test_labels_time_units_in_the_time_zone(zone: str, unit: str, expected: str) -> None:
    start = datetime(2015, 6, 30, 23, tzinfo=UTC)
    execution = QueryExecution(Query(group_by=(unit,), time_zone=zone))
    execution.plan = TermsPlan()
    execution.add_response(_groups([{"key": int(start.timestamp()) * 1000, "doc_count": 1}]))
    assert execution.result().rows == ((expected, 1),)


def test_rejects_responses_without_all_shards() -> None:
    check_shards({"_shards": {"failed": 0}, "timed_out": False})
    with pytest.raises(StoreUnavailable):
        check_shards({"timed_out": True})
    with pytest.raises(StoreUnavailable, match="node left"):
        check_shards({"_shards": {"failed": 1, "failures": [{"reason": {"type": "gone", "reason": "node left"}}]}})


def test_selects_only_indices_of_whole_days_before_a_time() -> None:
    days = ("p-2014.12.31", "p-2015.01.21", "p-2015.01.22", "p-2015.01.23")
    months = ("p-2014.12", "p-2015.01", "p-2015.02")
    names = [*days, *months, "p-x-2014.01.01", "p-2014", "xp-2014.01.01", "rollup-p-2014", "pp-2014.01.01"]
    assert indices_before(names, "p", DAY) == ["p-2014.12", "p-2014.12.31", "p-2015.01.21"]
    assert indices_before(names, "p", DAY + timedelta(hours=23)) == ["p-2014.12", "p-2014.12.31", "p-2015.01.21"]
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
def test_rejects_an_invalid_configuration(url: str, prefix: str) -> None:
    with pytest.raises(ConfigurationError):
        ElasticsearchConfig(url, prefix=prefix)


def test_configuration_hides_secrets() -> None:
    config = ElasticsearchConfig("https://user:secret@host", api_key="secret")
    assert "secret" not in repr(config)


def _groups(buckets: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"aggregations": {"groups": {"buckets": buckets, **more}}}


def _page_bucket(name: str) -> dict[str, Any]:
    return {"key": {"0": name}, "doc_count": 1}


@pytest.mark.parametrize(
    ("zone", "hours", "exact"),
    [
        # On Lord Howe Island, clocks change by half an hour: in 2015 on the 5th of April.
        ("Australia/Lord_Howe", ["2015-04-04T15:00:00Z"], False),
        ("Australia/Lord_Howe", ["2015-03-01T12:00:00Z", "2015-05-01T12:00:00Z"], False),
        ("Australia/Lord_Howe", ["2015-02-01T12:00:00Z", "2015-02-02T12:00:00Z"], True),
        ("Asia/Kathmandu", ["2015-01-22T18:00:00Z"], True),
        ("Europe/Zurich", ["2015-03-29T00:00:00Z", "2015-03-29T01:00:00Z"], True),
    ],
)
def test_hours_are_not_exact_where_clocks_change_by_parts_of_an_hour(
    zone: str, hours: list[str], *, exact: bool
) -> None:
    execution = QueryExecution(Query(group_by=("hour", "id"), time_zone=zone))
    keys = [int(datetime.fromisoformat(hour).timestamp() * 1000) for hour in hours]
    buckets = [{"key": {"0": key, "1": "a"}, "doc_count": 1} for key in keys]
    execution.add_response({"aggregations": {GROUPS_AGGREGATION: {"buckets": buckets}}})
    assert execution.result().exact is exact
