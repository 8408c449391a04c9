"""All routes: those that take events, and those that answer for them, which may be in another process."""

from aiohttp import web

from metronome.config import Settings
from metronome.protocols.micro_analytics import build_query_handler, build_query_routes, build_routes
from metronome.protocols.micro_metrics import routes as micrometrics
from metronome.protocols.microticks import routes as microticks
from metronome.protocols.native.routes import tick_route
from metronome.protocols.registry import ENDPOINTS, TICK_ENDPOINT
from metronome.reports.counter.dataset_report import Platform
from metronome.server.report_routes import (
    badge_routes,
    counter_routes,
    document_routes,
    query_routes,
    report_routes,
)
from metronome.state.base import State
from metronome.web.beacon import beacon_routes
from metronome.web.handlers import Handler, IngestContext, QueryContext, build_ingest_route


def ingest_routes(
    settings: Settings, context: IngestContext, state: State, hit_report_handler: Handler
) -> list[web.RouteDef]:
    """List the routes that take events, and of the script that sends them.

    Args:
        settings: of the installation.
        context: where events go.
        state: where sessions are kept.
        hit_report_handler: answers what is asked at an address that takes events, too.

    """
    return [
        tick_route(context),
        *(build_ingest_route(address, context) for address in ENDPOINTS if address is not TICK_ENDPOINT),
        *microticks.build_ingest_routes(context, state),
        *build_routes(settings.hit_prefix, context, hit_report_handler),
        *beacon_routes(),
    ]


def all_report_routes(settings: Settings, context: QueryContext) -> list[web.RouteDef]:
    """List the routes that answer reports, as far as none of these addresses takes events."""
    platform = Platform(settings.counter_platform, settings.counter_publisher, settings.counter_publisher_id)
    return [
        *report_routes(context, settings.min_visitors),
        *query_routes(context, settings.body_max_bytes),
        *document_routes(context, settings.body_max_bytes, settings.batch_max_events),
        *badge_routes(context),
        *counter_routes(context, platform),
        *micrometrics.build_report_routes(context),
        *microticks.build_list_routes(context, settings.microticks_key),
    ]


def single_process_routes(
    settings: Settings, ingest_context: IngestContext, state: State, query_context: QueryContext
) -> list[web.RouteDef]:
    """List all routes of a process that both takes events and answers."""
    ask_hits = build_query_handler(settings.hit_prefix, query_context)
    return [*ingest_routes(settings, ingest_context, state, ask_hits), *all_report_routes(settings, query_context)]


def main_process_routes(settings: Settings, context: QueryContext) -> list[web.RouteDef]:
    """List the routes of a process whose workers take the events."""
    return [*build_query_routes(settings.hit_prefix, context), *all_report_routes(settings, context)]


def worker_routes(settings: Settings, context: IngestContext, state: State, relay: Handler) -> list[web.RouteDef]:
    """List the routes of a worker, which hands on to the main process what is asked at its own addresses."""
    lists = [web.get(path, relay) for path in microticks.LIST_PATHS]
    return [*ingest_routes(settings, context, state, relay), *lists]
