"""State in an SQLite file keeps what every state promises, across real processes too."""

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

PROCESSES = 4


class InAFile:
    """Opens the same file in the test's folder, which is not there before."""

    @pytest.fixture
    def open_state(self, tmp_path: Path) -> Callable[[], State]:
        return lambda: SQLiteState(tmp_path / "data")


class TestKeeping(InAFile, StateRecordTests):
    pass


class TestSharing(InAFile, StateConcurrencyTests):
    pass


async def race(folder: Path, name: str) -> list[bool]:
    state = SQLiteState(folder)
    won = [await state.add("key", str(number), {"by": name}) for number in range(20)]
    await state.close()
    return won


def run_race(folder: Path, name: str) -> list[bool]:
    return asyncio.run(race(folder, name))


@pytest.mark.parametrize("turn", range(3))
async def test_processes_that_open_a_new_file_at_once_share_it(tmp_path: Path, turn: int) -> None:
    names = [f"{turn} {number}" for number in range(PROCESSES)]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        won = pool.starmap(run_race, [(tmp_path, name) for name in names])
    assert [sum(each) for each in zip(*won, strict=True)] == [1] * 20
    state = SQLiteState(tmp_path)
    records = await state.get_all("key")
    await state.close()
    assert records == {
        str(number): {"by": name}
        for name, mine in zip(names, won, strict=True)
        for number, is_mine in enumerate(mine)
        if is_mine
    }


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_its_files_are_for_their_owner_only(tmp_path: Path) -> None:
    state = SQLiteState(tmp_path)
    await state.add("key", "a", {})
    modes = modes_in(tmp_path)
    await state.close()
    assert modes == dict.fromkeys([STATE_FILE_NAME, f"{STATE_FILE_NAME}-wal", f"{STATE_FILE_NAME}-shm"], 0o600)


async def test_where_there_can_be_no_folder_the_state_is_away_and_back_as_soon_as_there_can(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    state = SQLiteState(tmp_path / "data")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"state\.sqlite"):
            await state.get_all("key")
    (tmp_path / "data").unlink()
    assert await state.add("key", "a", {})
    await state.close()


async def test_a_file_that_is_no_database_is_a_state_that_is_away(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE_NAME).write_bytes(b"no database" * 1000)
    state = SQLiteState(tmp_path)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await state.setup()
    await state.close()


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff"])
async def test_a_record_that_somebody_else_wrote_is_a_state_that_is_away(tmp_path: Path, text: bytes) -> None:
    state = SQLiteState(tmp_path)
    await state.add("key", "a", {})
    with sqlite3.connect(tmp_path / STATE_FILE_NAME) as database:
        database.execute("UPDATE records SET record = ?", (text,))
    database.close()
    with pytest.raises(StoreUnavailable, match="record"):
        await state.get("key", "a")
    await state.close()


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_what_is_removed_is_on_no_disk_any_more_while_the_state_stays_open(tmp_path: Path) -> None:
    state = SQLiteState(tmp_path)
    await state.add("salt", "2015-01-20", {"salt": "very secret"})
    await state.add("salt", "2015-01-22", {"salt": "today's"})
    assert await state.remove("salt", "2015-01-20")
    kept = on_disk(tmp_path)
    await state.close()
    assert b"today's" in kept
    assert b"very secret" not in kept
