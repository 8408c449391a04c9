"""The report: a question's answer, or what is wrong with the question.

Answers as they are sent: JSON, CSV or lines of JSON.
"""

import asyncio
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from metronome.errors import QueryTooExpensive
from metronome.reports.csv import format_csv
from metronome.reports.query.compare import has_whole_days, join_rows, match_time_units
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.request import ComparisonRange, ParsedQuery
from metronome.reports.query.series import Row, fill_gaps, list_time_units
from metronome.stores.base import Store
from metronome.stores.query import MAX_GROUPS, TIME_UNITS, MetricKind, QueryResult, build_result, parse_time_zone
from metronome.times import parse_time_unit

_ESTIMATED_METRICS: Final = frozenset({MetricKind.UNIQUE, MetricKind.PERCENTILE})
"""What a store may estimate; where anything else is not exact, groups are missing."""


async def run_query(store: Store, field_checker: FieldChecker, parsed_query: ParsedQuery, now: datetime) -> QueryResult:
    """Answer somebody's own question.

    Args:
        store: what is asked.
        field_checker: what is known of the store's names.
        parsed_query: the question.
        now: where a series without an end ends, aware.

    Raises:
        InvalidQuery: it names a field that nothing has, or asks for numbers of one that holds none.
        QueryTooExpensive: it takes more groups, rows or time than it may.

    """
    await field_checker.check_query(parsed_query)
    answers = await store.query(*parsed_query.store_queries())
    for answer in answers:
        _check_group_count(parsed_query, answer)
    await field_checker.check_result(parsed_query, answers[0])
    if parsed_query.is_single_query:
        return answers[0]
    # Beside the loop: a hundred thousand rows take a while.
    return await asyncio.to_thread(_combine_results, parsed_query, answers, now)


def _check_group_count(parsed_query: ParsedQuery, result: QueryResult) -> None:
    is_whole = result.exact or any(metric.kind in _ESTIMATED_METRICS for metric in parsed_query.metrics)
    if result.total > MAX_GROUPS or not is_whole:
        raise QueryTooExpensive(f"there are over {MAX_GROUPS:,} groups of {', '.join(parsed_query.query.group_by)}")


def _combine_results(parsed_query: ParsedQuery, results: tuple[QueryResult, ...], now: datetime) -> QueryResult:
    question, rows = parsed_query.query, [*results[0].rows]
    if parsed_query.comparison is not None:
        places = _match_units(parsed_query, parsed_query.comparison)
        rows = join_rows(rows, results[1].rows, parsed_query.metrics, len(question.group_by), places)
    if parsed_query.fill:
        rows = fill_gaps(rows, question.group_by, question.metrics, _series_units(parsed_query, rows, now))
    if len(rows) > MAX_GROUPS:
        raise QueryTooExpensive(f"the answer has over {MAX_GROUPS:,} rows")
    return build_result(question, rows, exact=all(answer.exact for answer in results))


def _match_units(parsed_query: ParsedQuery, comparison: ComparisonRange) -> dict[int, dict[str, str]]:
    """Tell for each column of time which unit stands at the place of which one of the earlier range."""
    question = parsed_query.query
    zone = parse_time_zone(question.time_zone)
    places = {}
    for at, name in enumerate(question.group_by):
        if name in TIME_UNITS and question.start and question.end:
            here = list_time_units(name, question.start, question.end, zone)
            there = list_time_units(name, comparison.start, comparison.end, zone)
            whole_days = has_whole_days(question.start, question.end, zone)
            places[at] = match_time_units(comparison.name, name, here, there, whole_days=whole_days)
    return places


def _series_units(parsed_query: ParsedQuery, rows: list[Row], now: datetime) -> list[str]:
    """List all units of the range; one without a beginning begins with the first event, one without an end ends now."""
    question = parsed_query.query
    at = next(place for place, name in enumerate(question.group_by) if name in TIME_UNITS)
    unit, zone = question.group_by[at], parse_time_zone(question.time_zone)
    start = question.start or _first_unit_start(rows, at, unit, zone)
    return list_time_units(unit, start, question.end or now, zone) if start else []


def _first_unit_start(rows: list[Row], at: int, unit: str, zone: ZoneInfo) -> datetime | None:
    return min((parse_time_unit(label, unit, zone) for label in {row[at] for row in rows}), default=None)


def format_result_json(result: QueryResult) -> bytes:
    """Write an answer as one object: its columns, its rows, how many rows there are, and whether it is exact."""
    return orjson.dumps({"columns": result.columns, "rows": result.rows, "total": result.total, "exact": result.exact})


def format_result_csv(result: QueryResult) -> bytes:
    """Write an answer's rows under the names of its columns; what is none is empty."""
    return format_csv(result.columns, result.rows).encode()


def format_result_ndjson(result: QueryResult) -> bytes:
    """Write each row as an object on a line of its own."""
    return b"".join(
        orjson.dumps(dict(zip(result.columns, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
        for row in result.rows
    )
