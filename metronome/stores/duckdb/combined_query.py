"""Several questions about one item as one statement: the item's part of the rollup is then read once.

A report such as tock asks three things of the same few thousand rows. Asked singly, most of the time goes
into finding these rows, and into planning, three times over.
"""

from collections.abc import Sequence

from metronome.stores.duckdb.sql import (
    ROLLUP_SOURCE,
    SqlStatement,
    can_use_rollup,
    rollup_group_expression,
    where_condition,
)
from metronome.stores.query import COUNT, AllOf, Equals, Filter, Query

_GROUP_TEXT_SQL = {"day": "strftime(g, '%Y-%m-%d')", "week": "strftime(g, '%Y-%m-%d')", "month": "strftime(g, '%Y-%m')"}


def compile_combined_query(queries: Sequence[Query]) -> SqlStatement | None:
    """Write questions as one statement.

    Returns:
        A statement whose rows are the position of a question, a group's text as `Answer.rows` has it, and its
        count, in no order; or None where these questions are not of the kind: each counts the events of one
        and the same item, in one and the same range of time, by one thing that the rollup has.

    """
    common = _common_filters(queries)
    if not any(isinstance(each, Equals) and each.field == "id" for each in common):
        return None
    if not all(map(_is_combinable, queries)) or len({(each.start, each.end) for each in queries}) > 1:
        return None
    statement = SqlStatement()
    first = queries[0]
    narrow = where_condition(AllOf(tuple(common)), first.start, first.end, statement.parameters)
    parts = [
        f"SELECT {at}, {_GROUP_TEXT_SQL.get(question.group_by[0], 'g')}, n FROM ("
        f"SELECT {rollup_group_expression(question.group_by[0], question.time_zone)} AS g, sum(n)::BIGINT AS n "
        f"FROM narrow "
        f"WHERE {_remaining_condition(question, common, statement.parameters)} GROUP BY g) WHERE g IS NOT NULL"
        for at, question in enumerate(queries)
    ]
    statement.sql = (
        f"WITH narrow AS MATERIALIZED (SELECT * FROM {ROLLUP_SOURCE} WHERE {narrow}) {' UNION ALL '.join(parts)}"
    )
    return statement


def _is_combinable(query: Query) -> bool:
    return len(query.group_by) == 1 and query.metrics == (COUNT,) and can_use_rollup(query)


def _common_filters(queries: Sequence[Query]) -> list[Filter]:
    every = [_required_filters(question) for question in queries]
    return [each for each in every[0] if all(each in others for others in every)] if len(every) > 1 else []


def _remaining_condition(query: Query, common: list[Filter], parameters: list[object]) -> str:
    return where_condition(
        AllOf(tuple(each for each in _required_filters(query) if each not in common)), None, None, parameters
    )


def _required_filters(query: Query) -> tuple[Filter, ...]:
    match query.where:
        case AllOf(inners):
            return inners
        case None:
            return ()
        case where:
            return (where,)
