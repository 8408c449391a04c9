"""The writing end of a spool.

A reply to a client means that its events are on disk: the future of `SpoolWriter.put` is done once the commit with the
events is synced. While one commit runs, further events are gathered for the next one, so that no timer is needed and
the load determines the size of a commit.

One process writes a spool; several may read it (see `metronome.spool.reader`).
"""

import asyncio
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from metronome.errors import MetronomeError, SpoolFileLost, SpoolFull
from metronome.files import FolderLock, OpenFile
from metronome.spool.file import (
    FREE_DISK_BYTES,
    SPOOL_FILE_NAME,
    is_disk_full,
    measure_after,
    measure_waiting,
    open_database,
)

log = structlog.get_logger()

_PENDING_MAX_BYTES = 64 * 2**20
"""The maximum size of events in memory that wait for a commit: more means that the disk has all but stopped."""
_SPACE_CHECK_SECONDS = 0.05
"""How often to measure the size near the limit."""
_STOPPING_MESSAGE = "the server is stopping"
_DISK_FULL_MESSAGE = f"the disk that the spool is on has less than {FREE_DISK_BYTES >> 20} MiB of free space"
_WAL_SUFFIX = "-wal"


class _PendingWrite(NamedTuple):
    body: bytes
    events: int
    done: asyncio.Future[None]


class SpoolWriter:
    """The writing end of one spool.

    Args:
        folder: the folder of the spool, created if it does not exist.
        max_bytes: the maximum size of the spool; above it, `put` raises `SpoolFull`.
        on_commit: called in the event loop after each commit with its duration in seconds and its number of events.

    Raises:
        DataFolderLocked: another process writes this spool.

    """

    def __init__(
        self, folder: Path, max_bytes: int, on_commit: Callable[[float, int], None] = lambda _seconds, _events: None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(folder)
        self._path = folder / SPOOL_FILE_NAME
        self._max_bytes = max_bytes
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._pending: list[_PendingWrite] = []
        self._pending_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._commit_queue: queue.SimpleQueue[list[_PendingWrite] | None] = queue.SimpleQueue()
        self._database = open_database(self._path)
        # The write-ahead log exists from now on.
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("COMMIT")
        self._files = [OpenFile(path) for path in (self._path, self._path.with_name(self._path.name + _WAL_SUFFIX))]
        self._is_file_lost = False
        with closing(
            self._database.execute(
                "SELECT max(coalesce(max(seq), 0), (SELECT coalesce(max(upto), 0) FROM readers)), max(total_events), "
                "max(total_bytes) FROM commits"
            )
        ) as rows:
            self._seq, self._total_events, self._total_bytes = (value or 0 for value in rows.fetchone())
        self._size_bytes = self._measure_size()
        self._space_checked_at = 0.0
        self._is_disk_full = False
        self._rejection_reason = ""
        self._thread = threading.Thread(target=self._commit_forever, name=f"spool {folder.name}", daemon=True)
        self._thread.start()

    def put(self, body: bytes, count: int) -> "asyncio.Future[None]":
        """Write documents.

        Args:
            body: *count* lines of JSON, each with a line feed.
            count: the number of documents.

        Returns:
            A future that is done once they are on disk. It fails with `SpoolFull` if the disk is full, and with
            `SpoolFileLost` if they are not in the file at the spool's path.

        Raises:
            SpoolFull: the spool or the disk is full; nothing was written.

        """
        size = len(body)
        if self._size_bytes + self._pending_bytes + size > self._max_bytes or self._pending_bytes > _PENDING_MAX_BYTES:
            self._recheck_space_if_idle()
            raise SpoolFull(f"the spool is at its limit of {self._max_bytes} bytes, or the disk is too slow")
        if self._rejection_reason:
            self._recheck_space_if_idle()
            raise SpoolFull(self._rejection_reason)
        done = self._loop.create_future()
        self._pending.append(_PendingWrite(body, count, done))
        self._pending_bytes += size
        if self._idle.is_set():
            self._start_commit()
        return done

    async def close(self) -> None:
        """Commit what is waiting and close the file; idempotent."""
        self._rejection_reason = _STOPPING_MESSAGE
        await self._idle.wait()
        self._commit_queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _recheck_space_if_idle(self) -> None:
        """Measure the free space again: while all events are rejected, no commit does."""
        if (
            self._idle.is_set()
            and self._rejection_reason != _STOPPING_MESSAGE
            and time.monotonic() - self._space_checked_at > _SPACE_CHECK_SECONDS
        ):
            self._start_commit()

    def _start_commit(self) -> None:
        batch, self._pending = self._pending, []
        self._idle.clear()
        self._commit_queue.put(batch)

    def _finish_commit(
        self, batch: list[_PendingWrite], size: int, error: MetronomeError | None, seconds: float
    ) -> None:
        self._pending_bytes -= size
        if self._rejection_reason != _STOPPING_MESSAGE:
            self._rejection_reason = _DISK_FULL_MESSAGE if self._is_disk_full else ""
        for _, _, done in batch:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
        if self._pending:
            # One turn of the loop later, when clients may have sent more after their reply: larger commits cost less.
            self._loop.call_soon(self._start_commit)
        else:
            self._idle.set()
        if error is None and batch:
            self._on_commit(seconds, sum([waiting.events for waiting in batch]))

    def _commit_forever(self) -> None:
        while (batch := self._commit_queue.get()) is not None:
            self._commit(batch)
        self._database.close()
        self._lock.release()

    def _commit(self, batch: list[_PendingWrite]) -> None:
        began = time.perf_counter()
        body = batch[0].body if len(batch) == 1 else b"".join([waiting.body for waiting in batch])
        error: MetronomeError | None = None
        try:
            if batch:
                self._check_files()
                self._insert(body, sum([waiting.events for waiting in batch]))
                self._check_files()
        except SpoolFileLost as problem:
            error = problem
        except (sqlite3.Error, OSError) as problem:
            log.error("spool_commit_failed", path=str(self._path), error=str(problem))  # noqa: TRY400  # no bug: no trace
            error = SpoolFull(f"the spool could not be written: {problem}")
            # A full disk is the likeliest cause, and must be known by the next event.
            self._space_checked_at = -math.inf
        # The events are on disk by now, even if this fails.
        with suppress(sqlite3.Error, OSError):
            self._check_space()
        # The loop is already closed if the process exits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._finish_commit, batch, len(body), error, time.perf_counter() - began)

    def _insert(self, body: bytes, count: int) -> None:
        events, size = self._total_events + count, self._total_bytes + len(body)
        row = (self._seq + 1, int(time.time() * 1000), count, events, size, body)
        # A single statement is a transaction.
        self._database.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?)", row)
        self._seq, self._total_events, self._total_bytes = row[0], events, size
        self._size_bytes += len(body)

    def _check_files(self) -> None:
        """Check that commits are in the files at the spool's paths, before clients are told so.

        Raises:
            SpoolFileLost: they are in a file that was deleted or replaced.

        """
        for file in self._files:
            if not file.is_in_place():
                error = SpoolFileLost(f"the spool's file {file.path} was deleted or replaced while Metronome runs")
                if not self._is_file_lost:
                    log.error("spool_file_lost", path=str(file.path), error=str(error), advice=error.advice)
                self._is_file_lost = True
                raise error
        if self._is_file_lost:
            self._is_file_lost = False
            log.info("spool_file_back", path=str(self._path))

    def _check_space(self) -> None:
        """Measure the size of the spool and the free space: once a second, and more often near the limit."""
        now = time.monotonic()
        if now - self._space_checked_at < (_SPACE_CHECK_SECONDS if self._size_bytes > self._max_bytes // 2 else 1.0):
            return
        self._space_checked_at = now
        self._size_bytes = self._measure_size()
        was_full, self._is_disk_full = self._is_disk_full, is_disk_full(self._path.parent)
        if self._is_disk_full and not was_full:
            log.error("disk_full", path=str(self._path.parent), error=_DISK_FULL_MESSAGE, advice=SpoolFull.advice)
        elif was_full and not self._is_disk_full:
            log.info("disk_has_space", path=str(self._path.parent))

    def _measure_size(self) -> int:
        return measure_after(self._database).bytes + measure_waiting(self._database).bytes
