"""The routes of each kind of process."""

from typing import Any, Final

from aiohttp import hdrs, web

from metronome.config import Settings
from metronome.page.routes import PageRoutes
from metronome.protocols.micro_analytics import build_query_handler, build_query_routes, build_routes
from metronome.protocols.micro_metrics import routes as micrometrics
from metronome.protocols.microticks import routes as microticks
from metronome.protocols.native import TICK_ENDPOINT
from metronome.protocols.native.routes import tick_route
from metronome.protocols.registry import ENDPOINTS
from metronome.reports.counter.dataset_report import Platform
from metronome.server.openapi import describe_api, openapi_route
from metronome.server.report_routes import (
    badge_routes,
    counter_routes,
    document_routes,
    list_reports,
    list_selection_reports,
    query_routes,
    report_routes,
)
from metronome.state.base import State
from metronome.web.beacon import beacon_routes
from metronome.web.handlers import Handler, IngestContext, QueryContext, build_ingest_handler, build_ingest_route

_ROOT_ENDPOINT: Final = next(
    endpoint for endpoint in ENDPOINTS if (endpoint.method, endpoint.prefix, endpoint.path) == ("GET", "", "/")
)
"""Matomo's API, which shares its path with the overview."""


def ingest_routes(
    settings: Settings, context: IngestContext, state: State, hit_report_handler: Handler, overview_handler: Handler
) -> list[web.RouteDef]:
    """Return the routes that accept events, and that of the beacon.

    Args:
        settings: of the installation.
        context: where events go.
        state: stores the sessions of microticks.
        hit_report_handler: handles the reports of true-micro-analytics, which have the same paths as its events.
        overview_handler: handles ``GET /`` unless it is a call of Matomo's API.

    """
    special = (TICK_ENDPOINT, _ROOT_ENDPOINT)
    return [
        tick_route(context),
        *_root_routes(context, overview_handler),
        *(build_ingest_route(endpoint, context) for endpoint in ENDPOINTS if endpoint not in special),
        *microticks.build_ingest_routes(context, state),
        *build_routes(settings.hit_prefix, context, hit_report_handler),
        *beacon_routes(),
    ]


def _root_routes(context: IngestContext, overview_handler: Handler) -> list[web.RouteDef]:
    call_api = build_ingest_handler(_ROOT_ENDPOINT, context)

    async def handle(request: web.Request) -> web.StreamResponse:
        is_api_call = request.method == hdrs.METH_GET and request.query.get("module") == "API"
        return await (call_api if is_api_call else overview_handler)(request)

    return [web.get(_ROOT_ENDPOINT.path, handle)]


def all_report_routes(settings: Settings, context: QueryContext) -> list[web.RouteDef]:
    """Return the routes of reports whose paths do not also accept events."""
    platform = Platform(settings.counter_platform, settings.counter_publisher, settings.counter_publisher_id)
    described = [
        *report_routes(context, settings.min_visitors),
        *query_routes(context, settings.body_max_bytes),
        *document_routes(context, settings.body_max_bytes, settings.batch_max_events, settings.keep_events_months),
        *badge_routes(context),
        *counter_routes(context, platform),
        *micrometrics.build_report_routes(context),
        *microticks.build_list_routes(context, settings.microticks_key),
    ]

    def describe() -> dict[str, Any]:
        reports = list_reports(context, settings.min_visitors)
        return describe_api(described, reports, list_selection_reports(), settings.base_path)

    return [*described, openapi_route(describe)]


def single_process_routes(
    settings: Settings, ingest_context: IngestContext, state: State, query_context: QueryContext
) -> list[web.RouteDef]:
    """Return the routes of the only process of a server."""
    hit_reports = build_query_handler(settings.hit_prefix, query_context)
    page = PageRoutes(query_context, state, settings.base_path, ingest_context.intake, settings.min_visitors)
    return [
        *ingest_routes(settings, ingest_context, state, hit_reports, page.overview),
        *all_report_routes(settings, query_context),
        *page.routes(),
    ]


def main_process_routes(settings: Settings, context: QueryContext, state: State) -> list[web.RouteDef]:
    """Return the routes of a main process with workers."""
    page = PageRoutes(context, state, settings.base_path, min_visitors=settings.min_visitors)
    return [
        *build_query_routes(settings.hit_prefix, context),
        *all_report_routes(settings, context),
        web.get("/", page.overview),
        *page.routes(),
    ]


def worker_routes(settings: Settings, context: IngestContext, state: State, relay: Handler) -> list[web.RouteDef]:
    """Return the routes of a worker; it relays the reports that have the same paths as its own routes."""
    lists = [web.get(path, relay) for path in microticks.LIST_PATHS]
    return [*ingest_routes(settings, context, state, relay, relay), *lists]
