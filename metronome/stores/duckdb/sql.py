"""Questions as SQL: pure functions.

Fields and filters as SQL: pure functions.
"""

import math
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any, Final

from metronome.fields import is_top_level_name, param_name, param_value
from metronome.stores.duckdb.schema import FIELD_COLUMNS, ROLLUP_FIELDS
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
    Range,
)

VALUE_MAX_CHARACTERS: Final = 1024
"""A longer text counts as missing."""
LENGTH_LIMITED_FIELDS: Final = frozenset({"id", "event", "format", "referer", "bot"})
"""The door takes these only where they are short enough to be counted."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_INLINE_VALUES_MAX = 20
"""More values than these are one list, which costs no planning."""
_FLOAT_MAX = sys.float_info.max


def where_condition(
    where: Filter | None, start: datetime | None, end: datetime | None, parameters: list[object]
) -> str:
    """Write a filter and a range of time as a condition, and append the values of its placeholders."""
    parts: list[str] = []
    if where is not None:
        parts.append(_filter_condition(where, parameters))
    for moment, sign in ((start, ">="), (end, "<")):
        if moment is not None:
            parts.append(f"ts {sign} ?")
            parameters.append(moment.astimezone(UTC).replace(tzinfo=None))
    return " AND ".join(parts) or "true"


def countable_text(name: str) -> str:
    """Write a field's text, as far as it is short enough to be counted."""
    return limit_text(name, field_text(name))


def limit_text(name: str, expression: str) -> str:
    """Write a field's text, as far as it is short enough to be counted, where *expression* is all of it."""
    return (
        expression
        if name in LENGTH_LIMITED_FIELDS
        else f"CASE WHEN length({expression}) <= {VALUE_MAX_CHARACTERS} THEN {expression} END"
    )


def field_text(name: str) -> str:
    """Write a field's text, however long it is."""
    return f'"{name}"' if name in FIELD_COLUMNS else f"json_extract_string(doc, {quote_literal(json_pointer(name))})"


def json_pointer(name: str) -> str:
    """Return where in a document a field stands."""
    if is_top_level_name(name):
        return f"/{name}"
    sayable = _LONE_SURROGATE.sub("\ufffd", param_name(name))
    return "/params/" + sayable.replace("~", "~0").replace("/", "~1")


def quote_literal(text: str) -> str:
    """Write a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def _filter_condition(where: Filter, parameters: list[object]) -> str:  # noqa: PLR0911  # one for each kind
    match where:
        case Equals(name, value):
            return _in_condition(name, (value,), parameters)
        case OneOf(name, options):
            return _in_condition(name, options, parameters)
        case Prefix(name, text):
            return _prefix_condition(name, text, parameters)
        case Exists(name):
            return f"{field_text(name)} IS NOT NULL" if name in LENGTH_LIMITED_FIELDS else _is_countable(name)
        case Range():
            return _range_condition(where, parameters)
        case Not(Exists(name)) if name in LENGTH_LIMITED_FIELDS:
            return f"{field_text(name)} IS NULL"
        case Not(inner):
            return f"NOT coalesce(({_filter_condition(inner, parameters)}), false)"
        case AllOf(inners):
            return "(" + (" AND ".join(_filter_condition(inner, parameters) for inner in inners) or "true") + ")"
        case AnyOf(inners):
            return "(" + (" OR ".join(_filter_condition(inner, parameters) for inner in inners) or "false") + ")"


# A field of a document has to be looked for in its whole text: the conditions name it once, and what is
# asked of the length of its text last, of those that are left.


def _in_condition(name: str, alternatives: tuple[str, ...], parameters: list[object]) -> str:
    possible = _storable_values(name, alternatives)
    if len(possible) > _INLINE_VALUES_MAX:
        parameters.append(possible)
        return f"{field_text(name)} IN (SELECT unnest(?::VARCHAR[]))"
    parameters.extend(possible)
    return f"{field_text(name)} IN ({', '.join('?' * len(possible))})" if possible else "false"


def _prefix_condition(name: str, text: str, parameters: list[object]) -> str:
    possible = _storable_values(name, (text,))
    parameters.extend(possible)
    return f"(starts_with({field_text(name)}, ?) AND {_is_countable(name)})" if possible else "false"


def _storable_values(name: str, alternatives: tuple[str, ...]) -> list[str]:
    """Leave out what no document holds, since UTF-8 cannot say it, and ask in ``params`` for what stands there."""
    sayable = [option for option in alternatives if option.isascii() or _LONE_SURROGATE.search(option) is None]
    stored = sayable if is_top_level_name(name) else [param_value(option) for option in sayable]
    return [option for option in stored if len(option) <= VALUE_MAX_CHARACTERS]


def _is_countable(name: str) -> str:
    return f"length({field_text(name)}) <= {VALUE_MAX_CHARACTERS}"


def _range_condition(where: Range, parameters: list[object]) -> str:
    bounds = (where.above, where.at_least, where.below, where.at_most)
    if not is_top_level_name(where.field) or any(bound is not None and math.isnan(bound) for bound in bounds):
        return "false"
    # Numbers are finite, and DuckDB has NaN above all others.
    least, most = [-_FLOAT_MAX], [_FLOAT_MAX]
    if where.above is not None:
        least.append(math.nextafter(where.above, math.inf))
    if where.at_least is not None:
        least.append(float(where.at_least))
    if where.below is not None:
        most.append(math.nextafter(where.below, -math.inf))
    if where.at_most is not None:
        most.append(float(where.at_most))
    parameters += [max(least), min(most)]
    return f"(try_cast({field_text(where.field)} AS DOUBLE) BETWEEN ? AND ? AND {_is_countable(where.field)})"


ROLLUP_SOURCE = f"(SELECT {', '.join(ROLLUP_FIELDS)}, day AS ts, n FROM rollup)"
_ROLLUP_UNITS = frozenset({"day", "week", "month"})


@dataclass(slots=True)
class SqlStatement:
    """SQL with the values of its placeholders."""

    sql: str = ""
    parameters: list[object] = field(default_factory=list)


class ColumnExpressions:
    """What is worked out of each event, once, however often a statement needs it.

    Fields that have no column of their own are taken out of the document together, since that has to be read as a
    whole.

    Args:
        metrics: of a question.

    """

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._aliases: dict[str, str] = {}
        self._json_pointers: dict[str, int] = {}
        self._percentiles: dict[str, list[float]] = {}
        for metric in metrics:
            if metric.kind is MetricKind.PERCENTILE:
                self._percentiles.setdefault(metric.field, []).append(metric.percentile)

    def group_column(self, name: str, tz: str) -> str:
        """Name the cell of what rows are grouped by."""
        return self._alias(time_bucket_expression(name, tz) if name in TIME_UNITS else self._text_expression(name))

    def metric_expression(self, metric: Metric) -> str:
        """Write a metric of cells, other than a count of events."""
        match metric.kind:
            case MetricKind.FIRST | MetricKind.LAST as kind:
                newest = f"{'min' if kind is MetricKind.FIRST else 'max'}({self._alias('ts')})"
                return f"strftime({newest}, '%Y-%m-%dT%H:%M:%S.%gZ')"
            case MetricKind.UNIQUE:
                return f"count(DISTINCT {self._alias(self._text_expression(metric.field))})"
        number = self._number_column(metric.field)
        match metric.kind:
            case MetricKind.VALUE_COUNT:
                return f"count({number})"
            case MetricKind.SUM:
                return f"coalesce(sum({number}), 0.0)"
            case MetricKind.PERCENTILE:
                # All of a field at once: it is sorted once then.
                percents = self._percentiles[metric.field]
                shares = ", ".join(str(percent / 100) for percent in percents)
                return f"quantile_cont({number}, [{shares}])[{percents.index(metric.percentile) + 1}]"
            case _:
                return f"{metric.kind}({number})"

    def source_query(self, where: str) -> str:
        """Write the events that a condition lets through, as their cells."""
        events = f"events WHERE {where}"
        if self._json_pointers:
            pointers = ", ".join(quote_literal(pointer) for pointer in self._json_pointers)
            events = f"(SELECT *, json_extract_string(doc, [{pointers}]) AS found FROM {events})"
        cells = ", ".join(f"{cell} AS {name}" for cell, name in self._aliases.items()) or "1"
        return f"(SELECT {cells} FROM {events})"

    def _alias(self, expression: str) -> str:
        return self._aliases.setdefault(expression, f"v{len(self._aliases)}")

    def _text_expression(self, name: str) -> str:
        if name in FIELD_COLUMNS:
            return countable_text(name)
        at = self._json_pointers.setdefault(json_pointer(name), len(self._json_pointers) + 1)
        return limit_text(name, f"found[{at}]")

    def _number_column(self, name: str) -> str:
        if not is_top_level_name(name):
            return "NULL::DOUBLE"
        number = f"try_cast({self._text_expression(name)} AS DOUBLE)"
        return self._alias(f"CASE WHEN isfinite({number}) THEN {number} END")


def compile_query(query: Query) -> SqlStatement:
    """Write a question as SQL.

    Returns:
        A statement whose rows are those of the answer, in no order, all of them: a raw value for each
        group (see `format_group`), then the metrics.

    """
    result = SqlStatement()
    where = where_condition(query.where, query.start, query.end, result.parameters)
    if can_use_rollup(query):
        groups = [rollup_group_expression(name, query.time_zone) for name in query.group_by]
        metrics = ["coalesce(sum(n)::BIGINT, 0)" for _ in query.metrics]
        source = f"{ROLLUP_SOURCE} WHERE {where}"
    else:
        cells = ColumnExpressions(query.metrics)
        groups = [cells.group_column(name, query.time_zone) for name in query.group_by]
        metrics = [
            "count(*)" if each.kind is MetricKind.COUNT else cells.metric_expression(each) for each in query.metrics
        ]
        source = cells.source_query(where)
    columns = ", ".join(f"{column} AS c{at}" for at, column in enumerate([*groups, *metrics]))
    result.sql = f"SELECT {columns} FROM {source}"
    if groups:
        result.sql += f" GROUP BY {', '.join(str(at + 1) for at in range(len(groups)))}"
        whole = " AND ".join(f"c{at} IS NOT NULL" for at in range(len(groups)))
        # In this form it is not also asked of each event, which would work out the cells once more.
        result.sql += f" HAVING CASE WHEN count(*) > 0 THEN {whole} END"
    return result


def compile_sorted_query(query: Query) -> SqlStatement:
    """Write a question as SQL whose rows are sorted and cut, and each has the number of all rows behind it."""
    whole = compile_query(query)
    columns = query.columns
    keys = [
        f"c{at}.at - to_minutes(c{at}.minutes)" if name in {"hour", "minute"} and at < len(query.group_by) else f"c{at}"
        for at, name in enumerate(columns)
    ]
    order = [
        f"{keys[columns.index(order.column)]} {'DESC NULLS LAST' if order.descending else 'ASC NULLS FIRST'}"
        for order in query.sort_keys
    ]
    order += keys[: len(query.group_by)]
    whole.sql = f"SELECT *, count(*) OVER () FROM ({whole.sql}) ORDER BY {', '.join(order)}"
    if query.limit is not None:
        whole.sql += f" LIMIT {query.limit:d}"
    if query.offset:
        whole.sql += f" OFFSET {query.offset:d}"
    return whole


def format_group(name: str, value: Any) -> str:
    """Write the raw value of a group as `Answer.rows` has it."""
    match name:
        case "day" | "week":
            return f"{value:%Y-%m-%d}"
        case "month":
            return f"{value:%Y-%m}"
        case "hour" | "minute":
            zone = timezone(timedelta(minutes=value["minutes"]))
            return f"{value['at'].replace(tzinfo=zone).isoformat()}".replace("+00:00", "Z")
    return str(value)


def can_use_rollup(query: Query) -> bool:
    """Tell whether the rollup can answer a question: counts of whole UTC days by the fields that it has."""
    return (
        all(metric.kind is MetricKind.COUNT for metric in query.metrics)
        and all(name in ROLLUP_FIELDS or name in _ROLLUP_UNITS for name in query.group_by)
        and (query.time_zone == "UTC" or _ROLLUP_UNITS.isdisjoint(query.group_by))
        and _filter_fields(query.where) <= frozenset(ROLLUP_FIELDS)
        and all(moment is None or _is_utc_midnight(moment) for moment in (query.start, query.end))
    )


def _is_utc_midnight(moment: datetime) -> bool:
    return moment.astimezone(UTC).time() == time()


def _filter_fields(where: Filter | None) -> frozenset[str]:
    match where:
        case None:
            return frozenset()
        case Not(inner):
            return _filter_fields(inner)
        case AllOf(inners) | AnyOf(inners):
            return frozenset().union(*map(_filter_fields, inners))
        case Range():
            return frozenset({""})  # The rollup has no numbers.
        case _:
            return frozenset({where.field})


def rollup_group_expression(name: str, tz: str) -> str:
    """Write what rows of the rollup are grouped by as SQL; its value is raw (see `format_group`)."""
    return time_bucket_expression(name, tz) if name in TIME_UNITS else field_text(name)


def time_bucket_expression(unit: str, tz: str) -> str:
    """Write the minute, hour, day, week or month of an event as SQL; its value is raw (see `format_group`)."""
    local = "ts" if tz == "UTC" else f"timezone({quote_literal(tz)}, timezone('UTC', ts))"
    cut = f"date_trunc('{unit}', {local})"
    if unit in {"hour", "minute"}:
        # The hour that comes twice as clocks go back differs by its offset only.
        return f"{{'at': {cut}, 'minutes': date_diff('minute', ts, {local})}}"
    return f"{local}::DATE" if unit == "day" else cut
