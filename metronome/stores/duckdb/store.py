"""The embedded store: connections, threads and transactions."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import duckdb

from metronome.errors import Overloaded, QueryTooExpensive, StoreUnavailable
from metronome.fields import is_top_level_name
from metronome.stores.base import DocumentBatch, RejectedDocument, Store, WriteResult
from metronome.stores.duckdb import schema
from metronome.stores.duckdb.combined_query import compile_combined_query, compile_shared_scan, group_by_scan
from metronome.stores.duckdb.schema import add_missing_columns, rebuild_totals
from metronome.stores.duckdb.sequences import compile_newest_documents, compile_sequence_query, find_newest_values
from metronome.stores.duckdb.sql import (
    SqlStatement,
    compile_query,
    compile_sorted_query,
    format_group,
    is_counted,
    where_condition,
)
from metronome.stores.query import Filter, Query, QueryResult, build_result, has_rounded_integers
from metronome.stores.sequences import EventSequence, SequenceBuilder, SequenceQuery

Result = TypeVar("Result")

FILE_NAME: Final = "metronome.duckdb"
_MERGE_ROW_LIMITS = (50_000, 500_000)
"""The rollup is merged once it has grown by an eighth, but at least and at most by these numbers of rows."""
_QUERY_TIMEOUT_SECONDS = 10.0
_READER_THREADS = 3
_PYTHON_SORT_MAX_ROWS = 10_000
"""Up to this many rows, sorting in Python is faster than a plan of DuckDB."""
_NICENESS = 10
_FETCH_ROWS = 10_000
_PAGE_ROWS = 2_000
"""Fetching more rows at once would keep the event loop waiting."""
_REJECTING_ERRORS = (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.OutOfRangeException)


class CancellableQuery(Generic[Result]):
    """A query that one thread runs and another may cancel.

    Args:
        open_cursor: opens the query's own connection.
        run_query: runs the query and returns its result.

    """

    def __init__(
        self,
        open_cursor: Callable[[], duckdb.DuckDBPyConnection],
        run_query: Callable[[duckdb.DuckDBPyConnection], Result],
    ) -> None:
        self._open_cursor = open_cursor
        self._run_query = run_query
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._cancelled = False
        self._cancel_lock = threading.Lock()

    def run(self) -> Result:
        """Run the query in the current thread.

        Raises:
            Overloaded: the query was cancelled before it began.
            duckdb.InterruptException: the query was cancelled.

        """
        if self._cancelled:
            raise Overloaded("the store is busy with other queries")
        cursor = self._cursor = self._open_cursor()
        try:
            return self._run_query(cursor)
        finally:
            # A closed connection cannot be interrupted.
            with self._cancel_lock:
                self._cursor = None
            cursor.close()

    def cancel(self) -> None:
        """Cancel the query, from any thread."""
        self._cancelled = True
        with self._cancel_lock:
            if self._cursor is not None:
                self._cursor.interrupt()


class DuckDBStore(Store):
    """A store in one file, which belongs to one process.

    Args:
        folder: the folder of the file; created if necessary.
        memory_limit: DuckDB's memory limit, such as ``1GB``.
        query_timeout: how long the queries of one call may take, in seconds.
        merge_row_limits: see `_MERGE_ROW_LIMITS`.

    """

    preferred_batch_bytes: ClassVar[int] = 8 * 2**20

    def __init__(
        self,
        folder: Path,
        memory_limit: str = "1GB",
        query_timeout: float = _QUERY_TIMEOUT_SECONDS,
        merge_row_limits: tuple[int, int] = _MERGE_ROW_LIMITS,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE_NAME
        self._memory_limit = memory_limit
        self._query_timeout = query_timeout
        self._merge_row_limits = merge_row_limits
        self._database: duckdb.DuckDBPyConnection | None = None
        self._open_lock = threading.Lock()
        self._write_thread = ThreadPoolExecutor(1, "duckdb-write", _lower_thread_priority)
        self._read_threads = ThreadPoolExecutor(_READER_THREADS, "duckdb-read")
        self._rollup_readers = ThreadPoolExecutor(_READER_THREADS, "duckdb-quick")
        self._pinger = ThreadPoolExecutor(1, "duckdb-ping")

    async def setup(self) -> None:
        """Open the file and create its tables."""
        await self._run_in_thread(self._write_thread, self._open)

    async def write(self, batch: DocumentBatch) -> WriteResult:
        """Write documents in one transaction."""
        return await self._run_in_thread(self._write_thread, lambda: self._write_batch(batch))

    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        """Run queries in one transaction."""
        # Queries of the rollup and of totals never wait for those that read events.
        readers = self._rollup_readers if all(map(is_counted, queries)) else self._read_threads
        return await self._run_with_timeout(lambda cursor: self._run_queries(cursor, queries), readers)

    async def query_pages(self, query: Query) -> AsyncGenerator[QueryResult]:
        """Yield pages of the rows of one statement, which DuckDB has sorted."""
        statement = compile_sorted_query(query)
        cursor = await self._run_in_thread(self._read_threads, self._cursor)

        def fetch() -> QueryResult | None:
            rows = cursor.fetchmany(_PAGE_ROWS)
            shown = tuple(_format_row(query, row[:-1]) for row in rows)
            exact = not has_rounded_integers(query, shown)
            return QueryResult(query.columns, shown, rows[0][-1], exact=exact) if rows else None

        timer = asyncio.get_running_loop().call_later(self._query_timeout, cursor.interrupt)
        try:
            await self._run_in_thread(self._read_threads, lambda: cursor.execute(statement.sql, statement.parameters))
            page = await self._run_in_thread(self._read_threads, fetch)
            timer.cancel()
            if page is None:
                # No row has the total.
                (result,) = await self.query(replace(query, limit=1, offset=0))
                yield replace(result, rows=())
            while page is not None:
                yield page
                page = await self._run_in_thread(self._read_threads, fetch)
        except duckdb.InterruptException:
            raise QueryTooExpensive(f"the query takes over {self._query_timeout:g} s") from None
        finally:
            timer.cancel()
            cursor.close()

    async def newest_values(
        self,
        field: str,
        limit: int,
        where: Filter | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[str, ...]:
        """Search the newest days for values, and older ones while these do not have enough."""
        return await self._run_with_timeout(lambda cursor: find_newest_values(cursor, field, limit, where, start, end))

    async def newest_documents(
        self, limit: int, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> tuple[bytes, ...]:
        """Find the newest rows by their time, then read the documents of these alone."""
        statement = compile_newest_documents(limit, where, start, end)
        rows = await self._run_with_timeout(
            lambda cursor: cursor.execute(statement.sql, statement.parameters).fetchall()
        )
        return tuple(document.encode() for (document,) in rows)

    async def sequences(self, sequence_query: SequenceQuery) -> AsyncIterator[EventSequence]:
        """Yield sequences from one statement, which reads a snapshot."""
        statement, builder = compile_sequence_query(sequence_query), SequenceBuilder()
        async for rows in self._iterate_rows(statement):
            for sequence in builder.add((row[0], row[1], row[2:], 1) for row in rows):
                yield sequence
        for sequence in builder.flush():
            yield sequence

    async def list_fields(self) -> frozenset[str]:
        """Return the top-level fields of all documents."""
        rows = await self._run_with_timeout(lambda cursor: cursor.execute("SELECT name FROM fields").fetchall())
        return frozenset(name for (name,) in rows if is_top_level_name(name) and name != "event_id")

    async def replace(self, batch: DocumentBatch) -> int:
        """Replace documents in one transaction, and recount their days."""
        return await self._run_in_thread(self._write_thread, lambda: self._replace_batch(batch))

    async def iterate_documents(
        self, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[bytes]:
        """Yield documents from one statement, which reads a snapshot."""
        parameters: list[object] = []
        sql = f"SELECT doc FROM events WHERE {where_condition(where, start, end, parameters)} ORDER BY ts, rowid"
        async for rows in self._iterate_rows(SqlStatement(sql, parameters)):
            for (document,) in rows:
                yield document.encode()

    async def refresh(self) -> None:
        """Do nothing: queries see committed documents at once."""

    async def ping(self) -> None:
        """Run a trivial query in a thread of its own, which never waits behind other queries."""
        await self._run_in_thread(self._pinger, lambda: self._cursor().execute("SELECT 1").fetchall())

    async def close(self) -> None:
        """Close the file."""
        await asyncio.to_thread(self._close)

    async def _delete_matching(self, where: Filter | None, before: datetime | None) -> int:
        return await self._run_in_thread(self._write_thread, lambda: self._delete_rows(where, before))

    async def _iterate_rows(self, statement: SqlStatement) -> AsyncIterator[list[tuple[Any, ...]]]:
        cursor = await self._run_in_thread(
            self._read_threads, lambda: self._cursor().execute(statement.sql, statement.parameters)
        )
        try:
            while rows := await self._run_in_thread(self._read_threads, lambda: cursor.fetchmany(_FETCH_ROWS)):
                yield rows
        finally:
            cursor.close()

    async def _run_with_timeout(
        self, run_query: Callable[[duckdb.DuckDBPyConnection], Result], readers: ThreadPoolExecutor | None = None
    ) -> Result:
        query = CancellableQuery(self._cursor, run_query)
        timer = asyncio.get_running_loop().call_later(self._query_timeout, query.cancel)
        try:
            return await self._run_in_thread(readers or self._read_threads, query.run)
        except duckdb.InterruptException:
            raise QueryTooExpensive(f"the query takes over {self._query_timeout:g} s") from None
        finally:
            timer.cancel()

    async def _run_in_thread(self, threads: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        except duckdb.InterruptException:
            raise
        except duckdb.FatalException as error:
            # Connections that saw a fatal error no longer work.
            self._database = None
            raise StoreUnavailable(f"{self._path}: {error}") from error
        except duckdb.Error as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error

    def _open(self) -> duckdb.DuckDBPyConnection:
        with self._open_lock:
            if self._database is None:
                database = duckdb.connect(self._path, config={"memory_limit": self._memory_limit})
                # In a terminal, DuckDB would draw a progress bar between the lines of the log.
                database.execute(
                    "SET TimeZone = 'UTC'; SET checkpoint_threshold = '128MB'; SET enable_progress_bar = false"
                )
                database.execute(schema.CREATE_TABLES)
                add_missing_columns(database)
                rebuild_totals(database)
                self._database = database
            return self._database

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        return (self._database or self._open()).cursor()

    def _close(self) -> None:
        self._write_thread.shutdown()
        self._read_threads.shutdown()
        self._rollup_readers.shutdown()
        self._pinger.shutdown()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _write_batch(self, batch: DocumentBatch) -> WriteResult:
        database = self._open()
        try:
            stored = self._in_transaction(database, lambda: self._insert_batch(database, batch))
        except _REJECTING_ERRORS as error:
            if batch.count == 1:
                return WriteResult(0, rejected=(RejectedDocument(batch.body.removesuffix(b"\n"), str(error)),))
            # One document fails the whole batch: bisect.
            first, second = batch.split_in_half()
            return self._write_batch(first) + self._write_batch(second)
        if stored:
            self._merge_counts(database)
        return WriteResult(stored, batch.count - stored)

    def _insert_batch(self, database: duckdb.DuckDBPyConnection, batch: DocumentBatch) -> int:
        database.execute(schema.LOAD_BATCH, [batch.body.decode()])
        count, identified, distinct, first_day, end = _fetch_row(database.execute(schema.DESCRIBE_BATCH))
        if not identified:
            raise duckdb.InvalidInputException("a document needs @timestamp and event_id")
        if distinct < count:
            database.execute(schema.DROP_DUPLICATES)
        (known,) = _fetch_row(database.execute(schema.COUNT_EXISTING, [first_day, end]))
        if known:
            database.execute(schema.DROP_EXISTING, [first_day, end])
        (stored,) = _fetch_row(database.execute(schema.INSERT_BATCH))
        if stored:
            database.execute(schema.INSERT_BATCH_COUNTS)
            database.execute(schema.INSERT_BATCH_TOTALS)
            database.execute(schema.RECORD_FIELDS)
        return int(stored)

    def _replace_batch(self, batch: DocumentBatch) -> int:
        database = self._open()
        database.execute(schema.LOAD_BATCH, [batch.body.decode()])
        *_, first_day, end = _fetch_row(database.execute(schema.DESCRIBE_BATCH))

        def replace_stored() -> int:
            database.execute(schema.DROP_DUPLICATES)
            database.execute(schema.DROP_UNSTORED, [first_day, end])
            database.execute(schema.DELETE_REPLACED, [first_day, end])
            (replaced,) = _fetch_row(database.execute(schema.INSERT_BATCH))
            database.execute(schema.RECORD_FIELDS)
            database.execute(schema.DELETE_DAY_COUNTS, [first_day, end])
            database.execute(schema.INSERT_DAY_COUNTS, [first_day, end])
            database.execute(schema.DELETE_DAY_TOTALS, [first_day, end])
            database.execute(schema.INSERT_DAY_TOTALS, [first_day, end])
            return int(replaced)

        return self._in_transaction(database, replace_stored) if batch.count else 0

    def _merge_counts(self, database: duckdb.DuckDBPyConnection) -> None:
        for count_rows, merge_rows, record in (
            (schema.COUNT_UNMERGED_ROWS, schema.MERGE_ROLLUP, schema.RECORD_MERGED_ROWS),
            (schema.COUNT_UNMERGED_TOTALS, schema.MERGE_TOTALS, schema.RECORD_MERGED_TOTALS),
        ):
            unmerged, merged = _fetch_row(database.execute(count_rows))
            min_rows, max_rows = self._merge_row_limits
            if unmerged >= min(max(merged // 8, min_rows), max_rows):
                self._in_transaction(database, partial(_execute_all, database, merge_rows, record))

    def _delete_rows(self, where: Filter | None, before: datetime | None) -> int:
        database = self._open()
        parameters: list[object] = []
        condition = where_condition(where, None, before, parameters)

        def delete() -> int:
            (deleted,) = _fetch_row(database.execute(f"DELETE FROM events WHERE {condition}", parameters))
            if deleted:
                database.execute(schema.REBUILD_ROLLUP)
                database.execute(schema.RECORD_MERGED_ROWS)
                database.execute(schema.REBUILD_TOTALS)
                database.execute(schema.RECORD_MERGED_TOTALS)
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

    def _run_queries(self, cursor: duckdb.DuckDBPyConnection, queries: tuple[Query, ...]) -> tuple[QueryResult, ...]:
        if statement := compile_combined_query(queries):
            return self._run_combined_query(cursor, queries, statement)
        cursor.execute("BEGIN")
        try:
            results = self._run_shared_scans(cursor, queries)
            return tuple(
                results[at] if at in results else self._run_query(cursor, query) for at, query in enumerate(queries)
            )
        finally:
            cursor.execute("ROLLBACK")

    def _run_shared_scans(
        self, cursor: duckdb.DuckDBPyConnection, queries: tuple[Query, ...]
    ) -> dict[int, QueryResult]:
        """Return the results of queries that can share a scan and have few groups, by their indices."""
        results: dict[int, QueryResult] = {}
        for indices in group_by_scan(queries).values():
            shared = [queries[index] for index in indices]
            statement = compile_shared_scan(shared)
            cursor.execute(f"{statement.sql} LIMIT {_PYTHON_SORT_MAX_ROWS + 1}", statement.parameters)
            rows = cursor.fetchall()
            if len(rows) > _PYTHON_SORT_MAX_ROWS:
                continue
            groups: list[list[tuple[Any, ...]]] = [[] for _ in shared]
            for at, *row in rows:
                groups[at].append(tuple(row))
            results |= {
                index: build_result(query, query_rows)
                for index, query, query_rows in zip(indices, shared, groups, strict=True)
            }
        return results

    def _run_combined_query(
        self, cursor: duckdb.DuckDBPyConnection, queries: tuple[Query, ...], statement: SqlStatement
    ) -> tuple[QueryResult, ...]:
        rows: list[list[tuple[Any, ...]]] = [[] for _ in queries]
        for index, *row in cursor.execute(statement.sql, statement.parameters).fetchall():
            rows[index].append(tuple(row))
        return tuple(build_result(query, query_rows) for query, query_rows in zip(queries, rows, strict=True))

    def _run_query(self, cursor: duckdb.DuckDBPyConnection, query: Query) -> QueryResult:
        statement = compile_query(query)
        rows = cursor.execute(f"{statement.sql} LIMIT {_PYTHON_SORT_MAX_ROWS + 1}", statement.parameters).fetchall()
        if len(rows) <= _PYTHON_SORT_MAX_ROWS:
            return build_result(query, [_format_row(query, row) for row in rows])
        statement = compile_sorted_query(query)
        rows = cursor.execute(statement.sql, statement.parameters).fetchall()
        if not rows:
            # The offset is past the last row, so no row has the total.
            return replace(self._run_query(cursor, replace(query, limit=1, offset=0)), rows=())
        shown = tuple(_format_row(query, row[:-1]) for row in rows)
        return QueryResult(query.columns, shown, rows[0][-1], exact=not has_rounded_integers(query, shown))


def _lower_thread_priority() -> None:
    """Give this thread, and those that DuckDB starts from it, a lower priority than threads that clients wait for."""
    # Only on Linux does this call set the priority of a thread.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _format_row(query: Query, row: tuple[Any, ...]) -> tuple[Any, ...]:
    width = len(query.group_by)
    return (*(format_group(name, raw) for name, raw in zip(query.group_by, row, strict=False)), *row[width:])


def _execute_all(database: duckdb.DuckDBPyConnection, *statements: str) -> None:
    for statement in statements:
        database.execute(statement)


def _fetch_row(result: duckdb.DuckDBPyConnection) -> tuple[int, ...]:
    row = result.fetchone()
    if row is None:
        raise duckdb.InternalException("the statement returned no row")
    return row
