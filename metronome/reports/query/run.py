"""The report: a question's answer, or what is wrong with the question.

Answers as they are sent: JSON, CSV or lines of JSON.
"""

import asyncio
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from metronome.errors import TooCostly
from metronome.reports.csv import csv_text
from metronome.reports.query.compare import counterparts, has_whole_days, joined
from metronome.reports.query.names import Names
from metronome.reports.query.request import Asked, Before
from metronome.reports.query.series import Row, begin_of, filled, units
from metronome.stores.base import Store
from metronome.stores.query import MAX_GROUPS, TIME_UNITS, Answer, Kind, arrange, read_zone

_ESTIMATED: Final = frozenset({Kind.UNIQUE, Kind.PERCENTILE})
"""What a store may estimate; where anything else is not exact, groups are missing."""


async def query(store: Store, names: Names, asked: Asked, now: datetime) -> Answer:
    """Answer somebody's own question.

    Args:
        store: what is asked.
        names: what is known of the store's names.
        asked: the question.
        now: where a series without an end ends, aware.

    Raises:
        Unaskable: it names a field that nothing has, or asks for numbers of one that holds none.
        TooCostly: it takes more groups, rows or time than it may.

    """
    await names.check(asked)
    answers = await store.ask(*asked.questions())
    for answer in answers:
        _check_size(asked, answer)
    await names.check_answer(asked, answers[0])
    if asked.is_plain:
        return answers[0]
    # Beside the loop: a hundred thousand rows take a while.
    return await asyncio.to_thread(_put_together, asked, answers, now)


def _check_size(asked: Asked, answer: Answer) -> None:
    is_whole = answer.exact or any(metric.kind in _ESTIMATED for metric in asked.metrics)
    if answer.total > MAX_GROUPS or not is_whole:
        raise TooCostly(f"there are over {MAX_GROUPS:,} groups of {', '.join(asked.question.by)}")


def _put_together(asked: Asked, answers: tuple[Answer, ...], now: datetime) -> Answer:
    question, rows = asked.question, [*answers[0].rows]
    if asked.before is not None:
        places = _places(asked, asked.before)
        rows = joined(rows, answers[1].rows, asked.metrics, len(question.by), places)
    if asked.fill:
        rows = filled(rows, question.by, question.metrics, _series(asked, rows, now))
    if len(rows) > MAX_GROUPS:
        raise TooCostly(f"the answer has over {MAX_GROUPS:,} rows")
    return arrange(question, rows, exact=all(answer.exact for answer in answers))


def _places(asked: Asked, before: Before) -> dict[int, dict[str, str]]:
    """Tell for each column of time which unit stands at the place of which one of the earlier range."""
    question = asked.question
    zone = read_zone(question.tz)
    places = {}
    for at, name in enumerate(question.by):
        if name in TIME_UNITS and question.start and question.end:
            here = units(name, question.start, question.end, zone)
            there = units(name, before.start, before.end, zone)
            whole_days = has_whole_days(question.start, question.end, zone)
            places[at] = counterparts(before.name, name, here, there, whole_days=whole_days)
    return places


def _series(asked: Asked, rows: list[Row], now: datetime) -> list[str]:
    """List all units of the range; one without a beginning begins with the first event, one without an end ends now."""
    question = asked.question
    at = next(place for place, name in enumerate(question.by) if name in TIME_UNITS)
    unit, zone = question.by[at], read_zone(question.tz)
    start = question.start or _first(rows, at, unit, zone)
    return units(unit, start, question.end or now, zone) if start else []


def _first(rows: list[Row], at: int, unit: str, zone: ZoneInfo) -> datetime | None:
    return min((begin_of(label, unit, zone) for label in {row[at] for row in rows}), default=None)


def as_json(answer: Answer) -> bytes:
    """Write an answer as one object: its columns, its rows, how many rows there are, and whether it is exact."""
    return orjson.dumps({"columns": answer.columns, "rows": answer.rows, "total": answer.total, "exact": answer.exact})


def as_csv(answer: Answer) -> bytes:
    """Write an answer's rows under the names of its columns; what is none is empty."""
    return csv_text(answer.columns, answer.rows).encode()


def as_lines(answer: Answer) -> bytes:
    """Write each row as an object on a line of its own."""
    return b"".join(
        orjson.dumps(dict(zip(answer.columns, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
        for row in answer.rows
    )
