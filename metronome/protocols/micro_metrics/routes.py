"""The routes that answer the reports of micro-metrics, with errors in that protocol's own shape."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from metronome.errors import InvalidQuery
from metronome.protocol import Request
from metronome.protocols.micro_metrics import reports as found
from metronome.protocols.micro_metrics import reports as measures
from metronome.protocols.micro_metrics import reports as names
from metronome.protocols.micro_metrics import reports as tables
from metronome.protocols.micro_metrics import track
from metronome.protocols.micro_metrics.payloads import KEY_PARAMETER
from metronome.protocols.micro_metrics.reports import ALL_TIME, DEFAULT_LAST, parse_metrics_query
from metronome.scopes import Scope
from metronome.web.handlers import Handler, QueryContext, report_handler
from metronome.web.negotiation import Content
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
    media, charset = (_CSV_CONTENT_TYPE, "utf-8") if encode is _encode_csv else (_JSON_CONTENT_TYPE, None)

    async def run(request: web.Request) -> Content:
        result = await _run_report(report, request, context)
        # In a thread: encoding a large result takes up to a second.
        return Content(await asyncio.to_thread(encode, report, result), media, charset)

    return report_handler(
        context,
        f"micrometrics_{report.path.rpartition('/')[2]}",
        context.require(Scope.QUERY, KEY_PARAMETER),
        run,
        error_response=partial(protocol_error_response, track, _EMPTY_REQUEST),
    )


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
