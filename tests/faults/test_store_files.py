"""Damaged, missing and lost files of the embedded store, and DuckDB's own failures: no acknowledged event is lost."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from metronome.errors import StoreUnavailable
from metronome.stores.base import DocumentBatch, WriteResult
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.duckdb.maintenance import StorageLimits
from metronome.stores.duckdb.store import StoreFileDamaged, StoreFileLost, StoreOutOfMemory
from metronome.stores.query import Query
from tests.contracts.store_contract import encode_document, event_document, query_rows
from tests.faults.observations import failures, health, is_ready, log_lines, status_of, wait_until
from tests.faults.rounds import SentEvents, ServerFactory, count_marks_in_duckdb, ship_and_stop
from tests.servers import Server, run_metronome, unique_name


def send(server: Server, sent: SentEvents, count: int) -> None:
    marks = [unique_name() for _ in range(count)]
    sent.attempted.update(marks)
    server.post_events(orjson.dumps([{"id": "x", "mark": mark} for mark in marks]))
    sent.acknowledged.update(marks)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 16384)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [overwrite, truncate])
def test_a_damaged_store_is_reported_and_can_be_set_aside(
    new_server: ServerFactory, data: Path, damage: Callable[[Path], None]
) -> None:
    server, sent = new_server(data, stop_seconds=1), SentEvents()
    server.start()
    send(server, SentEvents(), 200)
    server.wait_until_shipped()
    server.stop()
    damage(data / "metronome.duckdb")
    server.start()
    send(server, sent, 5)
    assert is_ready(server)
    wait_until(lambda: health(server, "store") == "away", "the store's health says so")
    assert status_of(server, "/tock/x.json") == 503
    wait_until(lambda: failures(server)["StoreFileDamaged"], "the failure is counted")
    line = log_lines(server, "shipment_failed")[0]
    assert str(data / "metronome.duckdb") in line["error"]
    assert all(way in line["advice"] for way in ("backup", "metronome replay", "metronome reset --store"))
    server.stop()
    assert server.error_lines() == []
    refused = run_metronome("reset", "--store", data=data)
    assert refused.exit_code != 0
    result = run_metronome("reset", "--store", "--yes", data=data)
    assert result.exit_code == 0, result.stderr
    assert list(data.glob("store-*/metronome.duckdb"))
    server.start()
    ship_and_stop(server)
    stored = count_marks_in_duckdb(server)
    assert stored.keys() == sent.acknowledged
    assert set(stored.values()) == {1}


def test_events_wait_while_the_store_s_file_is_gone(new_server: ServerFactory, data: Path) -> None:
    server, sent = new_server(data), SentEvents()
    server.start()
    send(server, sent, 5)
    server.wait_until_shipped()
    path = data / "metronome.duckdb"
    path.rename(data / "moved")
    send(server, sent, 5)
    wait_until(lambda: failures(server)["StoreFileLost"], "the failure is counted")
    assert health(server, "store") == "away"
    assert server.spooled_events() == 5
    assert "put the file back" in log_lines(server, "shipment_failed")[0]["advice"]
    (data / "moved").rename(path)
    ship_and_stop(server)
    sent.check(count_marks_in_duckdb(server), at_least=1)


LIMITS = StorageLimits(table_rows=10, direct_rows=10, hot_rows=10)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBStore]:
    store = DuckDBStore(tmp_path, limits=LIMITS)
    await store.setup()
    yield store
    await store.close()


def batch(count: int, **fields: Any) -> DocumentBatch:
    return DocumentBatch.from_documents(
        [event_document("2015-01-22", event_id=f"{number}", **fields) for number in range(count)]
    )


@pytest.mark.parametrize("damage", [overwrite, truncate, Path.unlink])
async def test_a_damaged_segment_is_named_and_rejects_no_event(
    store: DuckDBStore, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    await store.write(batch(50))
    (path,) = tmp_path.glob("segments/*/*.parquet")  # noqa: ASYNC240  # nothing else runs
    backup = path.read_bytes()
    damage(path)
    with pytest.raises(StoreFileDamaged, match=str(path)):
        await store.query(Query(group_by=("session",)))
    with pytest.raises(StoreFileDamaged, match=str(path)):
        await store.write(batch(60))
    path.write_bytes(backup)
    assert await store.write(batch(60)) == WriteResult(10, 50)


@pytest.mark.parametrize("count", [5, 50])
async def test_no_file_takes_the_place_of_a_missing_one(store: DuckDBStore, tmp_path: Path, count: int) -> None:
    await store.write(batch(count))
    await store.close()
    (tmp_path / "metronome.duckdb").rename(tmp_path / "moved")
    other = DuckDBStore(tmp_path)
    with pytest.raises(StoreFileDamaged, match="missing"):
        await other.setup()
    (tmp_path / "moved").rename(tmp_path / "metronome.duckdb")
    await other.setup()
    assert await query_rows(other, Query()) == [(count,)]
    await other.close()


async def test_a_file_that_is_moved_while_it_is_opened_is_opened_again(
    store: DuckDBStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(batch(5))
    await store.close()
    path, connect = tmp_path / "metronome.duckdb", duckdb.connect

    def connect_and_move(*args: Any, **options: Any) -> duckdb.DuckDBPyConnection:
        database = connect(*args, **options)
        path.rename(tmp_path / "moved")
        return database

    monkeypatch.setattr(duckdb, "connect", connect_and_move)
    other = DuckDBStore(tmp_path)
    with pytest.raises(StoreFileLost):
        await other.setup()
    monkeypatch.undo()
    (tmp_path / "moved").rename(path)
    await other.setup()
    assert await other.write(batch(8)) == WriteResult(3, 5)
    await other.close()


async def test_a_batch_that_takes_too_much_memory_is_halved_and_what_remains_waits(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = store._insert_batch

    def run_out_of_memory(database: Any, part: DocumentBatch, created: Any) -> int:
        if part.count > 10 or b"huge" in part.body:
            raise duckdb.OutOfMemoryException("failed to allocate data")
        return insert(database, part, created)

    monkeypatch.setattr(store, "_insert_batch", run_out_of_memory)
    huge = DocumentBatch.from_documents([event_document("2015-01-22", event_id="huge")])
    result = await store.write(DocumentBatch.concatenate([batch(30), huge, DocumentBatch(batch(40).body, 40)]))
    assert (result.stored, result.duplicates, result.rejected, result.waiting) == (40, 30, (), huge)
    assert type(result.failure) is StoreOutOfMemory
    assert "METRONOME_DUCKDB_MEMORY" in result.failure.advice
    monkeypatch.undo()
    assert await store.write(huge) == WriteResult(1)


async def test_a_batch_larger_than_duckdb_s_memory_is_stored(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path, memory_limit="60MB")
    await store.setup()
    documents = [encode_document({"id": "x", "event_id": f"{n}", "text": "y" * 50_000}) for n in range(400)]
    remaining: DocumentBatch | None = DocumentBatch.from_documents(documents)
    stored = 0
    for _ in range(10):
        if remaining is not None:
            result = await store.write(remaining)
            stored, remaining = stored + result.stored, result.waiting
    assert (stored, remaining) == (400, None)
    await store.close()


async def test_the_store_recovers_from_a_fatal_error(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.write(batch(5))
    insert = store._insert_batch
    errors = [duckdb.FatalException("the database has been invalidated")]

    def fail_once(database: Any, part: DocumentBatch, created: Any) -> int:
        if errors:
            raise errors.pop()
        return insert(database, part, created)

    monkeypatch.setattr(store, "_insert_batch", fail_once)
    with pytest.raises(StoreUnavailable):
        await store.write(batch(8))
    assert await store.write(batch(8)) == WriteResult(3, 5)
    assert await query_rows(store, Query()) == [(8,)]


async def test_nothing_is_acknowledged_into_a_deleted_file(store: DuckDBStore, tmp_path: Path) -> None:
    await store.write(batch(5))
    (tmp_path / "metronome.duckdb").rename(tmp_path / "moved")
    with pytest.raises(StoreFileLost):
        await store.write(batch(8))
    (tmp_path / "moved").rename(tmp_path / "metronome.duckdb")
    assert await store.write(batch(8)) == WriteResult(3, 5)
