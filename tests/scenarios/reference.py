"""Counts documents the slow and plain way, and says what ``/query`` has to answer of them.

It shares no line with what it is to check: a question is what `Question` here says, and a document a parsed one.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

Document = dict[str, Any]
Row = list[Any]
Condition = Callable[[Document], bool]

UNITS: Final = ("minute", "hour", "day", "week", "month")
LONGEST: Final = 1024
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        metrics: as they are written, such as ``sum:n``.
        by: fields and units of time.
        where: which documents count.
        start: aware; documents from then on, or None for all older ones.
        end: aware; documents before then, or None for all newer ones.
        tz: the zone of days.
        order: columns, with ``-`` from the greatest down.
        limit: how many rows at the most, or None for all.
        offset: how many to leave out.
        fill: whether each unit of the range has a row.
        compare: what is compared with; days are those before, or of the year before. Ranges have whole days then, and
            the only unit is the day.

    """

    metrics: tuple[str, ...]
    by: tuple[str, ...]
    where: Condition
    start: datetime | None = None
    end: datetime | None = None
    tz: str = "UTC"
    order: tuple[str, ...] = ()
    limit: int | None = None
    offset: int = 0
    fill: bool = False
    compare: str = ""


def columns_of(question: Question) -> list[str]:
    """Return how the answer's columns are called."""
    metrics = question.metrics
    if question.compare:
        metrics = tuple(f"{one}{more}" for one in metrics for more in ("", f":{question.compare}", ":change"))
    return [*question.by, *metrics]


def count(question: Question, documents: Iterable[Document]) -> list[Row]:
    """Return all rows of the answer, in their order and not cut."""
    every = [document for document in documents if question.where(document)]
    groups = _measured(question, _between(every, question.start, question.end))
    nothing = [_measure(metric, []) for metric in question.metrics]
    if question.compare:
        earlier = _measured(question, _earlier(question, every), _shift(question))
        groups = {
            key: _side_by_side(groups.get(key, nothing), earlier.get(key, nothing)) for key in [*groups, *earlier]
        }
        nothing = _side_by_side(nothing, nothing)
    if question.fill:
        _fill(question, groups, nothing)
    rows = [[*key, *values] for key, values in sorted(groups.items())]
    columns = columns_of(question)
    for order in reversed(question.order):
        at = columns.index(order.removeprefix("-"))
        rows.sort(key=lambda row: _sortable(row[at]), reverse=order.startswith("-"))
    return rows


def text_of(document: Document, field: str) -> str | None:
    """Return the text of a field, or None where it has none that counts."""
    value = document.get(field, document.get("params", {}).get(field) if "." in field else None)
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= LONGEST else None


def number_of(document: Document, field: str) -> float | None:
    """Return the number of a field, or None where it has none."""
    value = document.get(field)
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def numbers_of(documents: Iterable[Document], field: str) -> list[float]:
    """Return the numbers of a field, the smallest first."""
    found = (number_of(document, field) for document in documents)
    return sorted(number for number in found if number is not None)


def moment_of(document: Document) -> datetime:
    """Return when it happened."""
    return datetime.fromisoformat(document["@timestamp"])


def label(moment: datetime, unit: str, tz: str) -> str:
    """Name the unit of time that a moment lies in."""
    local = moment.astimezone(ZoneInfo(tz))
    match unit:
        case "month":
            return f"{local:%Y-%m}"
        case "week":
            return f"{local.date() - timedelta(days=local.weekday())}"
        case "day":
            return f"{local.date()}"
        case _:
            cut = f"{local:%Y-%m-%dT%H:%M}" if unit == "minute" else f"{local:%Y-%m-%dT%H}:00"
            offset = f"{local:%z}"
            return f"{cut}:00Z" if offset == "+0000" else f"{cut}:00{offset[:3]}:{offset[3:]}"


def percentile(numbers: list[float], percent: float) -> float | None:
    """Return a percentile of sorted numbers, on the line between the two nearest."""
    if not numbers:
        return None
    rank = percent / 100 * (len(numbers) - 1)
    low, high = numbers[math.floor(rank)], numbers[math.ceil(rank)]
    return low + (high - low) * (rank - math.floor(rank))


def _sortable(value: Any) -> tuple[bool, Any]:
    return value is not None, 0 if value is None else value


def _between(documents: list[Document], start: datetime | None, end: datetime | None) -> list[Document]:
    return [
        document
        for document in documents
        if (start is None or moment_of(document) >= start) and (end is None or moment_of(document) < end)
    ]


def _measured(
    question: Question, documents: list[Document], shift: Callable[[str], str | None] | None = None
) -> dict[tuple[str, ...], Row]:
    groups: dict[tuple[str, ...], list[Document]] = {} if question.by else {(): []}
    for document in documents:
        key = [_group(document, name, question.tz) for name in question.by]
        if shift is not None:
            key = [shift(text) if name == "day" and text else text for name, text in zip(question.by, key, strict=True)]
        whole = tuple(text for text in key if text is not None)
        if len(whole) == len(key):
            groups.setdefault(whole, []).append(document)
    return {key: [_measure(metric, members) for metric in question.metrics] for key, members in groups.items()}


def _group(document: Document, name: str, tz: str) -> str | None:
    return label(moment_of(document), name, tz) if name in UNITS else text_of(document, name)


def _measure(metric: str, documents: list[Document]) -> Any:
    kind, _, field = metric.partition(":")
    if metric == "count":
        return len(documents)
    if metric in {"first", "last"}:
        stamps = sorted(document["@timestamp"] for document in documents)
        return (stamps[0] if metric == "first" else stamps[-1]) if stamps else None
    if kind in {"visitors", "sessions", "unique"}:
        name = field or kind.removesuffix("s")
        return len({text_of(document, name) for document in documents} - {None})
    return _of_numbers(kind, numbers_of(documents, field))


def _of_numbers(kind: str, numbers: list[float]) -> float | None:
    if kind == "count":
        return len(numbers)
    if kind == "sum":
        return math.fsum(numbers)
    if kind.startswith("p"):
        return percentile(numbers, float(kind[1:]))
    if not numbers:
        return None
    return {"avg": math.fsum(numbers) / len(numbers), "min": numbers[0], "max": numbers[-1]}[kind]


def _days(question: Question) -> tuple[date, date]:
    assert question.start is not None
    assert question.end is not None
    zone = ZoneInfo(question.tz)
    return question.start.astimezone(zone).date(), question.end.astimezone(zone).date()


def _earlier(question: Question, documents: list[Document]) -> list[Document]:
    first, end = _days(question)
    if question.compare == "year":
        before = first.replace(year=first.year - 1), end.replace(year=end.year - 1)
    else:
        before = first - (end - first), first
    zone = ZoneInfo(question.tz)
    return _between(documents, *(datetime.combine(day, time(), zone) for day in before))


def _shift(question: Question) -> Callable[[str], str | None]:
    first, end = _days(question)

    def later(day: str) -> str:
        there = date.fromisoformat(day)
        if question.compare == "year":
            return f"{there.replace(year=there.year + 1)}"
        return f"{there + (end - first)}"

    return later


def _side_by_side(now: Row, before: Row) -> Row:
    row: Row = []
    for new, old in zip(now, before, strict=True):
        has_change = isinstance(new, (int, float)) and isinstance(old, (int, float)) and old
        row += [new, old, (new - old) / abs(old) if has_change else None]
    return row


def _fill(question: Question, groups: dict[tuple[str, ...], Row], nothing: Row) -> None:
    """Walk through the range, minute by minute."""
    assert question.start is not None
    assert question.end is not None
    at = next(at for at, name in enumerate(question.by) if name in UNITS)
    others = {(key[:at], key[at + 1 :]) for key in groups} if len(question.by) > 1 else {((), ())}
    moment = question.start.astimezone(UTC).replace(second=0, microsecond=0)
    while moment < question.end:
        for left, right in others:
            groups.setdefault((*left, label(moment, question.by[at], question.tz), *right), nothing)
        moment += _MINUTE
