"""A slow reference implementation of ``/query`` on lists of documents.

It shares no code with the stores that it checks.
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

UNITS: Final = ("minute", "hour", "day", "week", "month", "quarter", "year", "all")
MAX_TEXT_LENGTH: Final = 1024
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a query.

    Attributes:
        metrics: as in a request, such as ``sum:n``.
        by: fields and time units.
        where: returns whether a document counts.
        start: timezone-aware, inclusive; None for no limit.
        end: timezone-aware, exclusive; None for no limit.
        tz: the time zone of days.
        order: columns; a leading ``-`` sorts in descending order.
        limit: maximum number of rows; None for all.
        offset: number of rows to skip.
        fill: whether every time unit of the range has a row.
        compare: ``previous`` or ``year``; the range then consists of whole days, and the only time unit is the day.

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


def columns_of(query: Query) -> list[str]:
    """Return the names of the result's columns."""
    metrics = query.metrics
    if query.compare:
        metrics = tuple(f"{metric}{suffix}" for metric in metrics for suffix in ("", f":{query.compare}", ":change"))
    return [*query.by, *metrics]


def count(query: Query, documents: Iterable[Document]) -> list[Row]:
    """Return all rows of the result, sorted, ignoring limit and offset."""
    matching = [document for document in documents if query.where(document)]
    groups = _aggregate(query, _between(matching, query.start, query.end))
    empty_values = [_measure(metric, []) for metric in query.metrics]
    if query.compare:
        earlier = _aggregate(query, _earlier(query, matching), _shift(query))
        groups = {
            key: _compare(groups.get(key, empty_values), earlier.get(key, empty_values)) for key in [*groups, *earlier]
        }
        empty_values = _compare(empty_values, empty_values)
    if query.fill:
        _fill(query, groups, empty_values)
    rows = [[*key, *values] for key, values in sorted(groups.items())]
    columns = columns_of(query)
    for order in reversed(query.order):
        at = columns.index(order.removeprefix("-"))
        rows.sort(key=lambda row: _sort_key(row[at]), reverse=order.startswith("-"))
    return rows


def text_of(document: Document, field: str) -> str | None:
    """Return the field's text; None if it is missing or too long."""
    value = document.get(field, document.get("params", {}).get(field) if "." in field else None)
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= MAX_TEXT_LENGTH else None


def number_of(document: Document, field: str) -> float | None:
    """Return the field's number; None if it is missing or not a number."""
    value = document.get(field)
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def numbers_of(documents: Iterable[Document], field: str) -> list[float]:
    """Return the field's numbers in ascending order."""
    numbers = (number_of(document, field) for document in documents)
    return sorted(number for number in numbers if number is not None)


def timestamp_of(document: Document) -> datetime:
    """Return the time of the event."""
    return datetime.fromisoformat(document["@timestamp"])


def label(moment: datetime, unit: str, tz: str) -> str:  # noqa: PLR0911  # one for each unit
    """Return the label of the time unit that contains a time."""
    local = moment.astimezone(ZoneInfo(tz))
    match unit:
        case "all":
            return unit
        case "year":
            return f"{local:%Y}"
        case "quarter":
            return f"{local:%Y}-Q{(local.month + 2) // 3}"
        case "month":
            return f"{local:%Y-%m}"
        case "week":
            return f"{local.date() - timedelta(days=local.weekday())}"
        case "day":
            return f"{local.date()}"
        case _:
            truncated = f"{local:%Y-%m-%dT%H:%M}" if unit == "minute" else f"{local:%Y-%m-%dT%H}:00"
            offset = f"{local:%z}"
            return f"{truncated}:00Z" if offset == "+0000" else f"{truncated}:00{offset[:3]}:{offset[3:]}"


def percentile(numbers: list[float], percent: float) -> float | None:
    """Return a percentile of sorted numbers, by linear interpolation."""
    if not numbers:
        return None
    rank = percent / 100 * (len(numbers) - 1)
    low, high = numbers[math.floor(rank)], numbers[math.ceil(rank)]
    return low + (high - low) * (rank - math.floor(rank))


def _sort_key(value: Any) -> tuple[bool, Any]:
    return value is not None, 0 if value is None else value


def _between(documents: list[Document], start: datetime | None, end: datetime | None) -> list[Document]:
    return [
        document
        for document in documents
        if (start is None or timestamp_of(document) >= start) and (end is None or timestamp_of(document) < end)
    ]


def _aggregate(
    query: Query, documents: list[Document], shift: Callable[[str], str | None] | None = None
) -> dict[tuple[str, ...], Row]:
    groups: dict[tuple[str, ...], list[Document]] = {} if query.by else {(): []}
    for document in documents:
        key = [_group_value(document, name, query.tz) for name in query.by]
        if shift is not None:
            key = [shift(text) if name == "day" and text else text for name, text in zip(query.by, key, strict=True)]
        complete_key = tuple(text for text in key if text is not None)
        if len(complete_key) == len(key):
            groups.setdefault(complete_key, []).append(document)
    return {key: [_measure(metric, members) for metric in query.metrics] for key, members in groups.items()}


def _group_value(document: Document, name: str, tz: str) -> str | None:
    return label(timestamp_of(document), name, tz) if name in UNITS else text_of(document, name)


def _measure(metric: str, documents: list[Document]) -> Any:
    kind, _, field = metric.partition(":")
    if metric == "count":
        return len(documents)
    if metric in {"views", "downloads"}:
        return sum(text_of(document, "event") == metric[:-1] for document in documents)
    if metric in {"first", "last"}:
        stamps = sorted(document["@timestamp"] for document in documents)
        return (stamps[0] if metric == "first" else stamps[-1]) if stamps else None
    if kind in {"visitors", "sessions", "unique"}:
        name = field or kind.removesuffix("s")
        return len({text_of(document, name) for document in documents} - {None})
    return _measure_numbers(kind, numbers_of(documents, field))


def _measure_numbers(kind: str, numbers: list[float]) -> float | None:
    if kind == "count":
        return len(numbers)
    if kind == "sum":
        return math.fsum(numbers)
    if kind.startswith("p"):
        return percentile(numbers, float(kind[1:]))
    if not numbers:
        return None
    return {"avg": math.fsum(numbers) / len(numbers), "min": numbers[0], "max": numbers[-1]}[kind]


def _days(query: Query) -> tuple[date, date]:
    assert query.start is not None
    assert query.end is not None
    zone = ZoneInfo(query.tz)
    return query.start.astimezone(zone).date(), query.end.astimezone(zone).date()


def _earlier(query: Query, documents: list[Document]) -> list[Document]:
    first, end = _days(query)
    if query.compare == "year":
        before = first.replace(year=first.year - 1), end.replace(year=end.year - 1)
    else:
        before = first - (end - first), first
    zone = ZoneInfo(query.tz)
    return _between(documents, *(datetime.combine(day, time(), zone) for day in before))


def _shift(query: Query) -> Callable[[str], str | None]:
    first, end = _days(query)

    def later(day: str) -> str:
        earlier_date = date.fromisoformat(day)
        if query.compare == "year":
            return f"{earlier_date.replace(year=earlier_date.year + 1)}"
        return f"{earlier_date + (end - first)}"

    return later


def _compare(now: Row, before: Row) -> Row:
    row: Row = []
    for new, old in zip(now, before, strict=True):
        has_change = isinstance(new, (int, float)) and isinstance(old, (int, float)) and old
        row += [new, old, (new - old) / abs(old) if has_change else None]
    return row


def _fill(query: Query, groups: dict[tuple[str, ...], Row], empty_values: Row) -> None:
    """Add the missing rows, stepping through the range by the minute."""
    assert query.start is not None
    assert query.end is not None
    position = next(position for position, name in enumerate(query.by) if name in UNITS)
    others = {(key[:position], key[position + 1 :]) for key in groups} if len(query.by) > 1 else {((), ())}
    moment = query.start.astimezone(UTC).replace(second=0, microsecond=0)
    while moment < query.end:
        for left, right in others:
            groups.setdefault((*left, label(moment, query.by[position], query.tz), *right), empty_values)
        moment += _MINUTE
