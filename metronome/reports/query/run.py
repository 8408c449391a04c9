"""Run a query, and format its result as JSON, CSV or NDJSON."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.reports.csv import format_csv
from metronome.reports.parameters import excerpt
from metronome.reports.query.compare import has_whole_days, join_rows, match_time_units
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.request import COUNTRY_CODE_LENGTH, ComparisonRange, ParsedQuery
from metronome.reports.query.series import Row, fill_gaps, find_partial_units, list_time_units
from metronome.stores.base import Store
from metronome.stores.query import (
    MAX_GROUPS,
    TIME_UNITS,
    AllOf,
    Equals,
    OneOf,
    QueryResult,
    build_result,
    parse_time_zone,
)
from metronome.times import parse_time_unit

TABLE_MAX_ROWS: Final = 1_000_000
"""Maximum number of rows of a result as CSV or NDJSON, which is not held in memory."""


async def run_query(store: Store, field_checker: FieldChecker, parsed_query: ParsedQuery, now: datetime) -> QueryResult:
    """Return the result of a query.

    Args:
        store: runs the queries.
        field_checker: knows the fields of the store.
        parsed_query: the query.
        now: aware; the end of a series without an end.

    Raises:
        InvalidQuery: no event has one of the fields, or a text field is used as a number.
        QueryTooExpensive: there are too many groups or rows, or it takes too long.

    """
    await field_checker.check(parsed_query)
    results = await store.query(*parsed_query.store_queries())
    for result in results:
        _check_group_count(parsed_query, result)
    _check_countries(parsed_query, results[0])
    if parsed_query.is_single_query:
        return results[0]
    # In a thread: a hundred thousand rows take a while.
    return await asyncio.to_thread(_combine_results, parsed_query, results, now)


async def query_pages(
    store: Store, field_checker: FieldChecker, parsed_query: ParsedQuery, now: datetime
) -> AsyncGenerator[QueryResult]:
    """Yield the result of a query in pages, at least one; the last has the total number of rows.

    Args:
        store: runs the queries.
        field_checker: knows the fields of the store.
        parsed_query: the query.
        now: aware; the end of a series without an end.

    Raises:
        InvalidQuery: no event has one of the fields, or a text field is used as a number.
        QueryTooExpensive: there are too many groups or rows, or it takes too long.

    """
    if not parsed_query.is_single_query:
        yield await run_query(store, field_checker, parsed_query, now)
        return
    await field_checker.check(parsed_query)
    query = parsed_query.query
    # A limit that cuts nothing the client has not cut: one row more shows that there are too many.
    limit = None if query.limit is None or query.limit >= TABLE_MAX_ROWS else query.limit
    async with aclosing(store.query_pages(replace(query, limit=limit))) as pages:
        async for page in pages:
            if not page.is_complete or (limit is None and page.total - query.offset > TABLE_MAX_ROWS):
                raise QueryTooExpensive(
                    f"the result has {page.total:,} rows, over the maximum of {TABLE_MAX_ROWS:,} of this store: use a "
                    "shorter range, a filter, fewer groups, or limit and offset"
                )
            _check_countries(parsed_query, page)
            yield page


def _check_countries(parsed_query: ParsedQuery, result: QueryResult) -> None:
    """Reject a query without a result that filters by the name of a country: a zero would look like an answer."""
    query = parsed_query.query
    if any(value for row in result.rows for value in row[len(query.group_by) :]):
        return
    for each in query.where.filters if isinstance(query.where, AllOf) else ():
        if not (isinstance(each, (Equals, OneOf)) and each.field == "country"):
            continue
        values = each.values if isinstance(each, OneOf) else (each.value,)
        if values and all(len(value) != COUNTRY_CODE_LENGTH for value in values):
            raise InvalidQuery(
                f"no event has country={excerpt(values[0])}: countries are stored by their codes of two letters, "
                "such as DE; by=country lists those that events have"
            )


def _check_group_count(parsed_query: ParsedQuery, result: QueryResult) -> None:
    if result.total > MAX_GROUPS or not result.is_complete:
        raise QueryTooExpensive(f"there are over {MAX_GROUPS:,} groups of {', '.join(parsed_query.query.group_by)}")


def _combine_results(parsed_query: ParsedQuery, results: tuple[QueryResult, ...], now: datetime) -> QueryResult:
    query, rows = parsed_query.query, [*results[0].rows]
    if parsed_query.comparison is not None:
        unit_mapping = _match_units(parsed_query, parsed_query.comparison)
        rows = join_rows(rows, results[1].rows, parsed_query.metrics, len(query.group_by), unit_mapping)
    if parsed_query.fill:
        rows = fill_gaps(rows, query.group_by, query.metrics, _series_units(parsed_query, rows, now))
    if len(rows) > MAX_GROUPS:
        raise QueryTooExpensive(f"the result has over {MAX_GROUPS:,} rows")
    return build_result(query, rows, exact=all(result.exact for result in results))


def _match_units(parsed_query: ParsedQuery, comparison: ComparisonRange) -> dict[int, dict[str, str]]:
    """Return, for each column of time units, the unit that each unit of the earlier range corresponds to."""
    query = parsed_query.query
    zone = parse_time_zone(query.time_zone)
    unit_mapping = {}
    for at, name in enumerate(query.group_by):
        if name in TIME_UNITS and query.start and query.end:
            unit_mapping[at] = match_time_units(
                comparison.name,
                name,
                list_time_units(name, query.start, query.end, zone),
                list_time_units(name, comparison.start, comparison.end, zone),
                whole_days=has_whole_days(query.start, query.end, zone),
            )
    return unit_mapping


def _series_units(parsed_query: ParsedQuery, rows: list[Row], now: datetime) -> list[str]:
    """Return all time units of the range; it starts with the first event and ends now if it has no other bounds."""
    query = parsed_query.query
    at = next(at for at, name in enumerate(query.group_by) if name in TIME_UNITS)
    if query.group_by[at] == "all":
        return ["all"]
    unit, zone = query.group_by[at], parse_time_zone(query.time_zone)
    start = query.start or _first_unit_start(rows, at, unit, zone)
    return list_time_units(unit, start, query.end or now, zone) if start else []


def _first_unit_start(rows: list[Row], at: int, unit: str, zone: ZoneInfo) -> datetime | None:
    return min((parse_time_unit(label, unit, zone) for label in {row[at] for row in rows}), default=None)


def find_partial_rows(parsed_query: ParsedQuery, result: QueryResult, now: datetime) -> dict[str, list[str]]:
    """Return the time units in a result that the range or the current time cuts, by the column that they are in."""
    query, partial = parsed_query.query, {}
    zone = parse_time_zone(query.time_zone)
    # With a comparison, the end of the range may be now.
    end = None if parsed_query.comparison is not None and query.end == now else query.end
    for at, name in enumerate(query.group_by):
        if name in TIME_UNITS:
            labels = {str(row[at]) for row in result.rows}
            if units := find_partial_units(name, labels, query.start, end, now, zone):
                partial[name] = units
    return partial


def format_result_json(result: QueryResult, partial: Mapping[str, list[str]] | None = None) -> bytes:
    """Return a result as one JSON object: its columns, rows, total number of rows, and whether it is exact.

    Args:
        result: the result.
        partial: see `find_partial_rows`; added if there are any.

    """
    answer = {"columns": result.columns, "rows": result.rows, "total": result.total, "exact": result.exact}
    return orjson.dumps({**answer, "partial": partial} if partial else answer)


def format_result_csv(result: QueryResult) -> bytes:
    """Return the rows of a result below the names of its columns; None is empty."""
    return format_csv(result.columns, result.rows).encode()


def format_result_ndjson(result: QueryResult) -> bytes:
    """Return each row of a result as a JSON object on its own line."""
    return b"".join(
        orjson.dumps(dict(zip(result.columns, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
        for row in result.rows
    )
