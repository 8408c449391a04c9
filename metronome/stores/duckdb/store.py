"""The embedded store behind the port: connections, threads and transactions.

One call of a thread that reads, which may be ended from another one.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import duckdb

from metronome.errors import Busy, StoreAway, TooCostly
from metronome.event import is_plain
from metronome.stores.base import Batch, Refusal, Store, Verdicts
from metronome.stores.duckdb import schema
from metronome.stores.duckdb.combined_query import select_at_once
from metronome.stores.duckdb.schema import bring_up_to_date
from metronome.stores.duckdb.sequences import Gathering, find_newest, select_trails
from metronome.stores.duckdb.sql import Statement, condition, fits_rollup, select, select_sorted, show
from metronome.stores.query import AllOf, Answer, Equals, Filter, Question, arrange
from metronome.stores.sequences import Trail, Trails

Result = TypeVar("Result")


class Asking(Generic[Result]):
    """A question on its way through a connection of its own.

    Args:
        open_cursor: makes the connection.
        ask: works out the answer over it.

    """

    def __init__(
        self, open_cursor: Callable[[], duckdb.DuckDBPyConnection], ask: Callable[[duckdb.DuckDBPyConnection], Result]
    ) -> None:
        self._open_cursor = open_cursor
        self._ask = ask
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._ended = False
        self._ending = threading.Lock()

    def run(self) -> Result:
        """Work out the answer, in the thread that calls.

        Raises:
            Busy: it was ended before it began.
            duckdb.InterruptException: it was ended.

        """
        if self._ended:
            raise Busy("the store is busy with other questions")
        cursor = self._cursor = self._open_cursor()
        try:
            return self._ask(cursor)
        finally:
            # A connection that is closed cannot be interrupted.
            with self._ending:
                self._cursor = None
            cursor.close()

    def end(self) -> None:
        """End it, from whichever thread."""
        self._ended = True
        with self._ending:
            if self._cursor is not None:
                self._cursor.interrupt()


FILE_NAME: Final = "metronome.duckdb"
_MERGE_ROWS = (50_000, 500_000)
"""The rollup is merged as it has grown by an eighth, but by no fewer and no more rows than these."""
_ASK_SECONDS = 10.0
_READERS = 3
_SORTED_HERE = 10_000
"""Up to so many rows are sorted sooner in Python than DuckDB plans how."""
_NICENESS = 10
_ROWS_AT_ONCE = 10_000
_REFUSED = (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.OutOfRangeException)


class DuckDBStore(Store):
    """A store in one file, which belongs to one process.

    Args:
        folder: where the file is, or will be.
        memory: how much DuckDB may take, as ``1GB``.
        ask_seconds: how long the answers to one call may take.
        merge_rows: see `_MERGE_ROWS`.

    """

    batch_bytes: ClassVar[int] = 8 * 2**20

    def __init__(
        self,
        folder: Path,
        memory: str = "1GB",
        ask_seconds: float = _ASK_SECONDS,
        merge_rows: tuple[int, int] = _MERGE_ROWS,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE_NAME
        self._memory = memory
        self._ask_seconds = ask_seconds
        self._merge_rows = merge_rows
        self._database: duckdb.DuckDBPyConnection | None = None
        self._opening = threading.Lock()
        self._writer = ThreadPoolExecutor(1, "duckdb-write", _give_way)
        self._readers = ThreadPoolExecutor(_READERS, "duckdb-read")
        self._quick_readers = ThreadPoolExecutor(_READERS, "duckdb-quick")
        self._pinger = ThreadPoolExecutor(1, "duckdb-ping")

    async def setup(self) -> None:
        """Open the file and make its tables (see `Store.setup`)."""
        await self._run(self._writer, self._open)

    async def write(self, batch: Batch) -> Verdicts:
        """Write documents, each exactly once (see `Store.write`)."""
        return await self._run(self._writer, lambda: self._write(batch))

    async def ask(self, *questions: Question) -> tuple[Answer, ...]:
        """Answer questions from one snapshot (see `Store.ask`)."""
        # What the rollup answers never waits for what reads events.
        readers = self._quick_readers if all(map(fits_rollup, questions)) else self._readers
        return await self._in_time(lambda cursor: self._ask(cursor, questions), readers)

    async def newest(
        self,
        field: str,
        limit: int,
        where: Filter | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[str, ...]:
        """Return values by their newest events (see `Store.newest`)."""
        return await self._in_time(lambda cursor: find_newest(cursor, field, limit, where, start, end))

    async def trails(self, asked: Trails) -> AsyncIterator[Trail]:
        """Yield trails (see `Store.trails`)."""
        statement, gathering = select_trails(asked), Gathering()
        async for rows in self._rows(statement):
            for trail in gathering.take(rows):
                yield trail
        for trail in gathering.take([]):
            yield trail

    async def fields(self) -> frozenset[str]:
        """Return the names that documents have (see `Store.fields`)."""
        rows = await self._in_time(lambda cursor: cursor.execute("SELECT name FROM fields").fetchall())
        return frozenset(name for (name,) in rows if is_plain(name) and name != "event_id")

    async def replace(self, batch: Batch) -> int:
        """Replace documents (see `Store.replace`)."""
        return await self._run(self._writer, lambda: self._replace(batch))

    async def documents(
        self, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[bytes]:
        """Yield documents (see `Store.documents`)."""
        values: list[object] = []
        sql = f"SELECT doc FROM events WHERE {condition(where, start, end, values)} ORDER BY ts, rowid"
        async for rows in self._rows(Statement(sql, values)):
            for (doc,) in rows:
                yield doc.encode()

    async def forget(
        self, *, before: datetime | None = None, item: str | None = None, visitor: str | None = None
    ) -> int:
        """Delete events, and count the rest anew (see `Store.forget`)."""
        if before is None and item is None and visitor is None:
            raise ValueError("say what to forget: before, item or visitor")
        chosen: list[Filter] = [
            Equals(name, value) for name, value in (("id", item), ("visitor", visitor)) if value is not None
        ]
        return await self._run(self._writer, lambda: self._forget(AllOf(tuple(chosen)), before))

    async def refresh(self) -> None:
        """Do nothing: what is committed can be seen."""

    async def ping(self) -> None:
        """Run an empty query in a thread of its own: it never waits behind others (see `Store.ping`)."""
        await self._run(self._pinger, lambda: self._cursor().execute("SELECT 1").fetchall())

    async def close(self) -> None:
        """Close the file (see `Store.close`)."""
        await asyncio.to_thread(self._close)

    async def _rows(self, statement: Statement) -> AsyncIterator[list[tuple[Any, ...]]]:
        cursor = await self._run(self._readers, lambda: self._cursor().execute(statement.sql, statement.values))
        try:
            while rows := await self._run(self._readers, lambda: cursor.fetchmany(_ROWS_AT_ONCE)):
                yield rows
        finally:
            cursor.close()

    async def _in_time(
        self, ask: Callable[[duckdb.DuckDBPyConnection], Result], readers: ThreadPoolExecutor | None = None
    ) -> Result:
        """Ask in a reader's thread, and break off what takes too long."""
        asking = Asking(self._cursor, ask)
        timer = asyncio.get_running_loop().call_later(self._ask_seconds, asking.end)
        try:
            return await self._run(readers or self._readers, asking.run)
        except duckdb.InterruptException:
            raise TooCostly(f"the answer takes over {self._ask_seconds:g} s") from None
        finally:
            timer.cancel()

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        except duckdb.InterruptException:
            raise
        except duckdb.FatalException as error:
            # DuckDB answers nothing more over connections that saw a fatal error.
            self._database = None
            raise StoreAway(f"{self._path}: {error}") from error
        except duckdb.Error as error:
            raise StoreAway(f"{self._path}: {error}") from error

    def _open(self) -> duckdb.DuckDBPyConnection:
        with self._opening:
            if self._database is None:
                database = duckdb.connect(self._path, config={"memory_limit": self._memory})
                database.execute("SET TimeZone = 'UTC'; SET checkpoint_threshold = '128MB'")
                database.execute(schema.TABLES)
                bring_up_to_date(database)
                self._database = database
            return self._database

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        return (self._database or self._open()).cursor()

    def _close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._quick_readers.shutdown()
        self._pinger.shutdown()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _write(self, batch: Batch) -> Verdicts:
        database = self._open()
        try:
            stored = self._in_transaction(database, lambda: self._store(database, batch))
        except _REFUSED as error:
            return self._write_halves(batch, error)
        if stored:
            self._merge(database)
        return Verdicts(stored, batch.count - stored)

    def _store(self, database: duckdb.DuckDBPyConnection, batch: Batch) -> int:
        database.execute(schema.READ_BATCH, [batch.body.decode()])
        count, identified, distinct, first_day, end = _one(database.execute(schema.SURVEY_BATCH))
        if not identified:
            raise duckdb.InvalidInputException("a document needs @timestamp and event_id")
        if distinct < count:
            database.execute(schema.DROP_REPEATED)
        (known,) = _one(database.execute(schema.COUNT_KNOWN, [first_day, end]))
        if known:
            database.execute(schema.DROP_KNOWN, [first_day, end])
        (stored,) = _one(database.execute(schema.STORE_BATCH))
        if stored:
            database.execute(schema.COUNT_BATCH)
            database.execute(schema.NOTE_FIELDS)
        return int(stored)

    def _replace(self, batch: Batch) -> int:
        database = self._open()
        database.execute(schema.READ_BATCH, [batch.body.decode()])
        *_, first_day, end = _one(database.execute(schema.SURVEY_BATCH))

        def replace_them() -> int:
            database.execute(schema.DROP_REPEATED)
            database.execute(schema.REPLACE_FROM, [first_day, end])
            database.execute(schema.DROP_REPLACED, [first_day, end])
            (replaced,) = _one(database.execute(schema.STORE_BATCH))
            database.execute(schema.NOTE_FIELDS)
            database.execute(schema.UNCOUNT_DAYS, [first_day, end])
            database.execute(schema.COUNT_DAYS, [first_day, end])
            return int(replaced)

        return self._in_transaction(database, replace_them) if batch.count else 0

    def _write_halves(self, batch: Batch, error: duckdb.Error) -> Verdicts:
        """Find the document that cannot be taken by writing each half alone."""
        documents = batch.documents()
        if len(documents) == 1:
            return Verdicts(0, 0, (Refusal(documents[0], str(error)),))
        middle = len(documents) // 2
        one, other = (self._write(Batch.of(half)) for half in (documents[:middle], documents[middle:]))
        return Verdicts(one.stored + other.stored, one.duplicates + other.duplicates, one.refused + other.refused)

    def _merge(self, database: duckdb.DuckDBPyConnection) -> None:
        unmerged, merged = _one(database.execute(schema.UNMERGED))
        least, most = self._merge_rows
        if unmerged < min(max(merged // 8, least), most):
            return

        def merge() -> None:
            database.execute(schema.MERGE)
            database.execute(schema.NOTE_MERGED)

        self._in_transaction(database, merge)

    def _forget(self, chosen: Filter, before: datetime | None) -> int:
        database = self._open()
        values: list[object] = []
        where = condition(chosen, None, before, values)

        def delete() -> int:
            (deleted,) = _one(database.execute(f"DELETE FROM events WHERE {where}", values))
            if deleted:
                database.execute(schema.REBUILD)
                database.execute(schema.NOTE_MERGED)
            return int(deleted)

        return self._in_transaction(database, delete)

    def _in_transaction(self, database: duckdb.DuckDBPyConnection, work: Callable[[], Result]) -> Result:
        database.execute("BEGIN")
        try:
            result = work()
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
        return result

    def _ask(self, cursor: duckdb.DuckDBPyConnection, questions: tuple[Question, ...]) -> tuple[Answer, ...]:
        if statement := select_at_once(questions):
            return self._answer_at_once(cursor, questions, statement)
        cursor.execute("BEGIN")
        try:
            return tuple(self._answer(cursor, question) for question in questions)
        finally:
            cursor.execute("ROLLBACK")

    def _answer_at_once(
        self, cursor: duckdb.DuckDBPyConnection, questions: tuple[Question, ...], statement: Statement
    ) -> tuple[Answer, ...]:
        rows: list[list[tuple[Any, ...]]] = [[] for _ in questions]
        for at, *row in cursor.execute(statement.sql, statement.values).fetchall():
            rows[at].append(tuple(row))
        return tuple(arrange(question, found) for question, found in zip(questions, rows, strict=True))

    def _answer(self, cursor: duckdb.DuckDBPyConnection, question: Question) -> Answer:
        statement = select(question)
        rows = cursor.execute(f"{statement.sql} LIMIT {_SORTED_HERE + 1}", statement.values).fetchall()
        if len(rows) <= _SORTED_HERE:
            return arrange(question, [_shown(question, row) for row in rows])
        statement = select_sorted(question)
        rows = cursor.execute(statement.sql, statement.values).fetchall()
        if not rows:
            # Behind the last row there is none that could say how many there are.
            return replace(self._answer(cursor, replace(question, limit=1, offset=0)), rows=())
        return Answer(question.columns, tuple(_shown(question, row[:-1]) for row in rows), rows[0][-1])


def _give_way() -> None:
    """Let this thread, and those that DuckDB starts from it, work when no reply is waiting: the spool can wait."""
    # Only Linux gives threads priorities of their own by this call.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _shown(question: Question, row: tuple[Any, ...]) -> tuple[Any, ...]:
    width = len(question.by)
    return (*(show(name, raw) for name, raw in zip(question.by, row, strict=False)), *row[width:])


def _one(result: duckdb.DuckDBPyConnection) -> tuple[int, ...]:
    row = result.fetchone()
    if row is None:
        raise duckdb.InternalException("a statement that has one row gave none")
    return row
