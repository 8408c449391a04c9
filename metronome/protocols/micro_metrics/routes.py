"""The routes that answer the reports of micro-metrics, with errors in that protocol's own shape."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from metronome.errors import InvalidQuery, MetronomeError
from metronome.protocol import Request
from metronome.protocols.micro_metrics import reports as found
from metronome.protocols.micro_metrics import reports as measures
from metronome.protocols.micro_metrics import reports as names
from metronome.protocols.micro_metrics import reports as tables
from metronome.protocols.micro_metrics import track
from metronome.protocols.micro_metrics.payloads import KEY_PARAMETER
from metronome.protocols.micro_metrics.reports import ALL_TIME, DEFAULT_LAST, parse_metrics_query
from metronome.scopes import Scope
from metronome.web.handlers import Handler, QueryContext, report_response
from metronome.web.problems import protocol_error_response

_JSON_CONTENT_TYPE: Final = "application/json"
_CSV_CONTENT_TYPE: Final = "text/csv"
_CSV_SUFFIX: Final = ".csv"
_EMPTY_REQUEST: Final = Request(b"", "", 0)


class _ReportRoute(NamedTuple):
    """One report.

    Attributes:
        path: its address.
        ask: answers it, of the store, what it is asked with and, where there is one, its own parameter.
        shape: makes what is sent as JSON of that answer.
        table: makes CSV of that answer, at the address with ``.csv``; None where there is none.
        own: its own parameter, which it needs.
        last: how far it looks back if nothing is said of that.

    """

    path: str
    run: Callable[..., Awaitable[Any]]
    to_json: Callable[[Any], Any]
    to_csv: Callable[[Any], str] | None = None
    parameter: str = ""
    default_last: str = DEFAULT_LAST


def _unchanged(answer: Any) -> Any:
    return answer


def _with_count(answer: list[Any]) -> dict[str, Any]:
    return {"count": len(answer), "results": answer}


_REPORT_ROUTES: Final = (
    _ReportRoute(
        "/api/report",
        found.list_documents,
        lambda lines: _with_count([*map(orjson.Fragment, lines)]),
        tables.encode_documents_csv,
    ),
    _ReportRoute("/api/report/count", found.count_documents, lambda count: {"count": count}, tables.encode_count_csv),
    _ReportRoute("/api/report/aggregate", measures.aggregate_values, _unchanged, tables.encode_aggregate_csv),
    _ReportRoute("/api/report/groupby", measures.group_values, _unchanged, tables.encode_groups_csv, "groupby"),
    _ReportRoute("/api/report/unique", found.unique_values, _with_count, tables.encode_unique_csv, "unique"),
    _ReportRoute("/api/tags", names.list_tags, _unchanged, default_last=ALL_TIME),
    _ReportRoute("/api/tag-values", names.list_tag_values, _unchanged, parameter="tag", default_last=ALL_TIME),
    _ReportRoute("/api/types", names.list_types, _with_count, default_last=ALL_TIME),
)


def build_report_routes(context: QueryContext) -> list[web.RouteDef]:
    """List the routes."""
    plain = [web.get(report.path, _report_handler(report, _encode_json, context)) for report in _REPORT_ROUTES]
    tabular = [
        web.get(report.path + _CSV_SUFFIX, _report_handler(report, _encode_csv, context))
        for report in _REPORT_ROUTES
        if report.to_csv
    ]
    return plain + tabular


def _report_handler(
    report: _ReportRoute, encode: Callable[[_ReportRoute, Any], bytes], context: QueryContext
) -> Handler:
    took = context.telemetry.report_seconds.labels(f"micrometrics_{report.path.rpartition('/')[2]}")
    media, charset = (_CSV_CONTENT_TYPE, "utf-8") if encode is _encode_csv else (_JSON_CONTENT_TYPE, None)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            await context.authorize(request, Scope.QUERY, request.query.get(KEY_PARAMETER, ""))
            with took.time():
                # Beside the loop: what is large takes a second to be written.
                body = await asyncio.to_thread(encode, report, await _run_report(report, request, context))
        except MetronomeError as error:
            context.telemetry.count_rejection(error)
            return protocol_error_response(track, _EMPTY_REQUEST, error)
        return report_response(request, body, media, charset)

    return handle


async def _run_report(report: _ReportRoute, request: web.Request, context: QueryContext) -> Any:
    query = request.query
    asked = parse_metrics_query(query, context.now(), report.parameter, report.default_last)
    if not report.parameter:
        return await report.run(context.store, asked)
    if not query.get(report.parameter):
        raise InvalidQuery(f'"{report.parameter}" is required')
    return await report.run(context.store, asked, query[report.parameter])


def _encode_json(report: _ReportRoute, result: Any) -> bytes:
    return orjson.dumps(report.to_json(result))


def _encode_csv(report: _ReportRoute, result: Any) -> bytes:
    return report.to_csv(result).encode() if report.to_csv else b""
