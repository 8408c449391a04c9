"""Bringing the file of an older Metronome up to date."""

import duckdb
import structlog

from metronome.stores.duckdb import schema

log = structlog.get_logger()


def bring_up_to_date(database: duckdb.DuckDBPyConnection) -> None:
    """Add the columns that a file of an older Metronome lacks, filled from the documents; idempotent.

    The table is written anew: changing each row in its place would hold all of them in memory.
    """
    missing = {name for (name,) in database.execute(schema.MISSING).fetchall()}
    if not missing:
        return
    log.info("store_brought_up_to_date", columns=len(missing))
    columns = ", ".join(
        f"json_extract_string(doc, '/{name}') AS \"{name}\"" if name in missing else f'"{name}"'
        for name in schema.COLUMNS
    )
    database.execute("BEGIN")
    database.execute(f"CREATE TABLE newer AS SELECT key, ts, {columns}, doc FROM events")
    database.execute("DROP TABLE events")
    database.execute("ALTER TABLE newer RENAME TO events")
    database.execute(schema.NOTE_ALL_FIELDS)
    database.execute("COMMIT")
