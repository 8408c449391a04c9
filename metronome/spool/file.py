"""The file of a spool: its tables, its readers, and its size.

It is an SQLite database with a write-ahead log and ``synchronous=FULL``, and one row for each commit. It survives
``kill -9`` and a torn last write, and readers in any process see what the writer has committed.
"""

import os
import re
import secrets
import socket
import sqlite3
import time
from collections.abc import Collection
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SPOOL_FILE_NAME: Final = "spool.sqlite"
FREE_DISK_BYTES: Final = 256 * 2**20
"""Free space to leave on the disk: a full disk would stop the store as well."""
_BUSY_SECONDS: Final = 30
_WAL_KEPT_BYTES: Final = 32 * 2**20
_FREE_PAGES_KEPT: Final = 2048
_FREE_PAGES_AT_ONCE: Final = 512
"""8 MiB."""
_INVALID_NAME_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9.-]+")
_HOST_MAX_CHARACTERS: Final = 40
_SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS commits(
        seq INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        events INTEGER NOT NULL,
        total_events INTEGER NOT NULL,
        total_bytes INTEGER NOT NULL,
        body BLOB NOT NULL)
    """,
    # A commit is deleted once all readers have acknowledged it. Their progress is kept, so that no number is reused.
    """
    CREATE TABLE IF NOT EXISTS readers(
        name TEXT PRIMARY KEY,
        upto INTEGER NOT NULL,
        planned INTEGER NOT NULL DEFAULT 0)
    """,
    "CREATE TABLE IF NOT EXISTS names(name TEXT NOT NULL)",
    # Events of commits that the store's reader has acknowledged, and that the store cannot accept yet.
    """
    CREATE TABLE IF NOT EXISTS waiting(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        events INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        body BLOB NOT NULL)
    """,
)


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """What a spool holds in total, or what one of its readers has yet to process.

    Attributes:
        events: the number of events.
        bytes: their size.
        oldest_seconds: the age of the oldest one; 0.0 if there are none.

    """

    events: int = 0
    bytes: int = 0
    oldest_seconds: float = 0.0

    def __add__(self, other: "SpoolStats") -> "SpoolStats":
        """Return the size of two parts of a spool."""
        return SpoolStats(
            self.events + other.events, self.bytes + other.bytes, max(self.oldest_seconds, other.oldest_seconds)
        )


def register_readers(folder: Path, reader_names: Collection[str]) -> None:
    """Set the readers of a spool: what it holds is kept until each of them has acknowledged it.

    A new reader gets everything that the spool holds. A reader that is no longer named is removed. Call this before any
    of them reads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marks = ", ".join("?" for _ in reader_names)
    with closing(open_database(folder / SPOOL_FILE_NAME)) as database:
        # In one transaction: the writer must always find the highest number that was ever used.
        database.execute("BEGIN IMMEDIATE")
        # A reader that is registered again has processed nothing that was committed since.
        new = "INSERT OR IGNORE INTO readers(name, upto) SELECT ?, coalesce((SELECT min(seq) FROM commits) - 1, "
        new += "(SELECT max(upto) FROM readers), 0)"
        database.executemany(new, [(name,) for name in reader_names])
        database.execute(f"DELETE FROM readers WHERE name NOT IN ({marks})", tuple(reader_names))
        database.execute("DELETE FROM commits WHERE seq <= (SELECT min(upto) FROM readers)")
        database.execute("COMMIT")
        _enable_release(database)


def release_space(database: sqlite3.Connection) -> None:
    """Give space that is free in the file back to the disk, if that is most of the file, except some to use again.

    Each call gives back a part, so that the writer need not wait for long.
    """
    (free,), (pages,) = (database.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count"))
    if free > max(_FREE_PAGES_KEPT, pages // 2):
        # Not by `execute`, which would stop after the first page.
        database.executescript(f"PRAGMA incremental_vacuum({min(free - _FREE_PAGES_KEPT, _FREE_PAGES_AT_ONCE)})")


def _enable_release(database: sqlite3.Connection) -> None:
    """Let the file of an older version give back space, as soon as it is empty: all of it is rewritten."""
    (mode,) = database.execute("PRAGMA auto_vacuum").fetchone()
    if mode == 0 and not database.execute("SELECT count(*) FROM commits").fetchone()[0]:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # Another process may use the file; then the next start does it.
        with suppress(sqlite3.OperationalError):
            database.execute("VACUUM")


def ensure_spool_name(database: sqlite3.Connection) -> str:
    """Return the unique and permanent name of a spool: the machine's, and a random number."""
    host = _INVALID_NAME_CHARACTERS.sub("-", socket.gethostname())[:_HOST_MAX_CHARACTERS].strip("-.") or "node"
    name = f"{host}-{secrets.token_hex(4)}"
    database.execute("INSERT INTO names SELECT ? WHERE NOT EXISTS (SELECT 1 FROM names)", (name,))
    return str(database.execute("SELECT name FROM names ORDER BY rowid LIMIT 1").fetchone()[0])


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, and create it if it does not exist."""
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    # With pages of the default size, half of the time to write a batch is spent on single pages.
    database.execute("PRAGMA page_size = 16384")
    # Of a new file: pages that were freed can be given back (see `release_space`).
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA wal_autocheckpoint = 1024")
    database.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
    database.execute("PRAGMA cache_size = -4096")
    for table in _SCHEMA:
        database.execute(table)
    return database


def is_disk_full(folder: Path) -> bool:
    """Return whether less than `FREE_DISK_BYTES` are free on the disk of a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < FREE_DISK_BYTES


def measure_after(database: sqlite3.Connection, after: int = 0) -> SpoolStats:
    """Measure the commits after a number."""
    ends = database.execute(
        "SELECT seq, at_ms, events, total_events, total_bytes, length(body) FROM commits WHERE seq IN "
        "((SELECT min(seq) FROM commits WHERE seq > ?), (SELECT max(seq) FROM commits WHERE seq > ?)) ORDER BY seq",
        (after, after),
    ).fetchall()
    if not ends:
        return SpoolStats()
    (_, at_ms, events, first_events, first_bytes, first_length), (*_, last_events, last_bytes, _) = ends[0], ends[-1]
    return SpoolStats(
        last_events - first_events + events,
        last_bytes - first_bytes + first_length,
        max(0.0, time.time() - at_ms / 1000),
    )


def measure_waiting(database: sqlite3.Connection) -> SpoolStats:
    """Measure the events that wait outside the commits (see `metronome.spool.reader.SpoolReader.read_waiting`)."""
    events, size, at_ms = database.execute("SELECT sum(events), sum(bytes), min(at_ms) FROM waiting").fetchone()
    return SpoolStats(events, size, max(0.0, time.time() - at_ms / 1000)) if events else SpoolStats()
