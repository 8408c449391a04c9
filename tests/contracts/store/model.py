"""What the answer to a question is, worked out the slow and plain way over a list of documents."""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from metronome.stores.query import (
    TIME_UNITS,
    AllOf,
    Answer,
    AnyOf,
    Equals,
    Exists,
    Filter,
    Kind,
    Metric,
    Not,
    OneOf,
    Prefix,
    Question,
    Range,
    arrange,
)
from metronome.stores.sequences import Step, Trail, Trails, sort_key

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Document = dict[str, Any]
Value = str | int | float | None

_TOP_LEVEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


def answer_of(question: Question, documents: Iterable[Document]) -> Answer:
    """Answer a question; percentiles are left out (see `numbers_of`)."""
    groups: dict[tuple[str, ...], list[Document]] = {} if question.by else {(): []}
    for document in documents:
        found = [_group_of(document, name, question.tz) for name in question.by]
        key = tuple(name for name in found if name is not None)
        if matches(question, document) and len(key) == len(found):
            groups.setdefault(key, []).append(document)
    rows: list[tuple[Value, ...]] = [
        (*key, *(_measure(metric, members) for metric in question.metrics)) for key, members in groups.items()
    ]
    return arrange(question, rows)


def matches(question: Question, document: Document) -> bool:
    """Return whether a question's filter and range let a document through."""
    moment = _moment(document)
    in_time = (question.start is None or question.start <= moment) and (question.end is None or moment < question.end)
    return in_time and (question.where is None or holds(question.where, document))


def holds(where: Filter, document: Document) -> bool:  # noqa: PLR0911  # one for each kind of filter
    """Return whether a filter lets a document through."""
    match where:
        case Equals(field, value):
            return text_of(document, field) == value
        case OneOf(field, values):
            return text_of(document, field) in values
        case Prefix(field, text):
            return (text_of(document, field) or "").startswith(text) and holds(Exists(field), document)
        case Exists(field):
            return text_of(document, field) is not None
        case Range(field):
            return _within(where, number_of(document, field))
        case Not(inner):
            return not holds(inner, document)
        case AllOf(inner):
            return all(holds(each, document) for each in inner)
        case AnyOf(inner):
            return any(holds(each, document) for each in inner)


def text_of(document: Document, field: str) -> str | None:
    """Return a field's value as text, None where it is missing."""
    top = _TOP_LEVEL.fullmatch(field) is not None and field != "params"
    value = document.get(field) if top else document.get("params", {}).get(field)
    if value is None:
        return None
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 1024 else None


def number_of(document: Document, field: str) -> float | None:
    """Return a field's number, None where it has none."""
    value = document.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def numbers_of(documents: Iterable[Document], field: str) -> list[float]:
    """Return all numbers of a field, the smallest first."""
    found = [number_of(document, field) for document in documents]
    return sorted(number for number in found if number is not None)


def trails_of(asked: Trails, documents: Iterable[Document]) -> list[Trail]:
    """Return trails, in the order of their keys."""
    found: dict[str, list[Step]] = {}
    question = Question(where=asked.where, start=asked.start, end=asked.end)
    for document in documents:
        key = text_of(document, asked.key)
        if key is not None and matches(question, document):
            at = (_moment(document) - _EPOCH) // timedelta(milliseconds=1)
            found.setdefault(key, []).append(Step(at, tuple(text_of(document, field) for field in asked.fields)))
    return [Trail(key, tuple(sorted(found[key], key=sort_key))) for key in sorted(found)]


def newest_of(field: str, limit: int, question: Question, documents: Iterable[Document]) -> tuple[str, ...]:
    """Return the values of a field that have the newest events a question lets through."""
    last: dict[str, datetime] = {}
    for document in documents:
        value = text_of(document, field)
        if value is not None and matches(question, document):
            last[value] = max(_moment(document), last.get(value, _EPOCH))
    return tuple(sorted(last, key=lambda value: (last[value], value), reverse=True)[:limit])


def _within(where: Range, number: float | None) -> bool:
    if number is None:
        return False
    return not (
        (where.above is not None and number <= where.above)
        or (where.at_least is not None and number < where.at_least)
        or (where.below is not None and number >= where.below)
        or (where.at_most is not None and number > where.at_most)
    )


def _measure(metric: Metric, documents: list[Document]) -> Value:  # noqa: PLR0911  # one for each kind
    if metric.kind is Kind.COUNT:
        return len(documents)
    if metric.kind is Kind.VALUES:
        return len(numbers_of(documents, metric.field))
    if metric.kind in (Kind.FIRST, Kind.LAST):
        stamps = sorted(document["@timestamp"] for document in documents)
        return stamps[0 if metric.kind is Kind.FIRST else -1] if stamps else None
    if metric.kind is Kind.UNIQUE:
        return len({text_of(document, metric.field) for document in documents} - {None})
    numbers = numbers_of(documents, metric.field)
    if metric.kind is Kind.SUM:
        return math.fsum(numbers)
    if not numbers or metric.kind is Kind.PERCENTILE:
        return None
    return {Kind.MIN: numbers[0], Kind.MAX: numbers[-1], Kind.AVG: math.fsum(numbers) / len(numbers)}[metric.kind]


def _moment(document: Document) -> datetime:
    return datetime.fromisoformat(document["@timestamp"])


def _group_of(document: Document, name: str, tz: str) -> str | None:
    if name not in TIME_UNITS:
        return text_of(document, name)
    moment = _moment(document).astimezone(ZoneInfo(tz))
    match name:
        case "month":
            return f"{moment:%Y-%m}"
        case "week":
            return f"{moment.date() - timedelta(days=moment.weekday())}"
        case "day":
            return f"{moment.date()}"
        case _:
            moment = moment.replace(second=0, microsecond=0, minute=moment.minute if name == "minute" else 0)
            return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
