"""State in an SQLite file of its own, which commands can use while the server runs."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from metronome.errors import StoreUnavailable
from metronome.retry import Backoff, retry_blocking
from metronome.state.base import Record, State, decode_name, decode_record, encode_name, encode_record

STATE_FILE_NAME: Final = "state.sqlite"
_BUSY_SECONDS: Final = 10.0
_WAL_BACKOFF: Final = Backoff(0.02, 0.1)
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS records(
    kind TEXT NOT NULL,
    name BLOB NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (kind, name)) WITHOUT ROWID
"""

Result = TypeVar("Result")


class SQLiteState(State):
    """State in a file, for any number of processes of one machine.

    Args:
        folder: the folder of the file.

    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATE_FILE_NAME
        self._executor = ThreadPoolExecutor(1, "state")
        self._database: sqlite3.Connection | None = None

    async def setup(self) -> None:
        """Open the file and create its table (see `State.setup`)."""
        await self._run(lambda database: database)

    async def get(self, kind: str, name: str) -> Record | None:
        """Return a record (see `State.get`)."""
        sql = "SELECT record FROM records WHERE kind = ? AND name = ?"
        found = await self._run(lambda database: database.execute(sql, (kind, encode_name(name))).fetchone())
        return None if found is None else decode_record(found[0])

    async def get_all(self, kind: str) -> dict[str, Record]:
        """Return all records of a kind (see `State.get_all`)."""
        sql = "SELECT name, record FROM records WHERE kind = ? ORDER BY name"
        rows = await self._run(lambda database: database.execute(sql, (kind,)).fetchall())
        return {decode_name(name): decode_record(record) for name, record in rows}

    async def add(self, kind: str, name: str, record: Record) -> bool:
        """Add a record (see `State.add`)."""
        return await self._execute_change(
            "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            kind,
            encode_name(name),
            encode_record(record),
        )

    async def compare_and_swap(self, kind: str, name: str, expected: Record, replacement: Record) -> bool:
        """Replace a record (see `State.compare_and_swap`)."""
        return await self._execute_change(
            "UPDATE records SET record = ? WHERE kind = ? AND name = ? AND record = ?",
            encode_record(replacement),
            kind,
            encode_name(name),
            encode_record(expected),
        )

    async def remove(self, kind: str, name: str) -> bool:
        """Remove a record (see `State.remove`)."""
        removed = await self._execute_change("DELETE FROM records WHERE kind = ? AND name = ?", kind, encode_name(name))
        if removed:
            # Until a checkpoint, the removed record is still in the file or in its log.
            await self._run(lambda database: database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        return removed

    async def close(self) -> None:
        """Close the file (see `State.close`)."""
        await asyncio.to_thread(self._close)

    async def _execute_change(self, sql: str, *values: str | bytes) -> bool:
        return await self._run(lambda database: database.execute(sql, values).rowcount == 1)

    async def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(self._open_database()))
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error

    def _open_database(self) -> sqlite3.Connection:
        if self._database is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Private, as its log will be, too: it contains the tokens of sessions.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                _configure_database(database)
            except BaseException:
                database.close()
                raise
            self._database = database
        return self._database

    def _close(self) -> None:
        self._executor.shutdown()
        if self._database is not None:
            self._database.close()
            self._database = None


def _configure_database(database: sqlite3.Connection) -> None:
    # If several processes open a new file at once, SQLite lets one change the mode and fails the others immediately.
    retry_blocking(
        lambda: database.execute("PRAGMA journal_mode = WAL"),
        _WAL_BACKOFF,
        should_retry=lambda error: isinstance(error, sqlite3.OperationalError),
        timeout_seconds=_BUSY_SECONDS,
    )
    database.execute("PRAGMA synchronous = FULL")
    # Not every build of SQLite overwrites removed data, and salts must be destroyed.
    database.execute("PRAGMA secure_delete = ON")
    database.execute(_TABLE)
