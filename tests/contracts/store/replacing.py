"""Replacing documents: what changes is what was there, and nothing else."""

import asyncio

from metronome.stores.base import DocumentBatch, Store
from metronome.stores.query import Equals, Exists, Query
from tests.contracts.store.events import StoreContract, count_events, event_document, query_rows, write_new_documents


class ReplacementTests(StoreContract):
    """Documents that are written over."""

    async def test_replaces_the_document_with_the_same_event_id_and_day(self, store: Store) -> None:
        before = [
            event_document("2015-01-22T09:00:00Z", event_id=f"e{at}", id="a", bot="b" if at else "") for at in range(3)
        ]
        await write_new_documents(store, *before, event_document("2015-01-23T09:00:00Z", event_id="e0", id="a"))
        after = event_document("2015-01-22T09:00:00Z", event_id="e1", id="a", country="CH")
        assert await replace_documents(store, after) == 1
        assert await count_events(store) == 4
        assert await query_rows(store, Query(group_by=("bot",))) == [("b", 1)]
        assert await query_rows(store, Query(group_by=("country",))) == [("CH", 1)]
        assert await query_rows(store, Query(group_by=("day",))) == [("2015-01-22", 3), ("2015-01-23", 1)]
        assert await query_rows(store, Query(where=Equals("id", "a"))) == [(4,)]

    async def test_replacing_is_idempotent(self, store: Store) -> None:
        await write_new_documents(
            store, event_document("2015-01-22T09:00:00Z", event_id="e", id="a"), event_document(id="b")
        )
        after = event_document("2015-01-22T09:00:00Z", event_id="e", id="a", os="Linux")
        assert [await replace_documents(store, after) for _ in range(2)] == [1, 1]
        assert await replace_documents(store, after, after) in {1, 2}
        assert await query_rows(store, Query(group_by=("os",))) == [("Linux", 1)]
        assert await count_events(store) == 2

    async def test_does_not_insert_missing_documents(self, store: Store) -> None:
        await write_new_documents(store, event_document("2015-01-22T09:00:00Z", event_id="e", id="a"))
        other_day = event_document("2015-01-21T09:00:00Z", event_id="e", id="b")
        unknown = event_document("2015-01-22T09:00:00Z", event_id="f", id="b")
        assert await replace_documents(store, other_day, unknown) == 0
        assert await replace_documents(store) == 0
        assert await query_rows(store, Query(group_by=("id",))) == [("a", 1)]

    async def test_documents_without_event_id_replace_nothing(self, store: Store) -> None:
        line = event_document("2015-01-22T09:00:00Z", event_id="e", id="a")
        await write_new_documents(store, line)
        nameless = b'{"@timestamp":"2015-01-22T09:00:00.000Z","event":"view","id":"b"}'
        changed = line.replace(b'"id":"a"', b'"id":"c"')
        assert await replace_documents(store, nameless, changed) == 1
        assert await query_rows(store, Query(group_by=("id",))) == [("c", 1)]

    async def test_replaced_documents_still_deduplicate(self, store: Store) -> None:
        line = event_document("2015-01-22T09:00:00Z", event_id="e", id="a")
        await write_new_documents(store, line)
        await replace_documents(store, event_document("2015-01-22T09:00:00Z", event_id="e", id="a", os="Linux"))
        assert (await store.write(DocumentBatch.from_documents([line]))).duplicates == 1
        await store.refresh()
        assert await query_rows(store, Query(group_by=("os",))) == [("Linux", 1)]

    async def test_replaces_many_documents_and_keeps_the_first_duplicate(self, store: Store) -> None:
        days = [f"2015-01-2{at % 3}T09:00:00Z" for at in range(6_000)]
        await write_new_documents(store, *[event_document(at, event_id=f"e{number}") for number, at in enumerate(days)])
        after = [event_document(at, event_id=f"e{number}", os="Linux") for number, at in enumerate(days)]
        again = [event_document(at, event_id=f"e{number}", os="BeOS") for number, at in enumerate(days[:100])]
        assert await replace_documents(store, *after, *again) == 6_000
        assert await query_rows(store, Query(group_by=("os",))) == [("Linux", 6_000)]

    async def test_concurrent_replace_and_write_neither_duplicate_nor_lose(self, store: Store) -> None:
        before = [event_document("2015-01-22T09:00:00Z", event_id=f"e{number}") for number in range(200)]
        await write_new_documents(store, *before[:100])
        versions = [
            DocumentBatch.from_documents(
                [event_document("2015-01-22T09:00:00Z", event_id=f"e{number}", os=name) for number in range(100)]
            )
            for name in ("a", "b", "c", "d")
        ]
        replaced, written = await asyncio.gather(
            asyncio.gather(*map(store.replace, versions)), store.write(DocumentBatch.from_documents(before))
        )
        await store.refresh()
        assert replaced == [100] * 4
        assert (written.stored, written.duplicates) == (100, 100)
        assert await count_events(store) == 200
        assert await query_rows(store, Query(where=Exists("os"))) == [(100,)]

    async def test_deleted_documents_do_not_come_back(self, store: Store) -> None:
        lines = [event_document("2015-01-22T09:00:00Z", event_id=f"e{number}", id="a", os="x") for number in range(300)]
        await write_new_documents(store, *lines)
        await asyncio.gather(store.delete_events(item="a"), store.replace(DocumentBatch.from_documents(lines)))
        await store.delete_events(item="a")
        assert await replace_documents(store, *lines) == 0
        assert await count_events(store) == 0


async def replace_documents(store: Store, *documents: bytes) -> int:
    """Replace documents and make it visible."""
    replaced = await store.replace(DocumentBatch.from_documents(list(documents)))
    await store.refresh()
    return replaced
