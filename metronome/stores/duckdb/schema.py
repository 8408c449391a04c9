"""The tables of the embedded store, the statements that fill them, and the upgrade of older files.

``events`` holds each event: the fields that reports use as columns, and the whole document. ``rollup`` counts events by
item, UTC day, event, format, referer and bot; each batch adds its counts in the same transaction, so the rollup is
always up to date. Its rows are merged and sorted by item from time to time, so that a query of one item reads few rows;
``progress`` has the number of rows after the last merge.

``totals`` counts the events of all items by UTC day, event, whether a robot caused them, and one further field: for
each field of `TOTAL_FIELDS` by its value, and once more, with the field ``''``, without. It is kept like the rollup;
``totals_progress`` also has the fields that it was built for.
"""

from typing import Final

import duckdb
import structlog

from metronome.fields import COLUMN_FIELDS, ROLLUP_FIELDS, TOTAL_FIELDS, VALUE_MAX_CHARACTERS

_ITEM_FIELD, *_OTHER_ROLLUP_FIELDS = ROLLUP_FIELDS
_ROLLUP_COLUMNS = ", ".join((_ITEM_FIELD, "day", *_OTHER_ROLLUP_FIELDS))

CREATE_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS events(
    key UHUGEINT, ts TIMESTAMP,
    {", ".join(f'"{name}" VARCHAR' for name in COLUMN_FIELDS)},
    doc JSON);
CREATE TABLE IF NOT EXISTS rollup(
    {_ITEM_FIELD} VARCHAR, day DATE, {", ".join(f"{name} VARCHAR" for name in _OTHER_ROLLUP_FIELDS)}, n BIGINT);
CREATE TABLE IF NOT EXISTS fields(name VARCHAR);
CREATE TABLE IF NOT EXISTS progress(merged_rows BIGINT);
CREATE TABLE IF NOT EXISTS totals(
    day DATE, event VARCHAR, is_bot BOOLEAN, field VARCHAR, value VARCHAR, n BIGINT);
CREATE TABLE IF NOT EXISTS totals_progress(fields VARCHAR, merged_rows BIGINT);
INSERT INTO progress SELECT 0 WHERE NOT EXISTS (FROM progress);
"""

FIND_MISSING_COLUMNS: Final = f"""
SELECT name FROM (VALUES {", ".join(f"('{name}')" for name in COLUMN_FIELDS)}) AS known(name)
WHERE name NOT IN (SELECT column_name FROM information_schema.columns WHERE table_name = 'events')
"""
"""The columns that the file of an older version lacks."""

_BATCH_STRUCTURE = ", ".join(f'"{name}": "VARCHAR"' for name in ("@timestamp", "event_id", *COLUMN_FIELDS))
_BATCH_COLUMNS = ", ".join(f'f."{name}" AS "{name}"' for name in COLUMN_FIELDS)

LOAD_BATCH: Final = f"""
CREATE OR REPLACE TEMP TABLE batch AS
SELECT md5_number(f."event_id" || f."@timestamp"[:10]) AS key, f."@timestamp"::TIMESTAMP AS ts, {_BATCH_COLUMNS}, doc
FROM (
    SELECT line::JSON AS doc, from_json(line, '{{{_BATCH_STRUCTURE}}}') AS f
    FROM (SELECT unnest(string_split(?, chr(10))) AS line) WHERE line <> '')
"""
"""Parse documents, given as the lines of one text. The key of an event is the hash of its ``event_id`` and UTC day."""

DESCRIBE_BATCH: Final = """
SELECT count(*), count(key) = count(*), count(DISTINCT key),
    min(ts)::DATE::TIMESTAMP, max(ts)::DATE::TIMESTAMP + INTERVAL 1 DAY
FROM batch
"""

COUNT_EXISTING: Final = """
SELECT count(*) FROM events WHERE ts >= $1 AND ts < $2 AND key IN (SELECT key FROM batch)
"""
"""There is no index: one on random keys would cost more than all the rest, and the days limit what is read."""

DROP_EXISTING: Final = """
DELETE FROM batch WHERE key IN (SELECT key FROM events WHERE ts >= $1 AND ts < $2)
"""

DROP_DUPLICATES: Final = """
DELETE FROM batch WHERE rowid NOT IN (SELECT min(rowid) FROM batch GROUP BY key)
"""

_EVENT_COLUMNS = ", ".join(f'"{name}"' for name in ("key", "ts", *COLUMN_FIELDS, "doc"))

INSERT_BATCH: Final = f"INSERT INTO events ({_EVENT_COLUMNS}) SELECT {_EVENT_COLUMNS} FROM batch"

RECORD_FIELDS: Final = """
INSERT INTO fields SELECT name FROM (SELECT DISTINCT unnest(json_keys(doc)) AS name FROM batch)
WHERE name NOT IN (SELECT name FROM fields)
"""

RECORD_ALL_FIELDS: Final = "INSERT INTO fields SELECT DISTINCT unnest(json_keys(doc)) FROM events"

DROP_UNSTORED: Final = """
DELETE FROM batch WHERE key IS NULL OR key NOT IN (SELECT key FROM events WHERE ts >= $1 AND ts < $2)
"""

DELETE_REPLACED: Final = """
DELETE FROM events WHERE ts >= $1 AND ts < $2 AND key IN (SELECT key FROM batch)
"""

DELETE_DAY_COUNTS: Final = "DELETE FROM rollup WHERE day >= $1 AND day < $2"

_ROLLUP_SELECTION = f"{_ITEM_FIELD}, ts::DATE AS day, {', '.join(_OTHER_ROLLUP_FIELDS)}, count(*) AS n"

INSERT_BATCH_COUNTS: Final = f"INSERT INTO rollup SELECT {_ROLLUP_SELECTION} FROM batch GROUP BY ALL ORDER BY id, day"

INSERT_DAY_COUNTS: Final = f"""
INSERT INTO rollup SELECT {_ROLLUP_SELECTION} FROM events WHERE ts >= $1 AND ts < $2 GROUP BY ALL ORDER BY id, day
"""

_TOTAL_COLUMNS = "day, event, is_bot, field, value"
_TOTAL_NAMES = ", ".join(f"'{name}'" for name in ("", *TOTAL_FIELDS))
_TOTAL_FIELDS = ", ".join(f'"{name}"' for name in TOTAL_FIELDS)


def _count_totals(source: str) -> str:
    # Events of one session are alike in these fields: counting them first leaves fewer rows to count by each field.
    return (
        f"SELECT day, event, is_bot, field, CASE WHEN length(text) <= {VALUE_MAX_CHARACTERS} THEN text END AS value, "
        f"sum(n)::BIGINT AS n FROM (SELECT day, event, is_bot, n, unnest([{_TOTAL_NAMES}]) AS field, "
        f"unnest([NULL, {_TOTAL_FIELDS}]) AS text FROM (SELECT ts::DATE AS day, event, bot IS NOT NULL AS is_bot, "
        f"{_TOTAL_FIELDS}, count(*) AS n FROM {source} GROUP BY ALL)) GROUP BY ALL ORDER BY field, day"
    )


INSERT_BATCH_TOTALS: Final = f"INSERT INTO totals {_count_totals('batch')}"

DELETE_DAY_TOTALS: Final = "DELETE FROM totals WHERE day >= $1 AND day < $2"

INSERT_DAY_TOTALS: Final = f"INSERT INTO totals {_count_totals('events WHERE ts >= $1 AND ts < $2')}"

REBUILD_TOTALS: Final = f"CREATE OR REPLACE TABLE totals AS {_count_totals('events')}"
"""Recount all events, after some were deleted, or for other fields than before."""

MERGE_TOTALS: Final = f"""
CREATE OR REPLACE TABLE totals AS
SELECT {_TOTAL_COLUMNS}, sum(n)::BIGINT AS n FROM totals GROUP BY ALL ORDER BY field, day
"""

_TOTALS_VERSION = ",".join(TOTAL_FIELDS)

COUNT_CURRENT_TOTALS: Final = f"SELECT count(*) FROM totals_progress WHERE fields = '{_TOTALS_VERSION}'"

RECORD_MERGED_TOTALS: Final = (
    f"CREATE OR REPLACE TABLE totals_progress AS SELECT '{_TOTALS_VERSION}' AS fields, "
    "(SELECT count(*) FROM totals) AS merged_rows"
)

COUNT_UNMERGED_TOTALS: Final = "SELECT (SELECT count(*) FROM totals) - merged_rows, merged_rows FROM totals_progress"

COUNT_UNMERGED_ROWS: Final = "SELECT (SELECT count(*) FROM rollup) - merged_rows, merged_rows FROM progress"

MERGE_ROLLUP: Final = f"""
CREATE OR REPLACE TABLE rollup AS
SELECT {_ROLLUP_COLUMNS}, sum(n)::BIGINT AS n FROM rollup GROUP BY ALL ORDER BY id, day
"""

REBUILD_ROLLUP: Final = (
    f"CREATE OR REPLACE TABLE rollup AS SELECT {_ROLLUP_SELECTION} FROM events GROUP BY ALL ORDER BY id, day"
)
"""Recount all events, after some were deleted."""

RECORD_MERGED_ROWS: Final = "UPDATE progress SET merged_rows = (SELECT count(*) FROM rollup)"


log = structlog.get_logger()


def add_missing_columns(database: duckdb.DuckDBPyConnection) -> None:
    """Add the columns that the file of an older version lacks, with values from the documents; idempotent.

    Rewrite the table: updating each row in place would hold all of them in memory.
    """
    missing = {name for (name,) in database.execute(FIND_MISSING_COLUMNS).fetchall()}
    if not missing:
        return
    log.info("store_brought_up_to_date", columns=len(missing))
    columns = ", ".join(
        f"json_extract_string(doc, '/{name}') AS \"{name}\"" if name in missing else f'"{name}"'
        for name in COLUMN_FIELDS
    )
    database.execute("BEGIN")
    database.execute(f"CREATE TABLE newer AS SELECT key, ts, {columns}, doc FROM events")
    database.execute("DROP TABLE events")
    database.execute("ALTER TABLE newer RENAME TO events")
    database.execute(RECORD_ALL_FIELDS)
    database.execute("COMMIT")


def rebuild_totals(database: duckdb.DuckDBPyConnection) -> None:
    """Count all events once if the file of an older version has no totals, or those of other fields; idempotent."""
    (current,) = database.execute(COUNT_CURRENT_TOTALS).fetchall()[0]
    if current:
        return
    database.execute("BEGIN")
    database.execute(REBUILD_TOTALS)
    database.execute(RECORD_MERGED_TOTALS)
    database.execute("COMMIT")
