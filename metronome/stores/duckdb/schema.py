"""The tables of ``metronome.duckdb``, the statements that parse and store batches, and the upgrade of older files.

``hot`` holds the events of a small store, and those of small batches until a segment is written with them; ``events``
those of a file that an older version wrote, until all are moved. `metronome.stores.duckdb.segments` and
`metronome.stores.duckdb.rollup` have tables of their own.
"""

from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Final

import duckdb
import structlog

from metronome.fields import COLUMN_FIELDS
from metronome.files import fsync_path
from metronome.stores.duckdb import rollup, segments
from metronome.stores.duckdb.sources import PARAMS_PREFIX, TEXT, Part, quote_literal, quote_name

log = structlog.get_logger()

HOT_TABLE: Final = "hot"
OLD_TABLE: Final = "events"
HOT_NUMBER: Final = 0
OLD_NUMBER: Final = -1
_COPY: Final = "backup_copy"

_CREATE_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS hot(
    seq BIGINT, event_id VARCHAR, ts TIMESTAMP,
    {", ".join(f'"{name}" VARCHAR' for name in COLUMN_FIELDS)},
    doc VARCHAR);
CREATE TABLE IF NOT EXISTS fields(name VARCHAR);
{segments.CREATE_TABLES}
{rollup.CREATE_TABLES}
"""

MONTH_SQL: Final = "date_trunc('month', ts)::DATE"

DESCRIBE_BATCH: Final = """
SELECT month, count(*), count(event_id) = count(*), count(DISTINCT event_id) FROM batch GROUP BY month ORDER BY month
"""

DROP_DUPLICATES: Final = """
DELETE FROM batch WHERE rowid NOT IN (SELECT min(rowid) FROM batch GROUP BY event_id, month)
"""

DROP_KNOWN: Final = "DELETE FROM batch USING known WHERE batch.event_id = known.event_id AND batch.month = known.month"

_HOT_COLUMNS: Final = ", ".join(f'"{name}"' for name in ("event_id", "ts", *COLUMN_FIELDS, "doc"))

INSERT_HOT: Final = f"""
INSERT INTO hot (seq, {_HOT_COLUMNS}) SELECT ?, {_HOT_COLUMNS} FROM batch
WHERE month NOT IN (SELECT unnest(?::DATE[]))
"""

RECORD_FIELDS: Final = """
INSERT INTO fields SELECT name FROM (SELECT DISTINCT unnest(json_keys(doc)) AS name FROM batch)
WHERE name NOT IN (SELECT name FROM fields) ORDER BY name LIMIT ?
"""

COUNT_HOT: Final = f"SELECT {MONTH_SQL} AS month, count(*), max(seq) FROM hot GROUP BY month ORDER BY month"

DELETE_SEALED: Final = f"DELETE FROM hot WHERE seq <= ? AND {MONTH_SQL} = ?"

FIND_KNOWN_IN_OLD: Final = """
INSERT INTO known SELECT event_id, month FROM batch WHERE md5_number(event_id || ts::DATE::VARCHAR) IN (
    SELECT key FROM events WHERE ts >= ? AND ts < ?)
"""
"""Older versions identified events by ID and UTC day, and stored the hash of both."""

DELETE_GONE_HOT: Final = (
    f"DELETE FROM hot WHERE (event_id, ts) IN (SELECT event_id, ts FROM gone WHERE part = {HOT_NUMBER})"
)

DELETE_GONE_OLD: Final = f"""
DELETE FROM events WHERE (json_extract_string(doc, '/event_id'), ts) IN (
    SELECT event_id, ts FROM gone WHERE part = {OLD_NUMBER})
"""

COUNT_OLD: Final = "SELECT count(*) FROM events"

DELETE_MOVED: Final = "DELETE FROM events WHERE ts >= ? AND ts <= ?"

HOT_PART: Final = Part(
    HOT_TABLE, dict.fromkeys(("event_id", *COLUMN_FIELDS), TEXT), has_long_texts=True, number=HOT_NUMBER
)


def load_batch_statement(extra_columns: Iterable[str]) -> str:
    """Return the SQL that parses documents, given as the lines of one text, into the temporary table ``batch``.

    Args:
        extra_columns: columns of the batch in addition to those of known fields.

    """
    top = ["@timestamp", "event_id", *COLUMN_FIELDS]
    params: list[str] = []
    for column in extra_columns:
        (params if column.startswith(PARAMS_PREFIX) else top).append(column)
    structure = [f'"{name}": "VARCHAR"' for name in top]
    if params:
        inner = ", ".join(f'"{column.removeprefix(PARAMS_PREFIX)}": "VARCHAR"' for column in params)
        structure.append(f'"params": {{{inner}}}')
    columns = [f"f.{quote_name(name)} AS {quote_name(name)}" for name in top[2:]]
    columns += [f"f.params.{quote_name(name.removeprefix(PARAMS_PREFIX))} AS {quote_name(name)}" for name in params]
    return f"""
    CREATE OR REPLACE TEMP TABLE batch AS
    SELECT *, {MONTH_SQL} AS month FROM (
        SELECT f."event_id" AS event_id, f."@timestamp"::TIMESTAMP AS ts, {", ".join(columns)}, doc
        FROM (
            SELECT line AS doc, from_json(line, {quote_literal("{" + ", ".join(structure) + "}")}) AS f
            FROM (SELECT unnest(string_split(?, chr(10))) AS line) WHERE line <> ''))
    """


def create_tables(database: duckdb.DuckDBPyConnection) -> None:
    """Create the tables that are missing, and upgrade those of an older version; idempotent.

    The events of an older version stay where they are until the store has moved them into segments.
    """
    database.execute("BEGIN")
    try:
        database.execute(_CREATE_TABLES)
        for counts in rollup.ALL_COUNTS:
            for statement in counts.create_statements():
                database.execute(statement)
        if _list_columns(database, "rollup"):
            log.info("store_brought_up_to_date")
            rollup.upgrade_rollup(database)
        if _list_columns(database, "totals"):
            rollup.move_old_totals(database)
        for name in set(COLUMN_FIELDS) - set(_list_columns(database, HOT_TABLE)):
            database.execute(f"ALTER TABLE hot ADD COLUMN {quote_name(name)} VARCHAR")
            database.execute(
                f"UPDATE hot SET {quote_name(name)} = json_extract_string(doc, {quote_literal(f'/{name}')})"
            )
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def find_old_part(database: duckdb.DuckDBPyConnection) -> Part | None:
    """Return the table of events that an older version wrote; None if there is none, or no longer."""
    columns = _list_columns(database, OLD_TABLE)
    if not columns:
        return None
    types = {name: TEXT for name in columns if name in COLUMN_FIELDS}
    return Part(OLD_TABLE, types, has_long_texts=True, number=OLD_NUMBER)


def record_old_fields(database: duckdb.DuckDBPyConnection) -> None:
    """Record the fields of the events of an older version, if that version did not."""
    if not database.execute("SELECT count(*) FROM fields").fetchall()[0][0]:
        database.execute("INSERT INTO fields SELECT DISTINCT unnest(json_keys(doc)) FROM events")


def choose_old_range(cursor: duckdb.DuckDBPyConnection, max_rows: int) -> tuple[date, datetime] | None:
    """Return the month of the oldest events of an older version, and the time of the last event to move at once.

    Returns:
        None if no events are left.

    """
    ((month,),) = cursor.execute(f"SELECT min({MONTH_SQL}) FROM events").fetchall()
    if month is None:
        return None
    ((last,),) = cursor.execute(
        f"SELECT max(ts) FROM (SELECT ts FROM events WHERE {MONTH_SQL} = ? ORDER BY ts LIMIT {max_rows:d})", [month]
    ).fetchall()
    return month, last


def move_into_hot_statement(relation: str) -> str:
    """Return the SQL that adds the events of a relation, with all columns of the hot table but ``seq``, to it."""
    return f"INSERT INTO hot (seq, {_HOT_COLUMNS}) SELECT ?, {_HOT_COLUMNS} FROM {relation}"


def attach_copy(cursor: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """Create a file for a copy of the tables, open it beside that of the store, and return the names of the tables."""
    cursor.execute(f"ATTACH {quote_literal(str(path))} AS {_COPY}")
    rows = cursor.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT temporary"
    ).fetchall()
    return [name for (name,) in rows]


def copy_table_statement(table: str) -> str:
    """Return the SQL that copies a table into the file of `attach_copy`."""
    return f"CREATE TABLE {_COPY}.{quote_name(table)} AS FROM {quote_name(table)}"


def detach_copy(cursor: duckdb.DuckDBPyConnection) -> None:
    """Complete and close the file of `attach_copy`."""
    cursor.execute(f"CHECKPOINT {_COPY}")
    cursor.execute(f"DETACH {_COPY}")


def has_much_free_space(database: duckdb.DuckDBPyConnection, min_bytes: int) -> bool:
    """Return whether most of the file is free, and at least so many bytes."""
    ((block_size, used, free),) = database.execute(
        "SELECT block_size, used_blocks, free_blocks FROM pragma_database_size()"
    ).fetchall()
    return bool(free > used and free * block_size >= min_bytes)


def shrink_file(path: Path) -> None:
    """Replace a file, which no process has open, by a copy of what it holds."""
    copy = path.with_suffix(".copy")
    copy.unlink(missing_ok=True)
    with duckdb.connect() as database:
        database.execute(f"ATTACH {quote_literal(str(path))} AS larger (READ_ONLY)")
        database.execute(f"ATTACH {quote_literal(str(copy))} AS smaller")
        database.execute("COPY FROM DATABASE larger TO smaller")
    fsync_path(copy)
    copy.replace(path)
    fsync_path(path.parent)


def _list_columns(database: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    rows = database.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() AND table_name = ?"
        " AND NOT internal",
        [table],
    ).fetchall()
    return [name for (name,) in rows]
