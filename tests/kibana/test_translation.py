"""What the tests of panels translate is translated rightly, and what they do not know is never guessed."""

from typing import Any

import pytest

from metronome.dashboards.columns import (
    Column,
    count_events,
    date_histogram,
    filter_buckets,
    percentile,
    ratio,
    top_values,
    unique_count,
)
from tests.kibana.aggregations import rows_of, search_body
from tests.kibana.kql import elasticsearch_query, fields_in
from tests.kibana.lens import Layer

VIEW = {"term": {"event": "view"}}
BOT = {"exists": {"field": "bot"}}


def layer(*columns: Column, query: str = "") -> Layer:
    parts = {name: part for column in columns for name, part in column.hidden_columns.items()}
    return Layer("layer", {**{column.id: column.state for column in columns}, **parts}, query)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", {"match_all": {}}),
        ('event : "view"', VIEW),
        ("bot : *", BOT),
        ('not bot : * and event:"view"', {"bool": {"filter": [{"bool": {"must_not": [BOT]}}, VIEW]}}),
        (
            'bot : * or bot : * and event : "view"',
            {"bool": {"should": [BOT, {"bool": {"filter": [BOT, VIEW]}}], "minimum_should_match": 1}},
        ),
        ("not (bot : *)", {"bool": {"must_not": [BOT]}}),
        ("status.num >= 400", {"range": {"status.num": {"gte": 400.0}}}),
        (
            'event : ("view" or "download")',
            {"bool": {"should": [VIEW, {"term": {"event": "download"}}], "minimum_should_match": 1}},
        ),
    ],
)
def test_a_query_is_what_kql_says(text: str, query: dict[str, Any]) -> None:
    assert elasticsearch_query(text) == query


@pytest.mark.parametrize(
    "text",
    [
        *("event : view", "event", 'event "view"', 'event : "view', "bot : * bot : *", "(bot : *", '"view"'),
        *(
            "event : vi*",
            'event : "view" and',
            "status >= high",
            "not",
            'event : ("view", "download")',
            "a : { b : * }",
        ),
    ],
)
def test_a_query_that_is_not_known_is_an_error(text: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        elasticsearch_query(text)


def test_fields_are_those_that_a_query_asks_for() -> None:
    text = 'not bot : * and (event : ("view" or "x") or status.num < 500)'
    assert fields_in(text) == {"bot", "event", "status.num"}


def test_groups_lie_within_each_other_and_measures_in_the_innermost() -> None:
    events = count_events("Events")
    asked = search_body(
        layer(top_values("id", "Item", 5, events), date_histogram(), events, unique_count("Visitors", "visitor"))
    )
    outer = asked["aggs"]["c-item"]
    assert outer["terms"] == {"field": "id", "size": 5, "shard_size": 1000, "order": {"_count": "desc"}}
    inner = outer["aggs"]["c-day"]
    assert inner["date_histogram"]["field"] == "@timestamp"
    assert inner["aggs"] == {"c-visitors": {"cardinality": {"field": "visitor"}}}


def test_shares_are_worked_out_of_their_parts() -> None:
    shares = layer(ratio("Bots", "bot : *"))
    assert search_body(shares)["aggs"] == {"c-botsX0": {"filter": BOT}}
    answer = {"hits": {"total": {"value": 8}}, "aggregations": {"c-botsX0": {"doc_count": 2}}}
    assert rows_of(shares, answer) == [{"Bots": 0.25}]
    assert rows_of(shares, {"hits": {"total": {"value": 0}}, "aggregations": {"c-botsX0": {"doc_count": 0}}}) == [
        {"Bots": None}
    ]


def changed(column: Column, **state: Any) -> Column:
    return Column(column.id, {**column.state, **state})


@pytest.mark.parametrize(
    "column",
    [
        changed(count_events("Median"), operationType="median", sourceField="LCP.num"),
        changed(count_events("Before"), timeShift="1w"),
        changed(date_histogram(), operationType="range"),
        changed(date_histogram(), params={"interval": "auto", "includeEmptyRows": True, "dropPartials": False}),
        changed(
            filter_buckets("Parts", ("All", "")),
            params={"filters": [{"label": "x", "input": {"query": "", "language": "lucene"}}]},
        ),
        changed(percentile("p50", "LCP.num", 50), params={"percentile": 50, "shift": "1w"}),
        changed(unique_count("Visitors", "visitor"), filter={"query": "bot : *", "language": "kuery"}),
        changed(
            top_values("id", "Item", 5, count_events("Events")),
            params={**top_values("id", "Item", 5, count_events("Events")).state["params"], "include": ["x"]},
        ),
    ],
    ids=["operation", "shift", "group", "interval", "language", "parameter", "filter", "included"],
)
def test_a_column_that_is_not_known_is_an_error(column: Column) -> None:
    with pytest.raises(AssertionError):
        search_body(layer(column, count_events("Events")))
