"""The reports of micro-metrics: on tracked documents, their values by time, and their tags and types.

Each report runs queries on a `Store` and returns plain values; its CSV encoder stands beside it. A report is held in
memory, so its size is limited.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import InvalidQuery, Malformed
from metronome.protocols.micro_metrics.dates import parse_javascript_date
from metronome.protocols.micro_metrics.documents import (
    DOCUMENT_GROUPS,
    OTHER_VALUE_FIELD,
    PROTOCOL_MARKER,
    parse_pairs,
    restore_document,
    tag_keys_field,
)
from metronome.protocols.micro_metrics.tracking import KEY_PARAMETER
from metronome.reports.csv import format_csv
from metronome.stores.base import Store
from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Metric, Query, QueryResult, Range, SortKey
from metronome.times import format_timestamp, to_milliseconds

QUERY_PARAMETERS: Final = ("type", "tags", "fields", "value", "startDate", "endDate", "last", "period")
"""The parameters of every report; ``period`` has an effect on some only."""
ALL_TIME: Final = "0"
"""The value of ``last`` for all of the time."""
DEFAULT_LAST: Final = "30d"

MAX_DOCUMENTS: Final = 100_000
"""The maximum number of documents that one report reads."""
DOCUMENTS_MAX_BYTES: Final = 32 * 2**20
"""Their maximum total size."""
MAX_ROWS: Final = 50_000
"""The maximum number of periods, groups, or values of tags in one report."""
MAX_TAGS: Final = 1000
"""The maximum number of tags whose values are listed at once."""
MAX_COLUMNS: Final = 1000
MAX_CELLS: Final = 10_000_000


class Period(NamedTuple):
    """A length of time that values are measured by.

    Attributes:
        unit: the time unit in a `Query`.
        option: the argument of `timedelta` for that unit.

    """

    unit: str
    option: str

    @property
    def length(self) -> timedelta:
        """The length of one period."""
        return timedelta(**{self.option: 1})


PERIODS: Final = {"d": Period("day", "days"), "h": Period("hour", "hours"), "m": Period("minute", "minutes")}
"""The values of ``period``; the same letters are the units of ``last``."""

_LAST_PATTERN: Final = re.compile(r"(?=[\ddhm]{2,30}$)(?!.*([dhm]).*\1)(?:\d{1,7}[dhm])+", re.ASCII)
_LAST_PART_PATTERN: Final = re.compile(r"(\d+)([dhm])", re.ASCII)
_UNENCODED_PLUS_PATTERN: Final = re.compile(r"(T\d\d:\d\d\S*) (?=\d\d:?\d\d$)")
"""A + in a URL that is not encoded arrives as a space."""
_MILLISECOND: Final = timedelta(milliseconds=1)
_MINUTE: Final = timedelta(minutes=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MEASURES: Final = ("sum", "avg", "max", "min")
_VALUE_METRICS: Final = tuple(Metric.parse(f"{measure}:value") for measure in _MEASURES)
_MAX_SAFE_INTEGER: Final = 2.0**53
_INDEXED_GROUPS: Final = ("tags", "fields")
_MISSING: Final = object()
_DOCUMENTS_PER_SLICE: Final = 500
"""How many documents are read before other work gets its turn."""
_TAGS_PER_QUERY: Final = 20
_QUOTED_MAX_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class MetricsQuery:
    """The documents that a report is about.

    Attributes:
        where: matches them.
        start: the time of the oldest; None without a limit.
        end: they are older than this; None without a limit.
        period: what values are measured by.
        now: the time of the request.

    """

    where: AllOf
    start: datetime | None
    end: datetime | None
    period: Period
    now: datetime


def parse_metrics_query(
    query: Mapping[str, str], now: datetime, extra_parameter: str = "", default_last: str = DEFAULT_LAST
) -> MetricsQuery:
    """Parse the parameters of a report.

    Args:
        query: ``tags`` and ``fields`` are lists as `parse_pairs` reads them: a name without a value matches documents
            that have it with any value.
        now: the time that ``last`` counts from, aware.
        extra_parameter: a parameter that only this report has.
        default_last: the range if the query has neither ``last`` nor a date.

    Raises:
        InvalidQuery, Malformed: a parameter is unknown or has an invalid value.

    """
    known = (*QUERY_PARAMETERS, extra_parameter) if extra_parameter else QUERY_PARAMETERS
    for name in query:
        if name not in known and name != KEY_PARAMETER:
            raise InvalidQuery(f'"{name[:_QUOTED_MAX_CHARACTERS]}" is not allowed: expected {", ".join(known)}')
    period = query.get("period") or "d"
    if period not in PERIODS:
        raise InvalidQuery(f'invalid "period" {period[:_QUOTED_MAX_CHARACTERS]!r}: expected {", ".join(PERIODS)}')
    start, end = _parse_range(query, now, default_last)
    return MetricsQuery(_build_filter(query), start, end, PERIODS[period], now)


async def count_documents(store: Store, query: MetricsQuery) -> int:
    """Return the number of documents."""
    (result,) = await store.query(_count_query(query.where, query))
    return int(result.rows[0][0] or 0) if result.rows else 0


def encode_count_csv(count: int) -> str:
    """Return a count as CSV."""
    return format_csv(["count"], [[count]])


async def list_documents(store: Store, query: MetricsQuery) -> list[bytes]:
    """Return the documents, oldest first, each as JSON.

    Raises:
        InvalidQuery: there are too many.

    """
    return [orjson.dumps(document) async for document in _iter_documents(store, query, query.where)]


def encode_documents_csv(documents: Sequence[bytes]) -> str:
    """Return documents, each as JSON, as CSV: each tag, field and name in ``data`` is a column.

    Raises:
        InvalidQuery: there are too many columns.

    """
    names: dict[str, set[str]] = {group: set() for group in DOCUMENT_GROUPS}
    for line in documents:
        document = orjson.loads(line)
        for group in DOCUMENT_GROUPS:
            names[group].update(document[group])
        _check_csv_size(sum(map(len, names.values())), len(documents))
    columns: list[tuple[str, str]] = [("type", "")]
    columns += [("tags", name) for name in sorted(names["tags"])]
    columns += [("fields", name) for name in sorted(names["fields"])]
    columns += [("value", "")]
    columns += [("data", name) for name in sorted(names["data"])]
    columns += [("userId", ""), ("sessionId", ""), ("createdOn", ""), ("tagKeys", "")]
    header = [f"{group}.{name}" if group in DOCUMENT_GROUPS else group for group, name in columns]
    return format_csv(header, (_document_cells(orjson.loads(line), columns) for line in documents))


async def unique_values(store: Store, query: MetricsQuery, path: str) -> list[dict[str, Any]]:
    """Return the different values at a path in the documents.

    Args:
        store: runs the queries.
        query: which documents.
        path: such as ``tags.currency``, ``userId`` or ``data.cart.total``.

    Returns:
        Each value once, in the order of its first document, as ``_id``, with the different ``types``, ``tags``,
        ``values`` and ``data`` of its documents, and their ``count``. Documents without a value at the path are
        omitted.

    Raises:
        InvalidQuery: there are too many documents.

    """
    group, _, name = path.partition(".")
    where: Filter = query.where
    if group in _INDEXED_GROUPS and name and "." not in name:
        where = AllOf((query.where, Exists(path)))
    groups: dict[bytes, _ValueGroup] = {}
    async for document in _iter_documents(store, query, where):
        value = _value_at(document, path)
        if value is not _MISSING:
            groups.setdefault(_comparison_key(value), _ValueGroup(value)).add(document)
    return [group.to_row() for group in groups.values()]


def encode_unique_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the different values at a path as CSV, with lists as JSON."""
    names = ("_id", "types", "tags", "values", "data", "count")
    return format_csv(names, ([row[name] for name in names] for row in rows))


async def aggregate_values(store: Store, query: MetricsQuery) -> list[dict[str, Any]]:
    """Return the sum, average, maximum and minimum of the values in each period (UTC) of the range.

    Returns:
        ``dateString`` (a timestamp), ``date`` (its milliseconds, as text), ``sum``, ``avg``, ``max`` and ``min``,
        oldest first, with zeros for periods without documents. Without a start, the first period is that of the first
        document; without an end, the last is the current one, or that of the last document if that is later.

    Raises:
        InvalidQuery: there are too many periods.

    """
    start = query.start if query.start is not None else await _query_first_day(store, query)
    if start is None:
        return []
    # The last moment of the range begins no period of its own.
    end = query.now if query.end is None else query.end - _MILLISECOND
    length = query.period.length
    first = _floor_to_period(start, length)
    if (end - first) / length > MAX_ROWS:
        raise _result_too_large(f"over {MAX_ROWS} rows for period={query.period.unit[0]}")
    (result,) = await store.query(_measure_query(query, query.where, (query.period.unit,)))
    measures = {_parse_period(row[0]): row[1:] for row in _require_complete(result).rows}
    if query.start is None and measures:
        first = min(measures)
    periods = sorted({*_iter_periods(first, end, length), *measures})
    return [
        {
            "dateString": format_timestamp(period),
            "date": str(to_milliseconds(period)),
            **_measure_values(measures.get(period, (None,) * len(_MEASURES))),
        }
        for period in periods
    ]


def encode_aggregate_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the measures of the values in each period as CSV."""
    header = ["Date", *(measure.capitalize() for measure in _MEASURES)]
    return format_csv(header, ([row["dateString"], *(row[measure] for measure in _MEASURES)] for row in rows))


async def group_values(store: Store, query: MetricsQuery, tag: str) -> dict[str, list[dict[str, Any]]]:
    """Return the sum, average, maximum and minimum of the values in each period (UTC), by the value of a tag.

    Returns:
        For each value of the tag, as text, the periods with documents, oldest first. Each has its time as ``_id``:
        ``day``, ``month``, ``year``, and ``hour`` and ``minute`` for shorter periods.

    Raises:
        InvalidQuery: there are too many groups.

    """
    field = f"tags.{tag}"
    where = AllOf((query.where, Exists(field)))
    (result,) = await store.query(_measure_query(query, where, (field, query.period.unit)))
    groups: dict[str, list[dict[str, Any]]] = {}
    for value, period, *measures in _require_complete(result).rows:
        row = {"_id": _period_id(_parse_period(period), query.period), **_measure_values(tuple(measures))}
        groups.setdefault(str(value), []).append(row)
    return groups


def encode_groups_csv(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the sums by period as CSV: one column for each value of the tag, with zeros for missing periods.

    Raises:
        InvalidQuery: there are too many columns.

    """
    sums: dict[tuple[int, ...], dict[str, Any]] = {}
    for value, rows in groups.items():
        for row in rows:
            period = row["_id"]
            clock = [period[unit] for unit in ("hour", "minute") if unit in period]
            sums.setdefault((period["year"], period["month"], period["day"], *clock), {})[value] = row["sum"]
    values = sorted(groups)
    _check_csv_size(len(values), len(sums))
    header = ["Date", *(value[:1].upper() + value[1:] for value in values)]
    rows_of_cells = (
        [_format_period(period), *(sums[period].get(value, 0) for value in values)] for period in sorted(sums)
    )
    return format_csv(header, rows_of_cells)


async def list_tags(store: Store, query: MetricsQuery) -> dict[str, list[str]]:
    """Return the tags and the values of each, all sorted.

    Values are returned as text: ``5`` and ``"5"`` are the same value, and long texts are truncated.

    Raises:
        InvalidQuery: there are too many.

    """
    names = await _list_tag_names(store, query)
    if len(names) > MAX_TAGS:
        raise _result_too_large(f"over {MAX_TAGS} tags")
    tags: dict[str, list[str]] = {}
    for begin in range(0, len(names), _TAGS_PER_QUERY):
        some_names = names[begin : begin + _TAGS_PER_QUERY]
        results = await store.query(*(_values_query(query, f"tags.{name}") for name in some_names))
        tags.update({name: _first_column(result) for name, result in zip(some_names, results, strict=True)})
        if sum(map(len, tags.values())) > MAX_ROWS:
            raise _result_too_large(f"over {MAX_ROWS} values of tags")
    return tags


async def list_tag_values(store: Store, query: MetricsQuery, tag: str) -> list[str]:
    """Return the values of a tag, sorted.

    Raises:
        InvalidQuery: there are too many.

    """
    (result,) = await store.query(_values_query(query, f"tags.{tag}"))
    return _first_column(result)


async def list_types(store: Store, query: MetricsQuery) -> list[str]:
    """Return the types, sorted.

    Raises:
        InvalidQuery: there are too many.

    """
    (result,) = await store.query(_values_query(query, "event"))
    return _first_column(result)


def _build_filter(query: Mapping[str, str]) -> AllOf:
    filters: list[Filter] = [Equals(*PROTOCOL_MARKER)]
    if query.get("type"):
        filters.append(Equals("event", query["type"]))
    for group in _INDEXED_GROUPS:
        for name, value in parse_pairs(query.get(group, "")).items():
            field = f"{group}.{name}"
            filters.append(Exists(field) if value is True else Equals(field, str(value)))
    if query.get("value"):
        filters.append(_value_filter(query["value"]))
    return AllOf(tuple(filters))


def _value_filter(text: str) -> Filter:
    """Match the number that a text is, or the text."""
    is_text = Equals(OTHER_VALUE_FIELD, text)
    try:
        number = float(text)
    except ValueError:
        return is_text
    if not math.isfinite(number):
        return is_text
    return AnyOf((Range("value", at_least=number, at_most=number), is_text))


def _parse_range(query: Mapping[str, str], now: datetime, default_last: str) -> tuple[datetime | None, datetime | None]:
    start, end = _parse_date_parameter(query, "startDate"), _parse_date_parameter(query, "endDate")
    last = query.get("last") or (ALL_TIME if start or end else default_last)
    if last == ALL_TIME:
        # The end is part of the range.
        return start, None if end is None else _add_or_none(end, _MILLISECOND)
    minute = now.replace(second=0, microsecond=0)
    return _subtract_last(last, minute), _add_or_none(minute, _MINUTE + _MILLISECOND)


def _parse_date_parameter(query: Mapping[str, str], name: str) -> datetime | None:
    text = query.get(name)
    if not text:
        return None
    try:
        return parse_javascript_date(_UNENCODED_PLUS_PATTERN.sub(r"\1+", text))
    except Malformed as error:
        raise Malformed(f'"{name}": {error}') from None


def _subtract_last(last: str, minute: datetime) -> datetime:
    """Count back from this minute, or whole days from the start of this day."""
    if _LAST_PATTERN.fullmatch(last) is None:
        raise InvalidQuery(
            f'invalid "last" {last[:_QUOTED_MAX_CHARACTERS]!r}: expected a range such as 30d or 2d3h25m, or 0 for all'
        )
    parts = {PERIODS[letter].option: int(number) for number, letter in _LAST_PART_PATTERN.findall(last)}
    is_whole_days = not (parts.get("hours") or parts.get("minutes"))
    try:
        return (minute.replace(hour=0, minute=0) if is_whole_days else minute) - timedelta(**parts)
    except OverflowError:
        raise InvalidQuery(f'"last" {last!r} goes back before the year 1: use 0 for all of the time') from None


def _add_or_none(moment: datetime, delta: timedelta) -> datetime | None:
    """Return the later time, or None after the year 9999."""
    try:
        return moment + delta
    except OverflowError:
        return None


def _result_too_large(what: str) -> InvalidQuery:
    return InvalidQuery(
        f"the result has {what}: ask for a shorter time with startDate, endDate or last, or for one type"
    )


def _require_complete(result: QueryResult) -> QueryResult:
    if result.total > MAX_ROWS or not result.is_complete:
        raise _result_too_large(f"over {MAX_ROWS} rows")
    return result


def _count_query(where: Filter, query: MetricsQuery) -> Query:
    return Query(where=where, start=query.start, end=query.end)


def _values_query(query: MetricsQuery, field: str) -> Query:
    return Query(group_by=(field,), where=query.where, start=query.start, end=query.end, limit=MAX_ROWS)


def _measure_query(query: MetricsQuery, where: Filter, group_by: tuple[str, ...]) -> Query:
    return Query(
        metrics=_VALUE_METRICS, group_by=group_by, where=where, start=query.start, end=query.end, limit=MAX_ROWS
    )


async def _iter_documents(store: Store, query: MetricsQuery, where: Filter) -> AsyncIterator[dict[str, Any]]:
    (result,) = await store.query(_count_query(where, query))
    if result.rows and int(result.rows[0][0] or 0) > MAX_DOCUMENTS:
        raise _result_too_large(f"over {MAX_DOCUMENTS} documents")
    number = size = 0
    async for line in store.iterate_documents(where, query.start, query.end):
        number, size = number + 1, size + len(line)
        if size > DOCUMENTS_MAX_BYTES:
            raise _result_too_large(f"over {DOCUMENTS_MAX_BYTES} bytes of documents")
        if number % _DOCUMENTS_PER_SLICE == 0:
            await asyncio.sleep(0)
        yield restore_document(line)


@dataclass(slots=True)
class _ValueGroup:
    """The documents that have the same value at a path."""

    value: Any
    types: dict[bytes, Any] = field(default_factory=dict)
    tags: dict[bytes, Any] = field(default_factory=dict)
    values: dict[bytes, Any] = field(default_factory=dict)
    data: dict[bytes, Any] = field(default_factory=dict)
    count: int = 0

    def add(self, document: Mapping[str, Any]) -> None:
        self.count += 1
        lists = ((self.types, "type"), (self.tags, "tags"), (self.values, "value"), (self.data, "data"))
        for values, name in lists:
            values.setdefault(_comparison_key(document[name]), document[name])

    def to_row(self) -> dict[str, Any]:
        lists = {"types": self.types, "tags": self.tags, "values": self.values, "data": self.data}
        return {
            "_id": self.value,
            **{name: list(values.values()) for name, values in lists.items()},
            "count": self.count,
        }


def _value_at(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path; names may contain dots."""
    if path in document:
        return document[path]
    name, dot, rest = path.partition(".")
    while dot:
        inner = document.get(name, _MISSING)
        if isinstance(inner, dict) and (value := _value_at(inner, rest)) is not _MISSING:
            return value
        more, dot, rest = rest.partition(".")
        name = f"{name}.{more}"
    return _MISSING


def _comparison_key(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise InvalidQuery(f"a value cannot be compared: {error}") from None


async def _query_first_day(store: Store, query: MetricsQuery) -> datetime | None:
    first = Query(group_by=("day",), where=query.where, end=query.end, sort_keys=(SortKey("day"),), limit=1)
    (result,) = await store.query(first)
    return _parse_period(result.rows[0][0]) if result.rows else None


def _floor_to_period(moment: datetime, length: timedelta) -> datetime:
    return moment - (moment - _EPOCH) % length


def _iter_periods(first: datetime, end: datetime, length: timedelta) -> Iterator[datetime]:
    period = first
    while period < end:
        yield period
        period += length


def _parse_period(label: object) -> datetime:
    moment = datetime.fromisoformat(str(label))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _period_id(moment: datetime, period: Period) -> dict[str, int]:
    period_id = {"day": moment.day, "month": moment.month, "year": moment.year}
    if period.unit in {"hour", "minute"}:
        period_id["hour"] = moment.hour
    if period.unit == "minute":
        period_id["minute"] = moment.minute
    return period_id


def _format_period(period: tuple[int, ...]) -> str:
    year, month, day, *clock = period
    text = f" {clock[0]:02}:{(clock[1:] or [0])[0]:02}" if clock else ""
    return f"{day}/{month}/{year}{text}"


def _measure_values(numbers: tuple[Any, ...]) -> dict[str, int | float]:
    return {measure: _javascript_number(number) for measure, number in zip(_MEASURES, numbers, strict=True)}


def _javascript_number(number: float | None) -> int | float:
    """Return a number as JavaScript writes it: whole numbers without a decimal point."""
    if number is None:
        return 0
    return int(number) if number == int(number) and abs(number) < _MAX_SAFE_INTEGER else number


async def _list_tag_names(store: Store, query: MetricsQuery) -> list[str]:
    """Return the names of all tags, which each document has in one or more fields."""
    names: set[str] = set()
    for part in count():
        (result,) = await store.query(_values_query(query, tag_keys_field(part)))
        if not result.rows:
            break
        for text in _first_column(result):
            names.update(_decode_tag_names(text))
    return sorted(names)


def _decode_tag_names(text: str) -> list[str]:
    try:
        names = orjson.loads(text)
    except orjson.JSONDecodeError:
        # An event of another protocol may have these fields, too.
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _first_column(result: QueryResult) -> list[str]:
    return [str(row[0]) for row in _require_complete(result).rows]


def _document_cells(document: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> list[Any]:
    row = {**document, "tagKeys": ",".join(document["tagKeys"])}
    return [row[group].get(name) if group in DOCUMENT_GROUPS else row.get(group) for group, name in columns]


def _check_csv_size(columns: int, rows: int) -> None:
    if columns > MAX_COLUMNS or columns * rows > MAX_CELLS:
        raise _result_too_large(f"over {MAX_COLUMNS} columns or {MAX_CELLS} cells")
