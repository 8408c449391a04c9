"""The SQLite state back end meets the state contract, also across real processes."""

import asyncio
import multiprocessing
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from metronome.errors import StoreUnavailable
from metronome.state.base import State
from metronome.state.sqlite import STATE_FILE_NAME, SQLiteState
from tests.contracts.state_contract import StateConcurrencyTests, StateRecordTests

PROCESS_COUNT = 4


class SQLiteFixtures:
    """Open the same file in a folder that does not exist before the test."""

    @pytest.fixture
    def open_state(self, tmp_path: Path) -> Callable[[], State]:
        return lambda: SQLiteState(tmp_path / "data")


class TestRecords(SQLiteFixtures, StateRecordTests):
    pass


class TestConcurrency(SQLiteFixtures, StateConcurrencyTests):
    pass


async def add_records(folder: Path, name: str) -> list[bool]:
    state = SQLiteState(folder)
    added = [await state.add("key", str(number), {"by": name}) for number in range(20)]
    await state.close()
    return added


def run_add_records(folder: Path, name: str) -> list[bool]:
    return asyncio.run(add_records(folder, name))


@pytest.mark.parametrize("attempt", range(3))
async def test_processes_that_open_a_new_file_concurrently_share_it(tmp_path: Path, attempt: int) -> None:
    names = [f"{attempt} {number}" for number in range(PROCESS_COUNT)]
    with multiprocessing.get_context("spawn").Pool(PROCESS_COUNT) as pool:
        added = pool.starmap(run_add_records, [(tmp_path, name) for name in names])
    assert [sum(attempts) for attempts in zip(*added, strict=True)] == [1] * 20
    state = SQLiteState(tmp_path)
    records = await state.get_all("key")
    await state.close()
    assert records == {
        str(number): {"by": name}
        for name, process_added in zip(names, added, strict=True)
        for number, was_added in enumerate(process_added)
        if was_added
    }


def file_modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_files_are_readable_only_by_their_owner(tmp_path: Path) -> None:
    state = SQLiteState(tmp_path)
    await state.add("key", "a", {})
    modes = file_modes(tmp_path)
    await state.close()
    assert modes == dict.fromkeys([STATE_FILE_NAME, f"{STATE_FILE_NAME}-wal", f"{STATE_FILE_NAME}-shm"], 0o600)


async def test_recovers_once_the_data_folder_can_be_created(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    state = SQLiteState(tmp_path / "data")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"state\.sqlite"):
            await state.get_all("key")
    (tmp_path / "data").unlink()
    assert await state.add("key", "a", {})
    await state.close()


async def test_rejects_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE_NAME).write_bytes(b"no database" * 1000)
    state = SQLiteState(tmp_path)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await state.setup()
    await state.close()


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff"])
async def test_rejects_a_record_that_is_not_a_json_object(tmp_path: Path, text: bytes) -> None:
    state = SQLiteState(tmp_path)
    await state.add("key", "a", {})
    with sqlite3.connect(tmp_path / STATE_FILE_NAME) as database:
        database.execute("UPDATE records SET record = ?", (text,))
    database.close()
    with pytest.raises(StoreUnavailable, match="record"):
        await state.get("key", "a")
    await state.close()


def read_all_files(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_removed_records_are_erased_from_the_files_while_the_state_is_open(tmp_path: Path) -> None:
    state = SQLiteState(tmp_path)
    await state.add("salt", "2015-01-20", {"salt": "very secret"})
    await state.add("salt", "2015-01-22", {"salt": "today's"})
    assert await state.remove("salt", "2015-01-20")
    content = read_all_files(tmp_path)
    await state.close()
    assert b"today's" in content
    assert b"very secret" not in content
