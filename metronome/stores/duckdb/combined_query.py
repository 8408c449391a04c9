"""Several queries as one statement, which reads their rows once.

A report such as tock runs three queries over the same few thousand rows of the rollup. Run one by one, most of the time
would go into finding these rows and into planning, three times. A page counts the same events by seven fields: finding
the events takes longer than counting them.
"""

from collections.abc import Sequence
from dataclasses import replace

from metronome.fields import COLUMN_FIELDS
from metronome.stores.duckdb.rollup import DAILY, counts_relation, totals_source
from metronome.stores.duckdb.sources import EventColumns, EventSource, quote_literal
from metronome.stores.duckdb.sql import (
    RollupColumns,
    SqlStatement,
    can_use_rollup,
    group_condition,
    is_counted,
    rollup_group_expression,
    total_field,
    where_condition,
)
from metronome.stores.query import COUNT, AllOf, Equals, Filter, Query

_SHARED_FIELDS = frozenset(COLUMN_FIELDS)
_GROUP_TEXT_SQL = {
    "day": "strftime(g, '%Y-%m-%d')",
    "week": "strftime(g, '%Y-%m-%d')",
    "month": "strftime(g, '%Y-%m')",
    "quarter": "strftime(g, '%Y-Q') || quarter(g)",
    "year": "strftime(g, '%Y')",
}


def compile_combined_query(queries: Sequence[Query]) -> SqlStatement | None:
    """Return one statement for several queries.

    Returns:
        A statement whose rows are the index of a query, a group's text as in `QueryResult.rows`, and its
        count, in any order. None unless each query counts the events of the same item, in the same time range,
        grouped by one field or time unit of the rollup.

    """
    common = _common_filters(queries)
    if not any(isinstance(where, Equals) and where.field == "id" for where in common):
        return None
    if not all(map(_is_combinable, queries)) or len({(query.start, query.end) for query in queries}) > 1:
        return None
    statement = SqlStatement()
    first = queries[0]
    where = AllOf(tuple(common))
    condition = where_condition(where, first.start, first.end, RollupColumns(), statement.parameters)
    parts = [
        f"SELECT {index}, {_GROUP_TEXT_SQL.get(query.group_by[0], 'g')}, n FROM ("
        f"SELECT {rollup_group_expression(query.group_by[0], query.time_zone)} AS g, sum(n)::BIGINT AS n "
        f"FROM item_rows "
        f"WHERE {_remaining_condition(query, common, statement.parameters)} GROUP BY g) WHERE g IS NOT NULL AND n > 0"
        for index, query in enumerate(queries)
    ]
    item_rows = f"SELECT * FROM {counts_relation(DAILY, where)} WHERE {condition}"
    statement.sql = f"WITH item_rows AS MATERIALIZED ({item_rows}) {' UNION ALL '.join(parts)}"
    return statement


def group_by_scan(queries: Sequence[Query]) -> dict[int, list[int]]:
    """Return which queries can share one scan (see `compile_shared_scan`).

    Returns:
        Groups of at least two indices, by the first index of each.

    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, query in enumerate(queries):
        if query.metrics != (COUNT,) or len(query.group_by) != 1 or query.group_by[0] not in _SHARED_FIELDS:
            continue
        has_totals = total_field(query) is not None
        if _is_total(query) if has_totals else not is_counted(query):
            groups.setdefault((has_totals, query.where, query.start, query.end), []).append(index)
    return {indices[0]: indices for indices in groups.values() if len(indices) > 1}


def compile_shared_scan(queries: Sequence[Query], source: EventSource | None) -> SqlStatement:
    """Return one statement for queries that count the same events, each by one field with a column.

    Args:
        queries: one of the groups of `group_by_scan`.
        source: has the events; None if all are counted in advance (see `is_counted`).

    Returns:
        A statement whose rows are the index of a query, a group's text and its count, in any order.

    """
    statement = SqlStatement()
    first = queries[0]
    fields = tuple(dict.fromkeys(query.group_by[0] for query in queries))
    if total_field(first) is not None:
        counts = totals_source(fields, first.start, first.end, source, statement.parameters)
        condition = where_condition(first.where, None, None, RollupColumns(), statement.parameters)
        scan = f"SELECT field, value AS g, sum(n)::BIGINT AS n FROM {counts} WHERE {condition} GROUP BY field, g"
        parts = [
            f"SELECT {index}, g, n FROM scan WHERE n > 0 AND field = {quote_literal(query.group_by[0])} "
            f"AND {group_condition(query.group_by[0], 'g')}"
            for index, query in enumerate(queries)
        ]
    elif source is not None:
        columns = EventColumns()
        condition = where_condition(first.where, first.start, first.end, columns, statement.parameters)
        aliases = {field: columns.text(field) for field in fields}
        relation = columns.relation(source, first.start, first.end)
        scan = f"SELECT {', '.join(aliases.values())} FROM {relation} WHERE {condition}"
        parts = [
            f"SELECT {index}, {aliases[query.group_by[0]]} AS g, count(*) FROM scan GROUP BY g "
            f"HAVING {group_condition(query.group_by[0], 'g')}"
            for index, query in enumerate(queries)
        ]
    else:
        raise ValueError("these queries need events")
    statement.sql = f"WITH scan AS MATERIALIZED ({scan}) {' UNION ALL '.join(parts)}"
    return statement


def _is_total(query: Query) -> bool:
    """Return whether the totals of any field have what the query filters by."""
    return query.group_by != ("bot",) and total_field(replace(query, group_by=())) == ""


def _is_combinable(query: Query) -> bool:
    return len(query.group_by) == 1 and query.metrics == (COUNT,) and can_use_rollup(query)


def _common_filters(queries: Sequence[Query]) -> list[Filter]:
    filters = [_required_filters(query) for query in queries]
    return [where for where in filters[0] if all(where in others for others in filters)] if len(filters) > 1 else []


def _remaining_condition(query: Query, common: list[Filter], parameters: list[object]) -> str:
    remaining = tuple(where for where in _required_filters(query) if where not in common)
    return where_condition(AllOf(remaining), None, None, RollupColumns(), parameters)


def _required_filters(query: Query) -> tuple[Filter, ...]:
    match query.where:
        case AllOf(inners):
            return inners
        case None:
            return ()
        case where:
            return (where,)
