"""All routes: those that take events, and those that answer for them, which may be in another process."""

from aiohttp import web

from metronome.config import Settings
from metronome.protocols.elasticsearch.known import Known
from metronome.protocols.micro_analytics.routes import ask_handler, ask_routes, hit_routes
from metronome.protocols.micro_metrics import routes as micrometrics
from metronome.protocols.microticks import routes as microticks
from metronome.protocols.native.routes import tick_route
from metronome.protocols.registry import PROTOCOLS, TICK, elasticsearch_addresses
from metronome.reports.counter.dataset_report import Platform
from metronome.server.report_routes import badge_routes, counter_routes, document_routes, query_routes
from metronome.state.base import State
from metronome.web.beacon import beacon_routes
from metronome.web.handlers import Answering, Doorway, Handler, read_routes, route_of


def taking(settings: Settings, doorway: Doorway, state: State, ask_hits: Handler) -> list[web.RouteDef]:
    """List the routes that take events, and of the script that sends them.

    Args:
        settings: of the installation.
        doorway: where events go.
        state: where sessions are kept.
        ask_hits: answers what is asked at an address that takes events, too.

    """
    return [
        tick_route(doorway),
        *(
            route_of(address, doorway)
            for address in (*PROTOCOLS, *elasticsearch_addresses(Known()))
            if address is not TICK
        ),
        *microticks.write_routes(doorway, state),
        *hit_routes(settings.hit_prefix, doorway, ask_hits),
        *beacon_routes(),
    ]


def reporting(settings: Settings, answering: Answering) -> list[web.RouteDef]:
    """List the routes that answer reports, as far as none of these addresses takes events."""
    platform = Platform(settings.counter_platform, settings.counter_publisher, settings.counter_publisher_id)
    return [
        *read_routes(answering),
        *query_routes(answering, settings.body_max_bytes),
        *document_routes(answering, settings.body_max_bytes, settings.batch_max_events),
        *badge_routes(answering),
        *counter_routes(answering, platform),
        *micrometrics.report_routes(answering),
        *microticks.list_routes(answering, settings.microticks_key),
    ]


def alone(settings: Settings, doorway: Doorway, state: State, answering: Answering) -> list[web.RouteDef]:
    """List all routes of a process that both takes events and answers."""
    ask_hits = ask_handler(settings.hit_prefix, answering)
    return [*taking(settings, doorway, state, ask_hits), *reporting(settings, answering)]


def behind_workers(settings: Settings, answering: Answering) -> list[web.RouteDef]:
    """List the routes of a process whose workers take the events."""
    return [*ask_routes(settings.hit_prefix, answering), *reporting(settings, answering)]


def of_worker(settings: Settings, doorway: Doorway, state: State, relay: Handler) -> list[web.RouteDef]:
    """List the routes of a worker, which hands on to the main process what is asked at its own addresses."""
    lists = [web.get(path, relay) for path in microticks.LISTS]
    return [*taking(settings, doorway, state, relay), *lists]
