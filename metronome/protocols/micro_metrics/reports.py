"""What the reports of micro-metrics are asked with: which documents, and of which time.

The reports of micro-metrics: each asks the store, of tracked documents only, and knows no store.

How much one answer may hold: it has to fit into memory, of this service and of whoever asks.

The reports that hold, or go through, the documents themselves.

The reports that measure values by time: one series of all, or one for each value of a tag.

The reports on what there is to ask for: tags, their values, and types.

Values are told as text, whatever they were: ``5`` and ``"5"`` are one, and of long texts only the beginning
counts.

Reports as CSV, with a line of names first.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count as names_count
from typing import Any, Final

import orjson

from metronome.errors import InvalidQuery, Malformed
from metronome.protocols.micro_metrics.dates import parse_javascript_date
from metronome.protocols.micro_metrics.documents import (
    OTHER_VALUE_FIELD,
    PROTOCOL_MARKER,
    parse_pairs,
    restore_document,
    tag_keys_field,
)
from metronome.protocols.micro_metrics.payloads import KEY_PARAMETER
from metronome.reports.csv import format_csv
from metronome.stores.base import Store
from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Metric, Query, QueryResult, Range, SortKey

QUERY_PARAMETERS: Final = ("type", "tags", "fields", "value", "startDate", "endDate", "last", "period")
"""What every report can be asked with; ``period`` says something to some only."""
PERIOD_UNITS: Final = {"d": "day", "h": "hour", "m": "minute"}
"""The lengths of time that measures are given for, and the time unit of each."""
ALL_TIME: Final = "0"
"""The ``last`` that is without beginning and end."""
DEFAULT_LAST: Final = "30d"

_LAST_PATTERN: Final = re.compile(r"(?=[\ddhm]{2,30}$)(?!.*([dhm]).*\1)(?:\d{1,7}[dhm])+", re.ASCII)
_LAST_PART_PATTERN: Final = re.compile(r"(\d+)([dhm])", re.ASCII)
_TIMEDELTA_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}
_UNENCODED_PLUS_PATTERN: Final = re.compile(r"(T\d\d:\d\d\S*) (?=\d\d:?\d\d$)")
"""In an address a + that was not encoded arrives as a space."""
_MILLISECOND: Final = timedelta(milliseconds=1)
_MINUTE: Final = timedelta(minutes=1)
_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class MetricsQuery:
    """Which documents a report is about.

    Attributes:
        where: holds for them.
        start: they are from then on; None for all older ones.
        end: they are from before then; None for all newer ones.
        period: one of `PERIOD_UNITS`.
        now: when it was asked.

    """

    where: AllOf
    start: datetime | None
    end: datetime | None
    period: str
    now: datetime


def parse_metrics_query(
    query: Mapping[str, str], now: datetime, extra_parameter: str = "", default_last: str = DEFAULT_LAST
) -> MetricsQuery:
    """Read what a report is asked with.

    Args:
        query: as in the address. ``list_tags`` and ``fields`` are lists as `parse_pairs` reads them: a name alone asks
            for documents that have it, whatever its value is.
        now: what ``last`` counts from, aware.
        extra_parameter: the name of what this report takes besides.
        default_last: how far it looks back if neither ``last`` nor a date is given.

    Raises:
        InvalidQuery, Malformed: a name is unknown or a value cannot be; the message says which.

    """
    known = (*QUERY_PARAMETERS, extra_parameter) if extra_parameter else QUERY_PARAMETERS
    for name in query:
        if name not in known and name != KEY_PARAMETER:
            raise InvalidQuery(f'"{name[:_SHOWN_CHARACTERS]}" is not allowed: there are {", ".join(known)}')
    period = query.get("period") or "d"
    if period not in PERIOD_UNITS:
        raise InvalidQuery(f'"period" is {period[:_SHOWN_CHARACTERS]!r} and must be one of {", ".join(PERIOD_UNITS)}')
    start, end = _parse_range(query, now, default_last)
    return MetricsQuery(_build_filter(query), start, end, period, now)


def _build_filter(query: Mapping[str, str]) -> AllOf:
    filters: list[Filter] = [Equals(*PROTOCOL_MARKER)]
    if query.get("type"):
        filters.append(Equals("event", query["type"]))
    for group in ("tags", "fields"):
        for name, value in parse_pairs(query.get(group, "")).items():
            field = f"{group}.{name}"
            filters.append(Exists(field) if value is True else Equals(field, str(value)))
    if query.get("value"):
        filters.append(_value_filter(query["value"]))
    return AllOf(tuple(filters))


def _value_filter(text: str) -> Filter:
    """Ask for the number that a text is, or for the text."""
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
        # An end is part of what is asked for.
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
    """Count back from this minute, or whole days from this day's beginning."""
    if _LAST_PATTERN.fullmatch(last) is None:
        raise InvalidQuery(
            f'"last" is {last[:_SHOWN_CHARACTERS]!r}: write how far back, as 30d or 2d3h25m, or 0 for everything'
        )
    parts = {_TIMEDELTA_UNITS[unit]: int(number) for number, unit in _LAST_PART_PATTERN.findall(last)}
    whole_days = not (parts.get("hours") or parts.get("minutes"))
    try:
        return (minute.replace(hour=0, minute=0) if whole_days else minute) - timedelta(**parts)
    except OverflowError:
        raise InvalidQuery(f'"last" is {last}, from before the year 1: write 0 for everything') from None


def _add_or_none(moment: datetime, delta: timedelta) -> datetime | None:
    """Return a later moment, or None where the calendar ends."""
    try:
        return moment + delta
    except OverflowError:
        return None


MAX_DOCUMENTS: Final = 100_000
"""How many documents one report may go through."""
DOCUMENTS_MAX_BYTES: Final = 32 * 2**20
"""How large these may be altogether."""
MAX_ROWS: Final = 50_000
"""How many lengths of time, groups, or values of tags one answer may have."""

_ADVICE: Final = "ask for a shorter time with startDate, endDate or last, or for one type"


def result_too_large(what: str) -> InvalidQuery:
    """Return the error of a report that would be too large.

    Args:
        what: of which there is too much, as ``over 100 documents``.

    """
    return InvalidQuery(f"the answer would hold {what}: {_ADVICE}")


def require_complete(result: QueryResult) -> QueryResult:
    """Return an answer that has all its rows.

    Raises:
        InvalidQuery: it has too many.

    """
    if result.total > MAX_ROWS or not result.exact:
        raise result_too_large(f"over {MAX_ROWS} rows")
    return result


_DOCUMENTS_PER_SLICE: Final = 500
"""So many are read before other work gets its turn."""
_INDEXED_GROUPS: Final = ("tags", "fields")
_MISSING: Final = object()


async def count_documents(store: Store, query: MetricsQuery) -> int:
    """Answer how many documents there are."""
    (answer,) = await store.query(_count_query(query.where, query))
    return int(answer.rows[0][0] or 0) if answer.rows else 0


async def list_documents(store: Store, query: MetricsQuery) -> list[bytes]:
    """Answer with the documents, oldest first, each as JSON.

    Raises:
        InvalidQuery: there are too many of them.

    """
    return [orjson.dumps(tracked) async for tracked in _iter_documents(store, query, query.where)]


async def unique_values(store: Store, query: MetricsQuery, path: str) -> list[dict[str, Any]]:
    """Answer which values there are at a place in the documents.

    Args:
        store: what is asked.
        query: which documents.
        path: the place, as ``tags.currency``, ``userId`` or ``data.cart.total``.

    Returns:
        Each value once, in the order of its first document, as ``_id``, with the different ``list_types``,
        ``list_tags``,
        ``values`` and ``data`` of its documents, and their ``count_documents``. Documents without such a value are
        left out.

    Raises:
        InvalidQuery: there are too many documents to go through.

    """
    group, _, name = path.partition(".")
    where: Filter = query.where
    if group in _INDEXED_GROUPS and name and "." not in name:
        where = AllOf((query.where, Exists(path)))
    found: dict[bytes, _ValueGroup] = {}
    async for tracked in _iter_documents(store, query, where):
        value = _value_at(tracked, path)
        if value is not _MISSING:
            found.setdefault(_comparison_key(value), _ValueGroup(value)).add(tracked)
    return [same.to_row() for same in found.values()]


@dataclass(slots=True)
class _ValueGroup:
    """The documents that have one value in common."""

    value: Any
    types: dict[bytes, Any] = field(default_factory=dict)
    tags: dict[bytes, Any] = field(default_factory=dict)
    values: dict[bytes, Any] = field(default_factory=dict)
    data: dict[bytes, Any] = field(default_factory=dict)
    count: int = 0

    def add(self, tracked: Mapping[str, Any]) -> None:
        self.count += 1
        kinds = ((self.types, "type"), (self.tags, "tags"), (self.values, "value"), (self.data, "data"))
        for kept, name in kinds:
            kept.setdefault(_comparison_key(tracked[name]), tracked[name])

    def to_row(self) -> dict[str, Any]:
        different = {"types": self.types, "tags": self.tags, "values": self.values, "data": self.data}
        return {
            "_id": self.value,
            **{name: list(kept.values()) for name, kept in different.items()},
            "count": self.count,
        }


async def _iter_documents(store: Store, query: MetricsQuery, where: Filter) -> AsyncIterator[dict[str, Any]]:
    (answer,) = await store.query(_count_query(where, query))
    if answer.rows and int(answer.rows[0][0] or 0) > MAX_DOCUMENTS:
        raise result_too_large(f"over {MAX_DOCUMENTS} documents")
    number = size = 0
    async for line in store.iterate_documents(where, query.start, query.end):
        number, size = number + 1, size + len(line)
        if size > DOCUMENTS_MAX_BYTES:
            raise result_too_large(f"over {DOCUMENTS_MAX_BYTES} bytes of documents")
        if number % _DOCUMENTS_PER_SLICE == 0:
            await asyncio.sleep(0)
        yield restore_document(line)


def _count_query(where: Filter, query: MetricsQuery) -> Query:
    return Query(where=where, start=query.start, end=query.end)


def _value_at(tracked: Mapping[str, Any], path: str) -> Any:
    """Return what lies at a path: a name may itself have dots."""
    if path in tracked:
        return tracked[path]
    name, dot, rest = path.partition(".")
    while dot:
        inner = tracked.get(name, _MISSING)
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


Number = int | float

_MEASURE_NAMES: Final = ("sum", "avg", "max", "min")
_VALUE_METRICS: Final = tuple(Metric.parse(f"{measure}:value") for measure in _MEASURE_NAMES)
_PERIOD_LENGTHS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
_MAX_SAFE_INTEGER: Final = 2.0**53
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def aggregate_values(store: Store, query: MetricsQuery) -> list[dict[str, Any]]:
    """Answer with the measures of values, for each day, hour or minute (UTC) of the time that is asked for.

    Returns:
        ``dateString`` (a stamp), ``date`` (its milliseconds, as text), ``sum``, ``avg``, ``max`` and ``min``, oldest
        first, zeros where nothing was. Without a beginning, the first is that of the first document; without
        an end, the last is now, or that of the last document.

    Raises:
        InvalidQuery: there would be too many.

    """
    start = query.start if query.start is not None else await _query_first_day(store, query)
    if start is None:
        return []
    # The moment that the time asked for ends at is no length of time any more.
    end = query.now if query.end is None else query.end - _MILLISECOND
    length = _PERIOD_LENGTHS[query.period]
    begin = _floor_to_period(start, length)
    if (end - begin) / length > MAX_ROWS:
        raise result_too_large(f"over {MAX_ROWS} rows for period={query.period}")
    (answer,) = await store.query(_build_query(query, query.where, (PERIOD_UNITS[query.period],)))
    found = {_parse_period(row[0]): row[1:] for row in require_complete(answer).rows}
    if query.start is None and found:
        begin = min(found)
    moments = sorted({*_iter_periods(begin, end, length), *found})
    return [_aggregate_row(moment, found.get(moment, (None,) * len(_MEASURE_NAMES))) for moment in moments]


async def group_values(store: Store, query: MetricsQuery, tag: str) -> dict[str, list[dict[str, Any]]]:
    """Answer with the measures of values, for each value of a tag, by days, hours or minutes (UTC).

    Args:
        store: what is asked.
        query: which documents.
        tag: its name.

    Returns:
        For each value that the tag has in them, as text, what there was, oldest first, each with its time as
        ``_id``: ``day``, ``month``, ``year``, and as the period is shorter ``hour`` and ``minute``.

    Raises:
        InvalidQuery: there would be too many.

    """
    field = f"tags.{tag}"
    unit = PERIOD_UNITS[query.period]
    (answer,) = await store.query(_build_query(query, AllOf((query.where, Exists(field))), (field, unit)))
    groups: dict[str, list[dict[str, Any]]] = {}
    for value, moment, *measures in require_complete(answer).rows:
        here = {"_id": _period_id(_parse_period(moment), query.period), **_measure_values(tuple(measures))}
        groups.setdefault(str(value), []).append(here)
    return groups


async def _query_first_day(store: Store, query: MetricsQuery) -> datetime | None:
    first = Query(group_by=("day",), where=query.where, end=query.end, sort_keys=(SortKey("day"),), limit=1)
    (answer,) = await store.query(first)
    return _parse_period(answer.rows[0][0]) if answer.rows else None


def _build_query(query: MetricsQuery, where: Filter, by: tuple[str, ...]) -> Query:
    return Query(metrics=_VALUE_METRICS, group_by=by, where=where, start=query.start, end=query.end, limit=MAX_ROWS)


def _iter_periods(begin: datetime, end: datetime, length: timedelta) -> Iterator[datetime]:
    moment = begin
    while moment < end:
        yield moment
        moment += length


def _aggregate_row(moment: datetime, measures: tuple[Any, ...]) -> dict[str, Any]:
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"dateString": text, "date": str((moment - _EPOCH) // _MILLISECOND), **_measure_values(measures)}


def _measure_values(numbers: tuple[Any, ...]) -> dict[str, Number]:
    return {name: _javascript_number(number) for name, number in zip(_MEASURE_NAMES, numbers, strict=True)}


def _javascript_number(number: float | None) -> Number:
    """Write a number as JavaScript does: none has a point for nothing."""
    if number is None:
        return 0
    return int(number) if number == int(number) and abs(number) < _MAX_SAFE_INTEGER else number


def _period_id(moment: datetime, period: str) -> dict[str, int]:
    identity = {"day": moment.day, "month": moment.month, "year": moment.year}
    if period != "d":
        identity["hour"] = moment.hour
    if period == "m":
        identity["minute"] = moment.minute
    return identity


def _floor_to_period(moment: datetime, length: timedelta) -> datetime:
    return moment - (moment - _EPOCH) % length


def _parse_period(text: object) -> datetime:
    found = datetime.fromisoformat(str(text))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


MAX_TAGS: Final = 1000
"""How many tags' values are listed at once."""
_TAGS_PER_QUERY: Final = 20


async def list_tags(store: Store, query: MetricsQuery) -> dict[str, list[str]]:
    """Answer which tags there are, each with its values, all sorted.

    Raises:
        InvalidQuery: there are too many.

    """
    names = await _list_tag_names(store, query)
    if len(names) > MAX_TAGS:
        raise result_too_large(f"over {MAX_TAGS} tags")
    found: dict[str, list[str]] = {}
    for at in range(0, len(names), _TAGS_PER_QUERY):
        here = names[at : at + _TAGS_PER_QUERY]
        answers = await store.query(*(_values_query(query, f"tags.{name}") for name in here))
        found.update({name: _first_column(answer) for name, answer in zip(here, answers, strict=True)})
        if sum(map(len, found.values())) > MAX_ROWS:
            raise result_too_large(f"over {MAX_ROWS} values of tags")
    return found


async def list_tag_values(store: Store, query: MetricsQuery, tag: str) -> list[str]:
    """Answer which values a tag has, sorted.

    Raises:
        InvalidQuery: there are too many.

    """
    (answer,) = await store.query(_values_query(query, f"tags.{tag}"))
    return _first_column(answer)


async def list_types(store: Store, query: MetricsQuery) -> list[str]:
    """Answer which types there are, sorted.

    Raises:
        InvalidQuery: there are too many.

    """
    (answer,) = await store.query(_values_query(query, "event"))
    return _first_column(answer)


async def _list_tag_names(store: Store, query: MetricsQuery) -> list[str]:
    """List the names of tags: documents name theirs together, those with many in several parts."""
    names: set[str] = set()
    for part in names_count():
        (answer,) = await store.query(_values_query(query, tag_keys_field(part)))
        if not answer.rows:
            break
        for text in _first_column(answer):
            names.update(_decode_tag_names(text))
    return sorted(names)


def _decode_tag_names(text: str) -> list[str]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        # An event of another protocol may bear these fields, too.
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _values_query(query: MetricsQuery, field: str) -> Query:
    return Query(group_by=(field,), where=query.where, start=query.start, end=query.end, limit=MAX_ROWS)


def _first_column(result: QueryResult) -> list[str]:
    return [str(row[0]) for row in require_complete(result).rows]


MAX_COLUMNS: Final = 1000
MAX_CELLS: Final = 10_000_000

_MEASURE_COLUMNS: Final = {"Sum": "sum", "Avg": "avg", "Max": "max", "Min": "min"}
_CSV_GROUPS: Final = ("tags", "fields", "data")


def encode_documents_csv(documents: Sequence[bytes]) -> str:
    """Write documents: each tag, field and entry of data is a column, tagKeys one with commas.

    Args:
        documents: each as JSON.

    Raises:
        InvalidQuery: there would be too many columns.

    """
    inner: dict[str, set[str]] = {group: set() for group in _CSV_GROUPS}
    for line in documents:
        tracked = orjson.loads(line)
        for group in _CSV_GROUPS:
            inner[group].update(tracked[group])
        _check_csv_size(sum(map(len, inner.values())), len(documents))
    columns: list[tuple[str, str]] = [("type", "")]
    columns += [("tags", name) for name in sorted(inner["tags"])]
    columns += [("fields", name) for name in sorted(inner["fields"])]
    columns += [("value", "")]
    columns += [("data", name) for name in sorted(inner["data"])]
    columns += [("userId", ""), ("sessionId", ""), ("createdOn", ""), ("tagKeys", "")]
    names = [f"{group}.{name}" if group in _CSV_GROUPS else group for group, name in columns]
    return format_csv(names, (_document_cells(orjson.loads(line), columns) for line in documents))


def encode_aggregate_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the measures of values by time."""
    cells = ([row["dateString"], *(row[name] for name in _MEASURE_COLUMNS.values())] for row in rows)
    return format_csv(["Date", *_MEASURE_COLUMNS], cells)


def encode_groups_csv(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Write the sums by time: one column for each value of the tag, zeros where it had none.

    Raises:
        InvalidQuery: there would be too many columns.

    """
    sums: dict[tuple[int, ...], dict[str, Any]] = {}
    for value, rows in groups.items():
        for row in rows:
            here = row["_id"]
            moment = (
                here["year"],
                here["month"],
                here["day"],
                *(here[unit] for unit in ("hour", "minute") if unit in here),
            )
            sums.setdefault(moment, {})[value] = row["sum"]
    values = sorted(groups)
    _check_csv_size(len(values), len(sums))
    names = ["Date", *(value[:1].upper() + value[1:] for value in values)]
    cells = ([_format_period(moment), *(sums[moment].get(value, 0) for value in values)] for moment in sorted(sums))
    return format_csv(names, cells)


def encode_unique_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the different values of a field, with what their documents have in JSON."""
    names = ("_id", "types", "tags", "values", "data", "count")
    return format_csv(names, ([row[name] for name in names] for row in rows))


def encode_count_csv(count: int) -> str:
    """Write a single count."""
    return format_csv(["count"], [[count]])


def _document_cells(document: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> list[Any]:
    row = {**document, "tagKeys": ",".join(document["tagKeys"])}
    return [row[group].get(name) if group in _CSV_GROUPS else row.get(group) for group, name in columns]


def _format_period(moment: tuple[int, ...]) -> str:
    year, month, day, *time = moment
    clock = f" {time[0]:02}:{(time[1:] or [0])[0]:02}" if time else ""
    return f"{day}/{month}/{year}{clock}"


def _check_csv_size(columns: int, rows: int) -> None:
    if columns > MAX_COLUMNS or columns * rows > MAX_CELLS:
        raise result_too_large(f"over {MAX_COLUMNS} columns or {MAX_CELLS} cells")
