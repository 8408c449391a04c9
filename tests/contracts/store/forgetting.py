"""Forgetting: what is named goes, all of it and nothing else."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from metronome.stores.base import Store, WriteResult
from metronome.stores.query import Equals, Query
from tests.contracts.store.events import (
    StoreContract,
    count_events,
    event_document,
    query_rows,
    write_documents,
    write_new_documents,
)


class DeletionTests(StoreContract):
    """Events can be deleted by time, by item and by visitor."""

    async def test_deletes_nothing_from_an_empty_store(self, store: Store) -> None:
        assert await store.delete_events(before=datetime(2015, 1, 22, tzinfo=UTC)) == 0
        assert await store.delete_events(item="doc1") == 0
        assert await store.delete_events(visitor="v1") == 0

    async def test_rejects_a_deletion_without_exactly_one_selection(self, store: Store) -> None:
        await write_new_documents(store, event_document(id="doc1", visitor="v1"))
        for selection in (dict[str, Any](), {"item": "doc1", "visitor": "v1"}):
            with pytest.raises(ValueError, match="expected exactly one of before, item and visitor"):
                await store.delete_events(**selection)
        assert await count_events(store) == 1

    async def test_deletes_everything_before_midnight(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document("2014-12-31T00:00:00.000Z"),
            event_document("2015-01-21T00:00:00.000Z"),
            event_document("2015-01-21T23:59:59.999Z"),
            event_document("2015-01-22T00:00:00.000Z", id="kept"),
            event_document("2015-01-23T00:00:00.000Z", id="kept"),
        )
        day = datetime(2015, 1, 22, tzinfo=UTC)
        assert await store.delete_events(before=day) == 3
        assert await query_rows(store, Query(group_by=("id",))) == [("kept", 2)]
        assert await store.delete_events(before=day) == 0
        assert await count_events(store) == 2

    async def test_deletes_everything_before_a_time_of_day(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document("2015-01-21T12:00:00.000Z"),
            event_document("2015-01-22T00:00:00.000Z"),
            event_document("2015-01-22T08:59:59.999Z"),
            event_document("2015-01-22T09:00:00.000Z", id="kept"),
            event_document("2015-01-22T23:00:00.000Z", id="kept"),
        )
        moment = datetime(2015, 1, 22, 10, tzinfo=timezone(timedelta(hours=1)))
        assert await store.delete_events(before=moment) == 3
        assert await query_rows(store, Query(group_by=("id",))) == [("kept", 2)]
        assert await store.delete_events(before=moment) == 0

    async def test_deletes_an_item_on_all_days(self, store: Store) -> None:
        name = 'doc/1 "é" *?%_\\'
        await write_new_documents(
            store,
            event_document("2014-01-22T00:00:00Z", id=name),
            event_document("2015-01-22T00:00:00Z", id=name, event="download"),
            event_document("2015-01-22T00:00:00Z", id="doc/1"),
            event_document("2015-01-22T00:00:00Z", id=name + "x"),
            event_document("2015-01-22T00:00:00Z", id=name.upper()),
            event_document("2015-01-22T00:00:00Z", title=name),
        )
        assert await store.delete_events(item=name) == 2
        assert await count_events(store) == 4
        assert await query_rows(store, Query(where=Equals("id", name))) == [(0,)]
        assert await store.delete_events(item=name) == 0

    async def test_deletes_a_visitor(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document("2015-01-21T00:00:00Z", visitor="v1", id="a"),
            event_document("2015-01-22T00:00:00Z", visitor="v1", id="b"),
            event_document("2015-01-22T00:00:00Z", visitor="v2", id="c"),
            event_document("2015-01-22T00:00:00Z", id="v1"),
        )
        assert await store.delete_events(visitor="v1") == 2
        assert await query_rows(store, Query(group_by=("id",))) == [("c", 1), ("v1", 1)]
        assert await store.delete_events(visitor="v1") == 0

    async def test_deletes_events_that_are_not_searchable_yet(self, store: Store) -> None:
        await write_new_documents(store, event_document(id="doc1", event_id="seen"))
        await write_documents(store, [event_document(id="doc1", event_id=str(number)) for number in range(5_000)])
        assert await store.delete_events(item="doc1") == 5_001
        assert await count_events(store) == 0

    async def test_stores_a_deleted_event_again(self, store: Store) -> None:
        document = event_document(id="doc1", event_id="1")
        await write_new_documents(store, document)
        assert await store.delete_events(item="doc1") == 1
        assert await write_documents(store, [document]) == WriteResult(stored=1)
        assert await store.delete_events(before=datetime(2015, 1, 23, tzinfo=UTC)) == 1
        assert await write_documents(store, [document]) == WriteResult(stored=1)
        assert await count_events(store) == 1
