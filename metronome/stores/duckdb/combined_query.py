"""Several queries as one statement, which reads their rows once.

A report such as tock runs three queries over the same few thousand rows of the rollup. Run one by one, most of the time
would go into finding these rows and into planning, three times. A page counts the same events by seven fields: finding
the events takes longer than counting them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

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
from metronome.stores.query import COUNT, AllOf, Equals, Filter, OneOf, Query

_SHARED_FIELDS = frozenset(COLUMN_FIELDS)
_GROUP_TEXT_SQL = {
    "day": "strftime({group}, '%Y-%m-%d')",
    "week": "strftime({group}, '%Y-%m-%d')",
    "month": "strftime({group}, '%Y-%m')",
    "quarter": "strftime({group}, '%Y-Q') || quarter({group})",
    "year": "strftime({group}, '%Y')",
}


class CombinedQuery(NamedTuple):
    """One statement for several queries.

    Attributes:
        statement: its rows are read by `split_rows`.
        by_grouping: the index of each query and the events that it counts, by the group that the rows are of.
        event_grouping: the rows that are of no group but the event.

    """

    statement: SqlStatement
    by_grouping: Mapping[int, Sequence[tuple[int, frozenset[str]]]]
    event_grouping: int

    def split_rows(self, rows: Iterable[tuple[int, str, str | None, int]]) -> list[list[tuple[str, int]]]:
        """Return the rows of each query: a group's text as in `QueryResult.rows`, and its number of events.

        Args:
            rows: those of the statement.

        """
        numbers: list[dict[str, int]] = [{} for _ in range(sum(map(len, self.by_grouping.values())))]
        for grouping, event, group_text, number in rows:
            text = event if grouping == self.event_grouping else group_text
            if text is not None:
                for index, events in self.by_grouping[grouping]:
                    if event in events:
                        numbers[index][text] = numbers[index].get(text, 0) + number
        return [[(text, number) for text, number in groups.items() if number > 0] for groups in numbers]


def compile_combined_query(queries: Sequence[Query]) -> CombinedQuery | None:
    """Return one statement for several queries.

    It counts the events by their name and each of the groups: to plan a subquery for each query takes longer.

    Returns:
        None unless each query counts events of some names, of the same item, in the same time range and with otherwise
        the same filters, grouped by one field or time unit of the rollup.

    """
    common = _common_filters(queries)
    if not any(isinstance(where, Equals) and where.field == "id" for where in common):
        return None
    if not all(map(_is_combinable, queries)) or len({(query.start, query.end) for query in queries}) > 1:
        return None
    events = [_counted_events(query, common) for query in queries]
    known_events = [names for names in events if names is not None]
    if len(known_events) < len(events):
        return None
    first = queries[0]
    where = AllOf((*common, OneOf("event", tuple(sorted(frozenset[str]().union(*known_events))))))
    statement = SqlStatement()
    condition = where_condition(where, first.start, first.end, RollupColumns(), statement.parameters)
    by_group: dict[str, list[tuple[int, frozenset[str]]]] = {}
    for index, query in enumerate(queries):
        by_group.setdefault(query.group_by[0], []).append((index, known_events[index]))
    names = [name for name in by_group if name != "event"]
    groups = [rollup_group_expression(name, first.time_zone) for name in names]
    texts = [
        _GROUP_TEXT_SQL.get(name, "{group}").format(group=group) for name, group in zip(names, groups, strict=True)
    ]
    # Each bit of a grouping is that of a group which is not in the set, the first group's the highest.
    all_bits = (1 << len(names)) - 1
    bits = {name: all_bits - (1 << at) for at, name in enumerate(reversed(names))} | {"event": all_bits}
    grouping = f"grouping({', '.join(groups)})" if groups else "0"
    sets = [*(f"(event, {group})" for group in groups), *(["(event)"] if "event" in by_group else [])]
    statement.sql = (
        f"SELECT {grouping}, event, coalesce({', '.join([*texts, 'NULL'])}), sum(n)::BIGINT "
        f"FROM {counts_relation(DAILY, where)} WHERE {condition} GROUP BY GROUPING SETS ({', '.join(sets)})"
    )
    by_grouping = {bits[name]: indices for name, indices in by_group.items()}
    return CombinedQuery(statement, by_grouping, all_bits)


def _counted_events(query: Query, common: Sequence[Filter]) -> frozenset[str] | None:
    """Return the events that a query counts; None if it has no filter of them, or others that not all queries have."""
    names: list[frozenset[str]] = []
    for where in _required_filters(query):
        match where:
            case Equals("event", value):
                names.append(frozenset({value}))
            case OneOf("event", values):
                names.append(frozenset(values))
            case _ if where not in common:
                return None
    return frozenset.intersection(*names) if names else None


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


def _required_filters(query: Query) -> tuple[Filter, ...]:
    match query.where:
        case AllOf(inners):
            return inners
        case None:
            return ()
        case where:
            return (where,)
