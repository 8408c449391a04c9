"""Counts of events that are kept up to date by each write, so that reports about items read no events.

``daily`` counts by item, UTC day and the other fields of the rollup, ``monthly`` by item, UTC month, event and bot.
``total`` counts the events of all items by UTC day, event, whether a robot caused them, and one further field: for each
field of `TOTAL_FIELDS` by its value, and once more, with the field ``''``, without.

All consist of levels. A write adds rows to the lowest one. When a level is full it is merged into the next, which is
eight times as large, so that a row is rewritten a number of times that is logarithmic in their total. Except in the
lowest level, rows are sorted by the hash of their item, so that the rows of one item are together. (DuckDB compares
only the first eight bytes of texts when it decides what to skip, and items often begin alike.) Deleted events are
counted as negative.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import duckdb

from metronome.fields import ROLLUP_FIELDS, TOTAL_FIELDS
from metronome.stores.duckdb.sources import EventColumns, EventSource, limit_text, quote_literal, quote_name
from metronome.stores.duckdb.sql import (
    RollupColumns,
    SqlStatement,
    can_use_rollup,
    count_groups,
    total_field,
    where_condition,
    whole_days,
)
from metronome.stores.query import AllOf, Equals, Filter, OneOf, Query, iterate_field_filters

CREATE_TABLES: Final = "CREATE TABLE IF NOT EXISTS totals_version(fields VARCHAR);"
BASE_LEVEL_ROWS: Final = 50_000
_LEVELS: Final = 4
_LEVEL_RATIO: Final = 8
_MONTHLY_FIELDS: Final = ("id", "event", "bot")
_MONTHLY_NAMES: Final = frozenset((*_MONTHLY_FIELDS, "month", "quarter", "year", "all"))
_HASHED_ITEMS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of events.

    Attributes:
        name: of the tables, followed by the number of the level.
        columns: the columns and their types, without that of the count, ``n``.
        order: by which columns rows are sorted.
        unit: the column with the day or the first day of the month.
        selection: the SQL that counts the events of a relation, with ``{source}`` for it and ``{count}`` for what is
            counted; its columns are *columns* and ``n``.

    """

    name: str
    columns: Mapping[str, str]
    order: str
    unit: str
    selection: str

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables, the lowest level first."""
        return tuple(f"{self.name}_{level}" for level in range(_LEVELS))

    @property
    def relation(self) -> str:
        """The SQL relation of all rows, with the day or month as ``ts``."""
        return self._union(f"*, {self.unit} AS ts", self.tables)

    def create_statements(self) -> list[str]:
        """Return the SQL that creates the tables."""
        return [f"CREATE TABLE IF NOT EXISTS {self._definition(table)}" for table in self.tables]

    def insert_statement(self, source: str, *, deleted: bool = False, level: int = 0) -> str:
        """Return the SQL that counts events.

        Args:
            source: the SQL relation of events with the fields and ``ts``.
            deleted: whether the events are subtracted.
            level: the level to add the counts to.

        """
        selection = self.selection.format(source=source, count="-count(*)" if deleted else "count(*)")
        return f"INSERT INTO {self.tables[level]} SELECT * FROM ({selection}) ORDER BY {self.order}"

    def is_full(self, database: duckdb.DuckDBPyConnection, base_rows: int) -> bool:
        """Return whether the lowest level has over *base_rows* rows."""
        return _count_rows(database, self.tables[0]) > base_rows

    def merge_levels(self, database: duckdb.DuckDBPyConnection, base_rows: int) -> None:
        """Merge the lowest level into a higher one that has room; in the transaction of the caller.

        Args:
            database: the connection.
            base_rows: how many rows the lowest level may have.

        """
        rows = [_count_rows(database, self.tables[0])]
        target = 1
        for target in range(1, _LEVELS):
            rows.append(_count_rows(database, self.tables[target]))
            if sum(rows) <= base_rows * _LEVEL_RATIO**target:
                break
        merged = self._union("*", self.tables[: target + 1])
        database.execute(
            f"CREATE OR REPLACE TABLE {self.tables[target]} AS SELECT {', '.join(self.columns)}, sum(n)::BIGINT AS n "
            f"FROM {merged} GROUP BY ALL HAVING sum(n) <> 0 ORDER BY {self.order}"
        )
        for table in self.tables[:target]:
            database.execute(f"CREATE OR REPLACE TABLE {self._definition(table)}")

    def _definition(self, table: str) -> str:
        return f"{table}({', '.join(f'{name} {kind}' for name, kind in self.columns.items())}, n BIGINT)"

    def _union(self, columns: str, tables: Iterable[str]) -> str:
        return f"({' UNION ALL '.join(f'SELECT {columns} FROM {table}' for table in tables)})"


def _item_counts(name: str, unit: str, fields: tuple[str, ...]) -> Counts:
    columns = {"item": "UBIGINT", **dict.fromkeys(fields, "VARCHAR"), unit: "DATE"}
    start = "ts::DATE" if unit == "day" else "date_trunc('month', ts)::DATE"
    # Grouped first, so that each item is hashed once.
    grouped = f"SELECT {', '.join(fields)}, {start} AS {unit}, {{count}} AS n FROM {{source}} GROUP BY ALL"
    return Counts(name, columns, f"item, {unit}", unit, f"SELECT md5_number_lower(id) AS item, * FROM ({grouped})")


_TOTAL_NAMES: Final = ", ".join(f"'{name}'" for name in ("", *TOTAL_FIELDS))
_TOTAL_FIELDS: Final = ", ".join(f'"{name}"' for name in TOTAL_FIELDS)

DAILY: Final = _item_counts("daily", "day", ROLLUP_FIELDS)
MONTHLY: Final = _item_counts("monthly", "month", _MONTHLY_FIELDS)
TOTALS: Final = Counts(
    "total",
    {"day": "DATE", "event": "VARCHAR", "is_bot": "BOOLEAN", "field": "VARCHAR", "value": "VARCHAR"},
    "field, day",
    "day",
    # Events of one session are alike in these fields: counting them first leaves fewer rows to count by each field.
    f"SELECT day, event, is_bot, field, {limit_text('text')} AS value, sum(n)::BIGINT AS n FROM ("
    f"SELECT day, event, is_bot, n, unnest([{_TOTAL_NAMES}]) AS field, unnest([NULL, {_TOTAL_FIELDS}]) AS text FROM ("
    f"SELECT ts::DATE AS day, event, bot IS NOT NULL AS is_bot, {_TOTAL_FIELDS}, {{count}} AS n "
    "FROM {source} GROUP BY ALL)) GROUP BY ALL",
)
ALL_COUNTS: Final = (DAILY, MONTHLY, TOTALS)
COUNTED_FIELDS: Final = tuple(dict.fromkeys((*ROLLUP_FIELDS, "event", "bot", *TOTAL_FIELDS)))
"""The fields that events need to be counted."""

_TOTALS_VERSION: Final = ",".join(TOTAL_FIELDS)


def upgrade_rollup(database: duckdb.DuckDBPyConnection) -> None:
    """Move the rollup of an older version's file into the highest levels; in the transaction of the caller."""
    fields = ", ".join(ROLLUP_FIELDS)
    database.execute(
        f"INSERT INTO {DAILY.tables[-1]} SELECT md5_number_lower(id), {fields}, day, sum(n)::BIGINT FROM rollup "
        f"GROUP BY ALL ORDER BY 1, day"
    )
    months = (
        f"SELECT item, {', '.join(_MONTHLY_FIELDS)}, date_trunc('month', day)::DATE AS month, sum(n)::BIGINT "
        f"FROM {DAILY.tables[-1]} GROUP BY ALL ORDER BY item, month"
    )
    database.execute(f"INSERT INTO {MONTHLY.tables[-1]} {months}")
    database.execute("DROP TABLE rollup")


def move_old_totals(database: duckdb.DuckDBPyConnection) -> None:
    """Move the totals of an older version's file into the highest level; in the transaction of the caller."""
    versions = database.execute("SELECT fields FROM totals_progress").fetchall()
    if versions == [(_TOTALS_VERSION,)]:
        database.execute(f"INSERT INTO {TOTALS.tables[-1]} SELECT * FROM totals ORDER BY {TOTALS.order}")
        _record_totals(database)
    database.execute("DROP TABLE totals")
    database.execute("DROP TABLE totals_progress")


def are_totals_current(database: duckdb.DuckDBPyConnection) -> bool:
    """Return whether the totals are those of the fields that they should have."""
    return database.execute("SELECT fields FROM totals_version").fetchall() == [(_TOTALS_VERSION,)]


def rebuild_totals(database: duckdb.DuckDBPyConnection, source: str, since: date | None = None) -> None:
    """Count all events for the totals again, because an older version counted other fields, or none.

    In the transaction of the caller.

    Args:
        database: the connection.
        source: the SQL relation of the events.
        since: the first day of which there are events; the totals before it stay. None if there are all events.

    """
    for table in TOTALS.tables:
        database.execute(f"DELETE FROM {table} WHERE day >= ?", [since or date.min])
    database.execute(TOTALS.insert_statement(source, level=-1))
    _record_totals(database)


def _record_totals(database: duckdb.DuckDBPyConnection) -> None:
    database.execute("DELETE FROM totals_version")
    database.execute("INSERT INTO totals_version VALUES (?)", [_TOTALS_VERSION])


def compile_counted_query(query: Query, source: EventSource | None) -> SqlStatement | None:
    """Return the SQL for a query that counts can answer; rows as of `metronome.stores.duckdb.sql.compile_query`.

    Args:
        query: the query.
        source: has the events; None if `is_counted`.

    Returns:
        None if the query has to read events.

    """
    result = SqlStatement()
    field = total_field(query)
    if field is not None:
        counts = totals_source((field,), query.start, query.end, source, result.parameters)
        where = where_condition(query.where, None, None, RollupColumns(), result.parameters)
        columns = f", value AS {quote_name(field)}" if field not in {"", "bot"} else ""
        result.sql = count_groups(query, f"(SELECT *{columns} FROM {counts}) WHERE {where}")
        return result
    if not can_use_rollup(query):
        return None
    where = where_condition(query.where, query.start, query.end, RollupColumns(), result.parameters)
    result.sql = count_groups(query, f"{counts_relation(choose_counts(query), query.where)} WHERE {where}")
    return result


def choose_counts(query: Query) -> Counts:
    """Return the smallest counts that have what a query needs for which `can_use_rollup` is true."""
    used = {where.field for where in iterate_field_filters(query.where)} | set(query.group_by)
    by_month = used <= {*_MONTHLY_FIELDS, "month", "quarter", "year", "all"} and all(
        map(_is_month_start, (query.start, query.end))
    )
    return MONTHLY if by_month else DAILY


def totals_source(
    fields: tuple[str, ...],
    start: datetime | None,
    end: datetime | None,
    source: EventSource | None,
    parameters: list[object],
) -> str:
    """Return the SQL for the counts of a time range by some fields, and append the values of its placeholders.

    Its rows have the columns ``ts``, ``event``, ``bot`` (NULL for people), ``field``, ``value`` and ``n``. Whole UTC
    days are read from the totals, the rest of the range, at most a day at each end, from the events.
    """
    first, last = whole_days(start, end)
    names = ", ".join(map(quote_literal, fields))
    bot = "value" if fields == ("bot",) else "CASE WHEN is_bot THEN '' END"
    bounds = where_condition(None, first, last, RollupColumns(), parameters)
    parts = [
        (
            f"SELECT ts::TIMESTAMP AS ts, event, {bot} AS bot, field, value, n "
            f"FROM (SELECT * FROM {TOTALS.relation} WHERE field IN ({names})) WHERE {bounds}"
        )
    ]
    for edge_start, edge_end in ((start, first), (last, end)):
        if source is None or edge_start is None or edge_end is None or edge_start >= edge_end:
            continue
        columns = EventColumns()
        event, robot = columns.text("event"), columns.text("bot")
        values = ", ".join(columns.text(name) if name else "NULL" for name in fields)
        bounds = where_condition(None, edge_start, edge_end, columns, parameters)
        parts.append(
            f"SELECT ts, {event}, {robot}, unnest([{names}]), unnest([{values}]), 1 "
            f"FROM {columns.relation(source, edge_start, edge_end)} WHERE {bounds}"
        )
    return f"({' UNION ALL '.join(parts)})"


def counts_relation(counts: Counts, where: Filter | None) -> str:
    """Return the SQL relation of counts, without most rows of items that a filter excludes."""
    items = _required_items(where)
    if items is None:
        return counts.relation
    return f"(SELECT * FROM {counts.relation} WHERE item IN ({', '.join(map(str, map(item_hash, items))) or 'NULL'}))"


def item_hash_sql(expression: str) -> str:
    """Return the SQL for the hash of an item; see `item_hash`."""
    return f"md5_number_lower({expression})"


def item_hash(item: str) -> int:
    """Return the hash that the rows of an item are sorted by."""
    digest = hashlib.md5(item.encode(errors="replace"), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little")


def _required_items(where: Filter | None) -> tuple[str, ...] | None:
    match where:
        case Equals("id", item):
            return (item,)
        case OneOf("id", items) if len(items) <= _HASHED_ITEMS_MAX:
            return items
        case AllOf(inners):
            return next((items for items in map(_required_items, inners) if items is not None), None)
    return None


def _is_month_start(moment: datetime | None) -> bool:
    return moment is None or moment.astimezone(UTC).day == 1


def _count_rows(database: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
