"""Queries and filters as SQL."""

import math
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any, Final, Protocol

import duckdb

from metronome.fields import (
    COLUMN_FIELDS,
    ROLLUP_FIELDS,
    TOTAL_FIELDS,
    VALUE_MAX_CHARACTERS,
    is_top_level_name,
    param_value,
)
from metronome.stores.duckdb.sources import (
    LENGTH_LIMITED_FIELDS,
    EventColumns,
    EventSource,
    quote_literal,
    quote_name,
)
from metronome.stores.query import (
    EVENT_BY_METRIC,
    EVENT_COUNTS,
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
    iterate_field_filters,
    replace_lone_surrogates,
)
from metronome.times import format_time_unit

_QUARTER_HOUR = "INTERVAL '15 minutes'"
_QUARTER_HOURS_SINCE: Final = datetime(2012, 1, 1, tzinfo=UTC)
IRREGULAR_ZONES: Final = frozenset({"Antarctica/Casey"})
"""Time zones that changed their clocks at other times than quarter hours since 2012."""
_ROLLUP_UNITS = frozenset({"day", "week", "month", "quarter", "year", "all"})
_TOTALED = frozenset(TOTAL_FIELDS)
_INLINE_VALUES_MAX = 20
"""More values than this become one list parameter, which costs no planning."""
_FLOAT_MAX = sys.float_info.max


FETCH_ROWS: Final = 2_000
"""How many rows to fetch at once, which takes a millisecond or two: the event loop waits for that long."""


@dataclass(slots=True)
class SqlStatement:
    """SQL with the values of its placeholders."""

    sql: str = ""
    parameters: list[object] = field(default_factory=list)


def fetch_rows(result: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """Return the rows of a result, and let other threads run in between: DuckDB does not while it converts rows."""
    rows: list[tuple[Any, ...]] = []
    while some := result.fetchmany(FETCH_ROWS):
        rows += some
    return rows


class FilterColumns(Protocol):
    """The columns that conditions use: those of events, or of the rollup."""

    def raw_text(self, name: str) -> str:
        """Return the SQL for a field's text of any length."""

    def exists(self, name: str) -> str:
        """Return the SQL that is true where a field has a text that can be counted; it may be NULL elsewhere."""

    def raw_number(self, name: str) -> str:
        """Return the SQL for a field's number, which may be infinite."""


class RollupColumns:
    """The columns of the rollup."""

    def raw_text(self, name: str) -> str:
        """Return the column of a field."""
        return quote_name(name)

    def exists(self, name: str) -> str:
        """Return the condition that a field has a value: the rollup has no text that is too long."""
        return f"{quote_name(name)} IS NOT NULL"

    def raw_number(self, name: str) -> str:
        """Return the number in the column of a field."""
        return f"try_cast({quote_name(name)} AS DOUBLE)"


def where_condition(
    where: Filter | None,
    start: datetime | None,
    end: datetime | None,
    columns: FilterColumns,
    parameters: list[object],
) -> str:
    """Return the SQL condition for a filter and a time range, and append the values of its placeholders."""
    parts: list[str] = []
    if where is not None:
        parts.append(_filter_condition(where, columns, parameters))
    for moment, sign in ((start, ">="), (end, "<")):
        if moment is not None:
            parts.append(f"ts {sign} ?")
            parameters.append(moment.astimezone(UTC).replace(tzinfo=None))
    return " AND ".join(parts) or "true"


def _filter_condition(  # noqa: PLR0911  # one for each kind
    where: Filter, columns: FilterColumns, parameters: list[object]
) -> str:
    match where:
        case Equals(name, value):
            return _in_condition(name, (value,), columns, parameters)
        case OneOf(name, options):
            return _in_condition(name, options, columns, parameters)
        case Prefix(name, text):
            return _prefix_condition(name, text, columns, parameters)
        case Exists(name):
            return columns.exists(name)
        case Range():
            return _range_condition(where, columns, parameters)
        case Not(Exists(name)) if name in LENGTH_LIMITED_FIELDS:
            # Not coalesced, so that DuckDB can skip rows.
            return f"{columns.raw_text(name)} IS NULL"
        case Not(inner):
            return f"NOT coalesce(({_filter_condition(inner, columns, parameters)}), false)"
        case AllOf(inners):
            return (
                "(" + (" AND ".join(_filter_condition(inner, columns, parameters) for inner in inners) or "true") + ")"
            )
        case AnyOf(inners):
            return (
                "(" + (" OR ".join(_filter_condition(inner, columns, parameters) for inner in inners) or "false") + ")"
            )


# Reading a field without a column parses the whole document. So conditions use the field once, and check the length of
# its text last, for the events that are left.


def _in_condition(name: str, alternatives: tuple[str, ...], columns: FilterColumns, parameters: list[object]) -> str:
    possible = _storable_values(name, alternatives)
    if len(possible) > _INLINE_VALUES_MAX:
        parameters.append(possible)
        return f"{columns.raw_text(name)} IN (SELECT unnest(?::VARCHAR[]))"
    parameters.extend(possible)
    return f"{columns.raw_text(name)} IN ({', '.join('?' * len(possible))})" if possible else "false"


def _prefix_condition(name: str, text: str, columns: FilterColumns, parameters: list[object]) -> str:
    possible = _storable_values(name, (text,))
    parameters.extend(possible)
    return f"(starts_with({columns.raw_text(name)}, ?) AND {columns.exists(name)})" if possible else "false"


def _storable_values(name: str, alternatives: tuple[str, ...]) -> list[str]:
    """Return the values as documents store them, without those that no document can have."""
    encodable = [value for value in alternatives if replace_lone_surrogates(value) == value]
    stored = encodable if is_top_level_name(name) else [param_value(value) for value in encodable]
    return [value for value in stored if len(value) <= VALUE_MAX_CHARACTERS]


def _range_condition(where: Range, columns: FilterColumns, parameters: list[object]) -> str:
    bounds = (where.above, where.at_least, where.below, where.at_most)
    if not is_top_level_name(where.field) or any(bound is not None and math.isnan(bound) for bound in bounds):
        return "false"
    # Stored numbers are finite, and DuckDB sorts NaN above all others.
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
    return f"({columns.raw_number(where.field)} BETWEEN ? AND ? AND {columns.exists(where.field)})"


class ColumnExpressions:
    """The expressions that a statement computes for each event, each once.

    Args:
        columns: the columns of events.
        metrics: those of the query.

    """

    def __init__(self, columns: EventColumns, metrics: tuple[Metric, ...]) -> None:
        self._columns = columns
        self._aliases: dict[str, str] = {}
        self._percentiles: dict[str, list[float]] = {}
        for metric in metrics:
            if metric.kind is MetricKind.PERCENTILE:
                self._percentiles.setdefault(metric.field, []).append(metric.percentile)

    def group_column(self, name: str, time_zone: str) -> str:
        """Return the column to group by."""
        return self._alias(time_bucket_expression(name, time_zone) if name in TIME_UNITS else self._columns.text(name))

    def metric_expression(self, metric: Metric) -> str:  # noqa: PLR0911  # one for each kind
        """Return the SQL for a metric."""
        match metric.kind:
            case MetricKind.COUNT:
                return "count(*)"
            case MetricKind.VIEWS | MetricKind.DOWNLOADS as kind:
                event = self._alias(self._columns.text("event"))
                return f"count(*) FILTER (WHERE {event} = '{EVENT_BY_METRIC[kind]}')"
            case MetricKind.FIRST | MetricKind.LAST as kind:
                timestamp = f"{'min' if kind is MetricKind.FIRST else 'max'}({self._alias('ts')})"
                return f"strftime({timestamp}, '%Y-%m-%dT%H:%M:%S.%gZ')"
            case MetricKind.UNIQUE:
                return f"count(DISTINCT {self._alias(self._columns.text(metric.field))})"
        # Values in params are texts, not numbers.
        number = self._alias(self._columns.number(metric.field) if is_top_level_name(metric.field) else "NULL::DOUBLE")
        match metric.kind:
            case MetricKind.VALUE_COUNT:
                return f"count({number})"
            case MetricKind.SUM:
                return f"coalesce(sum({number}), 0.0)"
            case MetricKind.PERCENTILE:
                # All percentiles of a field together, so that it is sorted once.
                percents = self._percentiles[metric.field]
                quantiles = ", ".join(str(percent / 100) for percent in percents)
                return f"quantile_cont({number}, [{quantiles}])[{percents.index(metric.percentile) + 1}]"
            case _:
                return f"{metric.kind}({number})"

    def source_query(self, relation: str, where: str) -> str:
        """Return the SQL that computes the columns of the events that meet a condition."""
        columns = ", ".join(f"{expression} AS {name}" for expression, name in self._aliases.items()) or "1"
        return f"(SELECT {columns} FROM {relation} WHERE {where})"

    def _alias(self, expression: str) -> str:
        return self._aliases.setdefault(expression, f"v{len(self._aliases)}")


def compile_query(query: Query, source: EventSource) -> SqlStatement:
    """Return the SQL for a query of events.

    Args:
        query: the query.
        source: has the events.

    Returns:
        A statement whose rows are all those of the result, in any order: a raw value for each
        group (see `format_group`), then the metrics.

    """
    result, columns = SqlStatement(), EventColumns()
    where = where_condition(query.where, query.start, query.end, columns, result.parameters)
    if _counts_local_days(query):
        names = [name for name in query.group_by if name not in _ROLLUP_UNITS]
        fields = ", ".join(f"{columns.text(name)} AS {quote_name(name)}" for name in names)
        relation = columns.relation(source, query.start, query.end)
        counts = (
            f"(SELECT time_bucket({_QUARTER_HOUR}, ts) AS ts{', ' if names else ''}{fields}, count(*) AS n "
            f"FROM {relation} WHERE {where} GROUP BY ALL)"
        )
        result.sql = count_groups(query, counts)
        return result
    expressions = ColumnExpressions(columns, query.metrics)
    groups = [expressions.group_column(name, query.time_zone) for name in query.group_by]
    metrics = [expressions.metric_expression(metric) for metric in query.metrics]
    relation = columns.relation(source, query.start, query.end)
    result.sql = _select_groups(query, [*groups, *metrics], expressions.source_query(relation, where), "count(*) > 0")
    return result


def count_groups(query: Query, counts: str) -> str:
    """Return the SQL for a query that adds up counts.

    Args:
        query: the query.
        counts: SQL that can follow ``FROM``; it has the fields of the query, ``ts`` and the count as ``n``.

    """
    groups = [rollup_group_expression(name, query.time_zone) for name in query.group_by]
    return _select_groups(query, [*groups, *map(_rollup_metric, query.metrics)], counts, "sum(n) > 0")


def _rollup_metric(metric: Metric) -> str:
    event = EVENT_BY_METRIC.get(metric.kind)
    only = "" if event is None else f" FILTER (WHERE event = {quote_literal(event)})"
    return f"coalesce((sum(n){only})::BIGINT, 0)"


def _select_groups(query: Query, expressions: list[str], source: str, is_present: str) -> str:
    columns = ", ".join(f"{column} AS c{at}" for at, column in enumerate(expressions))
    sql = f"SELECT {columns} FROM {source}"
    if query.group_by:
        sql += f" GROUP BY {', '.join(str(at + 1) for at in range(len(query.group_by)))}"
        is_complete = " AND ".join(group_condition(name, f"c{at}") for at, name in enumerate(query.group_by))
        # The CASE keeps DuckDB from checking each event, which would compute the columns twice.
        sql += f" HAVING CASE WHEN {is_present} THEN {is_complete} END"
    return sql


def group_condition(name: str, column: str) -> str:
    """Return the condition for groups whose text can be counted; it is cheaper to check groups than events."""
    if name in TIME_UNITS or name in LENGTH_LIMITED_FIELDS:
        return f"{column} IS NOT NULL"
    return f"length({column}) <= {VALUE_MAX_CHARACTERS}"


def compile_sorted_query(query: Query, statement: SqlStatement) -> SqlStatement:
    """Return the statement of a query, sorted and limited, with the number of all rows as the last column."""
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
    sql = f"SELECT *, count(*) OVER () FROM ({statement.sql})"
    if order:
        sql += f" ORDER BY {', '.join(order)}"
    if query.limit is not None:
        sql += f" LIMIT {query.limit:d}"
    if query.offset:
        sql += f" OFFSET {query.offset:d}"
    return SqlStatement(sql, statement.parameters)


def format_group(name: str, value: Any) -> str:
    """Return the text of a group's raw value, as in `QueryResult.rows`."""
    if name not in TIME_UNITS:
        return str(value)
    if name in {"hour", "minute"}:
        value = value["at"].replace(tzinfo=timezone(timedelta(minutes=value["minutes"])))
    return format_time_unit(value, name)


def can_use_rollup(query: Query) -> bool:
    """Return whether a query only counts events of whole UTC days by fields of the rollup."""
    fields = set(ROLLUP_FIELDS)
    return (
        all(metric.kind in EVENT_COUNTS for metric in query.metrics)
        and all(name in fields or name in _ROLLUP_UNITS for name in query.group_by)
        and (query.time_zone == "UTC" or _ROLLUP_UNITS.isdisjoint(query.group_by))
        and all(where.field in fields and not isinstance(where, Range) for where in iterate_field_filters(query.where))
        and all(moment is None or _is_utc_midnight(moment) for moment in (query.start, query.end))
    )


def _counts_local_days(query: Query) -> bool:
    """Return whether a query counts events by days of a time zone, which is faster by quarter hours.

    Converting each event's time takes longer than the rest. Since `_QUARTER_HOURS_SINCE`, the offsets of all zones
    but `IRREGULAR_ZONES` are whole quarter hours, and change at such.
    """
    return (
        query.time_zone not in {"UTC", *IRREGULAR_ZONES}
        and not _ROLLUP_UNITS.isdisjoint(query.group_by)
        and query.start is not None
        and query.start >= _QUARTER_HOURS_SINCE
        and all(metric.kind is MetricKind.COUNT for metric in query.metrics)
        and all(name in _ROLLUP_UNITS or name in COLUMN_FIELDS for name in query.group_by)
    )


def total_field(query: Query) -> str | None:
    """Return by which field a query can be answered from the totals: one of `TOTAL_FIELDS`, or ``''`` for none.

    Returns:
        None if the query cannot: it does not only count events, names further fields, or its range has no whole UTC
        day.

    """
    filters = list(iterate_field_filters(query.where))
    bots_matter = "bot" in query.group_by or any(
        where.field == "bot" and not isinstance(where, Exists) for where in filters
    )
    names = {name for name in query.group_by if name not in _ROLLUP_UNITS} | {where.field for where in filters}
    fields = names - ({"event"} if bots_matter else {"event", "bot"})
    is_possible = (
        len(fields) <= 1
        and fields <= _TOTALED
        and all(metric.kind in EVENT_COUNTS for metric in query.metrics)
        and (query.time_zone == "UTC" or _ROLLUP_UNITS.isdisjoint(query.group_by))
        and not any(isinstance(where, Range) for where in filters)
        and _has_whole_days(query.start, query.end)
    )
    return next(iter(fields), "") if is_possible else None


def is_counted(query: Query) -> bool:
    """Return whether a query reads counts, and no events."""
    has_edges = not all(moment is None or _is_utc_midnight(moment) for moment in (query.start, query.end))
    return can_use_rollup(query) or (total_field(query) is not None and not has_edges)


def whole_days(start: datetime | None, end: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Return the start of the first and the end of the last whole UTC day in a range."""
    first, last = (None if moment is None else moment.astimezone(UTC) for moment in (start, end))
    if first is not None and not _is_utc_midnight(first):
        first = datetime.combine(first.date() + timedelta(days=1), time(), UTC)
    return first, None if last is None else datetime.combine(last.date(), time(), UTC)


def _has_whole_days(start: datetime | None, end: datetime | None) -> bool:
    try:
        first, last = whole_days(start, end)
    except OverflowError:
        return False
    return first is None or last is None or first < last


def _is_utc_midnight(moment: datetime) -> bool:
    return moment.astimezone(UTC).time() == time()


def rollup_group_expression(name: str, time_zone: str) -> str:
    """Return the SQL that groups rows of the rollup; its value is raw (see `format_group`)."""
    return time_bucket_expression(name, time_zone) if name in TIME_UNITS else quote_name(name)


def time_bucket_expression(unit: str, time_zone: str) -> str:
    """Return the SQL for the time unit of an event; its value is raw (see `format_group`)."""
    if unit == "all":
        return "'all'"
    local = "ts" if time_zone == "UTC" else f"timezone({quote_literal(time_zone)}, timezone('UTC', ts))"
    start = f"date_trunc('{unit}', {local})"
    if unit in {"hour", "minute"}:
        # The hour that clocks repeat in autumn differs only by its offset.
        return f"{{'at': {start}, 'minutes': date_diff('minute', ts, {local})}}"
    return f"{local}::DATE" if unit == "day" else start
