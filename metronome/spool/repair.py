"""Set a damaged file of a spool aside, and salvage the events that can still be read."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from metronome.files import fsync_path
from metronome.spool.file import SPOOL_FILE_NAME, open_database

log = structlog.get_logger()

_CHECK_MAX_BYTES: Final = 512 * 2**20
"""A larger file is not checked as a whole at each start, which takes a second per gigabyte or more."""
_DAMAGE_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_PRIMARY_CODE: Final = 0xFF
"""The bits of an SQLite error code without its detail."""
_MAX_LOOKUPS: Final = 1_000_000
"""How many numbers to look up one by one in a damaged part."""
_HEADER_BYTES: Final = 100
_ADVICE: Final = (
    "check the disk; keep the files that were set aside until the senders' own logs show that nothing is missing, then "
    "delete them"
)


def repair_spool(folder: Path, now: datetime) -> None:
    """Replace a damaged file of a spool by one with the events that can still be read; log what was done.

    Call this while no process uses the spool. An intact or missing file stays as it is.

    Raises:
        sqlite3.Error, OSError: the file cannot be read for another reason, or its disk is full.

    """
    path = folder / SPOOL_FILE_NAME
    problem = _find_damage(path) if path.exists() else None
    if problem is None:
        return
    aside = folder / f"damaged-{now:%Y%m%dT%H%M%S}"
    aside.mkdir(parents=True)
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside / (path.name + suffix))
    fsync_path(folder)
    events, unreadable = _salvage(aside / path.name, path)
    log.error(
        "spool_damaged",
        path=str(path),
        set_aside=str(aside),
        error=problem,
        salvaged=events,
        unreadable_lines=unreadable,
        advice=_ADVICE,
    )


def _find_damage(path: Path) -> str | None:
    try:
        with closing(open_database(path)) as database:
            if path.stat().st_size <= _CHECK_MAX_BYTES:
                (result,) = database.execute("PRAGMA quick_check(1)").fetchone()
                return None if result == "ok" else str(result)
            database.execute("SELECT min(seq), max(seq), max(total_events), max(total_bytes) FROM commits").fetchone()
            database.execute("SELECT name, upto, planned FROM readers").fetchall()
            database.execute("SELECT count(*), sum(bytes) FROM waiting").fetchone()
    except sqlite3.Error as error:
        if _is_damage(error):
            return str(error)
        raise
    return None


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE in _DAMAGE_CODES


def _salvage(source: Path, target: Path) -> tuple[int, int]:
    """Copy what can be read, and return the number of events, and of lines that are no valid events."""
    total_events = total_bytes = unreadable = 0
    _pad(source)
    with closing(sqlite3.connect(source)) as damaged, closing(open_database(target)) as database:
        database.execute("BEGIN IMMEDIATE")
        for seq, at_ms, body in _read_rows(damaged, "commits", "seq"):
            valid, invalid = _valid_lines(body)
            unreadable += invalid
            if valid:
                total_events += valid.count(b"\n")
                total_bytes += len(valid)
                row = (seq, at_ms, valid.count(b"\n"), total_events, total_bytes, valid)
                database.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?)", row)
        waiting_events = 0
        for _, at_ms, body in _read_rows(damaged, "waiting", "number"):
            valid, invalid = _valid_lines(body)
            unreadable += invalid
            if valid:
                waiting_events += valid.count(b"\n")
                insert = "INSERT INTO waiting(at_ms, events, bytes, body) VALUES (?, ?, ?, ?)"
                database.execute(insert, (at_ms, valid.count(b"\n"), len(valid), valid))
        # Without its progress, a reader processes everything again: the store skips the events that it has.
        with suppress(sqlite3.Error):
            readers = damaged.execute("SELECT name, upto FROM readers").fetchall()
            valid_readers = [row for row in readers if isinstance(row[0], str) and isinstance(row[1], int)]
            database.executemany("INSERT OR IGNORE INTO readers(name, upto) VALUES (?, ?)", valid_readers)
        database.execute("COMMIT")
    return total_events + waiting_events, unreadable


def _pad(path: Path) -> None:
    """Extend a truncated file to the length in its header with zeros: SQLite reads nothing of it otherwise."""
    with path.open("r+b") as file:
        header = file.read(_HEADER_BYTES)
        if header.startswith(b"SQLite format 3\0") and len(header) == _HEADER_BYTES:
            page_bytes = int.from_bytes(header[16:18], "big")
            expected = int.from_bytes(header[28:32], "big") * (page_bytes if page_bytes > 1 else 65536)
            if 0 < path.stat().st_size < expected:
                file.truncate(expected)


def _read_rows(database: sqlite3.Connection, table: str, key: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield the readable rows of a table: from its start and its end to the damage, and what is between, one by one."""
    rows: dict[int, tuple[int, int, bytes]] = {}
    select = f"SELECT {key}, at_ms, body FROM {table} WHERE "
    last = _follow(database, select + f"{key} > ? ORDER BY {key} LIMIT 1", -1, rows)
    if last is not None:
        first = _follow(database, select + f"{key} < ? ORDER BY {key} DESC LIMIT 1", 2**62, rows)
        end = min([number for number in rows if number > last], default=last + _MAX_LOOKUPS if first is None else last)
        for number in range(last + 1, min(end, last + _MAX_LOOKUPS)):
            with suppress(sqlite3.Error):
                _add_row(rows, database.execute(select + f"{key} = ?", (number,)).fetchone())
    yield from (rows[number] for number in sorted(rows))


def _follow(
    database: sqlite3.Connection, select: str, number: int, rows: dict[int, tuple[int, int, bytes]]
) -> int | None:
    """Add rows until one cannot be read, and return the last number before it; None if all were read."""
    while True:
        try:
            row = database.execute(select, (number,)).fetchone()
        except sqlite3.Error:
            return number
        if row is None or row[0] in rows:
            return None
        number = row[0]
        _add_row(rows, row)


def _add_row(rows: dict[int, tuple[int, int, bytes]], row: Any) -> None:
    if row is not None and isinstance(row[1], int) and isinstance(row[2], bytes):
        rows[row[0]] = row


def _valid_lines(body: bytes) -> tuple[bytes, int]:
    """Return the lines that are JSON objects, and the number of the others."""
    lines = [line for line in body.split(b"\n") if line]
    valid = [line for line in lines if _is_object(line)]
    return b"".join(line + b"\n" for line in valid), len(lines) - len(valid)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False
