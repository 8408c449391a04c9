"""Backup of a data folder whose server goes on: each event is in the copy once, in its store or its spool."""

import asyncio
from pathlib import Path

import pytest

from metronome.backup import BACKUP_FOLDER, Backups
from metronome.cli.backup import copy_backup
from metronome.errors import ConfigurationError, RequestError, StoreUnavailable
from metronome.spool import STORE_READER, SpoolReader, SpoolWriter, register_readers
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.duckdb.maintenance import StorageLimits
from metronome.stores.query import Query
from tests.contracts.store_contract import event_document

LIMITS = StorageLimits(table_rows=0, direct_rows=20, hot_rows=10, merged_segments=2, rollup_rows=5, quiet_seconds=0)


def batch(*numbers: int) -> DocumentBatch:
    return DocumentBatch.from_documents(
        [event_document(f"2015-0{1 + number % 3}-01T00:00:00Z", event_id=f"e{number}") for number in numbers]
    )


def ignore(_: int) -> None:
    pass


async def test_a_store_opened_from_a_backup_has_each_event_once(tmp_path: Path) -> None:
    data, copied = tmp_path / "data", tmp_path / "copied"
    store = DuckDBStore(data, limits=LIMITS)
    await store.setup()
    await store.write(batch(*range(60)))
    await store.write(batch(*range(60, 65)))
    backups = Backups(data, store, [])
    before = {document async for document in store.iterate_documents()}
    stopped = asyncio.Event()

    async def keep_writing() -> int:
        number = 100
        while not stopped.is_set():
            await store.write(batch(number))
            number += 1
        return number - 100

    writing = asyncio.create_task(keep_writing())
    prepared = await backups.prepare()
    # What the copy links to may be merged and deleted meanwhile.
    await store.delete_events(item="nothing")
    await store.maintain()
    stopped.set()
    written = await writing
    await store.close()
    size = copy_backup(prepared, copied, ignore, ignore)
    assert not (data / BACKUP_FOLDER).exists()
    assert size == sum(path.stat().st_size for path in copied.rglob("*") if path.is_file())
    restored = DuckDBStore(copied, limits=LIMITS)
    await restored.setup()
    documents = [document async for document in restored.iterate_documents()]
    by_day, total = await restored.query(Query(group_by=("day",)), Query())
    again = await restored.write(batch(*range(65)))
    await restored.close()
    assert len(documents) == len(set(documents))
    assert before <= set(documents)
    assert len(before) <= len(documents) <= len(before) + written
    assert total.rows == ((len(documents),),)
    assert sum(int(count or 0) for count in by_day.to_dict().values()) == len(documents)
    assert (again.stored, again.duplicates) == (0, 65)


async def test_a_backup_has_the_spool_state_and_dead_letters(tmp_path: Path) -> None:
    data, spool_folder = tmp_path / "data", tmp_path / "data" / "spool" / "0"
    store = DuckDBStore(data)
    await store.setup()
    spool = SpoolWriter(spool_folder, 10**9, lambda *_: None)
    register_readers(spool_folder, (STORE_READER,))
    await spool.put(b"1\n", 1)
    (data / "dead").mkdir()
    (data / "dead" / "letters.ndjson").write_bytes(b"{}\n")
    prepared = await Backups(data, store, [spool_folder]).prepare()
    await spool.put(b"2\n", 1)
    await spool.close()
    await store.close()
    copied = tmp_path / "copied"
    copied.mkdir()
    copy_backup(prepared, copied, ignore, ignore)
    reader = SpoolReader(copied / "spool" / "0", STORE_READER)
    assert reader.pending_stats().events == 1
    reader.close()
    assert (copied / "dead" / "letters.ndjson").read_bytes() == b"{}\n"


async def test_a_backup_that_cannot_be_written_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()

    async def fill_disk(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "back_up", fill_disk)
    with pytest.raises(StoreUnavailable, match=r"cannot write the backup: .*No space left"):
        await Backups(tmp_path, store, []).prepare()
    await store.close()
    assert not (tmp_path / BACKUP_FOLDER).exists()


async def test_other_stores_have_backups_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="snapshots of Elasticsearch"):
        await Store.back_up(DuckDBStore(tmp_path), tmp_path)


def test_a_backup_can_only_be_copied_on_the_machine_of_the_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="on the machine of the server"):
        copy_backup(tmp_path / "elsewhere", tmp_path / "copied", ignore, ignore)
    assert not (tmp_path / "copied").exists()


def test_a_left_over_backup_is_deleted_at_the_start(tmp_path: Path) -> None:
    (tmp_path / BACKUP_FOLDER / "segments").mkdir(parents=True)
    Backups(tmp_path, DuckDBStore(tmp_path), [])
    assert not (tmp_path / BACKUP_FOLDER).exists()
