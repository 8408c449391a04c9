"""The embedded store: connections, threads, transactions, and the maintenance of segments in the background."""

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import duckdb
import structlog

from metronome.errors import OperatorError, Overloaded, QueryTooExpensive, StoreUnavailable
from metronome.fields import COLUMN_FIELDS, is_top_level_name
from metronome.files import OpenFile, fsync_path
from metronome.stores.base import LISTED_FIELDS_MAX, DocumentBatch, RejectedDocument, Store, WriteResult
from metronome.stores.duckdb import maintenance, retention, schema, segments
from metronome.stores.duckdb.combined_query import compile_combined_query, compile_shared_scan, group_by_scan
from metronome.stores.duckdb.maintenance import DEFAULT_LIMITS, Job, Merge, MoveOldEvents, Seal, StorageLimits
from metronome.stores.duckdb.rollup import (
    ALL_COUNTS,
    COUNTED_FIELDS,
    are_totals_current,
    compile_counted_query,
    item_hash_sql,
    rebuild_totals,
)
from metronome.stores.duckdb.segments import FileKeeper, Filters, Segment, SegmentWriter, Snapshot
from metronome.stores.duckdb.sequences import compile_sequence_query, find_newest_documents, find_newest_values
from metronome.stores.duckdb.sources import EVENT_ID, EventColumns, Part, quote_name
from metronome.stores.duckdb.sql import (
    FETCH_ROWS,
    SqlStatement,
    compile_query,
    compile_sorted_query,
    fetch_rows,
    format_group,
    is_counted,
    where_condition,
)
from metronome.stores.query import Filter, Query, QueryResult, build_result, has_rounded_integers
from metronome.stores.sequences import EventSequence, SequenceBuilder, SequenceQuery

log = structlog.get_logger()

Result = TypeVar("Result")

FILE_NAME: Final = "metronome.duckdb"
_QUERY_TIMEOUT_SECONDS = 10.0
_CANCEL_SECONDS = 0.02
_READER_THREADS = 3
_PYTHON_SORT_MAX_ROWS = 10_000
"""Up to this many rows, sorting in Python is faster than a plan of DuckDB."""
_NICENESS = 10
_RETRY_SECONDS = 60.0
_MESSAGE_CHARACTERS = 200
_OVER_MEMORY = "the query takes more memory than METRONOME_DUCKDB_MEMORY allows"
_MOVED_SHARE = 8
_PURGE_POLL_SECONDS = 0.1
_MIN_SEGMENT_ROWS = 250_000
_SHRINK_MIN_BYTES = 256 * 2**20
_REJECTING_ERRORS = (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.OutOfRangeException)


_DAMAGED_FILE: Final = re.compile(r"/[^'\"\n]*/segments/[^'\"\n]*\.parquet")


class StoreFileDamaged(OperatorError):
    """A file of the embedded store is damaged or missing."""

    retry = True
    advice = (
        "stop Metronome and restore the data folder from a backup; or set the store's files aside with `metronome "
        "reset --store`, start Metronome, and load the archive, if there is one, with `metronome replay`; the spool "
        "keeps new events meanwhile"
    )
    public_message = "the operator of this service has to repair its store; no new event is lost"


class StoreFileLost(StoreUnavailable):
    """The embedded store's file was deleted or replaced while the server runs."""

    advice = (
        "put the file back; or stop Metronome, restore the data folder from a backup, and start it again; the spool "
        "keeps new events meanwhile"
    )


class StoreOutOfMemory(StoreUnavailable):
    """A document takes more memory than the embedded store may use."""

    advice = "raise METRONOME_DUCKDB_MEMORY and restart Metronome; the spool keeps the events"


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
    """A store in one folder, which belongs to one process: a DuckDB file, and Parquet files with most of the events.

    Args:
        folder: the data folder; created if necessary.
        memory_limit: DuckDB's memory limit, such as ``1GB``.
        query_timeout: how long the queries of one call may take, in seconds.
        limits: when events move between the file and segments.

    """

    preferred_batch_bytes: ClassVar[int] = 16 * 2**20

    def __init__(
        self,
        folder: Path,
        memory_limit: str = "1GB",
        query_timeout: float = _QUERY_TIMEOUT_SECONDS,
        limits: StorageLimits = DEFAULT_LIMITS,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / FILE_NAME
        self._memory_limit = memory_limit
        self._query_timeout = query_timeout
        self._limits = limits
        self._database: duckdb.DuckDBPyConnection | None = None
        self._file: OpenFile | None = None
        self._open_lock = threading.Lock()
        self._write_thread = ThreadPoolExecutor(1, "duckdb-write", _lower_thread_priority)
        self._read_threads = ThreadPoolExecutor(_READER_THREADS, "duckdb-read")
        self._rollup_readers = ThreadPoolExecutor(_READER_THREADS, "duckdb-quick")
        self._pinger = ThreadPoolExecutor(1, "duckdb-ping")
        self._keeper = FileKeeper(folder)
        self._filters = Filters(folder, limits.filter_rows)
        self._writer = SegmentWriter(folder, 1, limits.filter_rows)
        self._next_seq = 1
        self._hot_rows = 0
        self._old_part: Part | None = None
        # Changes when stored events are deleted or replaced: a segment that is being written may have some of them.
        self._generation = 0
        self._rewrite_at_once = True
        self._close_event = threading.Event()
        self._wake_event = threading.Event()
        self._job_lock = threading.Lock()
        self._maintenance_lock = threading.Lock()
        self._maintenance_cursor: duckdb.DuckDBPyConnection | None = None
        self._maintenance_thread: threading.Thread | None = None

    async def setup(self) -> None:
        """Open the file, create its tables, and start the maintenance in the background."""
        await self._run_in_thread(self._write_thread, self._open)
        if self._maintenance_thread is None:
            self._maintenance_thread = threading.Thread(
                target=self._maintain_forever, name="duckdb-maintenance", daemon=True
            )
            self._maintenance_thread.start()

    async def write(self, batch: DocumentBatch) -> WriteResult:
        """Write documents in one transaction; in smaller ones if DuckDB's memory does not suffice."""

        def write() -> WriteResult:
            self._check_file()
            result = self._write_batch(batch)
            # Before the documents leave the spool.
            self._check_file()
            return result

        return await self._run_in_thread(self._write_thread, write)

    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        """Run queries in one transaction."""
        # Queries of counts never wait for those that read events.
        readers = self._rollup_readers if all(map(is_counted, queries)) else self._read_threads
        return await self._run_with_timeout(lambda cursor: self._run_queries(cursor, queries), readers)

    async def query_pages(self, query: Query) -> AsyncGenerator[QueryResult]:
        """Yield pages of the rows of one statement, which DuckDB has sorted."""
        stack = contextlib.ExitStack()

        def begin() -> duckdb.DuckDBPyConnection:
            cursor = stack.enter_context(contextlib.closing(self._cursor()))
            snapshot = stack.enter_context(self._snapshot(cursor))
            statement = compile_sorted_query(query, _compile(query, snapshot))
            started.append(cursor)
            return cursor.execute(statement.sql, statement.parameters)

        def fetch() -> QueryResult | None:
            rows = started[0].fetchmany(FETCH_ROWS)
            shown = tuple(_format_row(query, row[:-1]) for row in rows)
            exact = not has_rounded_integers(query, shown)
            return QueryResult(query.columns, shown, rows[0][-1], exact=exact) if rows else None

        started: list[duckdb.DuckDBPyConnection] = []

        def cancel() -> None:
            for cursor in started:
                cursor.interrupt()

        interrupt = asyncio.get_running_loop().call_later(self._query_timeout, cancel)
        try:
            await self._run_in_thread(self._read_threads, begin)
            page = await self._run_in_thread(self._read_threads, fetch)
            interrupt.cancel()
            if page is None:
                # No row has the total.
                (result,) = await self.query(replace(query, limit=1, offset=0))
                yield replace(result, rows=())
            while page is not None:
                yield page
                page = await self._run_in_thread(self._read_threads, fetch)
        except duckdb.InterruptException:
            raise QueryTooExpensive(f"the query takes over {self._query_timeout:g} s") from None
        except StoreOutOfMemory as error:
            raise QueryTooExpensive(_OVER_MEMORY) from error
        finally:
            interrupt.cancel()
            stack.close()

    async def newest_values(
        self,
        field: str,
        limit: int,
        where: Filter | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[str, ...]:
        """Search the newest days for values, and older ones while these do not have enough."""

        def find(cursor: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
            with self._snapshot(cursor) as snapshot:
                return find_newest_values(cursor, snapshot, field, limit, where, start, end)

        return await self._run_with_timeout(find)

    async def newest_documents(
        self, limit: int, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> tuple[bytes, ...]:
        """Find the time of the oldest of them first, then read only documents since then."""

        def find(cursor: duckdb.DuckDBPyConnection) -> tuple[bytes, ...]:
            with self._snapshot(cursor) as snapshot:
                return find_newest_documents(cursor, snapshot, limit, where, start, end)

        return await self._run_with_timeout(find)

    async def sequences(self, sequence_query: SequenceQuery) -> AsyncIterator[EventSequence]:
        """Yield sequences from one statement, which reads a snapshot."""
        builder = SequenceBuilder()
        async for rows in self._iterate_rows(lambda _, snapshot: [compile_sequence_query(sequence_query, snapshot)]):
            for sequence in builder.add((row[0], row[1], row[2:], 1) for row in rows):
                yield sequence
        for sequence in builder.flush():
            yield sequence

    async def list_fields(self) -> frozenset[str]:
        """Return the top-level fields of all documents."""
        rows = await self._run_with_timeout(lambda cursor: cursor.execute("SELECT name FROM fields").fetchall())
        return frozenset(name for (name,) in rows if is_top_level_name(name) and name != "event_id")

    async def replace(self, batch: DocumentBatch) -> int:
        """Replace documents in one transaction."""
        return await self._run_in_thread(self._write_thread, lambda: self._replace_batch(batch))

    async def iterate_documents(
        self, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[bytes]:
        """Yield documents from a snapshot, one month after the other."""
        async for rows in self._iterate_rows(
            lambda cursor, snapshot: _compile_document_queries(cursor, snapshot, where, start, end)
        ):
            for (document,) in rows:
                yield document.encode()

    async def back_up(self, folder: Path) -> None:
        """Copy the tables, and link the segments, which never change."""
        await self._run_in_thread(self._read_threads, lambda: self._back_up(folder))

    async def refresh(self) -> None:
        """Do nothing: queries see committed documents at once."""

    async def ping(self) -> None:
        """Run a trivial query in a thread of its own, which never waits behind other queries."""
        await self._run_in_thread(self._pinger, lambda: self._cursor().execute("SELECT 1").fetchall())

    async def close(self) -> None:
        """Stop the maintenance and close the file."""
        await asyncio.to_thread(self._close)

    async def maintain(self) -> None:
        """Do all maintenance that is due, as the background does by itself."""
        await asyncio.to_thread(self._maintain)

    async def drop_events(self, before: datetime) -> int:
        """Drop whole segments, and keep counts (see `Store.drop_events`)."""
        return await self._run_in_thread(self._write_thread, lambda: self._drop_events(before.astimezone(UTC).date()))

    async def drop_counts(self, before: datetime) -> None:
        """Delete counts (see `Store.drop_counts`)."""
        await self._run_in_thread(self._write_thread, lambda: self._drop_counts(before.astimezone(UTC).date()))

    async def purge_deleted(self) -> None:
        """Wait until segments are rewritten without deleted events, and empty the log of the file."""
        while await self._run_in_thread(self._pinger, self._has_dropped):
            # The maintenance resets it when it has nothing to do.
            self._rewrite_at_once = True
            self._wake_event.set()
            await asyncio.sleep(_PURGE_POLL_SECONDS)
        await self._run_in_thread(self._write_thread, self._checkpoint)

    async def _delete_matching(self, where: Filter | None, before: datetime | None) -> int:
        return await self._run_in_thread(self._write_thread, lambda: self._delete_events(where, before))

    async def _iterate_rows(
        self, compile_statements: Callable[[duckdb.DuckDBPyConnection, Snapshot], Iterable[SqlStatement]]
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        with contextlib.ExitStack() as stack:

            def begin() -> tuple[duckdb.DuckDBPyConnection, list[SqlStatement]]:
                cursor = stack.enter_context(contextlib.closing(self._cursor()))
                snapshot = stack.enter_context(self._snapshot(cursor))
                return cursor, list(compile_statements(cursor, snapshot))

            cursor, statements = await self._run_in_thread(self._read_threads, begin)
            for statement in statements:
                await self._run_in_thread(
                    self._read_threads,
                    lambda sql=statement: cursor.execute(sql.sql, sql.parameters),  # type: ignore[misc]  # bound at once
                )
                while rows := await self._run_in_thread(self._read_threads, lambda: cursor.fetchmany(FETCH_ROWS)):
                    yield rows

    async def _run_with_timeout(
        self, run_query: Callable[[duckdb.DuckDBPyConnection], Result], readers: ThreadPoolExecutor | None = None
    ) -> Result:
        query, loop = CancellableQuery(self._cursor, run_query), asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []

        def cancel_after(seconds: float) -> None:
            timers[:] = [loop.call_later(seconds, cancel)]

        def cancel() -> None:
            query.cancel()
            # An interruption between two statements has no effect.
            cancel_after(_CANCEL_SECONDS)

        cancel_after(self._query_timeout)
        try:
            return await self._run_in_thread(readers or self._read_threads, query.run)
        except duckdb.InterruptException:
            raise QueryTooExpensive(f"the query takes over {self._query_timeout:g} s") from None
        except StoreOutOfMemory as error:
            raise QueryTooExpensive(_OVER_MEMORY) from error
        finally:
            timers[0].cancel()

    async def _run_in_thread(self, threads: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        except duckdb.InterruptException:
            raise
        except duckdb.OutOfMemoryException as error:
            raise StoreOutOfMemory(f"{self._path}: {str(error)[:_MESSAGE_CHARACTERS]}") from error
        except duckdb.FatalException as error:
            self._abandon_database()
            raise StoreUnavailable(f"{self._path}: {error}") from error
        except (duckdb.Error, OSError) as error:
            raise self._describe_damage(error) or StoreUnavailable(f"{self._path}: {error}") from error

    def _abandon_database(self) -> None:
        """Close the file after a fatal error, after which no connection works; the next call opens it again."""
        with self._open_lock:
            database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(duckdb.Error):
                database.close()

    def _describe_damage(self, error: Exception) -> StoreFileDamaged | None:
        """Return the error for a segment that cannot be read; None if *error* is another one."""
        found = _DAMAGED_FILE.search(str(error))
        if found is None or isinstance(error, duckdb.OutOfMemoryException):
            return None
        path = Path(found[0])
        what = "cannot be read" if path.exists() else "is missing"
        return StoreFileDamaged(f"the store's file {path} {what}: {str(error)[:_MESSAGE_CHARACTERS]}")

    def _open(self) -> duckdb.DuckDBPyConnection:
        with self._open_lock:
            if self._database is None:
                try:
                    self._database = self._connect()
                except duckdb.OutOfMemoryException:
                    raise
                except duckdb.Error as error:
                    damage = self._describe_damage(error)
                    message = str(error)[:_MESSAGE_CHARACTERS]
                    raise damage or StoreFileDamaged(
                        f"the store's file {self._path} cannot be read: {message}"
                    ) from error
            return self._database

    def _connect(self) -> duckdb.DuckDBPyConnection:
        segments_folder = self._folder / segments.FOLDER_NAME
        if not self._path.exists() and segments_folder.exists():
            # Without the file, nothing says which segments belong to the store: they would all be deleted. And events
            # that are stored in a new one are lost when the old one is put back.
            raise StoreFileDamaged(f"the store's file {self._path} is missing, but there is its folder of segments")
        database = self._connect_file()
        if schema.has_much_free_space(database, _SHRINK_MIN_BYTES):
            database.close()
            schema.shrink_file(self._path)
            database = self._connect_file()
        segments_folder.mkdir(exist_ok=True)
        # In a terminal, DuckDB would draw a progress bar between the lines of the log.
        database.execute("SET TimeZone = 'UTC'; SET checkpoint_threshold = '128MB'; SET enable_progress_bar = false")
        # The files never change, and the description of a large one takes a millisecond to read.
        database.execute("SET parquet_metadata_cache = true")
        schema.create_tables(database)
        database.execute(retention.CREATE_TABLES)
        self._old_part = schema.find_old_part(database)
        if self._old_part is not None:
            schema.record_old_fields(database)
        stored = segments.read_segments(database)
        if not are_totals_current(database):
            self._rebuild_totals(database)
        segments.delete_unknown_files(self._folder, stored)
        self._writer = SegmentWriter(
            self._folder, max((segment.id for segment in stored), default=0) + 1, self._limits.filter_rows
        )
        self._hot_rows, last_seq = _fetch_row(database.execute("SELECT count(*), coalesce(max(seq), 0) FROM hot"))
        self._next_seq = last_seq + 1
        return database

    def _connect_file(self) -> duckdb.DuckDBPyConnection:
        before = OpenFile(self._path)
        database = duckdb.connect(self._path, config={"memory_limit": self._memory_limit})
        self._file = OpenFile(self._path)
        if self._file.was_missing or not (before.was_missing or before.is_in_place()):
            database.close()
            raise StoreFileLost(f"the store's file {self._path} was deleted or replaced while Metronome opened it")
        return database

    def _rebuild_totals(self, database: duckdb.DuckDBPyConnection) -> None:
        columns = EventColumns()
        fields = ", ".join(f"{columns.raw_text(name)} AS {quote_name(name)}" for name in COUNTED_FIELDS)
        relation = columns.relation(self._read_snapshot(database))
        # The counts of dropped events are all that is left of them.
        kept = retention.events_kept_from(database)
        condition = "" if kept is None else f" WHERE ts >= DATE '{kept}'"
        source = f"(SELECT ts, {fields} FROM {relation}{condition})"
        self._in_transaction(database, lambda _created: rebuild_totals(database, source, kept))

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        return (self._database or self._open()).cursor()

    def _close(self) -> None:
        self._close_event.set()
        self._wake_event.set()
        with self._maintenance_lock:
            if self._maintenance_cursor is not None:
                self._maintenance_cursor.interrupt()
        if self._maintenance_thread is not None:
            self._maintenance_thread.join()
        self._write_thread.shutdown()
        self._read_threads.shutdown()
        self._rollup_readers.shutdown()
        self._pinger.shutdown()
        if self._database is not None:
            self._database.close()
            self._database = None

    # Writing: all of it runs in the write thread.

    def _write_batch(self, batch: DocumentBatch) -> WriteResult:
        database = self._open()
        try:
            stored = self._in_transaction(database, lambda created: self._insert_batch(database, batch, created))
        except _REJECTING_ERRORS as error:
            if batch.count == 1:
                return WriteResult(0, rejected=(RejectedDocument(batch.body.removesuffix(b"\n"), str(error)),))
            # One document fails the whole batch: bisect.
            first, second = batch.split_in_half()
            return self._write_batch(first) + self._write_batch(second)
        except duckdb.OutOfMemoryException as error:
            if batch.count == 1:
                reason = f"an event of {len(batch.body)} bytes cannot be stored: {str(error)[:_MESSAGE_CHARACTERS]}"
                return WriteResult(0, waiting=batch, failure=StoreOutOfMemory(reason))
            first, second = batch.split_in_half()
            return self._write_batch(first) + self._write_batch(second)
        if stored:
            self._after_change(database)
        return WriteResult(stored, batch.count - stored)

    def _check_file(self) -> None:
        """Check that writes are in the file at the store's path.

        Raises:
            StoreFileLost: the file was deleted or replaced.

        """
        if self._file is not None and not self._file.is_in_place():
            raise StoreFileLost(f"the store's file {self._path} was deleted or replaced while Metronome runs")

    def _insert_batch(self, database: duckdb.DuckDBPyConnection, batch: DocumentBatch, created: list[Segment]) -> int:
        extra_columns = self._load_batch(database, batch)
        months = self._describe_batch(database)
        if not months:
            return 0
        is_smaller = False
        if any(distinct < count for count, distinct in months.values()):
            database.execute(schema.DROP_DUPLICATES)
            is_smaller = True
        try:
            stored = segments.read_segments(database)
            known = self._find_known(database, list(months), stored)
        except _REJECTING_ERRORS as error:
            # No document is to blame for a segment that cannot be read.
            raise self._describe_damage(error) or StoreUnavailable(f"{self._path}: {error}") from error
        if known:
            database.execute(schema.DROP_KNOWN)
            is_smaller = True
        if is_smaller:
            months = self._describe_batch(database)
        self._store_batch(database, months, extra_columns, created, has_segments=bool(stored))
        return sum(count for count, _ in months.values())

    def _load_batch(self, database: duckdb.DuckDBPyConnection, batch: DocumentBatch) -> dict[str, str]:
        extra_columns: dict[str, str] = {}
        if batch.count >= self._limits.direct_rows:
            extra_columns = segments.sample_extra_columns(segments.sample_lines(batch.body))
        database.execute(schema.load_batch_statement(extra_columns), [batch.body.decode()])
        return extra_columns

    def _describe_batch(self, database: duckdb.DuckDBPyConnection) -> dict[date, tuple[int, int]]:
        """Return the number of documents and of distinct IDs by month."""
        months: dict[date, tuple[int, int]] = {}
        for month, count, identified, distinct in database.execute(schema.DESCRIBE_BATCH).fetchall():
            if month is None or not identified:
                raise duckdb.InvalidInputException("a document needs @timestamp and event_id")
            months[month] = count, distinct
        return months

    def _find_known(self, database: duckdb.DuckDBPyConnection, months: list[date], stored: tuple[Segment, ...]) -> int:
        """Fill the table ``known`` with the identities of the batch that the store has, and return their number.

        Large segments are only read if their filters say that they may have some.
        """
        of_months = [segment for segment in stored if segment.month in months]
        large = [segment for segment in of_months if self._filters.has_filter(segment)]
        small = [segment for segment in of_months if segment not in large]
        start, end = months[0], _next_month(months[-1])
        columns = EventColumns()
        event_id = columns.raw_text(EVENT_ID)
        relation = columns.relation(Snapshot((schema.HOT_PART,), tuple(small), self._folder))
        database.execute(
            f"CREATE OR REPLACE TEMP TABLE known AS SELECT event_id, month FROM "
            f"(SELECT {event_id} AS event_id, {schema.MONTH_SQL} AS month FROM {relation} WHERE ts >= ? AND ts < ?) "
            "SEMI JOIN batch USING (event_id, month)",
            [start, end],
        )
        if self._old_part is not None:
            database.execute(schema.FIND_KNOWN_IN_OLD, [start, end])
        self._find_known_in_large(database, large)
        return int(_fetch_row(database.execute("SELECT count(*) FROM known"))[0])

    def _find_known_in_large(self, database: duckdb.DuckDBPyConnection, large: list[Segment]) -> None:
        hashes: dict[date, list[int]] = {}
        for segment in large:
            if segment.month not in hashes:
                rows = database.execute(
                    f"SELECT {item_hash_sql(EVENT_ID)} FROM batch WHERE month = ?", [segment.month]
                ).fetchall()
                hashes[segment.month] = [number for (number,) in rows]
            possible = self._filters.find_possible(segment, hashes[segment.month])
            if possible:
                part = segments.segments_part(self._folder, [segment])
                database.execute(
                    f"INSERT INTO known SELECT event_id, ?::DATE FROM {part.relation} WHERE event_id IN ("
                    f"SELECT event_id FROM batch WHERE month = ? AND {item_hash_sql(EVENT_ID)} IN "
                    "(SELECT unnest(?::UBIGINT[])))",
                    [segment.month, segment.month, possible],
                )

    def _store_batch(
        self,
        database: duckdb.DuckDBPyConnection,
        months: dict[date, tuple[int, int]],
        extra_columns: dict[str, str],
        created: list[Segment],
        *,
        has_segments: bool,
    ) -> None:
        """Store the events of the batch, which the store does not have: months with many of them as segments."""
        types = {name: segments.likely_type(name) for name in COLUMN_FIELDS} | extra_columns
        direct: list[date] = []
        rows = self._hot_rows + sum(count for count, _ in months.values())
        if rows >= self._limits.table_rows or has_segments:
            direct = [month for month, (count, _) in months.items() if count >= self._limits.direct_rows]
        for month in direct:
            relation = f"(SELECT * FROM batch WHERE month = DATE '{month}')" if len(months) > 1 else "batch"
            created.append(self._writer.write_events(database, relation, month, types, _now()))
            segments.record_segment(database, created[-1])
        if len(direct) < len(months):
            (inserted,) = _fetch_row(database.execute(schema.INSERT_HOT, [self._next_seq, direct]))
            self._hot_rows += inserted
            self._next_seq += 1
        for counts in ALL_COUNTS:
            database.execute(counts.insert_statement("batch"))
        (recorded,) = _fetch_row(database.execute("SELECT count(*) FROM fields"))
        if recorded < LISTED_FIELDS_MAX:
            database.execute(schema.RECORD_FIELDS, [LISTED_FIELDS_MAX - recorded])

    def _replace_batch(self, batch: DocumentBatch) -> int:
        if not batch.count:
            return 0
        database = self._open()

        def replace_stored(created: list[Segment]) -> int:
            extra_columns = self._load_batch(database, batch)
            database.execute("DELETE FROM batch WHERE event_id IS NULL OR ts IS NULL")
            database.execute(schema.DROP_DUPLICATES)
            self._collect_gone(
                database, None, *_fetch_row(database.execute("SELECT min(ts), max(ts) FROM batch")), in_batch=True
            )
            database.execute("DELETE FROM batch WHERE (event_id, ts) NOT IN (SELECT event_id, ts FROM gone)")
            self._remove_gone(database)
            months = self._describe_batch(database)
            has_segments = bool(segments.read_segments(database))
            self._store_batch(database, months, extra_columns, created, has_segments=has_segments)
            return sum(count for count, _ in months.values())

        replaced = self._change_stored(database, replace_stored)
        if replaced:
            self._after_change(database)
        return replaced

    def _delete_events(self, where: Filter | None, before: datetime | None) -> int:
        database = self._open()

        def delete(_created: list[Segment]) -> int:
            deleted = 0
            if where is None and before is not None:
                # Without reading them: they may be most of the store.
                month = before.astimezone(UTC).date().replace(day=1)
                stored, has_old = segments.read_segments(database), self._old_part is not None
                deleted = retention.delete_months(database, stored, month, has_old=has_old)
            self._collect_gone(database, where, None, before)
            deleted += self._remove_gone(database)
            retention.forget_counts(database, where, before)
            return deleted

        deleted = self._change_stored(database, delete)
        if deleted:
            self._rewrite_at_once = True
            self._after_change(database)
        return deleted

    def _drop_events(self, before: date) -> int:
        database = self._open()
        stored, has_old = segments.read_segments(database), self._old_part is not None
        return self._change_stored(
            database, lambda _created: retention.drop_events(database, stored, before, has_old=has_old)
        )

    def _drop_counts(self, before: date) -> None:
        database = self._open()
        self._in_transaction(database, lambda _created: retention.drop_counts(database, before))

    def _has_dropped(self) -> bool:
        with contextlib.closing(self._cursor()) as cursor:
            return bool(cursor.execute("SELECT 1 FROM segments WHERE dropped_count > 0 LIMIT 1").fetchall())

    def _checkpoint(self) -> None:
        # A checkpoint is not possible beside another transaction that writes; the next one copies the log as well.
        with contextlib.suppress(duckdb.TransactionException):
            self._open().execute("CHECKPOINT")

    def _change_stored(self, database: duckdb.DuckDBPyConnection, change: Callable[[list[Segment]], int]) -> int:
        before = segments.read_segments(database)
        changed = self._in_transaction(database, change)
        # After the commit: maintenance that reads the new number also sees the change.
        self._generation += 1
        after = {segment.id for segment in segments.read_segments(database)}
        self._keeper.remove(segment for segment in before if segment.id not in after)
        self._hot_rows = _fetch_row(database.execute("SELECT count(*) FROM hot"))[0]
        return changed

    def _collect_gone(
        self,
        database: duckdb.DuckDBPyConnection,
        where: Filter | None,
        start: datetime | None,
        before: datetime | None,
        *,
        in_batch: bool = False,
    ) -> None:
        """Fill the table ``gone`` with the stored events that match, each with the number of its part."""
        snapshot = self._read_snapshot(database)
        columns, parameters = EventColumns(), list[object]()
        fields = ", ".join(f"{columns.raw_text(name)} AS {name}" for name in (EVENT_ID, *COUNTED_FIELDS))
        if in_batch:
            start = None if start is None else start.replace(tzinfo=UTC)
            before = None if before is None else before.replace(tzinfo=UTC) + timedelta(milliseconds=1)
        condition = where_condition(where, start, before, columns, parameters)
        relation = columns.relation(snapshot, start, before, with_number=True)
        database.execute(
            f"CREATE OR REPLACE TEMP TABLE gone AS SELECT * FROM "
            f"(SELECT part, ts, {fields} FROM {relation} WHERE {condition})"
            + (" SEMI JOIN batch USING (event_id, ts)" if in_batch else ""),
            parameters,
        )

    def _remove_gone(self, database: duckdb.DuckDBPyConnection) -> int:
        """Remove the events of the table ``gone`` from the store, and return their number."""
        counts = dict(database.execute("SELECT part, count(*) FROM gone GROUP BY part").fetchall())
        if schema.HOT_NUMBER in counts:
            database.execute(schema.DELETE_GONE_HOT)
        if schema.OLD_NUMBER in counts:
            database.execute(schema.DELETE_GONE_OLD)
        changed = [segment for segment in segments.read_segments(database) if segment.id in counts]
        emptied = [segment for segment in changed if counts[segment.id] == segment.live_rows]
        segments.forget_segments(database, emptied)
        for segment in changed:
            if segment not in emptied:
                database.execute(segments.DROP_GONE, [segment.id])
                database.execute(segments.COUNT_DROPPED, [counts[segment.id], segment.id])
        for level in ALL_COUNTS:
            database.execute(level.insert_statement("gone", deleted=True))
        return sum(counts.values())

    def _after_change(self, database: duckdb.DuckDBPyConnection) -> None:
        full = [counts for counts in ALL_COUNTS if counts.is_full(database, self._limits.rollup_rows)]

        def merge(_created: list[Segment]) -> None:
            for counts in full:
                counts.merge_levels(database, self._limits.rollup_rows)

        if full:
            self._in_transaction(database, merge)
        self._wake_event.set()

    def _in_transaction(self, database: duckdb.DuckDBPyConnection, work: Callable[[list[Segment]], Result]) -> Result:
        """Run work in a transaction; it adds the segments that it writes to its argument."""
        created: list[Segment] = []
        hot_rows = self._hot_rows
        database.execute("BEGIN")
        try:
            result = work(created)
            database.execute("COMMIT")
        except BaseException:
            self._hot_rows = hot_rows
            with contextlib.suppress(duckdb.Error):
                database.execute("ROLLBACK")
            segments.delete_files(self._folder, created)
            raise
        return result

    # Reading.

    @contextlib.contextmanager
    def _snapshot(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[Snapshot]:
        """Provide all events of a transaction, whose files are kept until the end of the block."""
        with self._keeper.reading():
            cursor.execute("BEGIN")
            try:
                yield self._read_snapshot(cursor)
            finally:
                with contextlib.suppress(duckdb.Error):
                    cursor.execute("ROLLBACK")

    @contextlib.contextmanager
    def _counts_snapshot(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Provide all counts of a transaction, without events."""
        cursor.execute("BEGIN")
        try:
            yield None
        finally:
            with contextlib.suppress(duckdb.Error):
                cursor.execute("ROLLBACK")

    def _read_snapshot(self, cursor: duckdb.DuckDBPyConnection) -> Snapshot:
        tables = [schema.HOT_PART]
        if self._old_part is not None and (old := schema.find_old_part(cursor)) is not None:
            tables.append(old)
        return Snapshot(tuple(tables), segments.read_segments(cursor), self._folder)

    def _run_queries(self, cursor: duckdb.DuckDBPyConnection, queries: tuple[Query, ...]) -> tuple[QueryResult, ...]:
        if combined := compile_combined_query(queries):
            rows = fetch_rows(cursor.execute(combined.statement.sql, combined.statement.parameters))
            return tuple(
                build_result(query, [*query_rows])
                for query, query_rows in zip(queries, combined.split_rows(rows), strict=True)
            )
        snapshot: Snapshot | None
        with self._counts_snapshot(cursor) if all(map(is_counted, queries)) else self._snapshot(cursor) as snapshot:
            results = self._run_shared_scans(cursor, queries, snapshot)
            return tuple(
                results[at] if at in results else self._run_query(cursor, query, snapshot)
                for at, query in enumerate(queries)
            )

    def _run_shared_scans(
        self, cursor: duckdb.DuckDBPyConnection, queries: tuple[Query, ...], snapshot: Snapshot | None
    ) -> dict[int, QueryResult]:
        """Return the results of queries that can share a scan and have few groups, by their indices."""
        results: dict[int, QueryResult] = {}
        for indices in group_by_scan(queries).values():
            shared = [queries[index] for index in indices]
            statement = compile_shared_scan(shared, snapshot)
            cursor.execute(f"{statement.sql} LIMIT {_PYTHON_SORT_MAX_ROWS + 1}", statement.parameters)
            rows = fetch_rows(cursor)
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

    def _run_query(self, cursor: duckdb.DuckDBPyConnection, query: Query, snapshot: Snapshot | None) -> QueryResult:
        statement = _compile(query, snapshot)
        rows = fetch_rows(cursor.execute(f"{statement.sql} LIMIT {_PYTHON_SORT_MAX_ROWS + 1}", statement.parameters))
        if len(rows) <= _PYTHON_SORT_MAX_ROWS:
            return build_result(query, [_format_row(query, row) for row in rows])
        statement = compile_sorted_query(query, statement)
        rows = fetch_rows(cursor.execute(statement.sql, statement.parameters))
        if not rows:
            # The offset is past the last row, so no row has the total.
            return replace(self._run_query(cursor, replace(query, limit=1, offset=0), snapshot), rows=())
        shown = tuple(_format_row(query, row[:-1]) for row in rows)
        return QueryResult(query.columns, shown, rows[0][-1], exact=not has_rounded_integers(query, shown))

    def _back_up(self, folder: Path) -> None:
        with contextlib.closing(self._cursor()) as cursor:
            tables = schema.attach_copy(cursor, folder / FILE_NAME)
            try:
                with self._keeper.reading():
                    cursor.execute("BEGIN")
                    for table in tables:
                        cursor.execute(schema.copy_table_statement(table))
                    stored = segments.read_segments(cursor)
                    cursor.execute("COMMIT")
                    segments.link_files(self._folder, folder, stored)
            finally:
                with contextlib.suppress(duckdb.Error):
                    cursor.execute("ROLLBACK")
                schema.detach_copy(cursor)
        fsync_path(folder / FILE_NAME)

    # Maintenance: files are written in a thread of their own, and replaced in the write thread.

    def _maintain_forever(self) -> None:
        _lower_thread_priority()
        while not self._close_event.is_set():
            try:
                wait = self._maintain()
            except Exception as error:
                if self._close_event.is_set():
                    return
                if isinstance(error, duckdb.OutOfMemoryException) and self._limits.segment_rows > _MIN_SEGMENT_ROWS:
                    # Smaller segments are slower to read, but segments that are never merged are slower still.
                    self._limits = replace(self._limits, segment_rows=self._limits.segment_rows // 2)
                    log.warning("store_merges_less", segment_rows=self._limits.segment_rows, error=str(error)[:200])
                    continue
                log.exception("store_maintenance_failed", error=str(error))
                # Not earlier, whatever is written meanwhile.
                self._close_event.wait(_RETRY_SECONDS)
                continue
            self._wake_event.wait(wait)
            self._wake_event.clear()

    def _maintain(self) -> float | None:
        """Do what is due, and return after how many seconds there may be more to do; None for never."""
        wait: float | None = 0.0
        # A second thread would choose the same job.
        with self._job_lock:
            while wait == 0.0 and not self._close_event.is_set():
                # Before the choice: it must not be based on segments that have changed when the work begins.
                generation = self._generation
                job, wait = self._choose_job()
                if job is not None:
                    self._run_job(job, generation)
        return wait

    def _choose_job(self) -> tuple[Job | None, float | None]:
        if self._old_part is not None:
            return MoveOldEvents(), 0.0
        with contextlib.closing(self._cursor()) as cursor:
            cursor.execute("BEGIN")
            stored = segments.read_segments(cursor)
            hot: dict[date, tuple[int, int]] = {}
            if self._hot_rows >= self._limits.max_hot_rows(has_segments=bool(stored)):
                hot = {month: (count, seq) for month, count, seq in cursor.execute(schema.COUNT_HOT).fetchall()}
            cursor.execute("ROLLBACK")
        job = (
            maintenance.choose_rewrite(stored, at_once=self._rewrite_at_once)
            or maintenance.choose_seal(hot, self._limits, has_segments=bool(stored))
            or maintenance.choose_merge(stored, self._limits)
        )
        if job is not None:
            return job, 0.0
        self._rewrite_at_once = False
        return maintenance.choose_quiet_merge(stored, self._limits, _now())

    def _run_job(self, job: Job, generation: int) -> None:
        with contextlib.closing(self._cursor()) as cursor:
            with self._maintenance_lock:
                self._maintenance_cursor = cursor
            try:
                with self._snapshot(cursor) as snapshot:
                    finish = self._prepare_job(cursor, snapshot, job)
            finally:
                with self._maintenance_lock:
                    self._maintenance_cursor = None
        if finish is not None:
            self._write_thread.submit(self._finish_job, finish, generation).result()

    def _prepare_job(self, cursor: duckdb.DuckDBPyConnection, snapshot: Snapshot, job: Job) -> "_PreparedJob | None":
        """Write the segment of a job; None if the segments to merge have changed since they were chosen."""
        if isinstance(job, Merge):
            if not all(segment in snapshot.segments for segment in job.segments):
                return None
            merged = self._writer.merge(cursor, job.segments, _now())
            return _PreparedJob(merged, replaced=job.segments)
        if isinstance(job, Seal):
            relation = f"(SELECT * FROM hot WHERE seq <= {job.last_seq:d} AND {schema.MONTH_SQL} = DATE '{job.month}')"
            part = replace(schema.HOT_PART, relation=relation)
            segment = self._write_part(cursor, part, job.month)
            return _PreparedJob(segment, delete=SqlStatement(schema.DELETE_SEALED, [job.last_seq, job.month]))
        return self._prepare_move(cursor, snapshot)

    def _prepare_move(self, cursor: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> "_PreparedJob":
        old = next((part for part in snapshot.tables if part.number == schema.OLD_NUMBER), None)
        chosen, into_hot = None, False
        if old is not None:
            (rows,) = _fetch_row(cursor.execute(schema.COUNT_OLD))
            into_hot = not snapshot.segments and self._hot_rows + rows < self._limits.table_rows
            # The write thread moves rows, and batches wait for it; files are written beside it.
            share = _MOVED_SHARE if into_hot else 1
            chosen = schema.choose_old_range(cursor, -(-self._limits.old_rows // share))
        if old is None or chosen is None:
            return _PreparedJob(None, delete=SqlStatement("DROP TABLE IF EXISTS events"), ends_move=True)
        month, last = chosen
        relation = f"(SELECT * FROM events WHERE ts >= TIMESTAMP '{month}' AND ts <= TIMESTAMP '{last}')"
        part, delete = replace(old, relation=relation), SqlStatement(schema.DELETE_MOVED, [month, last])
        if into_hot:
            events = segments.events_relation(Snapshot((part,), (), self._folder), COLUMN_FIELDS)
            return _PreparedJob(None, insert=schema.move_into_hot_statement(events), delete=delete)
        return _PreparedJob(self._write_part(cursor, part, month), delete=delete)

    def _write_part(self, cursor: duckdb.DuckDBPyConnection, part: Part, month: date) -> Segment:
        sample = cursor.execute(f"SELECT doc FROM {part.relation} USING SAMPLE reservoir(1000 ROWS)").fetchall()
        extra_columns = segments.sample_extra_columns([document.encode() for (document,) in sample])
        types = {name: segments.likely_type(name) for name in COLUMN_FIELDS} | extra_columns
        relation = segments.events_relation(Snapshot((part,), (), self._folder), types)
        return self._writer.write_events(cursor, relation, month, types, _now())

    def _finish_job(self, job: "_PreparedJob", generation: int) -> None:
        if generation != self._generation or self._close_event.is_set():
            # It may have events that were deleted meanwhile.
            segments.delete_files(self._folder, [job.segment] if job.segment else [])
            return
        database = self._open()

        def swap(created: list[Segment]) -> None:
            if job.segment is not None:
                created.append(job.segment)
                segments.record_segment(database, job.segment)
            segments.forget_segments(database, job.replaced)
            if job.insert is not None:
                database.execute(job.insert, [self._next_seq])
                self._next_seq += 1
            if job.delete is not None:
                result = database.execute(job.delete.sql, job.delete.parameters)
                if job.segment is not None and _fetch_row(result)[0] != job.segment.rows:
                    raise duckdb.InternalException("a segment has other events than those that it replaces")

        self._in_transaction(database, swap)
        self._keeper.remove(job.replaced)
        self._hot_rows = _fetch_row(database.execute("SELECT count(*) FROM hot"))[0]
        if job.ends_move:
            self._old_part = None
            log.info("store_upgraded")
            # Impossible while others write; DuckDB does it later by itself.
            with contextlib.suppress(duckdb.TransactionException):
                database.execute("CHECKPOINT")


@dataclass(frozen=True, slots=True)
class _PreparedJob:
    """A segment that is written or rows to insert, and what these replace: segments, or rows to delete."""

    segment: Segment | None
    replaced: tuple[Segment, ...] = ()
    insert: str | None = None
    delete: SqlStatement | None = None
    ends_move: bool = False


def _compile(query: Query, snapshot: Snapshot | None) -> SqlStatement:
    statement = compile_counted_query(query, snapshot)
    if statement is None:
        if snapshot is None:
            raise ValueError("the query needs events")
        statement = compile_query(query, snapshot)
    return statement


def _compile_document_queries(
    cursor: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    where: Filter | None,
    start: datetime | None,
    end: datetime | None,
) -> Iterator[SqlStatement]:
    """Yield the statements that read documents, one for each month, so that not all have to be sorted at once."""
    months = {segment.month for segment in snapshot.segments}
    for part in snapshot.tables:
        months |= {
            month for (month,) in cursor.execute(f"SELECT DISTINCT {schema.MONTH_SQL} FROM {part.relation}").fetchall()
        }
    for month in sorted(months):
        month_start, month_end = (datetime(at.year, at.month, 1, tzinfo=UTC) for at in (month, _next_month(month)))
        first = month_start if start is None else max(start, month_start)
        last = month_end if end is None else min(end, month_end)
        if first >= last:
            continue
        columns, statement = EventColumns(), SqlStatement()
        condition = where_condition(where, first, last, columns, statement.parameters)
        relation = columns.relation(snapshot, first, last, with_document=True)
        statement.sql = f"SELECT doc FROM {relation} WHERE {condition} ORDER BY ts"
        yield statement


def _next_month(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _now() -> datetime:
    """Return the time, in UTC and without a time zone, as DuckDB does."""
    return datetime.now(UTC).replace(tzinfo=None)


def _lower_thread_priority() -> None:
    """Give this thread, and those that DuckDB starts from it, a lower priority than threads that clients wait for."""
    # Only on Linux does this call set the priority of a thread.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _format_row(query: Query, row: tuple[Any, ...]) -> tuple[Any, ...]:
    width = len(query.group_by)
    return (*(format_group(name, raw) for name, raw in zip(query.group_by, row, strict=False)), *row[width:])


def _fetch_row(result: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    row = result.fetchone()
    if row is None:
        raise duckdb.InternalException("the statement returned no row")
    return row
