"""The routes of micro-metrics' reports."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from metronome.errors import InvalidQuery
from metronome.protocols.micro_metrics import reports
from metronome.protocols.micro_metrics.reports import ALL_TIME, DEFAULT_LAST, parse_metrics_query
from metronome.protocols.micro_metrics.tracking import KEY_PARAMETER, error_reply
from metronome.scopes import Scope
from metronome.web.handlers import Handler, QueryContext, report_handler
from metronome.web.negotiation import Content
from metronome.web.problems import error_response


class _ReportRoute(NamedTuple):
    """One report.

    Attributes:
        path: its path.
        run: returns the result for the store, the query and, if there is one, the report's own parameter.
        to_json: converts the result to what is sent as JSON.
        to_csv: encodes the result for the path with ``.csv``; None if there is none.
        parameter: the report's own parameter, which is required.
        default_last: the range if the query has none.

    """

    path: str
    run: Callable[..., Awaitable[Any]]
    to_json: Callable[[Any], Any]
    to_csv: Callable[[Any], str] | None = None
    parameter: str = ""
    default_last: str = DEFAULT_LAST


def _as_is(result: Any) -> Any:
    return result


def _with_count(results: list[Any]) -> dict[str, Any]:
    return {"count": len(results), "results": results}


_REPORT_ROUTES: Final = (
    _ReportRoute(
        "/api/report",
        reports.list_documents,
        lambda documents: _with_count([*map(orjson.Fragment, documents)]),
        reports.encode_documents_csv,
    ),
    _ReportRoute(
        "/api/report/count", reports.count_documents, lambda count: {"count": count}, reports.encode_count_csv
    ),
    _ReportRoute("/api/report/aggregate", reports.aggregate_values, _as_is, reports.encode_aggregate_csv),
    _ReportRoute("/api/report/groupby", reports.group_values, _as_is, reports.encode_groups_csv, "groupby"),
    _ReportRoute("/api/report/unique", reports.unique_values, _with_count, reports.encode_unique_csv, "unique"),
    _ReportRoute("/api/tags", reports.list_tags, _as_is, default_last=ALL_TIME),
    _ReportRoute("/api/tag-values", reports.list_tag_values, _as_is, parameter="tag", default_last=ALL_TIME),
    _ReportRoute("/api/types", reports.list_types, _with_count, default_last=ALL_TIME),
)


def build_report_routes(context: QueryContext) -> list[web.RouteDef]:
    """Return the routes of the reports."""
    routes = [web.get(report.path, _report_handler(report, context)) for report in _REPORT_ROUTES]
    return routes + [
        web.get(f"{report.path}.csv", _report_handler(report, context, report.to_csv))
        for report in _REPORT_ROUTES
        if report.to_csv
    ]


def _report_handler(report: _ReportRoute, context: QueryContext, to_csv: Callable[[Any], str] | None = None) -> Handler:
    def encode(result: Any) -> Content:
        if to_csv is None:
            return Content(orjson.dumps(report.to_json(result)))
        return Content(to_csv(result).encode(), "text/csv", "utf-8")

    async def run(request: web.Request) -> Content:
        # In a thread: encoding a large result takes up to a second.
        async with context.slot(request):
            return await asyncio.to_thread(encode, await _run_report(report, request, context))

    return report_handler(
        context,
        f"micrometrics_{report.path.rpartition('/')[2]}",
        context.require(Scope.QUERY, KEY_PARAMETER),
        run,
        error_response=lambda error: error_response(error, error_reply(error)),
    )


async def _run_report(report: _ReportRoute, request: web.Request, context: QueryContext) -> Any:
    query = parse_metrics_query(request.query, context.now(), report.parameter, report.default_last)
    if not report.parameter:
        return await report.run(context.store, query)
    value = request.query.get(report.parameter)
    if not value:
        raise InvalidQuery(f'"{report.parameter}" is required')
    return await report.run(context.store, query, value)
