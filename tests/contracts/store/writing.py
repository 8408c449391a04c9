"""Writing: each event exactly once, whatever it holds, and back as it was."""

import asyncio
from typing import Any, Final

import orjson
import pytest

from metronome.stores.base import DocumentBatch, Store, WriteResult
from metronome.stores.query import COUNT, Query
from tests.contracts.store.events import (
    StoreContract,
    count_events,
    encode_document,
    event_document,
    query_rows,
    write_documents,
    write_new_documents,
)

HOSTILE_EVENTS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"id": ""},
    {"id": None, "event": None, "format": None},
    {"id": "a/b?c#d e%20f\\g", "event": "a'); DROP TABLE events; --"},
    {"id": 'quotes " and \\" and \\', "event": "*", "format": "?"},
    {"id": "línea\nsegunda\r\n\ttab\u2028sep\u2029\x7f"},
    {"id": "nul\0inside", "note": "nul\0inside", "with.nul": "nul\0inside", "key\0nul": "x"},
    {"id": "ünï 👩\u200d👩\u200d👧 \u202ertl مرحبا", "emoji.👍": "👍"},
    {"id": "\ud800 lone", "\udfff": "surrogate", "note": "\udc00"},
    {"note": "x" * 1024, "long": "x" * 1025, "longer": "y" * 40_000, "very.long": "z" * 40_000},
    {"k" * 100: 1, "k" * 101: 1, "k" * 1_000: 1},
    {"": "nameless", " ": "blank", ".": "dot", "..": "dots", "a.": 1, ".a": 2, "a..b": 3},
    {"a": 1, "a.b": 2, "a.b.c": {"d": [1, {"e": None}]}},
    {"_id": "x", "_source": "y", "_index": "z", "_doc_count": 1_000_000, "_routing": "r", "_type": "t"},
    {"params": "text", "event.original": "text", "@version": "9", "@timestamp ": "x", "message": 5},
    {"params": {"nested": True}, "tags": ["a", "b"], "host": {"name": "h"}},
    {"mixed": 1, "value": 1},
    {"mixed": "text", "value": "text"},
    {"mixed": 1.5, "value": "2.5"},
    {"mixed": True, "value": True},
    {"mixed": None, "value": None},
    {"mixed": [1, 2], "value": [1, 2]},
    {"mixed": {"a": 1}, "value": {"a": 1}},
    {"mixed": "2015-01-22T00:00:00Z", "value": "2015-01-22"},
    {"int": 2**63 - 1, "low": -(2**63) + 1, "over": 2**63, "huge": 10**400, "big": "9" * 400},
    {"tiny": 5e-324, "large": 1.7976931348623157e308, "zero": -0.0, "exp": 1e22, "third": 1 / 3},
    {"duration": "12", "clientip": "not an address", "referer": "::::", "user_agent": "\0"},
    {"clientip": "2001:db8::1", "referrer": "https://www.example.com/a/?q#f", "url": "javascript:alert(1)"},
    {"session": 5, "visitor": 7, "bot": True},
    {"session": {"a": 1}, "visitor": ["v"], "bot": {"name": "x"}},
    {f"field{number}": number for number in range(150)},
)


class WriteTests(StoreContract):
    """Each event is stored exactly once, and comes back as it was."""

    async def test_reports_the_number_of_new_documents(self, store: Store) -> None:
        assert await write_documents(store, [event_document(), event_document(), event_document()]) == WriteResult(
            stored=3
        )
        assert await count_events(store) == 3

    async def test_accepts_an_empty_batch(self, store: Store) -> None:
        assert await store.write(DocumentBatch.from_documents([])) == WriteResult(stored=0)

    async def test_keeps_the_first_of_duplicates_within_a_batch(self, store: Store) -> None:
        documents = [
            event_document(event_id="1", id="first"),
            event_document(event_id="2", id="other"),
            event_document(event_id="1", id="second"),
        ]
        assert await write_documents(store, documents) == WriteResult(stored=2, duplicates=1)
        assert await query_rows(store, Query(group_by=("id",))) == [("first", 1), ("other", 1)]

    async def test_keeps_the_first_of_duplicates_across_batches(self, store: Store) -> None:
        await write_new_documents(store, event_document(event_id="1", id="first"))
        assert await write_documents(store, [event_document(event_id="1", id="second")]) == WriteResult(
            stored=0, duplicates=1
        )
        assert await query_rows(store, Query(group_by=("id",))) == [("first", 1)]

    async def test_deduplicates_a_resent_batch_in_another_order(self, store: Store) -> None:
        documents = [event_document(event_id=str(number)) for number in range(10)]
        await write_new_documents(store, *documents[:6])
        assert await write_documents(store, documents[9:3:-1]) == WriteResult(stored=4, duplicates=2)
        assert await write_documents(store, documents) == WriteResult(stored=0, duplicates=10)
        assert await count_events(store) == 10

    async def test_same_event_id_on_another_day_is_another_event(self, store: Store) -> None:
        documents = [
            event_document("2015-01-21T23:59:59.999Z", event_id="1"),
            event_document("2015-01-22T00:00:00.000Z", event_id="1"),
            event_document("2015-01-22T23:59:59.999Z", event_id="1"),
        ]
        assert await write_documents(store, documents) == WriteResult(stored=2, duplicates=1)

    async def test_event_ids_are_compared_exactly(self, store: Store) -> None:
        names = ["a", "A", " a", "a ", "á", "a\u0301", 'a"', "a\\", "a/b", "a\\u0062", "%", "1", "01", "e" * 512, "\n"]
        documents = [event_document(event_id=name) for name in names]
        await write_new_documents(store, *documents)
        assert await write_documents(store, documents) == WriteResult(stored=0, duplicates=len(names))

    async def test_stores_late_events(self, store: Store) -> None:
        await write_new_documents(store, event_document("2015-01-22T12:00:00Z"))
        await write_new_documents(
            store,
            event_document("1970-01-01T00:00:00Z"),
            event_document("2014-12-31T23:59:59Z"),
            event_document("2015-01-22T11:00:00Z"),
        )
        assert await query_rows(store, Query(group_by=("month",))) == [("1970-01", 1), ("2014-12", 1), ("2015-01", 2)]

    async def test_rejects_invalid_documents_and_stores_the_others(self, store: Store) -> None:
        broken = event_document(event_id="broken")[:-1] + b',"x":}'
        documents = [
            event_document(event_id="1"),
            broken,
            event_document(event_id="2"),
            b'{"id":"headless"}',
            event_document(event_id="3"),
        ]
        verdicts = await write_documents(store, documents)
        assert verdicts.stored == 3
        assert verdicts.duplicates == 0
        assert verdicts.retry is None
        assert {refusal.document for refusal in verdicts.rejected} == {broken, b'{"id":"headless"}'}
        assert all(refusal.reason for refusal in verdicts.rejected)
        assert await count_events(store) == 3

    async def test_stores_hostile_events_unchanged(self, store: Store) -> None:
        documents = [
            encode_document({"event_id": f"hostile {at}", **fields}) for at, fields in enumerate(HOSTILE_EVENTS)
        ]
        await write_new_documents(store, *documents)
        assert await count_events(store) == len(HOSTILE_EVENTS)
        assert sorted([each async for each in store.iterate_documents()]) == sorted(documents)
        assert await write_documents(store, documents) == WriteResult(stored=0, duplicates=len(HOSTILE_EVENTS))

    async def test_iterates_documents_oldest_first(self, store: Store) -> None:
        documents = [
            event_document("2015-01-23T00:00:00.001Z", id="4"),
            event_document("2015-01-22T23:59:59.999Z", id="2"),
            event_document("2015-01-21T12:00:00.000Z", id="1", value=1.0, note=None),
            event_document("2015-01-23T00:00:00.000Z", id="3"),
        ]
        await write_new_documents(store, *documents)
        found = [each async for each in store.iterate_documents()]
        assert found == [documents[2], documents[1], documents[3], documents[0]]

    async def test_iterates_no_documents_of_an_empty_store(self, store: Store) -> None:
        assert [each async for each in store.iterate_documents()] == []

    @pytest.mark.slow
    async def test_stores_a_large_batch_completely(self, store: Store) -> None:
        documents = [
            event_document(
                f"2015-01-{22 + number % 2}T{number % 24:02}:00:{number % 60:02}.{number % 1000:03}Z",
                event_id=f"e{number}",
                id=f"item {number % 100}",
                title="a page of some length, " * 20,
            )
            for number in range(20_000)
        ]
        await write_new_documents(store, *documents)
        assert await query_rows(store, Query(group_by=("day",))) == [("2015-01-22", 10_000), ("2015-01-23", 10_000)]
        found = [each async for each in store.iterate_documents()]
        assert [orjson.loads(each)["@timestamp"] for each in found] == sorted(
            orjson.loads(each)["@timestamp"] for each in documents
        )
        assert set(found) == set(documents)
        assert await write_documents(store, [*documents[-100:], event_document(event_id="e20000")]) == WriteResult(
            stored=1, duplicates=100
        )

    async def test_keeps_the_first_of_distant_duplicates_in_a_large_batch(self, store: Store) -> None:
        documents = [event_document(event_id=f"e{number}", note="x" * 1_000) for number in range(10_000)]
        batch = [
            event_document(event_id="twice", id="first"),
            *documents,
            event_document(event_id="twice", id="second"),
        ]
        assert await write_documents(store, batch) == WriteResult(stored=10_001, duplicates=1)
        assert await query_rows(store, Query(group_by=("id",))) == [("first", 1)]

    async def test_concurrent_overlapping_batches_are_deduplicated(self, store: Store) -> None:
        documents = [event_document(event_id=str(number)) for number in range(500)]
        batches = [DocumentBatch.from_documents(documents[start : start + 200]) for start in range(0, 400, 50)]
        verdicts = await asyncio.gather(*[store.write(batch) for batch in batches])
        await store.refresh()
        assert sum(each.stored + each.duplicates for each in verdicts) == 8 * 200 - 50
        assert sum(each.stored for each in verdicts) == 500
        assert await count_events(store) == 500

    async def test_queries_run_during_writes(self, store: Store) -> None:
        async def write_all() -> None:
            for start in range(0, 1_000, 100):
                await write_new_documents(
                    store, *[event_document(event_id=str(number)) for number in range(start, start + 100)]
                )

        async def ask_often() -> list[Any]:
            return [await count_events(store) for _ in range(20)]

        _, seen = await asyncio.gather(write_all(), ask_often())
        assert seen == sorted(seen)
        assert await query_rows(store, Query((COUNT,))) == [(1_000,)]

    async def test_setup_is_idempotent_and_ping_succeeds(self, store: Store) -> None:
        await write_new_documents(store, event_document())
        await store.setup()
        await store.ping()
        assert await count_events(store) == 1
