"""Fields that an index does not have in its mapping are counted all the same."""

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from metronome.stores.base import Store
from metronome.stores.elasticsearch.queries import build_search, first_plan
from metronome.stores.elasticsearch.unindexed import (
    FieldUse,
    build_ignored_search,
    find_gaps,
    find_untyped_fields,
    read_from_documents,
    read_ignored,
)
from metronome.stores.query import AllOf, Equals, Metric, Query, QueryResult, Range
from tests.reports.filled import BACK_ENDS, filled


def query(metrics: str = "count", by: tuple[str, ...] = (), *filters: Any) -> Query:
    return Query(tuple(map(Metric.parse, metrics.split(","))), by, AllOf(filters) if filters else None)


def test_only_fields_without_a_fixed_type_are_in_doubt() -> None:
    assert find_untyped_fields(query("count,views,first", ("id", "day"), Equals("event", "view"))).names == set()
    assert find_untyped_fields(query("p50:LCP,unique:visitor,avg:a.b", ("a.b",))).names == set()
    use = find_untyped_fields(query("sum:n,unique:who", ("lang", "hour"), Equals("title", "x"), Range("m", above=1)))
    assert use == FieldUse(frozenset({"who", "lang", "title"}), frozenset({"n", "m"}))


def test_a_field_has_a_gap_where_an_index_with_values_does_not_have_it() -> None:
    use = FieldUse(frozenset({"a", "b"}), frozenset({"n", "m"}))
    all_types: dict[str, Any] = {"keyword": {}}
    some_types: dict[str, Any] = {"keyword": {"indices": ["i-1"]}, "unmapped": {"indices": ["i-2"]}}
    capabilities = {
        "indices": ["i-1", "i-2"],
        "fields": {"a": some_types, "b": some_types, "n": all_types, "n.num": some_types, "m": some_types},
    }
    # Long values are ignored, too, in an index that has the field.
    ignored = {"a": {"i-2"}, "b": {"i-1"}, "m": {"i-2"}}
    assert find_gaps(use, ignored, capabilities) == FieldUse(frozenset({"a"}), frozenset({"n", "m"}))
    assert find_gaps(FieldUse(frozenset({"a"}), frozenset()), {}, {}).names == set()


def test_a_search_reads_numbers_and_texts_from_documents() -> None:
    asked = query("sum:n,max:LCP", ("lang",), Range("n", at_least=1.0), Equals("lang", "de"))
    search = read_from_documents(
        build_search(asked, first_plan(asked)), FieldUse(frozenset({"lang"}), frozenset({"n"}))
    )
    assert search["runtime_mappings"] == {"lang": {"type": "keyword"}, "n": {"type": "double"}}
    assert "n.num" not in str(search)
    assert "LCP.num" in str(search)
    assert "'range': {'n': {'gte': 1.0}}" in str(search)


def test_reads_the_indices_with_ignored_values() -> None:
    search = build_ignored_search({"a"}, [query()])
    assert search["query"]["bool"]["filter"][1] == {"terms": {"_ignored": ["a"]}}
    bucket = {"doc_count": 2, "indices": {"buckets": [{"key": "i-1"}]}}
    response = {"aggregations": {"names": {"buckets": {"a": bucket, "b": {"doc_count": 0}}}}}
    assert read_ignored(response) == {"a": {"i-1"}}
    assert read_ignored({}) == {}


DAY: Final = "2015-01-24"
EVENTS: Final[list[dict[str, Any]]] = [
    # The first value of the day is a text, of the next day a number.
    {"ts": "2015-01-22T00:00:00Z", "id": "a", "n": "none"},
    {"ts": "2015-01-22T00:00:01Z", "id": "a", "n": 5},
    {"ts": "2015-01-22T00:00:02Z", "id": "b", "n": "2.5"},
    {"ts": "2015-01-23T00:00:00Z", "id": "b", "n": 7},
    # More names than a mapping has room for.
    *({"ts": DAY, "id": "full", **{f"f{event}_{at}": at for at in range(95)}} for event in range(4)),
    {"ts": DAY, "id": "a", "late": 3.5, "lang": "de"},
    {"ts": DAY, "id": "b", "late": "4", "lang": "fr"},
    {"ts": DAY, "id": "b", "late": "none", "lang": "fr"},
]


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, EVENTS) as store:
        yield store


async def run(store: Store, *arguments: Any) -> QueryResult:
    (result,) = await store.query(query(*arguments))
    return result


@pytest.mark.asyncio(loop_scope="module")
class TestBothStores:
    async def test_numbers_count_after_a_text(self, store: Store) -> None:
        result = await run(store, "count:n,sum:n,min:n,max:n", ("id",))
        assert result.rows == (("a", 1, 5.0, 5.0, 5.0), ("b", 2, 9.5, 2.5, 7.0), ("full", 0, 0.0, None, None))
        assert result.exact
        assert (await run(store, "count", (), Range("n", at_least=5.0))).rows == ((2,),)

    async def test_numbers_count_where_the_mapping_is_full(self, store: Store) -> None:
        result = await run(store, "count:late,sum:late", (), Equals("event", "view"))
        assert (result.rows, result.exact) == (((2, 7.5),), True)

    async def test_texts_count_where_the_mapping_is_full(self, store: Store) -> None:
        assert (await run(store, "count,unique:late", ("lang",))).rows == (("de", 1, 1), ("fr", 2, 2))
        assert (await run(store, "count", (), Equals("lang", "fr"))).rows == ((2,),)
        assert {"lang", "late", "f3_94"} <= await store.list_fields()

    async def test_a_field_used_as_text_and_as_number_is_right_or_not_exact(self, store: Store) -> None:
        result = await run(store, "sum:n", ("n",))
        right = (("2.5", 2.5), ("5", 5.0), ("7", 7.0), ("none", 0.0))
        assert result.rows == right or not result.exact
