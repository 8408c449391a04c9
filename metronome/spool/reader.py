"""The reading end of a spool, on which a reader acknowledges what it has processed."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from metronome.errors import MetronomeError, SpoolFileLost, SpoolFull
from metronome.files import OpenFile
from metronome.spool.file import (
    FREE_DISK_BYTES,
    SPOOL_FILE_NAME,
    SpoolStats,
    ensure_spool_name,
    is_disk_full,
    measure_after,
    measure_waiting,
    open_database,
    release_space,
)
from metronome.stores.base import DocumentBatch

STORE_READER: Final = "store"
"""The reader of the shipper; each spool has it."""
ARCHIVE_READER: Final = "archive"
"""The reader of the archiver, if there is an archive."""

Result = TypeVar("Result")

# The threads of the event loop may all be busy with reports.
_MEASURING: Final = ThreadPoolExecutor(1, "spool-depth")


async def measure(work: Callable[[], Result]) -> Result:
    """Measure a spool in a thread for nothing else, so that readiness never waits behind reports."""
    return await asyncio.get_running_loop().run_in_executor(_MEASURING, work)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Documents of consecutive commits.

    Attributes:
        batch: the documents.
        last_seq: the number of the last commit, to `SpoolReader.acknowledge` once they are stored.

    """

    batch: DocumentBatch
    last_seq: int


@dataclass(frozen=True, slots=True)
class WaitingChunk:
    """Documents that the store could not accept yet.

    Attributes:
        batch: the documents.
        numbers: the first and the last number under which the spool keeps them.
        at_ms: when the oldest one was committed, in milliseconds since 1970.

    """

    batch: DocumentBatch
    numbers: tuple[int, int]
    at_ms: int


@dataclass(frozen=True, slots=True)
class CommitRange:
    """Consecutive commits.

    Attributes:
        spool_name: the name of the spool.
        first_seq: the number of the first commit.
        last_seq: the number of the last commit.
        committed_ms: the times of the first and the last commit, in milliseconds since 1970.

    """

    spool_name: str
    first_seq: int
    last_seq: int
    committed_ms: tuple[int, int]


class SpoolReader:
    """The reading end of a spool for one reader, in any process.

    Its methods block, and may be called from any thread.

    Args:
        folder: the folder of the spool.
        name: the name of a registered reader (see `metronome.spool.file.register_readers`).

    """

    def __init__(self, folder: Path, name: str = STORE_READER) -> None:
        self._database = open_database(folder / SPOOL_FILE_NAME)
        self._file = OpenFile(folder / SPOOL_FILE_NAME)
        self._name = name
        self.spool_name = ensure_spool_name(self._database)
        # SQLite fails a deletion that begins in the snapshot of a concurrent measurement on the same connection.
        self._lock = threading.Lock()
        with self._lock:
            self._database.execute("INSERT OR IGNORE INTO readers(name, upto) VALUES (?, 0)", (name,))
            self._acknowledged = self._read_progress()[0]

    @property
    def acknowledged_seq(self) -> int:
        """The number of the last commit that this reader has acknowledged; 0 if there is none."""
        return self._acknowledged

    def read_chunk(self, after: int, max_bytes: int) -> Chunk | None:
        """Return the oldest documents after a commit: of at least one commit, and of further ones up to a size.

        They stay in the spool until they are acknowledged.

        Args:
            after: the number of a commit, or 0.
            max_bytes: the maximum size of the documents of several commits.

        Returns:
            None if there are none.

        """
        bodies: list[bytes] = []
        size = count = upto = 0
        select = "SELECT seq, events, length(body), body FROM commits WHERE seq > ? ORDER BY seq"
        with self._lock, closing(self._database.execute(select, (max(after, self._acknowledged),))) as rows:
            for seq, events, length, body in rows:
                if bodies and size + length > max_bytes:
                    break
                bodies.append(body)
                size += length
                count += events
                upto = seq
        return Chunk(DocumentBatch(b"".join(bodies), count), upto) if bodies else None

    def read_commit(self, after: int) -> tuple[int, int, bytes] | None:
        """Return the next commit after *after*: its number, its number of events, its body; None if there is none."""
        select = "SELECT seq, events, body FROM commits WHERE seq > ? ORDER BY seq LIMIT 1"
        with self._lock:
            row: tuple[int, int, bytes] | None = self._database.execute(select, (after,)).fetchone()
        return row

    def reserve_range(self, max_bytes: int) -> CommitRange | None:
        """Choose the next commits to process as one, and remember the choice until they are acknowledged.

        The result stays the same even if the process restarts, so that an interrupted upload can be repeated.

        Args:
            max_bytes: the maximum size of the documents of several commits.

        Returns:
            None if there are none.

        """
        with self._lock:
            upto, planned = self._read_progress()
            if planned <= upto:
                end = self._find_range_end(upto, max_bytes)
                if end is None:
                    return None
                planned = end
                update = "UPDATE readers SET planned = ? WHERE name = ?"
                self._database.execute(update, (planned, self._name))
            ends = "SELECT min(seq), max(seq), min(at_ms), max(at_ms) FROM commits WHERE seq > ? AND seq <= ?"
            first, last, began, ended = self._database.execute(ends, (upto, planned)).fetchone()
        return CommitRange(self.spool_name, first, last, (began, ended))

    def iterate_bodies(self, commit_range: CommitRange) -> Iterator[bytes]:
        """Yield the bodies of commits in order: whole lines of JSON each."""
        at = commit_range.first_seq - 1
        select = "SELECT seq, body FROM commits WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1"
        while True:
            with self._lock:
                row = self._database.execute(select, (at, commit_range.last_seq)).fetchone()
            if row is None:
                return
            at, body = row
            yield body

    def acknowledge(self, last_seq: int, waiting: DocumentBatch | None = None) -> None:
        """Record that this reader has processed all commits up to and including *last_seq*; idempotent.

        What all readers have processed is deleted.

        Args:
            last_seq: the number of a commit.
            waiting: documents of these commits that the store cannot accept yet. They are kept for `read_waiting`, so
                that later commits need not wait for them. Only the store's reader may have any.

        """
        with self._lock, self._transaction():
            if waiting is not None:
                select = "SELECT min(at_ms) FROM commits WHERE seq > ? AND seq <= ?"
                (at_ms,) = self._database.execute(select, (self._acknowledged, last_seq)).fetchone()
                if at_ms is not None:
                    self._insert_waiting(waiting, at_ms)
            update = "UPDATE readers SET upto = max(upto, ?) WHERE name = ?"
            self._database.execute(update, (last_seq, self._name))
            self._database.execute("DELETE FROM commits WHERE seq <= (SELECT min(upto) FROM readers)")
        with self._lock:
            release_space(self._database)
        self._acknowledged = max(self._acknowledged, last_seq)

    def read_waiting(self, after: int, max_bytes: int) -> WaitingChunk | None:
        """Return documents that the store could not accept yet, in the order of their numbers.

        Args:
            after: the last number of the previous chunk, or 0.
            max_bytes: the maximum size of the documents, unless they were kept together.

        Returns:
            None if there are none.

        """
        bodies: list[bytes] = []
        numbers: list[int] = []
        size = count = oldest_ms = 0
        select = "SELECT number, at_ms, events, bytes, body FROM waiting WHERE number > ? ORDER BY number"
        with self._lock, closing(self._database.execute(select, (after,))) as rows:
            for number, at_ms, events, length, body in rows:
                if bodies and size + length > max_bytes:
                    break
                bodies.append(body)
                numbers.append(number)
                size += length
                count += events
                oldest_ms = min(oldest_ms or at_ms, at_ms)
        if not bodies:
            return None
        return WaitingChunk(DocumentBatch(b"".join(bodies), count), (numbers[0], numbers[-1]), oldest_ms)

    def replace_waiting(self, chunk: WaitingChunk, remaining: DocumentBatch | None) -> None:
        """Record that the store has the documents of a chunk, except those that remain."""
        with self._lock, self._transaction():
            self._database.execute("DELETE FROM waiting WHERE number BETWEEN ? AND ?", chunk.numbers)
            if remaining is not None:
                self._insert_waiting(remaining, chunk.at_ms)

    def waiting_stats(self) -> SpoolStats:
        """Measure the documents that the store could not accept yet."""
        with self._lock:
            return measure_waiting(self._database)

    def pending_stats(self) -> SpoolStats:
        """Measure what this reader has yet to process."""
        with self._lock:
            stats = measure_after(self._database, self._acknowledged)
            return stats + measure_waiting(self._database) if self._name == STORE_READER else stats

    def measure_backlog(self, after: int) -> tuple[int, SpoolStats]:
        """Return the number of the last commit and the size of all commits after *after*; 0 if there are none."""
        with self._lock:
            (last_seq,) = self._database.execute("SELECT max(seq) FROM commits WHERE seq > ?", (after,)).fetchone()
            return last_seq or 0, measure_after(self._database, after)

    def total_stats(self) -> SpoolStats:
        """Measure what the spool holds for any reader."""
        with self._lock:
            return measure_after(self._database) + measure_waiting(self._database)

    def check_file(self) -> MetronomeError | None:
        """Return the error with which the writer refuses events: the file is lost or its disk full; else None."""
        if not self._file.is_in_place():
            return SpoolFileLost(f"the spool's file {self._file.path} was deleted or replaced")
        if is_disk_full(self._file.path.parent):
            return SpoolFull(f"less than {FREE_DISK_BYTES >> 20} MiB are free on the spool's disk")
        return None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        """Return this reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _insert_waiting(self, batch: DocumentBatch, at_ms: int) -> None:
        row = (at_ms, batch.count, len(batch.body), batch.body)
        self._database.execute("INSERT INTO waiting(at_ms, events, bytes, body) VALUES (?, ?, ?, ?)", row)

    def _read_progress(self) -> tuple[int, int]:
        select = "SELECT upto, planned FROM readers WHERE name = ?"
        upto, planned = self._database.execute(select, (self._name,)).fetchone()
        return upto, planned

    def _find_range_end(self, acknowledged: int, max_bytes: int) -> int | None:
        """Return the last commit to process together with the first after *acknowledged*; None if there are none."""
        select = "SELECT seq, total_bytes - length(body) FROM commits WHERE seq > ? ORDER BY seq LIMIT 1"
        row = self._database.execute(select, (acknowledged,)).fetchone()
        if row is None:
            return None
        first, before = row
        select = "SELECT max(seq) FROM commits WHERE seq > ? AND total_bytes <= ?"
        (last,) = self._database.execute(select, (acknowledged, before + max_bytes)).fetchone()
        return first if last is None else int(last)
