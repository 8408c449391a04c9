"""The embedded store keeps the counts of events that it drops, until they are forgotten or dropped as well."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.duckdb.maintenance import StorageLimits
from metronome.stores.duckdb.segments import FOLDER_NAME
from metronome.stores.query import Equals, Query
from metronome.stores.selection import parse_selection
from tests.contracts.store_contract import event_document, query_rows, write_new_documents

FEBRUARY = datetime(2015, 2, 1, tzinfo=UTC)
BY_MONTH = Query(group_by=("month",))
LIMITS = {"hot": StorageLimits(), "segments": StorageLimits(table_rows=0, direct_rows=1, filter_rows=1)}


@pytest.fixture(params=LIMITS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Provide a store with events of three months, in its hot table or in segments."""
    opened = DuckDBStore(tmp_path, limits=LIMITS[request.param])
    await opened.setup()
    days = ("2014-12-30", "2014-12-31", "2015-01-15", "2015-02-01")
    await write_new_documents(
        opened,
        *[
            event_document(f"{day}T09:00:00Z", id=item, event=event, format="csv", browser=f"Browser {event}")
            for day in days
            for item in ("rivers", "trees")
            for event in ("view", "download")
        ],
    )
    yield opened
    await opened.close()


async def test_counts_of_dropped_events_stay(store: Store, tmp_path: Path) -> None:
    counted = [
        BY_MONTH,
        Query(group_by=("id", "event")),
        Query(group_by=("day",), where=Equals("id", "rivers")),
        Query(group_by=("browser",)),
        Query(group_by=("format",), where=Equals("id", "trees")),
    ]
    before = await store.query(*counted)
    assert await store.drop_events(FEBRUARY) == 12
    assert await store.query(*counted) == before
    assert len([line async for line in store.iterate_documents()]) == 4
    assert not [file for file in (tmp_path / FOLDER_NAME).rglob("*.parquet") if file.parent.name < "2015-02"]
    await store.close()
    again = DuckDBStore(tmp_path)
    await again.setup()
    assert await again.query(*counted) == before
    await again.close()


async def test_counts_are_dropped_after_their_time_but_never_those_of_kept_events(store: Store) -> None:
    await store.drop_counts(datetime(2016, 1, 1, tzinfo=UTC))
    assert await query_rows(store, BY_MONTH) == [("2014-12", 8), ("2015-01", 4), ("2015-02", 4)]
    await store.drop_events(FEBRUARY)
    await store.drop_counts(datetime(2015, 1, 1, tzinfo=UTC))
    assert await query_rows(store, BY_MONTH) == [("2015-01", 4), ("2015-02", 4)]
    await store.drop_counts(datetime(2016, 1, 1, tzinfo=UTC))
    assert await query_rows(store, BY_MONTH) == [("2015-02", 4)]


async def test_forgetting_an_item_also_forgets_its_counts_of_dropped_events(store: Store) -> None:
    await store.drop_events(FEBRUARY)
    assert await store.forget(parse_selection({"item": "rivers"})) == 2
    assert await query_rows(store, Query(group_by=("id",))) == [("trees", 8)]
    assert await query_rows(store, Query(group_by=("month",), where=Equals("id", "rivers"))) == []


async def test_forgetting_days_also_forgets_the_counts_of_dropped_events(store: Store) -> None:
    await store.drop_events(FEBRUARY)
    assert await store.forget(parse_selection({"before": "2014-12-31"})) == 0
    for query in (BY_MONTH, Query(group_by=("month",), where=Equals("event", "view"))):
        share = 1 if query is BY_MONTH else 2
        expected = [("2014-12", 4 // share), ("2015-01", 4 // share), ("2015-02", 4 // share)]
        assert await query_rows(store, query) == expected
    assert await query_rows(store, Query(group_by=("month",), where=Equals("id", "rivers"))) == [
        ("2014-12", 2),
        ("2015-01", 2),
        ("2015-02", 2),
    ]
    assert await store.forget(parse_selection({"before": "2015-02-02"})) == 4
    assert await query_rows(store, BY_MONTH) == []


async def test_totals_that_are_counted_again_keep_those_of_dropped_events(store: Store, tmp_path: Path) -> None:
    await store.drop_events(FEBRUARY)
    await write_new_documents(store, event_document("2015-01-03T09:00:00Z", id="late", browser="Browser view"))
    query = Query(group_by=("browser",))
    before = await query_rows(store, query)
    assert before == [("Browser download", 8), ("Browser view", 9)]
    await store.close()
    with duckdb.connect(tmp_path / "metronome.duckdb") as database:
        database.execute("UPDATE totals_version SET fields = 'others'")
    again = DuckDBStore(tmp_path)
    await again.setup()
    assert await query_rows(again, query) == before
    await again.close()


async def test_a_purge_leaves_nothing_of_deleted_events_in_segments(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path, limits=StorageLimits(table_rows=0, direct_rows=1))
    await store.setup()
    documents = [event_document(id=f"item{number % 2}", event_id=f"e{number}") for number in range(1000)]
    await store.write(DocumentBatch.from_documents(documents))
    assert await store.forget(parse_selection({"item": "item1"})) == 500
    await store.purge_deleted()
    files = list((tmp_path / FOLDER_NAME).rglob("*.parquet"))
    assert len(files) == 1
    assert b"item0" in files[0].read_bytes()
    assert b"item1" not in files[0].read_bytes()
    assert await query_rows(store, Query(group_by=("id",))) == [("item0", 500)]
    await store.close()
