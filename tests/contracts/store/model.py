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
    AnyOf,
    Equals,
    Exists,
    Filter,
    Metric,
    MetricKind,
    Not,
    OneOf,
    Prefix,
    Query,
    QueryResult,
    Range,
    build_result,
)
from metronome.stores.sequences import EventSequence, SequenceEvent, SequenceQuery, sequence_event_key

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Document = dict[str, Any]
Value = str | int | float | None

_TOP_LEVEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


def expected_result(query: Query, documents: Iterable[Document]) -> QueryResult:
    """Answer a question; percentiles are left out (see `field_numbers`)."""
    groups: dict[tuple[str, ...], list[Document]] = {} if query.group_by else {(): []}
    for document in documents:
        found = [_group_value(document, name, query.time_zone) for name in query.group_by]
        key = tuple(name for name in found if name is not None)
        if matches_query(query, document) and len(key) == len(found):
            groups.setdefault(key, []).append(document)
    rows: list[tuple[Value, ...]] = [
        (*key, *(_metric_value(metric, members) for metric in query.metrics)) for key, members in groups.items()
    ]
    return build_result(query, rows)


def matches_query(query: Query, document: Document) -> bool:
    """Return whether a question's filter and range let a document through."""
    moment = _timestamp_of(document)
    in_time = (query.start is None or query.start <= moment) and (query.end is None or moment < query.end)
    return in_time and (query.where is None or matches_filter(query.where, document))


def matches_filter(where: Filter, document: Document) -> bool:  # noqa: PLR0911  # one for each kind of filter
    """Return whether a filter lets a document through."""
    match where:
        case Equals(field, value):
            return field_text(document, field) == value
        case OneOf(field, values):
            return field_text(document, field) in values
        case Prefix(field, text):
            return (field_text(document, field) or "").startswith(text) and matches_filter(Exists(field), document)
        case Exists(field):
            return field_text(document, field) is not None
        case Range(field):
            return _is_in_range(where, field_number(document, field))
        case Not(inner):
            return not matches_filter(inner, document)
        case AllOf(inner):
            return all(matches_filter(each, document) for each in inner)
        case AnyOf(inner):
            return any(matches_filter(each, document) for each in inner)


def field_text(document: Document, field: str) -> str | None:
    """Return a field's value as text, None where it is missing."""
    top = _TOP_LEVEL.fullmatch(field) is not None and field != "params"
    value = document.get(field) if top else document.get("params", {}).get(field)
    if value is None:
        return None
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 1024 else None


def field_number(document: Document, field: str) -> float | None:
    """Return a field's number, None where it has none."""
    value = document.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def field_numbers(documents: Iterable[Document], field: str) -> list[float]:
    """Return all numbers of a field, the smallest first."""
    found = [field_number(document, field) for document in documents]
    return sorted(number for number in found if number is not None)


def expected_sequences(sequence_query: SequenceQuery, documents: Iterable[Document]) -> list[EventSequence]:
    """Return trails, in the order of their keys."""
    found: dict[str, list[SequenceEvent]] = {}
    question = Query(where=sequence_query.where, start=sequence_query.start, end=sequence_query.end)
    for document in documents:
        key = field_text(document, sequence_query.key_field)
        if key is not None and matches_query(question, document):
            at = (_timestamp_of(document) - _EPOCH) // timedelta(milliseconds=1)
            found.setdefault(key, []).append(
                SequenceEvent(at, tuple(field_text(document, field) for field in sequence_query.fields))
            )
    return [EventSequence(key, tuple(sorted(found[key], key=sequence_event_key))) for key in sorted(found)]


def expected_newest_values(field: str, limit: int, query: Query, documents: Iterable[Document]) -> tuple[str, ...]:
    """Return the values of a field that have the newest events a question lets through."""
    last: dict[str, datetime] = {}
    for document in documents:
        value = field_text(document, field)
        if value is not None and matches_query(query, document):
            last[value] = max(_timestamp_of(document), last.get(value, _EPOCH))
    return tuple(sorted(last, key=lambda value: (last[value], value), reverse=True)[:limit])


def _is_in_range(where: Range, number: float | None) -> bool:
    if number is None:
        return False
    return not (
        (where.above is not None and number <= where.above)
        or (where.at_least is not None and number < where.at_least)
        or (where.below is not None and number >= where.below)
        or (where.at_most is not None and number > where.at_most)
    )


def _metric_value(metric: Metric, documents: list[Document]) -> Value:  # noqa: PLR0911  # one for each kind
    if metric.kind is MetricKind.COUNT:
        return len(documents)
    if metric.kind is MetricKind.VALUE_COUNT:
        return len(field_numbers(documents, metric.field))
    if metric.kind in (MetricKind.FIRST, MetricKind.LAST):
        stamps = sorted(document["@timestamp"] for document in documents)
        return stamps[0 if metric.kind is MetricKind.FIRST else -1] if stamps else None
    if metric.kind is MetricKind.UNIQUE:
        return len({field_text(document, metric.field) for document in documents} - {None})
    numbers = field_numbers(documents, metric.field)
    if metric.kind is MetricKind.SUM:
        return math.fsum(numbers)
    if not numbers or metric.kind is MetricKind.PERCENTILE:
        return None
    return {MetricKind.MIN: numbers[0], MetricKind.MAX: numbers[-1], MetricKind.AVG: math.fsum(numbers) / len(numbers)}[
        metric.kind
    ]


def _timestamp_of(document: Document) -> datetime:
    return datetime.fromisoformat(document["@timestamp"])


def _group_value(document: Document, name: str, tz: str) -> str | None:
    if name not in TIME_UNITS:
        return field_text(document, name)
    moment = _timestamp_of(document).astimezone(ZoneInfo(tz))
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
