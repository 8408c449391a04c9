"""The reading end of a spool: what one reader has not had yet, and how it says that it has."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from metronome.spool.file import SPOOL_FILE_NAME, SpoolStats, ensure_spool_name, measure_after, open_database
from metronome.stores.base import DocumentBatch

STORE_READER: Final = "store"
"""The reader that brings events into the store; each spool has it."""
ARCHIVE_READER: Final = "archive"
"""The reader that brings them into the archive, where there is one."""

# The event loop's own threads may all be busy with reports.
_MEASURING: Final = ThreadPoolExecutor(1, "spool-depth")


async def measure(work: Callable[[], SpoolStats]) -> SpoolStats:
    """Measure a spool in a thread that does nothing else, so that readiness never waits behind reports."""
    return await asyncio.get_running_loop().run_in_executor(_MEASURING, work)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Documents that an outlet has read, and how far that is.

    Attributes:
        batch: the documents.
        upto: what to hand to `Outlet.drop` once they are stored.

    """

    batch: DocumentBatch
    last_seq: int


@dataclass(frozen=True, slots=True)
class CommitRange:
    """Commits that follow each other.

    Attributes:
        spool: the spool's name.
        first: the number of the first.
        last: the number of the last.
        arrived: when the first and the last were made, in milliseconds since 1970.

    """

    spool_name: str
    first_seq: int
    last_seq: int
    committed_ms: tuple[int, int]


class SpoolReader:
    """The reading end of a spool; in the writer's process or another, one for each reader.

    Its methods block, and may be called from any thread.

    Args:
        folder: the spool's.
        name: who reads, of those that were appointed (see `metronome.spool.file.appoint`).

    """

    def __init__(self, folder: Path, name: str = STORE_READER) -> None:
        self._database = open_database(folder / SPOOL_FILE_NAME)
        self._name = name
        self.spool_name = ensure_spool_name(self._database)
        # A look at the depth amid a deletion would hold it to the look's old state of the file: SQLite refuses that.
        self._lock = threading.Lock()
        with self._lock:
            self._database.execute("INSERT OR IGNORE INTO readers(name, upto) VALUES (?, 0)", (name,))
            self._acknowledged = self._read_progress()[0]

    def read_chunk(self, after: int, max_bytes: int) -> Chunk | None:
        """Read the oldest documents behind *after*, at least one commit and then up to *max_bytes*.

        Returns:
            None where there are none. What was read stays in the spool until it is dropped.

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

    def reserve_range(self, max_bytes: int) -> CommitRange | None:
        """Say which commits this reader takes next as one, and keep that: at least one, and then up to *max_bytes*.

        Returns:
            None where there are none. Until these are dropped the answer is the same, even if the process ends in
            between: so whatever is made of them can be made again.

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
        """Yield the bodies of a span's commits, in their order: whole lines of JSON each."""
        at = commit_range.first_seq - 1
        select = "SELECT seq, body FROM commits WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1"
        while True:
            with self._lock:
                row = self._database.execute(select, (at, commit_range.last_seq)).fetchone()
            if row is None:
                return
            at, body = row
            yield body

    def acknowledge(self, last_seq: int) -> None:
        """Say that this reader needs nothing more up to and with *last_seq*; idempotent.

        What no other reader waits for either leaves the spool.
        """
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            update = "UPDATE readers SET upto = max(upto, ?) WHERE name = ?"
            self._database.execute(update, (last_seq, self._name))
            self._database.execute("DELETE FROM commits WHERE seq <= (SELECT min(upto) FROM readers)")
            self._database.execute("COMMIT")
            self._acknowledged = max(self._acknowledged, last_seq)

    def pending_stats(self) -> SpoolStats:
        """Measure what this reader has not had."""
        with self._lock:
            return measure_after(self._database, self._acknowledged)

    def total_stats(self) -> SpoolStats:
        """Measure what the spool holds, for this reader or for others."""
        with self._lock:
            return measure_after(self._database)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        """Return this outlet, to be closed at the block's end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _read_progress(self) -> tuple[int, int]:
        select = "SELECT upto, planned FROM readers WHERE name = ?"
        upto, planned = self._database.execute(select, (self._name,)).fetchone()
        return upto, planned

    def _find_range_end(self, acknowledged: int, max_bytes: int) -> int | None:
        """Return the last of the commits behind *acknowledged* that are taken as one; None where there are none."""
        select = "SELECT seq, total_bytes - length(body) FROM commits WHERE seq > ? ORDER BY seq LIMIT 1"
        row = self._database.execute(select, (acknowledged,)).fetchone()
        if row is None:
            return None
        first, before = row
        select = "SELECT max(seq) FROM commits WHERE seq > ? AND total_bytes <= ?"
        (last,) = self._database.execute(select, (acknowledged, before + max_bytes)).fetchone()
        return first if last is None else int(last)
