"""The durable queue between a reply and the store.

A reply means that its events are on disk: `Spool.put` returns once the commit that holds them has been
synchronised. While one commit runs, what arrives gathers; as it ends, the next takes all of it, so there
is no timer and load sets the size of a commit.

The engine is SQLite with a write-ahead log and ``synchronous=FULL``, one row for each commit: it survives
``kill -9`` and a torn last write, and lets the shipper, in this process or another, read what the writer
has committed. One process writes a spool; the shipper's `Outlet` reads it and deletes what has been shipped.
"""

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

import structlog

from metronome.errors import SpoolFull
from metronome.locks import FolderLock
from metronome.stores.store import Batch

log = structlog.get_logger()

FILE_NAME: Final = "spool.sqlite"
_FREE_DISK_BYTES = 256 * 2**20
"""What is left free on the disk: a full one would stop the store as well."""
_WAITING_MAX_BYTES = 64 * 2**20
"""What may wait in memory for a commit: more only gathers where the disk has all but stopped."""
_LOOK_SECONDS = 0.05
"""How often it is measured whether there is room, near the limit."""
_STOPPING = "the server is stopping"
_DISK_IS_FULL = "the disk that the spool is on is full"
_BUSY_SECONDS = 30
_SCHEMA = """
CREATE TABLE IF NOT EXISTS commits(
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    events INTEGER NOT NULL,
    total_events INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    body BLOB NOT NULL)
"""


class _Waiting(NamedTuple):
    body: bytes
    events: int
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Depth:
    """How much a spool holds that has not been shipped.

    Attributes:
        events: how many.
        bytes: how large they are together.
        oldest_seconds: how long the oldest has been there; 0.0 if there are none.

    """

    events: int = 0
    bytes: int = 0
    oldest_seconds: float = 0.0


class Spool:
    """The writing end of one spool.

    Args:
        folder: its own folder, made if need be.
        max_bytes: what it holds at the most; past that `put` refuses.
        on_commit: called in the event loop after each commit with the seconds it took and the number of its events.

    Raises:
        DataFolderTaken: another process writes this spool.

    """

    def __init__(
        self, folder: Path, max_bytes: int, on_commit: Callable[[float, int], None] = lambda _seconds, _events: None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(folder)
        self._path = folder / FILE_NAME
        self._max_bytes = max_bytes
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._handed: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._database = _connect(self._path)
        with closing(
            self._database.execute("SELECT max(seq), max(total_events), max(total_bytes) FROM commits")
        ) as rows:
            self._seq, self._total_events, self._total_bytes = (value or 0 for value in rows.fetchone())
        self._held_bytes = self._measure_held()
        self._measured_at = 0.0
        self._disk_is_full = False
        self._refuses = ""
        self._thread = threading.Thread(target=self._commit_forever, name=f"spool {folder.name}", daemon=True)
        self._thread.start()

    def put(self, body: bytes, count: int) -> "asyncio.Future[None]":
        """Take documents; the future is done once they are on disk.

        Args:
            body: *count* lines of JSON, each with its line feed.
            count: how many.

        Returns:
            A future that ends well after the commit, or with `SpoolFull` if the disk turned out full.

        Raises:
            SpoolFull: there is no room; nothing was taken.

        """
        size = len(body)
        if self._held_bytes + self._waiting_bytes + size > self._max_bytes or self._waiting_bytes > _WAITING_MAX_BYTES:
            self._look_again()
            raise SpoolFull(f"the spool is at its limit of {self._max_bytes} bytes, or its disk does not keep up")
        if self._refuses:
            self._look_again()
            raise SpoolFull(self._refuses)
        done = self._loop.create_future()
        self._waiting.append(_Waiting(body, count, done))
        self._waiting_bytes += size
        if self._idle.is_set():
            self._start()
        return done

    async def close(self) -> None:
        """Commit what waits and let go of the file; idempotent."""
        self._refuses = _STOPPING
        await self._idle.wait()
        self._handed.put(None)
        await asyncio.to_thread(self._thread.join)

    def _look_again(self) -> None:
        """Measure whether there is room by now: while all is refused, no commit does."""
        if self._idle.is_set() and self._refuses != _STOPPING and time.monotonic() - self._measured_at > _LOOK_SECONDS:
            self._start()

    def _start(self) -> None:
        batch, self._waiting = self._waiting, []
        self._idle.clear()
        self._handed.put(batch)

    def _finish(self, batch: list[_Waiting], size: int, error: SpoolFull | None, seconds: float) -> None:
        self._waiting_bytes -= size
        if self._refuses != _STOPPING:
            self._refuses = _DISK_IS_FULL if self._disk_is_full else ""
        for _, _, done in batch:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
        if self._waiting:
            # One turn later, when those that were just answered may have sent more: larger groups cost less.
            self._loop.call_soon(self._start)
        else:
            self._idle.set()
        if error is None and batch:
            self._on_commit(seconds, sum([waiting.events for waiting in batch]))

    def _commit_forever(self) -> None:
        while (batch := self._handed.get()) is not None:
            self._commit(batch)
        self._database.close()
        self._lock.release()

    def _commit(self, batch: list[_Waiting]) -> None:
        began = time.perf_counter()
        body = batch[0].body if len(batch) == 1 else b"".join([waiting.body for waiting in batch])
        error: SpoolFull | None = None
        try:
            if batch:
                self._insert(body, sum([waiting.events for waiting in batch]))
        except (sqlite3.Error, OSError) as problem:
            log.error("spool_commit_failed", path=str(self._path), error=str(problem))  # noqa: TRY400  # no bug: no trace
            error = SpoolFull(f"the spool could not be written: {problem}")
        # What is on disk by now is so, whatever the look finds.
        with suppress(sqlite3.Error, OSError):
            self._look_at_room()
        # The loop is closed already if the process is being torn down.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._finish, batch, len(body), error, time.perf_counter() - began)

    def _insert(self, body: bytes, count: int) -> None:
        events, size = self._total_events + count, self._total_bytes + len(body)
        row = (self._seq + 1, int(time.time() * 1000), count, events, size, body)
        # A statement of its own is a transaction of its own.
        self._database.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?)", row)
        self._seq, self._total_events, self._total_bytes = row[0], events, size
        self._held_bytes += len(body)

    def _look_at_room(self) -> None:
        """Measure what is held now and then, and always when it may have reached the limit."""
        now = time.monotonic()
        if now - self._measured_at < (_LOOK_SECONDS if self._held_bytes > self._max_bytes // 2 else 1.0):
            return
        self._measured_at = now
        self._held_bytes = self._measure_held()
        disk = os.statvfs(self._path.parent)
        self._disk_is_full = disk.f_bavail * disk.f_frsize < _FREE_DISK_BYTES

    def _measure_held(self) -> int:
        return _depth(self._database).bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """Documents that an outlet has read, and how far that is.

    Attributes:
        batch: the documents.
        upto: what to hand to `Outlet.drop` once they are stored.

    """

    batch: Batch
    upto: int


class Outlet:
    """The reading end of a spool; in the writer's process or another, one for each spool.

    Its methods block, and may be called from any thread.
    """

    def __init__(self, folder: Path) -> None:
        self._database = _connect(folder / FILE_NAME)
        # A look at the depth amid a deletion would hold it to the look's old state of the file: SQLite refuses that.
        self._one_at_a_time = threading.Lock()

    def take(self, after: int, max_bytes: int) -> Taken | None:
        """Read the oldest documents behind *after*, at least one commit and then up to *max_bytes*.

        Returns:
            None where there are none. What was read stays in the spool until it is dropped.

        """
        bodies: list[bytes] = []
        size = count = upto = 0
        select = "SELECT seq, events, length(body), body FROM commits WHERE seq > ? ORDER BY seq"
        with self._one_at_a_time, closing(self._database.execute(select, (after,))) as rows:
            for seq, events, length, body in rows:
                if bodies and size + length > max_bytes:
                    break
                bodies.append(body)
                size += length
                count += events
                upto = seq
        return Taken(Batch(b"".join(bodies), count), upto) if bodies else None

    def drop(self, upto: int) -> None:
        """Delete what has been shipped, up to and with *upto*; idempotent."""
        with self._one_at_a_time:
            self._database.execute("DELETE FROM commits WHERE seq <= ?", (upto,))

    def depth(self) -> Depth:
        """Measure what the spool holds."""
        with self._one_at_a_time:
            return _depth(self._database)

    def close(self) -> None:
        """Let go of the file."""
        with self._one_at_a_time:
            self._database.close()

    def __enter__(self) -> Self:
        """Return this outlet, to be closed at the block's end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    # Large pages: half the time that a batch takes goes into single pages of the usual size.
    database.execute("PRAGMA page_size = 16384")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA wal_autocheckpoint = 1024")
    database.execute("PRAGMA cache_size = -4096")
    database.execute(_SCHEMA)
    return database


def _depth(database: sqlite3.Connection) -> Depth:
    ends = database.execute(
        "SELECT seq, at_ms, events, total_events, total_bytes, length(body) FROM commits WHERE seq IN "
        "((SELECT min(seq) FROM commits), (SELECT max(seq) FROM commits)) ORDER BY seq"
    ).fetchall()
    if not ends:
        return Depth()
    (_, at_ms, events, first_events, first_bytes, first_length), (*_, last_events, last_bytes, _) = ends[0], ends[-1]
    return Depth(
        last_events - first_events + events,
        last_bytes - first_bytes + first_length,
        max(0.0, time.time() - at_ms / 1000),
    )
