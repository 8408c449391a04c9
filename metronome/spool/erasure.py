"""Remove events from spools and dead letters that no store has yet."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import orjson

from metronome.files import fsync_path
from metronome.spool.dead_letters import REQUEUED_FOLDER
from metronome.spool.file import SPOOL_FILE_NAME, open_database
from metronome.stores.selection import Selection

_TRANSACTION_BYTES: Final = 8 * 2**20
"""How much is read in a transaction, in which the writer waits."""


def erase_from_spool(folder: Path, selection: Selection, last_seq: int) -> int:
    """Remove events from the commits up to and including *last_seq*, and return their number; idempotent.

    Also from those that wait because the store cannot accept them. Commits keep their numbers, also those that are
    empty afterwards. No reader may process these commits meanwhile; the writer may write others.
    """
    removed_events = removed_bytes = 0
    before = last_seq + 1
    with closing(open_database(folder / SPOOL_FILE_NAME)) as database:
        # Removed data must not stay in free pages.
        database.execute("PRAGMA secure_delete = ON")
        while before > 0:
            database.execute("BEGIN IMMEDIATE")
            try:
                before, events, size = _erase_commits(database, selection, before, (removed_events, removed_bytes))
                database.execute("COMMIT")
            except BaseException:
                database.execute("ROLLBACK")
                raise
            removed_events += events
            removed_bytes += size
        removed_events += _erase_waiting(database, selection)
        if removed_events:
            # Until a checkpoint, the log has the removed events, and the file has them until the log is copied to it.
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return removed_events


def _erase_commits(
    database: sqlite3.Connection, selection: Selection, before: int, removed: tuple[int, int]
) -> tuple[int, int, int]:
    """Remove events from some commits before a number.

    The totals of a commit count all earlier ones. Only their differences matter, and the writer has the last ones in
    memory: so the totals of the commits before are raised by what is removed.

    Args:
        database: the connection, in a transaction.
        selection: which events.
        before: the number of the commit after them.
        removed: the number of events, and of bytes, that were removed from the commits since.

    Returns:
        The number of the first of these commits, or 0 if there were none, and the number of removed events and bytes.

    """
    events, size = removed
    read = seq = 0
    select = "SELECT seq, body FROM commits WHERE seq < ? ORDER BY seq DESC LIMIT 1"
    while read < _TRANSACTION_BYTES:
        row = database.execute(select, (before,)).fetchone()
        if row is None:
            before = 0
            break
        seq, body = row
        read += len(body) + 1
        kept, count = selection.drop_lines(body)
        if count:
            database.execute("UPDATE commits SET body = ?, events = events - ? WHERE seq = ?", (kept, count, seq))
        if events or size:
            database.execute(
                "UPDATE commits SET total_events = total_events + ?, total_bytes = total_bytes + ? WHERE seq = ?",
                (events, size, seq),
            )
        events += count
        size += len(body) - len(kept)
        before = seq
    return before, events - removed[0], size - removed[1]


def _erase_waiting(database: sqlite3.Connection, selection: Selection) -> int:
    removed = 0
    for (number,) in database.execute("SELECT number FROM waiting").fetchall():
        (body,) = database.execute("SELECT body FROM waiting WHERE number = ?", (number,)).fetchone()
        kept, count = selection.drop_lines(body)
        removed += count
        if not kept:
            database.execute("DELETE FROM waiting WHERE number = ?", (number,))
        elif count:
            update = "UPDATE waiting SET body = ?, bytes = ?, events = events - ? WHERE number = ?"
            database.execute(update, (kept, len(kept), count, number))
    return removed


def last_commit(folder: Path) -> int:
    """Return the number of the last commit that a spool ever had; 0 if there was none."""
    with closing(open_database(folder / SPOOL_FILE_NAME)) as database:
        (last,) = database.execute(
            "SELECT max(coalesce((SELECT max(seq) FROM commits), 0), coalesce((SELECT max(upto) FROM readers), 0))"
        ).fetchone()
    return int(last)


def erase_dead_letters(folder: Path, selection: Selection) -> int:
    """Remove events from the dead letters, also from those that were sent again; idempotent.

    Returns:
        The number of removed dead letters.

    """
    removed = 0
    for path in sorted([*folder.glob("*.ndjson"), *(folder / REQUEUED_FOLDER).glob("*.ndjson")]):
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if not _is_selected(line, selection)]
        if len(kept) < len(lines):
            _replace_file(path, b"".join(kept))
            removed += len(lines) - len(kept)
    return removed


def _is_selected(line: bytes, selection: Selection) -> bool:
    try:
        letter = orjson.loads(line)
        return selection.matches(letter["document"].encode())
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return False


def _replace_file(path: Path, body: bytes) -> None:
    if not body:
        path.unlink()
    else:
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    fsync_path(path.parent)
