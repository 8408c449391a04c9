"""Drop old events but keep their counts, and delete the counts of events that were dropped before.

The table ``kept`` has the start of the first month whose events were not dropped. Before it, counts cannot be
subtracted event by event, as the events are gone.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final

import duckdb

from metronome.stores.duckdb import schema, segments
from metronome.stores.duckdb.rollup import ALL_COUNTS, DAILY, MONTHLY, item_hash
from metronome.stores.duckdb.segments import Segment
from metronome.stores.query import Equals, Filter

CREATE_TABLES: Final = "CREATE TABLE IF NOT EXISTS kept(events_from DATE);"


def drop_events(database: duckdb.DuckDBPyConnection, stored: Iterable[Segment], before: date, *, has_old: bool) -> int:
    """Delete the events before the first day of a month, without their counts; in the transaction of the caller.

    Args:
        database: the connection.
        stored: the segments of the store.
        before: the first day of a month.
        has_old: whether there is the table of an older version.

    Returns:
        The number of events.

    """
    dropped = _delete_months(database, stored, before, has_old=has_old)
    kept = events_kept_from(database)
    if kept is None or kept < before:
        database.execute("DELETE FROM kept")
        database.execute("INSERT INTO kept VALUES (?)", [before])
    return dropped


def delete_months(
    database: duckdb.DuckDBPyConnection, stored: Iterable[Segment], before: date, *, has_old: bool
) -> int:
    """Delete the events before the first day of a month with all their counts; as `drop_events`."""
    for counts in ALL_COUNTS:
        for table in counts.tables:
            database.execute(f"DELETE FROM {table} WHERE {counts.unit} < ?", [before])
    return _delete_months(database, stored, before, has_old=has_old)


def _delete_months(
    database: duckdb.DuckDBPyConnection, stored: Iterable[Segment], before: date, *, has_old: bool
) -> int:
    old = [segment for segment in stored if segment.month < before]
    segments.forget_segments(database, old)
    dropped = sum(segment.live_rows for segment in old)
    tables = [schema.HOT_TABLE, *([schema.OLD_TABLE] if has_old else [])]
    for table in tables:
        ((count,),) = database.execute(f"DELETE FROM {table} WHERE ts < ?", [before]).fetchall()
        dropped += count
    return dropped


def events_kept_from(database: duckdb.DuckDBPyConnection) -> date | None:
    """Return the first day of the first month whose events were not dropped; None if none were."""
    rows = database.execute("SELECT events_from FROM kept").fetchall()
    return rows[0][0] if rows else None


def drop_counts(database: duckdb.DuckDBPyConnection, before: date) -> None:
    """Delete the counts of dropped events before the first day of a month; in the transaction of the caller."""
    kept = events_kept_from(database)
    if kept is None:
        return
    for counts in ALL_COUNTS:
        for table in counts.tables:
            database.execute(f"DELETE FROM {table} WHERE {counts.unit} < ?", [min(before, kept)])


def forget_counts(database: duckdb.DuckDBPyConnection, where: Filter | None, before: datetime | None) -> None:
    """Delete the counts of events that were dropped before and would be deleted now: of an item, or before a time.

    Others cannot be found in counts. In the transaction of the caller.
    """
    kept = events_kept_from(database)
    if kept is None:
        return
    if isinstance(where, Equals) and where.field == "id" and isinstance(where.value, str):
        for counts in (DAILY, MONTHLY):
            for table in counts.tables:
                database.execute(
                    f"DELETE FROM {table} WHERE item = ? AND id = ? AND {counts.unit} < ?",
                    [item_hash(where.value), where.value, kept],
                )
    elif where is None and before is not None:
        _forget_counts_before(database, min(before.astimezone(UTC).date(), kept))


def _forget_counts_before(database: duckdb.DuckDBPyConnection, before: date) -> None:
    month = before.replace(day=1)
    drop_counts(database, month)
    if before == month:
        return
    for counts in ALL_COUNTS:
        if counts is not MONTHLY:
            for table in counts.tables:
                database.execute(f"DELETE FROM {table} WHERE {counts.unit} < ?", [before])
    for table in MONTHLY.tables:
        database.execute(f"DELETE FROM {table} WHERE month = ?", [month])
    names = ", ".join(name for name in MONTHLY.columns if name != MONTHLY.unit)
    database.execute(
        f"INSERT INTO {MONTHLY.tables[0]} BY NAME SELECT {names}, ?::DATE AS month, sum(n)::BIGINT AS n "
        f"FROM {DAILY.relation} WHERE date_trunc('month', day) = ? GROUP BY ALL HAVING sum(n) <> 0",
        [month, month],
    )
