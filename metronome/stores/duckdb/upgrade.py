"""Bringing the file of an older Metronome up to date."""

import duckdb
import structlog

from metronome.stores.duckdb import schema

log = structlog.get_logger()


def bring_up_to_date(database: duckdb.DuckDBPyConnection) -> None:
    """Add what a file of an older Metronome lacks, and fill it from the documents."""
    missing = [name for (name,) in database.execute(schema.MISSING).fetchall()]
    if not missing:
        return
    log.info("store_brought_up_to_date", columns=len(missing))
    for name in missing:
        database.execute(f'ALTER TABLE events ADD COLUMN "{name}" VARCHAR')
    filled = ", ".join(f""""{name}" = json_extract_string(doc, '/{name}')""" for name in missing)
    database.execute(f"UPDATE events SET {filled}")
    database.execute(schema.NOTE_ALL_FIELDS)
