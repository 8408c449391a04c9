"""The Elasticsearch store: the contract of stores on a real node, and its own behaviour."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from elasticsearch import AsyncElasticsearch

from metronome.errors import ConfigurationError, InvalidQuery, QueryTooExpensive, StoreUnavailable
from metronome.state.elasticsearch import ElasticsearchState
from metronome.stores.base import DocumentBatch, Store, WriteResult
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.elasticsearch.connection import (
    IndexBlocked,
    IndexClosed,
    IndexMappingWrong,
    IndexMissing,
    ShardLimitReached,
    TemplateRejected,
    create_client,
)
from metronome.stores.elasticsearch.dialects import ElasticsearchDialect
from metronome.stores.elasticsearch.sequences import iterate_sequences
from metronome.stores.elasticsearch.template import TEMPLATE_VERSION, custom_name, defaults_name, index_template
from metronome.stores.query import COUNT, AllOf, Equals, Exists, Filter, Metric, Not, Query
from metronome.stores.sequences import EventSequence, SequenceQuery
from tests.contracts.store_contract import (
    HOSTILE_EVENTS,
    DeletionTests,
    FilterTests,
    QueryTests,
    ReplacementTests,
    TimeZoneTests,
    WriteTests,
    encode_document,
    event_document,
    query_rows,
    read_sequences,
    write_documents,
    write_new_documents,
)
from tests.contracts.store_model import PropertyTests, expected_sequences
from tests.contracts.store_sequences import SequenceTests
from tests.proxies import Fault, FaultProxy
from tests.servers import delete_indices

KNOWN = (
    *("session", "visitor", "bot", "bot_kind", "browser", "browser_version", "os", "os_version", "device", "country"),
    *("channel", "referer_group", "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"),
    *("status", "method", "message", "error_group", "user", "enrich_version", "duration", "value"),
    *("TTFB", "FCP", "LCP", "CLS", "INP", "pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
)

needs_node = pytest.mark.elasticsearch


async def delete_templates(client: AsyncElasticsearch, prefix: str) -> None:
    """Delete the templates of an installation, as far as they exist."""
    forgiving = client.options(ignore_status=404)
    await forgiving.indices.delete_index_template(name=prefix)
    for name in (defaults_name(prefix), custom_name(prefix)):
        await forgiving.cluster.delete_component_template(name=name)


class OnElasticsearch:
    """Gives each test its own indices on the shared node, and deletes them afterwards."""

    @pytest.fixture
    def prefix(self) -> str:
        return f"test{uuid4().hex[:12]}"

    @pytest.fixture
    async def client(self, elasticsearch_url: str, prefix: str) -> AsyncIterator[AsyncElasticsearch]:
        client = create_client(ElasticsearchConfig(elasticsearch_url))
        yield client
        indices = await client.indices.get(index=f"{prefix}-*", filter_path="*.aliases", expand_wildcards="all")
        for name in indices.body:
            await client.indices.delete(index=name)
        await delete_templates(client, prefix)
        await client.close()

    @pytest.fixture
    async def store(
        self, elasticsearch_url: str, prefix: str, client: AsyncElasticsearch
    ) -> AsyncIterator[ElasticsearchStore]:
        del client  # only so that it outlives the store, and then deletes what the test wrote
        store = ElasticsearchStore(ElasticsearchConfig(elasticsearch_url, prefix=prefix))
        await store.setup()
        yield store
        await store.close()


class InSharedIndices(OnElasticsearch):
    """Gives the tests of a class the same indices, and deletes the events after each: an index takes long to create."""

    @pytest.fixture(scope="class")
    @classmethod
    def prefix(cls, elasticsearch_url: str) -> Iterator[str]:
        prefix = f"test{uuid4().hex[:12]}"
        yield prefix
        delete_indices(elasticsearch_url, prefix)

    @pytest.fixture
    async def client(self, elasticsearch_url: str, prefix: str) -> AsyncIterator[AsyncElasticsearch]:
        client = create_client(ElasticsearchConfig(elasticsearch_url))
        yield client
        everything: dict[str, Any] = {"index": f"{prefix}-*", "expand_wildcards": "all"}
        await client.indices.refresh(**everything)
        while hits := (await client.search(**everything, size=10_000, source=False))["hits"]["hits"]:
            await client.bulk(operations=[{"delete": {key: hit[key] for key in ("_index", "_id")}} for hit in hits])
            await client.indices.refresh(**everything)
        await client.close()


@needs_node
class TestManyGroups(OnElasticsearch):
    @pytest.mark.parametrize(
        "query",
        [
            Query(group_by=("id",), metrics=(COUNT, Metric.parse("unique:session"))),
            Query(group_by=("day", "id")),
            Query(group_by=("id",), offset=3, limit=20),
            Query(group_by=("id",), offset=28, limit=20),
        ],
    )
    async def test_pages_have_groups_beyond_those_of_one_result(
        self, store: ElasticsearchStore, query: Query, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        documents = [
            orjson.dumps(
                {
                    "@timestamp": f"2015-01-{1 + number % 2:02}T09:00:00.000Z",
                    "event_id": f"e{number}",
                    "id": f"item {number % 30:02}é",
                    "session": f"s{number}",
                }
            )
            for number in range(60)
        ]
        await store.write(DocumentBatch.from_documents(documents))
        await store.refresh()
        (whole,) = await store.query(query)
        assert whole.is_complete
        for module in ("queries", "responses"):
            monkeypatch.setattr(f"metronome.stores.elasticsearch.{module}.MAX_GROUPS", 10)
        for name in ("COMPOSITE_SIZE", "HEAVY_COMPOSITE_SIZE"):
            monkeypatch.setattr(f"metronome.stores.elasticsearch.queries.{name}", 4)
        (cut,) = await store.query(query)
        assert not cut.is_complete
        pages = [page async for page in store.query_pages(query)]
        assert [row for page in pages for row in page.rows] == [*whole.rows]
        assert pages[-1].total == whole.total
        assert all(page.is_complete for page in pages)


@needs_node
class TestWriting(InSharedIndices, WriteTests):
    pass


@needs_node
class TestQueries(InSharedIndices, QueryTests):
    pass


@needs_node
class TestFilters(InSharedIndices, FilterTests):
    pass


@needs_node
@pytest.mark.slow
class TestTimeZones(InSharedIndices, TimeZoneTests):
    pass


@needs_node
@pytest.mark.slow
class TestSequences(OnElasticsearch, SequenceTests):
    pass


@needs_node
class TestReplacement(InSharedIndices, ReplacementTests):
    pass


@needs_node
class TestDeletion(InSharedIndices, DeletionTests):
    pass


@needs_node
@pytest.mark.slow
class TestProperties(OnElasticsearch, PropertyTests):
    pass


@needs_node
class TestIndices(OnElasticsearch):
    async def test_each_utc_month_is_an_index(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(
            store,
            event_document("2015-01-31T23:59:59.999Z"),
            event_document("2015-02-01T01:00:00+02:00"),
            event_document("2015-02-01"),
        )
        indices = await client.indices.get(index=f"{prefix}-*")
        assert sorted(indices.body) == [f"{prefix}-2015.01", f"{prefix}-2015.02"]

    async def test_days_with_an_index_of_an_earlier_version_stay_there_and_are_deduplicated(
        self, client: AsyncElasticsearch, prefix: str, store: ElasticsearchStore
    ) -> None:
        old = event_document("2015-01-22", event_id="old", os="x")
        await client.create(index=f"{prefix}-2015.01.22", id="old", document=orjson.loads(old))
        other_day = event_document("2015-01-23", event_id="old", os="x")
        batch = DocumentBatch.from_documents([old, other_day, event_document("2015-01-24", event_id="old", os="x")])
        # An ID of a day's index is not compared with those of the month's.
        assert await store.write(batch) == WriteResult(stored=1, duplicates=2)
        indices = await client.indices.get(index=f"{prefix}-*")
        assert sorted(indices.body) == [f"{prefix}-2015.01", f"{prefix}-2015.01.22"]
        assert await store.replace(DocumentBatch.from_documents([old.replace(b'"x"', b'"y"')])) == 1
        await store.refresh()
        assert await query_rows(store, Query(group_by=("day", "os"))) == [
            ("2015-01-22", "y", 1),
            ("2015-01-23", "x", 1),
        ]
        assert await store.delete_events(before=datetime(2015, 1, 23, tzinfo=UTC)) == 1
        assert await query_rows(store, Query(group_by=("day",))) == [("2015-01-23", 1)]

    @pytest.mark.slow
    async def test_events_wait_whose_index_is_missing_and_not_created(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(store, event_document("2015-02-23"))
        batch = DocumentBatch.from_documents([event_document("2015-01-22"), event_document("2015-02-23")])
        setting = "action.auto_create_index"
        await client.cluster.put_settings(persistent={setting: f"-{prefix}-*,+*"})
        try:
            result = await store.write(batch)
        finally:
            await client.cluster.put_settings(persistent={setting: None})
        assert (result.stored, result.waiting) == (1, batch.split_in_half()[0])
        assert type(result.failure) is IndexMissing
        assert f"no such index [{prefix}-2015.01]" in str(result.failure)
        assert await store.write(batch) == WriteResult(stored=1, duplicates=1)

    @pytest.mark.slow
    async def test_fields_are_mapped_as_the_template_says(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        odd = {"a.b": 1, "price": 5, "rate": 0.5, "when": "2015-01-22", "ok": True}
        await write_new_documents(store, event_document(clientip="192.0.2.55", duration=1, **odd))
        caps = (await client.field_caps(index=f"{prefix}-*", fields="*")).body["fields"]
        types = {name: next(iter(kinds)) for name, kinds in caps.items() if not name.startswith("_")}
        assert types["clientip"] == types["price"] == types["when"] == types["ok"] == types["event_id"] == "keyword"
        assert types["clientip.ip"] == "ip"
        assert types["duration.num"] == types["price.num"] == types["rate.num"] == "double"
        assert types["params"] == "flattened"
        assert types["@timestamp"] == "date"
        assert not caps["event_id"]["keyword"]["searchable"]
        assert not caps["event.original"]["keyword"]["aggregatable"]

    @pytest.mark.slow
    async def test_known_fields_have_fixed_types(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(
            store,
            event_document(**dict.fromkeys(KNOWN, "text")),
            event_document(**dict.fromkeys(KNOWN, 5), id="number"),
        )
        caps = (await client.field_caps(index=f"{prefix}-*", fields="*")).body["fields"]
        numbers = {name.removesuffix(".num") for name in caps if name.endswith(".num")}
        assert numbers == {"enrich_version", *(name for name in KNOWN if name == name.upper() or "pf_" in name)} | {
            "duration",
            "value",
            "status",
        }
        assert set(KNOWN) <= await store.list_fields()
        for name in KNOWN:
            assert next(iter(caps[name])) == "keyword"
            assert await query_rows(store, Query(group_by=(name,))) == [("5", 1), ("text", 1)]
            assert await query_rows(store, Query(where=Exists(name))) == [(2,)]
        sums = tuple(Metric.parse(f"sum:{name}") for name in sorted(numbers))
        assert await query_rows(store, Query(sums)) == [(5.0,) * len(numbers)]

    @pytest.mark.slow
    async def test_queries_an_index_of_an_older_template(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        # Like that of an older version: fields of enrichment are not mapped.
        plain = {"dynamic": False, "properties": {"@timestamp": {"type": "date"}, "id": {"type": "keyword"}}}
        await client.indices.put_index_template(
            name=f"{prefix}old", index_patterns=[f"{prefix}-2014.12"], priority=400, template={"mappings": plain}
        )
        await write_new_documents(store, event_document("2014-12-21T12:00:00Z", id="a", country="DE"))
        await client.indices.delete_index_template(name=f"{prefix}old")
        await write_new_documents(store, event_document("2015-01-22T12:00:00Z", id="a", country="CH", LCP=5))
        assert await query_rows(store, Query(group_by=("country",))) == [("CH", 1)]
        assert await query_rows(store, Query((Metric.parse("count:LCP"),), group_by=("day",))) == [
            ("2014-12-21", 0),
            ("2015-01-22", 1),
        ]
        assert await store.newest_values("country", 5) == ("CH",)
        sequences = await read_sequences(store, SequenceQuery("id", ("country", "LCP")))
        assert [(key, [event[1:] for event in events]) for key, events in sequences] == [
            ("a", [(None, None), ("CH", "5")])
        ]

    @pytest.mark.slow
    async def test_setup_never_replaces_a_newer_template(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        async def version() -> Any:
            response = await client.indices.get_index_template(name=prefix)
            return response["index_templates"][0]["index_template"]["version"]

        assert await version() == TEMPLATE_VERSION
        for version_before, version_after in ((TEMPLATE_VERSION + 1, TEMPLATE_VERSION + 1), (0, TEMPLATE_VERSION)):
            template = index_template(prefix)
            await client.indices.put_index_template(
                name=prefix, index_patterns=template["index_patterns"], priority=300, version=version_before
            )
            await store.setup()
            assert await version() == version_after

    @pytest.mark.slow
    async def test_what_operators_add_to_the_templates_holds_and_stays(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        added = f"{prefix}@added"
        await client.cluster.put_component_template(
            name=custom_name(prefix),
            template={
                "settings": {"index.refresh_interval": "7s"},
                "mappings": {"properties": {"price": {"type": "float"}}},
            },
        )
        await client.cluster.put_component_template(name=added, template={"settings": {"index.codec": "default"}})
        older = {**index_template(prefix), "version": TEMPLATE_VERSION - 1}
        older["composed_of"].insert(1, added)
        older.pop("_meta")
        await client.indices.put_index_template(name=prefix, **older)
        await store.setup()
        found = (await client.indices.get_index_template(name=prefix))["index_templates"][0]["index_template"]
        assert found["version"] == TEMPLATE_VERSION
        assert found["composed_of"] == [defaults_name(prefix), added, custom_name(prefix)]
        await write_new_documents(store, event_document(price=5))
        index = (await client.indices.get(index=f"{prefix}-*"))[f"{prefix}-2015.01"]
        settings, properties = index["settings"]["index"], index["mappings"]["properties"]
        assert (settings["refresh_interval"], settings["codec"]) == ("7s", "default")
        assert settings["mapping"]["total_fields"]["limit"] == "350"
        assert (properties["price"]["type"], properties["id"]["type"]) == ("float", "keyword")
        await client.indices.delete(index=f"{prefix}-2015.01")
        await delete_templates(client, prefix)
        await client.cluster.delete_component_template(name=added)

    @pytest.mark.slow
    @pytest.mark.parametrize(("first", "second"), [("", "-dev"), ("-dev", "")])
    async def test_setup_reports_an_overlapping_prefix(
        self, elasticsearch_url: str, client: AsyncElasticsearch, prefix: str, first: str, second: str
    ) -> None:
        one, other = (
            ElasticsearchStore(ElasticsearchConfig(elasticsearch_url, prefix=prefix + suffix))
            for suffix in (first, second)
        )
        await one.setup()
        with pytest.raises(TemplateRejected, match=f"{prefix}{second}' overlaps .*{prefix}{first}'") as caught:
            await other.setup()
        assert caught.value.retry
        await delete_templates(client, prefix + first)
        await other.setup()
        await delete_templates(client, prefix + second)
        await one.close()
        await other.close()

    @pytest.mark.slow
    async def test_rejects_only_the_document_with_an_overlong_event_id(self, store: ElasticsearchStore) -> None:
        documents = [event_document(event_id=str(number)) for number in range(100)]
        documents[37] = documents[37].replace(b'"37"', b'"' + b"x" * 513 + b'"')
        result = await write_documents(store, documents)
        assert (result.stored, result.retry) == (99, None)
        assert [rejected.document for rejected in result.rejected] == [documents[37]]

    @pytest.mark.slow
    async def test_writes_a_large_batch_in_parts(self, store: ElasticsearchStore) -> None:
        documents = [event_document(event_id=str(number), note="x" * 100_000) for number in range(150)]
        assert len(DocumentBatch.from_documents(documents).body) > 3 * 4_200_000
        assert await write_documents(store, documents) == WriteResult(150)

    @pytest.mark.slow
    async def test_rejects_only_the_document_that_is_too_large(self, store: ElasticsearchStore) -> None:
        small, large = event_document(event_id="small"), event_document(event_id="large", note="x" * 105_000_000)
        result = await write_documents(store, [small, large])
        assert (result.stored, [rejected.document[:80] for rejected in result.rejected]) == (1, [large[:80]])

    @pytest.mark.slow
    async def test_only_documents_of_a_closed_index_wait(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(store, event_document("2015-01-22"), event_document("2015-02-23"))
        await client.indices.close(index=f"{prefix}-2015.01")
        batch = DocumentBatch.from_documents([event_document("2015-01-22"), event_document("2015-02-23")])
        result = await store.write(batch)
        assert (result.stored, result.rejected, result.waiting) == (1, (), batch.split_in_half()[0])
        assert type(result.failure) is IndexClosed
        await store.refresh()
        assert await query_rows(store, Query(group_by=("day",))) == [("2015-02-23", 2)]
        await client.indices.open(index=f"{prefix}-2015.01")
        await client.cluster.health(index=f"{prefix}-2015.01", wait_for_status="yellow")
        assert await store.write(batch) == WriteResult(stored=1, duplicates=1)

    @pytest.mark.slow
    @pytest.mark.parametrize("block", ["read_only_allow_delete", "write"])
    async def test_only_documents_of_a_blocked_index_wait(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str, block: str
    ) -> None:
        await write_new_documents(store, event_document("2015-01-22"))
        # `read_only_allow_delete` is what Elasticsearch sets at the flood stage of a full disk.
        await client.indices.put_settings(index=f"{prefix}-2015.01", settings={f"blocks.{block}": True})
        batch = DocumentBatch.from_documents([event_document("2015-01-22"), event_document("2015-02-23")])
        result = await store.write(batch)
        assert (result.stored, result.waiting) == (1, batch.split_in_half()[0])
        assert type(result.failure) is IndexBlocked
        await client.indices.put_settings(index=f"{prefix}-2015.01", settings={f"blocks.{block}": None})
        assert await store.write(batch) == WriteResult(stored=1, duplicates=1)

    @pytest.mark.slow
    async def test_only_documents_without_room_for_a_shard_wait(
        self, store: ElasticsearchStore, client: AsyncElasticsearch
    ) -> None:
        await write_new_documents(store, event_document("2015-02-23"))
        batch = DocumentBatch.from_documents([event_document("2015-01-22"), event_document("2015-02-23")])
        await client.cluster.put_settings(persistent={"cluster.max_shards_per_node": 1})
        try:
            result = await store.write(batch)
        finally:
            await client.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})
        assert (result.stored, result.waiting) == (1, batch.split_in_half()[0])
        assert type(result.failure) is ShardLimitReached
        assert await store.write(batch) == WriteResult(stored=1, duplicates=1)

    @pytest.mark.slow
    async def test_puts_a_deleted_template_again_before_it_creates_an_index(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(store, event_document("2015-01-22"))
        await client.indices.delete_index_template(name=prefix)
        await write_new_documents(store, event_document("2015-02-23", id="a-b"))
        mapping = await client.indices.get_mapping(index=f"{prefix}-2015.02")
        assert mapping[f"{prefix}-2015.02"]["mappings"]["properties"]["id"]["type"] == "keyword"
        assert await query_rows(store, Query(where=Equals("id", "a-b"))) == [(1,)]

    @pytest.mark.slow
    @pytest.mark.parametrize("mappings", [{"properties": {"id": {"type": "text"}}}, {}])
    async def test_documents_wait_for_an_index_with_another_mapping(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str, mappings: dict[str, Any]
    ) -> None:
        await client.indices.delete_index_template(name=prefix)
        await client.indices.create(index=f"{prefix}-2015.01", mappings=mappings)
        batch = DocumentBatch.from_documents([event_document("2015-01-22"), event_document("2015-02-23")])
        result = await store.write(batch)
        assert (result.stored, result.waiting) == (1, batch.split_in_half()[0])
        assert type(result.failure) is IndexMappingWrong
        assert f"{prefix}-2015.01" in str(result.failure)
        await client.indices.delete(index=f"{prefix}-2015.01")
        assert await store.write(batch) == WriteResult(stored=1, duplicates=1)

    @pytest.mark.slow
    async def test_a_query_that_an_index_rejects_is_the_operator_s_problem(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(store, event_document("2015-01-22"))
        mappings = {"properties": {"id": {"type": "text"}}}
        await client.indices.delete_index_template(name=prefix)
        await client.indices.create(index=f"{prefix}-2015.02", mappings=mappings)
        await client.index(index=f"{prefix}-2015.02", document={"id": "x"}, refresh=True)
        with pytest.raises(IndexMappingWrong, match=rf"{prefix}-2015\.02 maps the field") as caught:
            await store.query(Query(group_by=("id",)))
        assert caught.value.http_status == 503
        assert "change" not in caught.value.public_message

    @pytest.mark.slow
    async def test_rejects_filters_nested_too_deeply(self, store: ElasticsearchStore) -> None:
        await write_new_documents(store, event_document())
        deep: Filter = Equals("id", "x")
        for _ in range(100):
            deep = AllOf((deep,))
        with pytest.raises(InvalidQuery):
            await store.query(Query(where=deep))

    @pytest.mark.slow
    async def test_hostile_names_leave_known_fields_countable(self, store: ElasticsearchStore) -> None:
        await write_new_documents(
            store,
            *[
                encode_document({**fields, **{f"f{at}-{n}": n for n in range(80)}})
                for at, fields in enumerate(HOSTILE_EVENTS)
            ],
        )
        await write_new_documents(store, event_document(id="known", session="s", duration=5))
        query = Query(group_by=("id", "session", "duration"), where=Equals("id", "known"))
        assert await query_rows(store, query) == [("known", "s", "5", 1)]

    @pytest.mark.slow
    async def test_sequences_on_many_pages_are_complete(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        lines = [
            event_document(
                f"2015-01-{20 + at % 3}T12:00:{at % 7:02}Z",
                visitor=f"v{at * at % 40:02}" if at % 5 else "busy",
                id=f"i{at % 3}",
                **({"lang": "en"} if at % 2 else {}),
            )
            for at in range(600)
        ]
        await write_new_documents(store, *lines)
        for max_events in (None, 1, 4):
            query = SequenceQuery("visitor", ("lang", "id"), Not(Equals("id", "i2")), max_events=max_events)
            expected = [
                EventSequence(key, events[:max_events])
                for key, events in expected_sequences(replace(query, max_events=None), map(orjson.loads, lines))
            ]
            for page_buckets, range_events in ((1_000, 100), (60, 20), (7, 5), (1, 1)):
                sequences = iterate_sequences(
                    client, f"{prefix}-*", query, ElasticsearchDialect(), page_buckets, range_events
                )
                assert [sequence async for sequence in sequences] == expected

    @pytest.mark.slow
    async def test_cancels_queries_that_take_too_long(
        self, store: ElasticsearchStore, elasticsearch_url: str, prefix: str
    ) -> None:
        await write_new_documents(store, event_document(session="s"))
        hasty = ElasticsearchStore(ElasticsearchConfig(elasticsearch_url, prefix=prefix), query_timeout=0.000_001)
        with pytest.raises(QueryTooExpensive, match="over 1e-06 s"):
            await hasty.query(Query())
        with pytest.raises(QueryTooExpensive, match="over 1e-06 s"):
            await hasty.newest_values("session", 5)
        await hasty.close()

    @pytest.mark.slow
    async def test_rejected_documents_replace_nothing(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(
            store,
            *[event_document(event_id=f"e{at}") for at in range(9)],
            event_document("2015-02-23", event_id="closed"),
        )
        after = [event_document(event_id=f"e{at}", os="x") for at in range(9)]
        after[4] = after[4][:-1] + b',"x":}'
        await client.indices.close(index=f"{prefix}-2015.02")
        more = [b'{"os":"headless"}', event_document("2015-02-23", event_id="closed"), event_document(event_id="long")]
        more[2] = more[2].replace(b'"long"', b'"' + b"x" * 600 + b'"')
        assert await store.replace(DocumentBatch.from_documents([*after, *more])) == 8
        await store.refresh()
        assert await query_rows(store, Query(group_by=("os",))) == [("x", 8)]

    @pytest.mark.slow
    async def test_refreshes_the_indices_that_were_written_to(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        async def refreshes(day: str) -> int:
            stats = await client.indices.stats(index=f"{prefix}-{day}", metric="refresh")
            return int(stats["_all"]["total"]["refresh"]["external_total"])

        await write_new_documents(store, event_document("2015-01-22", event_id="a"))
        await store.refresh_written()
        assert await query_rows(store, Query()) == [(1,)]
        before = await refreshes("2015.01")
        other = event_document("2015-02-23", event_id="b")
        assert (await store.write(DocumentBatch.from_documents([other]))).stored == 1
        await store.refresh_written()
        assert await query_rows(store, Query()) == [(2,)]
        assert await refreshes("2015.01") == before
        many = [event_document(f"{year}-05-05", event_id="c") for year in range(1990, 2014)]
        assert (await store.write(DocumentBatch.from_documents(many))).stored == 24
        await store.refresh_written()
        assert await query_rows(store, Query()) == [(26,)]

    @pytest.mark.slow
    async def test_replaces_documents_that_are_not_searchable_yet(self, store: ElasticsearchStore) -> None:
        line = event_document(event_id="e", os="old")
        assert (await store.write(DocumentBatch.from_documents([line]))).stored == 1
        assert await store.replace(DocumentBatch.from_documents([line.replace(b"old", b"new")])) == 1
        await store.refresh()
        assert await query_rows(store, Query(group_by=("os",))) == [("new", 1)]


async def test_an_unresponsive_node_is_unavailable_rather_than_the_query_too_expensive() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # It accepts the query, and is gone when it is pinged.
        server.close()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = ElasticsearchStore(ElasticsearchConfig(url), query_timeout=0.1)
    with pytest.raises(StoreUnavailable):
        await store.query(Query())
    await store.close()


@needs_node
async def test_uses_another_node_while_one_cannot_be_connected_to(elasticsearch_url: str) -> None:
    prefix = f"test{uuid4().hex[:12]}"
    with socket.socket() as bound, FaultProxy(elasticsearch_url) as node:
        bound.bind(("127.0.0.1", 0))
        urls = (f"http://127.0.0.1:{bound.getsockname()[1]}", node.url, elasticsearch_url)
        store = ElasticsearchStore(ElasticsearchConfig(",".join(urls), prefix=prefix))
        state = ElasticsearchState(ElasticsearchConfig(",".join(urls), prefix=prefix))
        await store.setup()
        for at in range(6):
            if at == 3:
                node.set_fault(Fault.REFUSE)
            assert await write_documents(store, [event_document()]) == WriteResult(stored=1)
            assert await query_rows(store, Query()) == [(at + 1,)]
            assert await state.get("key", "a") is None
        await store.close()
        await state.close()
    delete_indices(elasticsearch_url, prefix)


@pytest.mark.parametrize(
    "url", ["http://u:p@a,http://u:q@b", "http://u:p@a,http://b", "http://a,http://", "http://a,ftp://b"]
)
def test_rejects_addresses_that_are_not_those_of_one_cluster(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ElasticsearchConfig(url)
    assert "u:p" not in str(caught.value)


@pytest.mark.slow
async def test_a_frozen_node_is_unavailable_within_the_time_of_a_query() -> None:
    connections: list[Any] = []

    async def freeze(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(freeze, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = ElasticsearchStore(ElasticsearchConfig(url), query_timeout=0.3)
    began = asyncio.get_running_loop().time()
    for call in (store.query(Query()), store.list_fields(), store.newest_values("session", 5), _read_sequences(store)):
        with pytest.raises(StoreUnavailable):
            await call
    assert asyncio.get_running_loop().time() - began < 4
    await store.close()
    server.close()
    await asyncio.gather(*connections)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("application/json", b"[]"),
        ("application/json", b'{"responses":[{}],"docs":[{}],"errors":true,"items":[{}]}'),
        ("text/html", b"<html>Bad gateway</html>"),
        ("application/vnd.elasticsearch+json;compatible-with=8", b'{"errors":fal'),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 404, 502])
async def test_other_responses_than_elasticsearch_s_lose_no_event(content_type: str, body: bytes, status: int) -> None:
    async def respond(_: web.Request) -> web.Response:
        headers = {"X-Elastic-Product": "Elasticsearch", "Content-Type": content_type}
        return web.Response(status=status, body=body, headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", respond)
    async with TestServer(application) as server:
        store = ElasticsearchStore(ElasticsearchConfig(str(server.make_url(""))))
        for call in (
            store.setup(),
            store.write(DocumentBatch.from_documents([event_document()])),
            store.query(Query()),
            store.newest_values("session", 5),
            _read_sequences(store),
            _read_documents(store),
            store.replace(DocumentBatch.from_documents([event_document()])),
            store.ping(),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        await store.close()


async def _read_documents(store: Store) -> None:
    async for _ in store.iterate_documents():
        pass


async def _read_sequences(store: Store) -> None:
    async for _ in store.sequences(SequenceQuery("session", ("id",))):
        pass


async def _refresh_written(store: Store) -> None:
    assert isinstance(store, ElasticsearchStore)
    store._unrefreshed.add("metronome-2015.01.22")
    try:
        await store.refresh_written()
    finally:
        # For the next attempt.
        assert store._unrefreshed == {"metronome-2015.01.22"}


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.setup(),
        lambda store: store.write(DocumentBatch.from_documents([event_document()])),
        lambda store: store.query(Query()),
        lambda store: store.newest_values("session", 5),
        lambda store: store.list_fields(),
        lambda store: store.replace(DocumentBatch.from_documents([event_document()])),
        _read_sequences,
        _read_documents,
        lambda store: store.delete_events(item="x"),
        lambda store: store.delete_events(before=datetime(2015, 1, 22, tzinfo=UTC)),
        lambda store: store.refresh(),
        _refresh_written,
        lambda store: store.ping(),
    ],
)
async def test_every_call_raises_if_the_node_is_unreachable(call: Callable[[Store], Awaitable[Any]]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        store = ElasticsearchStore(ElasticsearchConfig(f"http://127.0.0.1:{bound.getsockname()[1]}"))
        with pytest.raises(StoreUnavailable):
            await call(store)
        await store.close()
        await store.close()
