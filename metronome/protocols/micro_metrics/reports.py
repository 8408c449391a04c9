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

from metronome.errors import Malformed, Unaskable
from metronome.protocols.micro_metrics.dates import read_date
from metronome.protocols.micro_metrics.documents import ANY_VALUE, MARK, read_pairs, tag_keys_field, tracked_of
from metronome.protocols.micro_metrics.payloads import KEY
from metronome.reports.csv import csv_text
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Answer, AnyOf, Equals, Exists, Filter, Metric, Order, Question, Range

PARAMETERS: Final = ("type", "tags", "fields", "value", "startDate", "endDate", "last", "period")
"""What every report can be asked with; ``period`` says something to some only."""
PERIODS: Final = {"d": "day", "h": "hour", "m": "minute"}
"""The lengths of time that measures are given for, and the time unit of each."""
ALL: Final = "0"
"""The ``last`` that is without beginning and end."""
USUAL_LAST: Final = "30d"

_AGO: Final = re.compile(r"(?=[\ddhm]{2,30}$)(?!.*([dhm]).*\1)(?:\d{1,7}[dhm])+", re.ASCII)
_PART: Final = re.compile(r"(\d+)([dhm])", re.ASCII)
_NAMES: Final = {"d": "days", "h": "hours", "m": "minutes"}
_PLUS: Final = re.compile(r"(T\d\d:\d\d\S*) (?=\d\d:?\d\d$)")
"""In an address a + that was not encoded arrives as a space."""
_LEAST: Final = timedelta(milliseconds=1)
_MINUTE: Final = timedelta(minutes=1)
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """Which documents a report is about.

    Attributes:
        where: holds for them.
        start: they are from then on; None for all older ones.
        end: they are from before then; None for all newer ones.
        period: one of `PERIODS`.
        now: when it was asked.

    """

    where: AllOf
    start: datetime | None
    end: datetime | None
    period: str
    now: datetime


def read_asked(query: Mapping[str, str], now: datetime, own: str = "", last: str = USUAL_LAST) -> Asked:
    """Read what a report is asked with.

    Args:
        query: as in the address. ``tags`` and ``fields`` are lists as `read_pairs` reads them: a name alone asks
            for documents that have it, whatever its value is.
        now: what ``last`` counts from, aware.
        own: the name of what this report takes besides.
        last: how far it looks back if neither ``last`` nor a date is given.

    Raises:
        Unaskable, Malformed: a name is unknown or a value cannot be; the message says which.

    """
    known = (*PARAMETERS, own) if own else PARAMETERS
    for name in query:
        if name not in known and name != KEY:
            raise Unaskable(f'"{name[:_SHOWN]}" is not allowed: there are {", ".join(known)}')
    period = query.get("period") or "d"
    if period not in PERIODS:
        raise Unaskable(f'"period" is {period[:_SHOWN]!r} and must be one of {", ".join(PERIODS)}')
    start, end = _range(query, now, last)
    return Asked(_where(query), start, end, period, now)


def _where(query: Mapping[str, str]) -> AllOf:
    filters: list[Filter] = [Equals(*MARK)]
    if query.get("type"):
        filters.append(Equals("event", query["type"]))
    for group in ("tags", "fields"):
        for name, value in read_pairs(query.get(group, "")).items():
            field = f"{group}.{name}"
            filters.append(Exists(field) if value is True else Equals(field, str(value)))
    if query.get("value"):
        filters.append(_has_value(query["value"]))
    return AllOf(tuple(filters))


def _has_value(text: str) -> Filter:
    """Ask for the number that a text is, or for the text."""
    is_text = Equals(ANY_VALUE, text)
    try:
        number = float(text)
    except ValueError:
        return is_text
    if not math.isfinite(number):
        return is_text
    return AnyOf((Range("value", at_least=number, at_most=number), is_text))


def _range(query: Mapping[str, str], now: datetime, usual: str) -> tuple[datetime | None, datetime | None]:
    start, end = _moment(query, "startDate"), _moment(query, "endDate")
    last = query.get("last") or (ALL if start or end else usual)
    if last == ALL:
        # An end is part of what is asked for.
        return start, None if end is None else _later(end, _LEAST)
    minute = now.replace(second=0, microsecond=0)
    return _ago(last, minute), _later(minute, _MINUTE + _LEAST)


def _moment(query: Mapping[str, str], name: str) -> datetime | None:
    text = query.get(name)
    if not text:
        return None
    try:
        return read_date(_PLUS.sub(r"\1+", text))
    except Malformed as error:
        raise Malformed(f'"{name}": {error}') from None


def _ago(last: str, minute: datetime) -> datetime:
    """Count back from this minute, or whole days from this day's beginning."""
    if _AGO.fullmatch(last) is None:
        raise Unaskable(f'"last" is {last[:_SHOWN]!r}: write how far back, as 30d or 2d3h25m, or 0 for everything')
    parts = {_NAMES[unit]: int(number) for number, unit in _PART.findall(last)}
    whole_days = not (parts.get("hours") or parts.get("minutes"))
    try:
        return (minute.replace(hour=0, minute=0) if whole_days else minute) - timedelta(**parts)
    except OverflowError:
        raise Unaskable(f'"last" is {last}, from before the year 1: write 0 for everything') from None


def _later(moment: datetime, more: timedelta) -> datetime | None:
    """Return a later moment, or None where the calendar ends."""
    try:
        return moment + more
    except OverflowError:
        return None


MAX_DOCUMENTS: Final = 100_000
"""How many documents one report may go through."""
MAX_BYTES: Final = 32 * 2**20
"""How large these may be altogether."""
MAX_ROWS: Final = 50_000
"""How many lengths of time, groups, or values of tags one answer may have."""

_ADVICE: Final = "ask for a shorter time with startDate, endDate or last, or for one type"


def too_much(what: str) -> Unaskable:
    """Return the error of a report that would be too large.

    Args:
        what: of which there is too much, as ``over 100 documents``.

    """
    return Unaskable(f"the answer would hold {what}: {_ADVICE}")


def check_whole(answer: Answer) -> Answer:
    """Return an answer that has all its rows.

    Raises:
        Unaskable: it has too many.

    """
    if answer.total > MAX_ROWS or not answer.exact:
        raise too_much(f"over {MAX_ROWS} rows")
    return answer


_TURN_DOCUMENTS: Final = 500
"""So many are read before other work gets its turn."""
_INDEXED: Final = ("tags", "fields")
_ABSENT: Final = object()


async def count(store: Store, asked: Asked) -> int:
    """Answer how many documents there are."""
    (answer,) = await store.ask(_count(asked.where, asked))
    return int(answer.rows[0][0] or 0) if answer.rows else 0


async def report(store: Store, asked: Asked) -> list[bytes]:
    """Answer with the documents, oldest first, each as JSON.

    Raises:
        Unaskable: there are too many of them.

    """
    return [orjson.dumps(tracked) async for tracked in _documents(store, asked, asked.where)]


async def unique(store: Store, asked: Asked, path: str) -> list[dict[str, Any]]:
    """Answer which values there are at a place in the documents.

    Args:
        store: what is asked.
        asked: which documents.
        path: the place, as ``tags.currency``, ``userId`` or ``data.cart.total``.

    Returns:
        Each value once, in the order of its first document, as ``_id``, with the different ``types``, ``tags``,
        ``values`` and ``data`` of its documents, and their ``count``. Documents without such a value are left out.

    Raises:
        Unaskable: there are too many documents to go through.

    """
    group, _, name = path.partition(".")
    where: Filter = asked.where
    if group in _INDEXED and name and "." not in name:
        where = AllOf((asked.where, Exists(path)))
    found: dict[bytes, _Same] = {}
    async for tracked in _documents(store, asked, where):
        value = _at(tracked, path)
        if value is not _ABSENT:
            found.setdefault(_code(value), _Same(value)).add(tracked)
    return [same.row() for same in found.values()]


@dataclass(slots=True)
class _Same:
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
            kept.setdefault(_code(tracked[name]), tracked[name])

    def row(self) -> dict[str, Any]:
        different = {"types": self.types, "tags": self.tags, "values": self.values, "data": self.data}
        return {
            "_id": self.value,
            **{name: list(kept.values()) for name, kept in different.items()},
            "count": self.count,
        }


async def _documents(store: Store, asked: Asked, where: Filter) -> AsyncIterator[dict[str, Any]]:
    (answer,) = await store.ask(_count(where, asked))
    if answer.rows and int(answer.rows[0][0] or 0) > MAX_DOCUMENTS:
        raise too_much(f"over {MAX_DOCUMENTS} documents")
    number = size = 0
    async for line in store.documents(where, asked.start, asked.end):
        number, size = number + 1, size + len(line)
        if size > MAX_BYTES:
            raise too_much(f"over {MAX_BYTES} bytes of documents")
        if number % _TURN_DOCUMENTS == 0:
            await asyncio.sleep(0)
        yield tracked_of(line)


def _count(where: Filter, asked: Asked) -> Question:
    return Question(where=where, start=asked.start, end=asked.end)


def _at(tracked: Mapping[str, Any], path: str) -> Any:
    """Return what lies at a path: a name may itself have dots."""
    if path in tracked:
        return tracked[path]
    name, dot, rest = path.partition(".")
    while dot:
        inner = tracked.get(name, _ABSENT)
        if isinstance(inner, dict) and (value := _at(inner, rest)) is not _ABSENT:
            return value
        more, dot, rest = rest.partition(".")
        name = f"{name}.{more}"
    return _ABSENT


def _code(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise Unaskable(f"a value cannot be compared: {error}") from None


Number = int | float

_MEASURES: Final = ("sum", "avg", "max", "min")
_METRICS: Final = tuple(Metric.parse(f"{measure}:value") for measure in _MEASURES)
_LENGTHS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
_EXACT_BELOW: Final = 2.0**53
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def aggregate(store: Store, asked: Asked) -> list[dict[str, Any]]:
    """Answer with the measures of values, for each day, hour or minute (UTC) of the time that is asked for.

    Returns:
        ``dateString`` (a stamp), ``date`` (its milliseconds, as text), ``sum``, ``avg``, ``max`` and ``min``, oldest
        first, zeros where nothing was. Without a beginning, the first is that of the first document; without
        an end, the last is now, or that of the last document.

    Raises:
        Unaskable: there would be too many.

    """
    start = asked.start if asked.start is not None else await _first_day(store, asked)
    if start is None:
        return []
    # The moment that the time asked for ends at is no length of time any more.
    end = asked.now if asked.end is None else asked.end - _LEAST
    length = _LENGTHS[asked.period]
    begin = _floor(start, length)
    if (end - begin) / length > MAX_ROWS:
        raise too_much(f"over {MAX_ROWS} rows for period={asked.period}")
    (answer,) = await store.ask(_question(asked, asked.where, (PERIODS[asked.period],)))
    found = {_measures_moment(row[0]): row[1:] for row in check_whole(answer).rows}
    if asked.start is None and found:
        begin = min(found)
    moments = sorted({*_moments(begin, end, length), *found})
    return [_row(moment, found.get(moment, (None,) * len(_MEASURES))) for moment in moments]


async def groupby(store: Store, asked: Asked, tag: str) -> dict[str, list[dict[str, Any]]]:
    """Answer with the measures of values, for each value of a tag, by days, hours or minutes (UTC).

    Args:
        store: what is asked.
        asked: which documents.
        tag: its name.

    Returns:
        For each value that the tag has in them, as text, what there was, oldest first, each with its time as
        ``_id``: ``day``, ``month``, ``year``, and as the period is shorter ``hour`` and ``minute``.

    Raises:
        Unaskable: there would be too many.

    """
    field = f"tags.{tag}"
    unit = PERIODS[asked.period]
    (answer,) = await store.ask(_question(asked, AllOf((asked.where, Exists(field))), (field, unit)))
    groups: dict[str, list[dict[str, Any]]] = {}
    for value, moment, *measures in check_whole(answer).rows:
        here = {"_id": _identity(_measures_moment(moment), asked.period), **_measures(tuple(measures))}
        groups.setdefault(str(value), []).append(here)
    return groups


async def _first_day(store: Store, asked: Asked) -> datetime | None:
    first = Question(by=("day",), where=asked.where, end=asked.end, order=(Order("day"),), limit=1)
    (answer,) = await store.ask(first)
    return _measures_moment(answer.rows[0][0]) if answer.rows else None


def _question(asked: Asked, where: Filter, by: tuple[str, ...]) -> Question:
    return Question(metrics=_METRICS, by=by, where=where, start=asked.start, end=asked.end, limit=MAX_ROWS)


def _moments(begin: datetime, end: datetime, length: timedelta) -> Iterator[datetime]:
    moment = begin
    while moment < end:
        yield moment
        moment += length


def _row(moment: datetime, measures: tuple[Any, ...]) -> dict[str, Any]:
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"dateString": text, "date": str((moment - _EPOCH) // _LEAST), **_measures(measures)}


def _measures(numbers: tuple[Any, ...]) -> dict[str, Number]:
    return {name: _number(number) for name, number in zip(_MEASURES, numbers, strict=True)}


def _number(number: float | None) -> Number:
    """Write a number as JavaScript does: none has a point for nothing."""
    if number is None:
        return 0
    return int(number) if number == int(number) and abs(number) < _EXACT_BELOW else number


def _identity(moment: datetime, period: str) -> dict[str, int]:
    identity = {"day": moment.day, "month": moment.month, "year": moment.year}
    if period != "d":
        identity["hour"] = moment.hour
    if period == "m":
        identity["minute"] = moment.minute
    return identity


def _floor(moment: datetime, length: timedelta) -> datetime:
    return moment - (moment - _EPOCH) % length


def _measures_moment(text: object) -> datetime:
    found = datetime.fromisoformat(str(text))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


MAX_TAGS: Final = 1000
"""How many tags' values are listed at once."""
_AT_ONCE: Final = 20


async def tags(store: Store, asked: Asked) -> dict[str, list[str]]:
    """Answer which tags there are, each with its values, all sorted.

    Raises:
        Unaskable: there are too many.

    """
    names = await _tag_names(store, asked)
    if len(names) > MAX_TAGS:
        raise too_much(f"over {MAX_TAGS} tags")
    found: dict[str, list[str]] = {}
    for at in range(0, len(names), _AT_ONCE):
        here = names[at : at + _AT_ONCE]
        answers = await store.ask(*(_values(asked, f"tags.{name}") for name in here))
        found.update({name: _column(answer) for name, answer in zip(here, answers, strict=True)})
        if sum(map(len, found.values())) > MAX_ROWS:
            raise too_much(f"over {MAX_ROWS} values of tags")
    return found


async def tag_values(store: Store, asked: Asked, tag: str) -> list[str]:
    """Answer which values a tag has, sorted.

    Raises:
        Unaskable: there are too many.

    """
    (answer,) = await store.ask(_values(asked, f"tags.{tag}"))
    return _column(answer)


async def types(store: Store, asked: Asked) -> list[str]:
    """Answer which types there are, sorted.

    Raises:
        Unaskable: there are too many.

    """
    (answer,) = await store.ask(_values(asked, "event"))
    return _column(answer)


async def _tag_names(store: Store, asked: Asked) -> list[str]:
    """List the names of tags: documents name theirs together, those with many in several parts."""
    names: set[str] = set()
    for part in names_count():
        (answer,) = await store.ask(_values(asked, tag_keys_field(part)))
        if not answer.rows:
            break
        for text in _column(answer):
            names.update(_names_in(text))
    return sorted(names)


def _names_in(text: str) -> list[str]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        # An event of another protocol may bear these fields, too.
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _values(asked: Asked, field: str) -> Question:
    return Question(by=(field,), where=asked.where, start=asked.start, end=asked.end, limit=MAX_ROWS)


def _column(answer: Answer) -> list[str]:
    return [str(row[0]) for row in check_whole(answer).rows]


MAX_COLUMNS: Final = 1000
MAX_CELLS: Final = 10_000_000

_TABLES_MEASURES: Final = {"Sum": "sum", "Avg": "avg", "Max": "max", "Min": "min"}
_GROUPS: Final = ("tags", "fields", "data")


def documents_table(documents: Sequence[bytes]) -> str:
    """Write documents: each tag, field and entry of data is a column, tagKeys one with commas.

    Args:
        documents: each as JSON.

    Raises:
        Unaskable: there would be too many columns.

    """
    inner: dict[str, set[str]] = {group: set() for group in _GROUPS}
    for line in documents:
        tracked = orjson.loads(line)
        for group in _GROUPS:
            inner[group].update(tracked[group])
        _check(sum(map(len, inner.values())), len(documents))
    columns: list[tuple[str, str]] = [("type", "")]
    columns += [("tags", name) for name in sorted(inner["tags"])]
    columns += [("fields", name) for name in sorted(inner["fields"])]
    columns += [("value", "")]
    columns += [("data", name) for name in sorted(inner["data"])]
    columns += [("userId", ""), ("sessionId", ""), ("createdOn", ""), ("tagKeys", "")]
    names = [f"{group}.{name}" if group in _GROUPS else group for group, name in columns]
    return csv_text(names, (_cells(orjson.loads(line), columns) for line in documents))


def aggregate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the measures of values by time."""
    cells = ([row["dateString"], *(row[name] for name in _TABLES_MEASURES.values())] for row in rows)
    return csv_text(["Date", *_TABLES_MEASURES], cells)


def groupby_table(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Write the sums by time: one column for each value of the tag, zeros where it had none.

    Raises:
        Unaskable: there would be too many columns.

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
    _check(len(values), len(sums))
    names = ["Date", *(value[:1].upper() + value[1:] for value in values)]
    cells = ([_date(moment), *(sums[moment].get(value, 0) for value in values)] for moment in sorted(sums))
    return csv_text(names, cells)


def unique_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the different values of a field, with what their documents have in JSON."""
    names = ("_id", "types", "tags", "values", "data", "count")
    return csv_text(names, ([row[name] for name in names] for row in rows))


def count_table(count: int) -> str:
    """Write a single count."""
    return csv_text(["count"], [[count]])


def _cells(tracked: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> list[Any]:
    row = {**tracked, "tagKeys": ",".join(tracked["tagKeys"])}
    return [row[group].get(name) if group in _GROUPS else row.get(group) for group, name in columns]


def _date(moment: tuple[int, ...]) -> str:
    year, month, day, *time = moment
    clock = f" {time[0]:02}:{(time[1:] or [0])[0]:02}" if time else ""
    return f"{day}/{month}/{year}{clock}"


def _check(columns: int, rows: int) -> None:
    if columns > MAX_COLUMNS or columns * rows > MAX_CELLS:
        raise too_much(f"over {MAX_COLUMNS} columns or {MAX_CELLS} cells")
