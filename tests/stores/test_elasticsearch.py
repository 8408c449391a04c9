"""The store in a real Elasticsearch keeps what every store promises, and what only it does."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
import pytest
from elasticsearch import AsyncElasticsearch

from metronome.errors import ConfigurationError, InvalidQuery, QueryTooExpensive, StoreUnavailable
from metronome.stores.base import DocumentBatch, Store, WriteResult
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.elasticsearch.connection import IndexMissing, create_client
from metronome.stores.elasticsearch.sequences import iterate_sequences
from metronome.stores.elasticsearch.template import TEMPLATE_VERSION, index_template
from metronome.stores.query import AllOf, Equals, Exists, Filter, Metric, Not, Query
from metronome.stores.sequences import EventSequence, SequenceQuery
from tests.contracts.store import (
    DeletionTests,
    FilterTests,
    PropertyTests,
    QueryTests,
    ReplacementTests,
    SequenceTests,
    TimeZoneTests,
    WriteTests,
)
from tests.contracts.store.events import (
    encode_document,
    event_document,
    query_rows,
    read_sequences,
    write_documents,
    write_new_documents,
)
from tests.contracts.store.model import expected_sequences
from tests.contracts.store.writing import HOSTILE_EVENTS
from tests.servers import delete_indices

KNOWN = (
    *("session", "visitor", "bot", "bot_kind", "browser", "browser_version", "os", "os_version", "device", "country"),
    *("channel", "referer_group", "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"),
    *("status", "method", "message", "error_group", "user", "enrich_version", "duration", "value"),
    *("TTFB", "FCP", "LCP", "CLS", "INP", "pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
)

on_a_node = pytest.mark.elasticsearch


class OnElasticsearch:
    """Gives each test indices of its own on the node that all share, and deletes them afterwards."""

    @pytest.fixture
    def prefix(self) -> str:
        return f"test{uuid4().hex[:12]}"

    @pytest.fixture
    async def client(self, elasticsearch_url: str, prefix: str) -> AsyncIterator[AsyncElasticsearch]:
        client = create_client(ElasticsearchConfig(elasticsearch_url))
        yield client
        found = await client.indices.get(index=f"{prefix}-*", filter_path="*.aliases", expand_wildcards="all")
        for name in found.body:
            await client.indices.delete(index=name)
        await client.options(ignore_status=404).indices.delete_index_template(name=prefix)
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


@on_a_node
class TestWriting(InSharedIndices, WriteTests):
    pass


@on_a_node
class TestAsking(InSharedIndices, QueryTests):
    pass


@on_a_node
class TestFilters(InSharedIndices, FilterTests):
    pass


@on_a_node
class TestZones(InSharedIndices, TimeZoneTests):
    pass


@on_a_node
class TestTrails(OnElasticsearch, SequenceTests):
    pass


@on_a_node
class TestReplacing(InSharedIndices, ReplacementTests):
    pass


@on_a_node
class TestForgetting(OnElasticsearch, DeletionTests):
    pass


@on_a_node
@pytest.mark.slow
class TestProperties(OnElasticsearch, PropertyTests):
    pass


@on_a_node
class TestIndices(OnElasticsearch):
    async def test_each_utc_day_is_an_index(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(
            store,
            event_document("2015-01-22T23:59:59.999Z"),
            event_document("2015-01-23T01:00:00+02:00"),
            event_document("2015-01-23"),
        )
        found = await client.indices.get(index=f"{prefix}-*")
        assert sorted(found.body) == [f"{prefix}-2015.01.22", f"{prefix}-2015.01.23"]

    async def test_retries_events_whose_index_is_missing_and_not_created(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        batch = DocumentBatch.from_documents([event_document("2015-01-22", event_id="e")])
        setting = "action.auto_create_index"
        await client.cluster.put_settings(persistent={setting: f"-{prefix}-*,+*"})
        try:
            with pytest.raises(IndexMissing, match=rf"no such index \[{prefix}-2015\.01\.22\]"):
                await store.write(batch)
        finally:
            await client.cluster.put_settings(persistent={setting: None})
        assert await store.write(batch) == WriteResult(stored=1)

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

    async def test_what_enrichment_adds_is_typed_whatever_comes_first(
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

    async def test_an_index_without_the_template_s_types_is_asked_alike(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        # As an older Metronome's: nothing of what enrichment adds is mapped.
        plain = {"dynamic": False, "properties": {"@timestamp": {"type": "date"}, "id": {"type": "keyword"}}}
        await client.indices.put_index_template(
            name=f"{prefix}old", index_patterns=[f"{prefix}-2015.01.21"], priority=400, template={"mappings": plain}
        )
        await write_new_documents(store, event_document("2015-01-21T12:00:00Z", id="a", country="DE"))
        await client.indices.delete_index_template(name=f"{prefix}old")
        await write_new_documents(store, event_document("2015-01-22T12:00:00Z", id="a", country="CH", LCP=5))
        assert await query_rows(store, Query(group_by=("country",))) == [("CH", 1)]
        assert await query_rows(store, Query((Metric.parse("count:LCP"),), group_by=("day",))) == [
            ("2015-01-21", 0),
            ("2015-01-22", 1),
        ]
        assert await store.newest_values("country", 5) == ("CH",)
        found = await read_sequences(store, SequenceQuery("id", ("country", "LCP")))
        assert [(key, [step[1:] for step in steps]) for key, steps in found] == [("a", [(None, None), ("CH", "5")])]

    async def test_the_template_is_put_once_and_never_over_a_newer_one(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        async def version() -> Any:
            found = await client.indices.get_index_template(name=prefix)
            return found["index_templates"][0]["index_template"]["version"]

        assert await version() == TEMPLATE_VERSION
        for given, kept in ((TEMPLATE_VERSION + 1, TEMPLATE_VERSION + 1), (0, TEMPLATE_VERSION)):
            template = index_template(prefix)
            await client.indices.put_index_template(
                name=prefix, index_patterns=template["index_patterns"], priority=300, version=given
            )
            await store.setup()
            assert await version() == kept

    async def test_a_template_that_is_in_the_way_is_the_operators(
        self, elasticsearch_url: str, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await client.indices.put_index_template(name=prefix, index_patterns=[f"{prefix}x-*"], priority=300)
        store = ElasticsearchStore(ElasticsearchConfig(elasticsearch_url, prefix=f"{prefix}x"))
        with pytest.raises(ConfigurationError, match="template"):
            await store.setup()
        await store.close()

    async def test_an_identity_that_is_too_long_is_refused_alone(self, store: ElasticsearchStore) -> None:
        documents = [event_document(event_id=str(number)) for number in range(100)]
        documents[37] = documents[37].replace(b'"37"', b'"' + b"x" * 513 + b'"')
        verdicts = await write_documents(store, documents)
        assert (verdicts.stored, verdicts.retry) == (99, None)
        assert [refusal.document for refusal in verdicts.rejected] == [documents[37]]

    async def test_a_batch_over_the_size_of_a_request_is_taken_in_parts(self, store: ElasticsearchStore) -> None:
        documents = [event_document(event_id=str(number), note="x" * 100_000) for number in range(150)]
        assert len(DocumentBatch.from_documents(documents).body) > 3 * 4_200_000
        assert await write_documents(store, documents) == WriteResult(150)

    @pytest.mark.slow
    async def test_a_document_that_is_too_large_is_refused_alone(self, store: ElasticsearchStore) -> None:
        small, large = event_document(event_id="small"), event_document(event_id="large", note="x" * 105_000_000)
        verdicts = await write_documents(store, [small, large])
        assert (verdicts.stored, [refusal.document[:80] for refusal in verdicts.rejected]) == (1, [large[:80]])

    async def test_a_closed_index_refuses_its_day_only(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(store, event_document("2015-01-22"), event_document("2015-01-23"))
        await client.indices.close(index=f"{prefix}-2015.01.22")
        verdicts = await write_documents(store, [event_document("2015-01-22"), event_document("2015-01-23")])
        assert (verdicts.stored, len(verdicts.rejected)) == (1, 1)
        assert "closed" in verdicts.rejected[0].reason
        assert await query_rows(store, Query(group_by=("day",))) == [("2015-01-23", 2)]

    async def test_what_elasticsearch_cannot_answer_is_unaskable(self, store: ElasticsearchStore) -> None:
        await write_new_documents(store, event_document())
        deep: Filter = Equals("id", "x")
        for _ in range(100):
            deep = AllOf((deep,))
        with pytest.raises(InvalidQuery):
            await store.query(Query(where=deep))

    async def test_hostile_names_leave_the_known_fields_countable(self, store: ElasticsearchStore) -> None:
        await write_new_documents(
            store,
            *[
                encode_document({**fields, **{f"f{at}-{n}": n for n in range(80)}})
                for at, fields in enumerate(HOSTILE_EVENTS)
            ],
        )
        await write_new_documents(store, event_document(id="known", session="s", duration=5))
        question = Query(group_by=("id", "session", "duration"), where=Equals("id", "known"))
        assert await query_rows(store, question) == [("known", "s", "5", 1)]

    @pytest.mark.slow
    async def test_trails_that_take_many_pages_are_whole(
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
        for most in (None, 1, 4):
            asked = SequenceQuery("visitor", ("lang", "id"), Not(Equals("id", "i2")), max_events=most)
            right = expected_sequences(replace(asked, max_events=None), map(orjson.loads, lines))
            right = [EventSequence(key, steps[:most]) for key, steps in right]
            for page_steps, range_events in ((1_000, 100), (60, 20), (7, 5), (1, 1)):
                found = iterate_sequences(client, f"{prefix}-*", asked, page_steps, range_events)
                assert [trail async for trail in found] == right

    async def test_a_question_that_takes_too_long_is_ended(
        self, store: ElasticsearchStore, elasticsearch_url: str, prefix: str
    ) -> None:
        await write_new_documents(store, event_document(session="s"))
        hasty = ElasticsearchStore(ElasticsearchConfig(elasticsearch_url, prefix=prefix), query_timeout=0.000_001)
        with pytest.raises(QueryTooExpensive, match="over 1e-06 s"):
            await hasty.query(Query())
        with pytest.raises(QueryTooExpensive, match="over 1e-06 s"):
            await hasty.newest_values("session", 5)
        await hasty.close()

    async def test_a_document_that_elasticsearch_does_not_take_replaces_none(
        self, store: ElasticsearchStore, client: AsyncElasticsearch, prefix: str
    ) -> None:
        await write_new_documents(
            store,
            *[event_document(event_id=f"e{at}") for at in range(9)],
            event_document("2015-01-23", event_id="closed"),
        )
        after = [event_document(event_id=f"e{at}", os="x") for at in range(9)]
        after[4] = after[4][:-1] + b',"x":}'
        await client.indices.close(index=f"{prefix}-2015.01.23")
        more = [b'{"os":"headless"}', event_document("2015-01-23", event_id="closed"), event_document(event_id="long")]
        more[2] = more[2].replace(b'"long"', b'"' + b"x" * 600 + b'"')
        assert await store.replace(DocumentBatch.from_documents([*after, *more])) == 8
        await store.refresh()
        assert await query_rows(store, Query(group_by=("os",))) == [("x", 8)]

    async def test_what_was_replaced_before_it_was_visible_is_replaced(self, store: ElasticsearchStore) -> None:
        line = event_document(event_id="e", os="old")
        assert (await store.write(DocumentBatch.from_documents([line]))).stored == 1
        assert await store.replace(DocumentBatch.from_documents([line.replace(b"old", b"new")])) == 1
        await store.refresh()
        assert await query_rows(store, Query(group_by=("os",))) == [("new", 1)]


async def test_a_node_that_no_longer_says_anything_is_away_and_the_question_not_too_costly() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # It takes the question, and is gone when it is looked after.
        server.close()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = ElasticsearchStore(ElasticsearchConfig(url), query_timeout=0.1)
    with pytest.raises(StoreUnavailable):
        await store.query(Query())
    await store.close()


async def _read(store: Store) -> None:
    async for _ in store.iterate_documents():
        pass


async def _follow(store: Store) -> None:
    async for _ in store.sequences(SequenceQuery("session", ("id",))):
        pass


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.setup(),
        lambda store: store.write(DocumentBatch.from_documents([event_document()])),
        lambda store: store.ask(Query()),
        lambda store: store.newest("session", 5),
        lambda store: store.fields(),
        lambda store: store.replace(DocumentBatch.from_documents([event_document()])),
        _follow,
        _read,
        lambda store: store.forget(item="x"),
        lambda store: store.forget(before=datetime(2015, 1, 22, tzinfo=UTC)),
        lambda store: store.refresh(),
        lambda store: store.ping(),
    ],
)
async def test_where_nothing_listens_the_store_is_away(call: Callable[[Store], Awaitable[Any]]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        store = ElasticsearchStore(ElasticsearchConfig(f"http://127.0.0.1:{bound.getsockname()[1]}"))
        with pytest.raises(StoreUnavailable):
            await call(store)
        await store.close()
        await store.close()
