"""Several questions about one item as one statement: the item's part of the rollup is then read once.

A report such as tock asks three things of the same few thousand rows. Asked singly, most of the time goes
into finding these rows, and into planning, three times over.
"""

from collections.abc import Sequence

from metronome.stores.duckdb.sql import ROLLUP, Statement, condition, fits_rollup, group_of
from metronome.stores.query import COUNT, AllOf, Equals, Filter, Question

_TEXT_OF = {"day": "strftime(g, '%Y-%m-%d')", "week": "strftime(g, '%Y-%m-%d')", "month": "strftime(g, '%Y-%m')"}


def select_at_once(questions: Sequence[Question]) -> Statement | None:
    """Write questions as one statement.

    Returns:
        A statement whose rows are the position of a question, a group's text as `Answer.rows` has it, and its
        count, in no order; or None where these questions are not of the kind: each counts the events of one
        and the same item, in one and the same range of time, by one thing that the rollup has.

    """
    common = _common(questions)
    if not any(isinstance(each, Equals) and each.field == "id" for each in common):
        return None
    if not all(map(_is_of_the_kind, questions)) or len({(each.start, each.end) for each in questions}) > 1:
        return None
    statement = Statement()
    first = questions[0]
    narrow = condition(AllOf(tuple(common)), first.start, first.end, statement.values)
    parts = [
        f"SELECT {at}, {_TEXT_OF.get(question.by[0], 'g')}, n FROM ("
        f"SELECT {group_of(question.by[0], question.tz)} AS g, sum(n)::BIGINT AS n FROM narrow "
        f"WHERE {_rest(question, common, statement.values)} GROUP BY g) WHERE g IS NOT NULL"
        for at, question in enumerate(questions)
    ]
    statement.sql = f"WITH narrow AS MATERIALIZED (SELECT * FROM {ROLLUP} WHERE {narrow}) {' UNION ALL '.join(parts)}"
    return statement


def _is_of_the_kind(question: Question) -> bool:
    return len(question.by) == 1 and question.metrics == (COUNT,) and fits_rollup(question)


def _common(questions: Sequence[Question]) -> list[Filter]:
    every = [_all_of(question) for question in questions]
    return [each for each in every[0] if all(each in others for others in every)] if len(every) > 1 else []


def _rest(question: Question, common: list[Filter], values: list[object]) -> str:
    return condition(AllOf(tuple(each for each in _all_of(question) if each not in common)), None, None, values)


def _all_of(question: Question) -> tuple[Filter, ...]:
    match question.where:
        case AllOf(inners):
            return inners
        case None:
            return ()
        case where:
            return (where,)
