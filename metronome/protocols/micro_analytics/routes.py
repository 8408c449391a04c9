"""The routes of true-micro-analytics, where one address both takes views and tells of them."""

from typing import Final

import orjson
from aiohttp import hdrs, web

from metronome.protocol import Endpoint
from metronome.protocols.micro_analytics import protocol as hit
from metronome.protocols.micro_analytics import reports as hits
from metronome.protocols.micro_analytics.protocol import ReportKind
from metronome.scopes import Scope
from metronome.web.handlers import Handler, IngestContext, QueryContext, build_ingest_handler, report_handler
from metronome.web.negotiation import Content, uncached_response
from metronome.web.problems import reply_response

OMITTED_COUNT_HEADER: Final = "X-Metronome-Left-Out"
"""How many views are not listed, where there are more than `hits.MAX_VIEWS`."""
_REPORT_SCOPES: Final = {ReportKind.COUNT: Scope.TOCK, ReportKind.VIEWS: Scope.TOCK, ReportKind.PATHS: Scope.QUERY}


def micro_analytics_endpoint(prefix: str) -> Endpoint:
    """Return where true-micro-analytics is spoken: below a prefix that the operator chooses, or at the root."""
    return Endpoint("GET", prefix, r"/{path:[\s\S]*}", hit)


def build_routes(prefix: str, ingest: IngestContext, query_handler: Handler) -> list[web.RouteDef]:
    """List the routes below a prefix.

    Args:
        prefix: as ``/hit``, or nothing where the protocol has a port of its own.
        ingest: where views go.
        query_handler: answers what is asked (see `build_query_handler`).

    """
    take = build_ingest_handler(micro_analytics_endpoint(prefix), ingest)

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            return reply_response(hit.method_not_allowed_reply())
        return await (take if _requested_report(request, prefix) is None else query_handler)(request)

    return _routes_below(prefix, handle)


def build_query_routes(prefix: str, context: QueryContext) -> list[web.RouteDef]:
    """List the routes below a prefix at which the main process answers what its workers are asked."""
    return _routes_below(prefix, build_query_handler(prefix, context))


def build_query_handler(prefix: str, context: QueryContext) -> Handler:
    """Make the handler that answers what is asked below a prefix."""

    def kind_of(request: web.Request) -> ReportKind:
        return _requested_report(request, prefix) or ReportKind.COUNT

    async def run(request: web.Request) -> Content:
        item = hit.item_id_from_path(_path_below_prefix(request, prefix))
        body, omitted = await _run_query(context, kind_of(request), item)
        return Content(body, headers={OMITTED_COUNT_HEADER: str(omitted)} if omitted else {})

    authorize = context.require(lambda request: _REPORT_SCOPES[kind_of(request)])
    return report_handler(context, "hits", authorize, run, respond=uncached_response)


async def _run_query(context: QueryContext, kind: ReportKind, item: str) -> tuple[bytes, int]:
    if kind is ReportKind.COUNT:
        return orjson.dumps({"views": await hits.count_views(context.store, item)}), 0
    found = await hits.list_views(context.store, None if kind is ReportKind.PATHS else item)
    paths = {path: [{"ts": ts} for ts in times] for path, times in found.timestamps_by_path().items()}
    return orjson.dumps(paths if kind is ReportKind.PATHS else {"views": paths.get(item, [])}), found.omitted


def _routes_below(prefix: str, handler: Handler) -> list[web.RouteDef]:
    below = web.route("*", prefix + micro_analytics_endpoint(prefix).path, handler)
    return [below, web.route("*", prefix, handler)] if prefix else [below]


def _requested_report(request: web.Request, prefix: str) -> ReportKind | None:
    return hit.report_kind(_path_below_prefix(request, prefix), request.rel_url.raw_query_string)


def _path_below_prefix(request: web.Request, prefix: str) -> str:
    return request.rel_url.raw_path[len(prefix) :]
