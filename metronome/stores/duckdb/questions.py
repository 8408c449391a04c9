"""Questions as SQL: pure functions."""

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any

from metronome.event import is_plain, param_name, param_value
from metronome.question import (
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
from metronome.stores.duckdb.schema import COLUMNS, ROLLUP_COLUMNS

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_COUNTED_CHARACTERS = 1024
_ALWAYS_SHORT = frozenset({"id", "event", "format", "referer", "bot"})
"""The door takes these only where they are short enough to be counted."""
_LISTED_MAX = 20
"""More values than these are one list, which costs no planning."""
ROLLUP = f"(SELECT {', '.join(ROLLUP_COLUMNS)}, day AS ts, n FROM rollup)"
_ROLLUP_UNITS = frozenset({"day", "week", "month"})


@dataclass(slots=True)
class Statement:
    """SQL with the values of its placeholders."""

    sql: str = ""
    values: list[object] = field(default_factory=list)


def select(question: Question) -> Statement:
    """Write a question as SQL.

    Returns:
        A statement whose rows are those of the answer, in no order, all of them: a raw value for each
        group (see `show`), then the metrics.

    """
    from_rollup = fits_rollup(question)
    groups = [group_of(name, question.tz) for name in question.by]
    metrics = [_metric(metric, "sum(n)::BIGINT" if from_rollup else "count(*)") for metric in question.metrics]
    if from_rollup and not groups:
        metrics = [f"coalesce({metric}, 0)" for metric in metrics]
    columns = [f"{column} AS c{at}" for at, column in enumerate([*groups, *metrics])]
    result = Statement()
    where = condition(question.where, question.start, question.end, result.values)
    result.sql = f"SELECT {', '.join(columns)} FROM {ROLLUP if from_rollup else 'events'} WHERE {where}"
    if groups:
        result.sql += f" GROUP BY {', '.join(str(at + 1) for at in range(len(groups)))}"
        result.sql += f" HAVING {' AND '.join(f'c{at} IS NOT NULL' for at in range(len(groups)))}"
    return result


def select_sorted(question: Question) -> Statement:
    """Write a question as SQL whose rows are sorted and cut, and each has the number of all rows behind it."""
    whole = select(question)
    columns = question.columns
    order = [
        f"c{columns.index(order.column)} {'DESC NULLS LAST' if order.descending else 'ASC NULLS FIRST'}"
        for order in question.order
    ]
    order += [f"c{at}" for at in range(len(question.by))]
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
    """Write what rows are grouped by as SQL; its value is raw (see `show`)."""
    if name not in TIME_UNITS:
        return text_of(name)
    local = "ts" if tz == "UTC" else f"timezone({_quoted(tz)}, timezone('UTC', ts))"
    cut = f"date_trunc('{name}', {local})"
    if name in {"hour", "minute"}:
        # The hour that comes twice as clocks go back differs by its offset only.
        return f"{{'at': {cut}, 'minutes': date_diff('minute', ts, {local})}}"
    return f"{local}::DATE" if name == "day" else cut


def _metric(metric: Metric, count: str) -> str:  # noqa: PLR0911  # one for each kind
    match metric.kind:
        case Kind.COUNT:
            return count
        case Kind.VALUES:
            return f"count({_number(metric.field)})"
        case Kind.FIRST | Kind.LAST as kind:
            return f"strftime({'min' if kind is Kind.FIRST else 'max'}(ts), '%Y-%m-%dT%H:%M:%S.%gZ')"
        case Kind.UNIQUE:
            return f"count(DISTINCT {text_of(metric.field)})"
        case Kind.SUM:
            return f"coalesce(sum({_number(metric.field)}), 0.0)"
        case Kind.PERCENTILE:
            return f"quantile_cont({_number(metric.field)}, {metric.percent / 100})"
        case Kind.AVG | Kind.MIN | Kind.MAX as kind:
            return f"{kind}({_number(metric.field)})"


def _filter(where: Filter, values: list[object]) -> str:  # noqa: PLR0911  # one for each kind
    match where:
        case Equals(name, value):
            return _one_of(name, (value,), values)
        case OneOf(name, options):
            return _one_of(name, options, values)
        case Prefix(name, text):
            possible = _possible(name, (text,))
            values.extend(possible)
            return f"starts_with({text_of(name)}, ?)" if possible else "false"
        case Exists(name):
            return f"{text_of(name)} IS NOT NULL"
        case Range():
            return _range(where, values)
        case Not(Exists(name)):
            return f"{text_of(name)} IS NULL"
        case Not(inner):
            return f"NOT coalesce(({_filter(inner, values)}), false)"
        case AllOf(inners):
            return "(" + (" AND ".join(_filter(inner, values) for inner in inners) or "true") + ")"
        case AnyOf(inners):
            return "(" + (" OR ".join(_filter(inner, values) for inner in inners) or "false") + ")"


def _one_of(name: str, options: tuple[str, ...], values: list[object]) -> str:
    possible = _possible(name, options)
    if len(possible) > _LISTED_MAX:
        values.append(possible)
        return f"{text_of(name)} IN (SELECT unnest(?::VARCHAR[]))"
    values.extend(possible)
    return f"{text_of(name)} IN ({', '.join('?' * len(possible))})" if possible else "false"


def _possible(name: str, options: tuple[str, ...]) -> list[str]:
    """Leave out what no document holds, since UTF-8 cannot say it, and ask in ``params`` for what stands there."""
    sayable = [option for option in options if option.isascii() or _LONE_SURROGATE.search(option) is None]
    return sayable if is_plain(name) else [param_value(option) for option in sayable]


def _range(where: Range, values: list[object]) -> str:
    number = _number(where.field)
    parts = [f"{number} IS NOT NULL"]
    for bound, sign in ((where.above, ">"), (where.at_least, ">="), (where.below, "<"), (where.at_most, "<=")):
        if bound is not None and math.isnan(bound):
            parts.append("false")
        elif bound is not None:
            parts.append(f"{number} {sign} ?")
            values.append(float(bound))
    return "(" + " AND ".join(parts) + ")"


def text_of(name: str) -> str:
    """Write a field's text, as far as it is short enough to be counted."""
    text = f'"{name}"' if name in COLUMNS else f"json_extract_string(doc, {_quoted(_pointer(name))})"
    if name in _ALWAYS_SHORT:
        return text
    return f"CASE WHEN length({text}) <= {_COUNTED_CHARACTERS} THEN {text} END"


def _number(name: str) -> str:
    if not is_plain(name):
        return "NULL::DOUBLE"
    number = f"try_cast({text_of(name)} AS DOUBLE)"
    return f"CASE WHEN isfinite({number}) THEN {number} END"


def _pointer(name: str) -> str:
    if is_plain(name):
        return f"/{name}"
    sayable = _LONE_SURROGATE.sub("\ufffd", param_name(name))
    return "/params/" + sayable.replace("~", "~0").replace("/", "~1")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
