"""Questions as SQL: pure functions.

Fields and filters as SQL: pure functions.
"""

import math
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any, Final

from metronome.event import is_plain, param_name, param_value
from metronome.stores.duckdb.schema import COLUMNS, ROLLUP_COLUMNS
from metronome.stores.query import (
    TIME_UNITS,
    AllOf,
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
)

COUNTED_CHARACTERS: Final = 1024
"""A longer text counts as missing."""
ALWAYS_SHORT: Final = frozenset({"id", "event", "format", "referer", "bot"})
"""The door takes these only where they are short enough to be counted."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LISTED_MAX = 20
"""More values than these are one list, which costs no planning."""
_GREATEST = sys.float_info.max


def condition(where: Filter | None, start: datetime | None, end: datetime | None, values: list[object]) -> str:
    """Write a filter and a range of time as a condition, and append the values of its placeholders."""
    parts: list[str] = []
    if where is not None:
        parts.append(_filter(where, values))
    for moment, sign in ((start, ">="), (end, "<")):
        if moment is not None:
            parts.append(f"ts {sign} ?")
            values.append(moment.astimezone(UTC).replace(tzinfo=None))
    return " AND ".join(parts) or "true"


def text_of(name: str) -> str:
    """Write a field's text, as far as it is short enough to be counted."""
    return short_text(name, raw_text(name))


def short_text(name: str, raw: str) -> str:
    """Write a field's text, as far as it is short enough to be counted, where *raw* is all of it."""
    return raw if name in ALWAYS_SHORT else f"CASE WHEN length({raw}) <= {COUNTED_CHARACTERS} THEN {raw} END"


def raw_text(name: str) -> str:
    """Write a field's text, however long it is."""
    return f'"{name}"' if name in COLUMNS else f"json_extract_string(doc, {quoted(pointer_of(name))})"


def pointer_of(name: str) -> str:
    """Return where in a document a field stands."""
    if is_plain(name):
        return f"/{name}"
    sayable = _LONE_SURROGATE.sub("\ufffd", param_name(name))
    return "/params/" + sayable.replace("~", "~0").replace("/", "~1")


def quoted(text: str) -> str:
    """Write a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def _filter(where: Filter, values: list[object]) -> str:  # noqa: PLR0911  # one for each kind
    match where:
        case Equals(name, value):
            return _one_of(name, (value,), values)
        case OneOf(name, options):
            return _one_of(name, options, values)
        case Prefix(name, text):
            return _prefix(name, text, values)
        case Exists(name):
            return f"{raw_text(name)} IS NOT NULL" if name in ALWAYS_SHORT else _is_short(name)
        case Range():
            return _range(where, values)
        case Not(Exists(name)) if name in ALWAYS_SHORT:
            return f"{raw_text(name)} IS NULL"
        case Not(inner):
            return f"NOT coalesce(({_filter(inner, values)}), false)"
        case AllOf(inners):
            return "(" + (" AND ".join(_filter(inner, values) for inner in inners) or "true") + ")"
        case AnyOf(inners):
            return "(" + (" OR ".join(_filter(inner, values) for inner in inners) or "false") + ")"


# A field of a document has to be looked for in its whole text: the conditions name it once, and what is
# asked of the length of its text last, of those that are left.


def _one_of(name: str, options: tuple[str, ...], values: list[object]) -> str:
    possible = _possible(name, options)
    if len(possible) > _LISTED_MAX:
        values.append(possible)
        return f"{raw_text(name)} IN (SELECT unnest(?::VARCHAR[]))"
    values.extend(possible)
    return f"{raw_text(name)} IN ({', '.join('?' * len(possible))})" if possible else "false"


def _prefix(name: str, text: str, values: list[object]) -> str:
    possible = _possible(name, (text,))
    values.extend(possible)
    return f"(starts_with({raw_text(name)}, ?) AND {_is_short(name)})" if possible else "false"


def _possible(name: str, options: tuple[str, ...]) -> list[str]:
    """Leave out what no document holds, since UTF-8 cannot say it, and ask in ``params`` for what stands there."""
    sayable = [option for option in options if option.isascii() or _LONE_SURROGATE.search(option) is None]
    stored = sayable if is_plain(name) else [param_value(option) for option in sayable]
    return [option for option in stored if len(option) <= COUNTED_CHARACTERS]


def _is_short(name: str) -> str:
    return f"length({raw_text(name)}) <= {COUNTED_CHARACTERS}"


def _range(where: Range, values: list[object]) -> str:
    bounds = (where.above, where.at_least, where.below, where.at_most)
    if not is_plain(where.field) or any(bound is not None and math.isnan(bound) for bound in bounds):
        return "false"
    # Numbers are finite, and DuckDB has NaN above all others.
    least, most = [-_GREATEST], [_GREATEST]
    if where.above is not None:
        least.append(math.nextafter(where.above, math.inf))
    if where.at_least is not None:
        least.append(float(where.at_least))
    if where.below is not None:
        most.append(math.nextafter(where.below, -math.inf))
    if where.at_most is not None:
        most.append(float(where.at_most))
    values += [max(least), min(most)]
    return f"(try_cast({raw_text(where.field)} AS DOUBLE) BETWEEN ? AND ? AND {_is_short(where.field)})"


ROLLUP = f"(SELECT {', '.join(ROLLUP_COLUMNS)}, day AS ts, n FROM rollup)"
_ROLLUP_UNITS = frozenset({"day", "week", "month"})


@dataclass(slots=True)
class Statement:
    """SQL with the values of its placeholders."""

    sql: str = ""
    values: list[object] = field(default_factory=list)


class Cells:
    """What is worked out of each event, once, however often a statement needs it.

    Fields that have no column of their own are taken out of the document together, since that has to be read as a
    whole.

    Args:
        metrics: of a question.

    """

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._names: dict[str, str] = {}
        self._pointers: dict[str, int] = {}
        self._percents: dict[str, list[float]] = {}
        for metric in metrics:
            if metric.kind is Kind.PERCENTILE:
                self._percents.setdefault(metric.field, []).append(metric.percent)

    def group(self, name: str, tz: str) -> str:
        """Name the cell of what rows are grouped by."""
        return self._name(time_of(name, tz) if name in TIME_UNITS else self._text(name))

    def metric(self, metric: Metric) -> str:
        """Write a metric of cells, other than a count of events."""
        match metric.kind:
            case Kind.FIRST | Kind.LAST as kind:
                newest = f"{'min' if kind is Kind.FIRST else 'max'}({self._name('ts')})"
                return f"strftime({newest}, '%Y-%m-%dT%H:%M:%S.%gZ')"
            case Kind.UNIQUE:
                return f"count(DISTINCT {self._name(self._text(metric.field))})"
        number = self._number(metric.field)
        match metric.kind:
            case Kind.VALUES:
                return f"count({number})"
            case Kind.SUM:
                return f"coalesce(sum({number}), 0.0)"
            case Kind.PERCENTILE:
                # All of a field at once: it is sorted once then.
                percents = self._percents[metric.field]
                shares = ", ".join(str(percent / 100) for percent in percents)
                return f"quantile_cont({number}, [{shares}])[{percents.index(metric.percent) + 1}]"
            case _:
                return f"{metric.kind}({number})"

    def source(self, where: str) -> str:
        """Write the events that a condition lets through, as their cells."""
        events = f"events WHERE {where}"
        if self._pointers:
            pointers = ", ".join(quoted(pointer) for pointer in self._pointers)
            events = f"(SELECT *, json_extract_string(doc, [{pointers}]) AS found FROM {events})"
        cells = ", ".join(f"{cell} AS {name}" for cell, name in self._names.items()) or "1"
        return f"(SELECT {cells} FROM {events})"

    def _name(self, cell: str) -> str:
        return self._names.setdefault(cell, f"v{len(self._names)}")

    def _text(self, name: str) -> str:
        if name in COLUMNS:
            return text_of(name)
        at = self._pointers.setdefault(pointer_of(name), len(self._pointers) + 1)
        return short_text(name, f"found[{at}]")

    def _number(self, name: str) -> str:
        if not is_plain(name):
            return "NULL::DOUBLE"
        number = f"try_cast({self._text(name)} AS DOUBLE)"
        return self._name(f"CASE WHEN isfinite({number}) THEN {number} END")


def select(question: Question) -> Statement:
    """Write a question as SQL.

    Returns:
        A statement whose rows are those of the answer, in no order, all of them: a raw value for each
        group (see `show`), then the metrics.

    """
    result = Statement()
    where = condition(question.where, question.start, question.end, result.values)
    if fits_rollup(question):
        groups = [group_of(name, question.tz) for name in question.by]
        metrics = ["coalesce(sum(n)::BIGINT, 0)" for _ in question.metrics]
        source = f"{ROLLUP} WHERE {where}"
    else:
        cells = Cells(question.metrics)
        groups = [cells.group(name, question.tz) for name in question.by]
        metrics = ["count(*)" if each.kind is Kind.COUNT else cells.metric(each) for each in question.metrics]
        source = cells.source(where)
    columns = ", ".join(f"{column} AS c{at}" for at, column in enumerate([*groups, *metrics]))
    result.sql = f"SELECT {columns} FROM {source}"
    if groups:
        result.sql += f" GROUP BY {', '.join(str(at + 1) for at in range(len(groups)))}"
        whole = " AND ".join(f"c{at} IS NOT NULL" for at in range(len(groups)))
        # In this form it is not also asked of each event, which would work out the cells once more.
        result.sql += f" HAVING CASE WHEN count(*) > 0 THEN {whole} END"
    return result


def select_sorted(question: Question) -> Statement:
    """Write a question as SQL whose rows are sorted and cut, and each has the number of all rows behind it."""
    whole = select(question)
    columns = question.columns
    keys = [
        f"c{at}.at - to_minutes(c{at}.minutes)" if name in {"hour", "minute"} and at < len(question.by) else f"c{at}"
        for at, name in enumerate(columns)
    ]
    order = [
        f"{keys[columns.index(order.column)]} {'DESC NULLS LAST' if order.descending else 'ASC NULLS FIRST'}"
        for order in question.order
    ]
    order += keys[: len(question.by)]
    whole.sql = f"SELECT *, count(*) OVER () FROM ({whole.sql}) ORDER BY {', '.join(order)}"
    if question.limit is not None:
        whole.sql += f" LIMIT {question.limit:d}"
    if question.offset:
        whole.sql += f" OFFSET {question.offset:d}"
    return whole


def show(name: str, raw: Any) -> str:
    """Write the raw value of a group as `Answer.rows` has it."""
    match name:
        case "day" | "week":
            return f"{raw:%Y-%m-%d}"
        case "month":
            return f"{raw:%Y-%m}"
        case "hour" | "minute":
            zone = timezone(timedelta(minutes=raw["minutes"]))
            return f"{raw['at'].replace(tzinfo=zone).isoformat()}".replace("+00:00", "Z")
    return str(raw)


def fits_rollup(question: Question) -> bool:
    """Tell whether the rollup can answer a question: counts of whole UTC days by the fields that it has."""
    return (
        all(metric.kind is Kind.COUNT for metric in question.metrics)
        and all(name in ROLLUP_COLUMNS or name in _ROLLUP_UNITS for name in question.by)
        and (question.tz == "UTC" or _ROLLUP_UNITS.isdisjoint(question.by))
        and _fields(question.where) <= frozenset(ROLLUP_COLUMNS)
        and all(moment is None or _is_midnight(moment) for moment in (question.start, question.end))
    )


def _is_midnight(moment: datetime) -> bool:
    return moment.astimezone(UTC).time() == time()


def _fields(where: Filter | None) -> frozenset[str]:
    match where:
        case None:
            return frozenset()
        case Not(inner):
            return _fields(inner)
        case AllOf(inners) | AnyOf(inners):
            return frozenset().union(*map(_fields, inners))
        case Range():
            return frozenset({""})  # The rollup has no numbers.
        case _:
            return frozenset({where.field})


def group_of(name: str, tz: str) -> str:
    """Write what rows of the rollup are grouped by as SQL; its value is raw (see `show`)."""
    return time_of(name, tz) if name in TIME_UNITS else raw_text(name)


def time_of(unit: str, tz: str) -> str:
    """Write the minute, hour, day, week or month of an event as SQL; its value is raw (see `show`)."""
    local = "ts" if tz == "UTC" else f"timezone({quoted(tz)}, timezone('UTC', ts))"
    cut = f"date_trunc('{unit}', {local})"
    if unit in {"hour", "minute"}:
        # The hour that comes twice as clocks go back differs by its offset only.
        return f"{{'at': {cut}, 'minutes': date_diff('minute', ts, {local})}}"
    return f"{local}::DATE" if unit == "day" else cut
