"""What OpenSearch is sent in place of what Elasticsearch is sent, and how its responses are read."""

import orjson
import pytest

from metronome.errors import QueryTooExpensive
from metronome.stores.elasticsearch.dialects import OpenSearchDialect, param_pair
from metronome.stores.elasticsearch.queries import build_search, first_plan
from metronome.stores.elasticsearch.template import defaults_template
from metronome.stores.query import Equals, Exists, Metric, MetricKind, Prefix, Query

DIALECT = OpenSearchDialect()
DOCUMENT = {
    "@timestamp": "2015-01-22T12:00:00.000Z",
    "event_id": "e",
    "event": "view",
    "params": {"p.lang": "de", "long": "x" * 1025},
    "event.original": '{"p.lang":"de"}',
}


def test_the_template_has_nothing_that_opensearch_rejects() -> None:
    template = DIALECT.adapt_template(defaults_template())
    text = orjson.dumps(template).decode()
    assert not [word for word in ("flattened", "subobjects", "beyond_limit", "event.original") if word in text]
    types = [
        rule["match_mapping_type"]
        for rules in template["template"]["mappings"]["dynamic_templates"]
        for rule in rules.values()
    ]
    assert types == ["long", "double", "*"]
    assert "flattened" in orjson.dumps(defaults_template()).decode()


def test_documents_with_params_get_a_field_of_pairs_and_come_back_unchanged() -> None:
    plain = b'{"@timestamp":"2015-01-22T12:00:00.000Z","event_id":"f","n":1.0e5}'
    first, second = DIALECT.encode_documents(orjson.dumps(DOCUMENT) + b"\n" + plain).split(b"\n")
    assert second == plain
    stored = orjson.loads(first)
    assert (stored["@params"], stored["@original"]) == (["p.lang=de"], DOCUMENT["event.original"])
    assert "event.original" not in stored
    assert orjson.loads(DIALECT.decode_document(stored)) == DOCUMENT


@pytest.mark.parametrize(
    ("where", "clause"),
    [
        (Equals("p.lang", "de"), {"terms": {"@params": ["p.lang=de"]}}),
        (Equals("a=b.", "c"), {"terms": {"@params": ["a\\=b.=c"]}}),
        (Prefix("p.lang", "d"), {"prefix": {"@params": "p.lang=d"}}),
        (Exists("p.lang"), {"prefix": {"@params": "p.lang="}}),
        (Equals("lang", "de"), {"terms": {"lang": ["de"]}}),
    ],
)
def test_filters_of_params_search_pairs(where: Equals | Prefix | Exists, clause: dict[str, object]) -> None:
    query = Query(where=where)
    search = DIALECT.translate_search(build_search(query, first_plan(query)))
    assert search["query"] == {"bool": {"filter": [clause]}}


def test_groups_and_distinct_values_of_params_are_those_of_pairs() -> None:
    query = Query(group_by=("p.lang", "event"), metrics=(Metric(MetricKind.UNIQUE, "p.x"),))
    original = build_search(query, first_plan(query))
    search = DIALECT.translate_search(original)
    groups = search["aggs"]["groups"]
    assert groups["terms"]["field"] == "@params"
    assert groups["terms"]["include"] == "p\\.lang=(.|\n)*"
    inner = groups["aggs"]["groups"]
    assert inner["terms"]["field"] == "event"
    assert inner["aggs"]["m0"]["terms"]["include"] == "p\\.x=(.|\n)*"
    values = {"buckets": [{"key": "p.x=1"}, {"key": "p.x=2"}], "sum_other_doc_count": 0}
    events = {"buckets": [{"key": "view", "doc_count": 3, "m0": values}]}
    response = {"aggregations": {"groups": {"buckets": [{"key": "p.lang=de", "groups": events}]}}}
    (bucket,) = DIALECT.translate_response(original, response)["aggregations"]["groups"]["buckets"]
    assert (bucket["key"], bucket["groups"]["buckets"][0]["m0"]) == ("de", {"value": 2})


def test_too_many_distinct_values_of_params_are_too_expensive() -> None:
    query = Query(metrics=(Metric(MetricKind.UNIQUE, "p.x"),))
    original = build_search(query, first_plan(query))
    values = {"buckets": [{"key": "p.x=1"}], "sum_other_doc_count": 5}
    with pytest.raises(QueryTooExpensive, match=r"OpenSearch counts up to 20000 values of p\.x"):
        DIALECT.translate_response(original, {"aggregations": {"groups": {"m0": values}}})


@pytest.mark.parametrize(("one", "other"), [("a", "a=b"), ("a\\", "a\\=b"), ("a", "a\\")])
def test_pairs_of_different_names_never_begin_alike(one: str, other: str) -> None:
    assert not param_pair(other, "c").startswith(param_pair(one, ""))
    assert not param_pair(one, "b=c").startswith(param_pair(other, ""))
