"""The composition root: which parts there are, in which process, and in which order they start and end.

With one worker, one process does everything. With more, each worker takes ticks into a spool of its own and
hands everything else, over a Unix socket, to the main process, which owns the store and ships all spools.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from metronome.config import Settings
from metronome.dead import FOLDER_NAME as DEAD_FOLDER
from metronome.dialects.items import item_rule
from metronome.dialects.protocols import PROTOCOLS
from metronome.dialects.site import Site
from metronome.enrich.referers import own_hosts
from metronome.intake import DoorPolicy, Intake
from metronome.locks import FolderLock
from metronome.service import micrometrics, microticks, workers
from metronome.service.app import make_app, make_runner
from metronome.service.guard import Guard
from metronome.service.health import Health
from metronome.service.hits import ask_handler, ask_routes, hit_routes
from metronome.service.keyring import Keyring
from metronome.service.reads import Answering, read_routes
from metronome.service.senders import Senders
from metronome.service.streams import check_streams, streaming
from metronome.service.writes import Doorway, Handler, route_of
from metronome.ship import Shipper
from metronome.spool import FILE_NAME, Outlet, Spool
from metronome.state.elasticsearch import ElasticsearchState
from metronome.state.sqlite import SQLiteState
from metronome.state.state import State
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.store import Store
from metronome.telemetry import Telemetry

log = structlog.get_logger()

SPOOL_FOLDER = "spool"


def open_store(settings: Settings) -> Store:
    """Make the store that the settings name; it is not set up yet."""
    if settings.store == "duckdb":
        return DuckDBStore(settings.data, settings.duckdb_memory)
    return ElasticsearchStore(_elasticsearch(settings))


def open_state(settings: Settings) -> State:
    """Make the keeper of keys that goes with the store; it is not set up yet."""
    if settings.store == "duckdb":
        return SQLiteState(settings.data)
    return ElasticsearchState(_elasticsearch(settings))


def _elasticsearch(settings: Settings) -> ElasticsearchConfig:
    return ElasticsearchConfig(
        settings.store,
        settings.store_api_key or None,
        str(settings.store_ca) if settings.store_ca else None,
        settings.index_prefix,
    )


@contextlib.asynccontextmanager
async def guarding(settings: Settings, state: State) -> AsyncIterator[Guard]:
    """Know the keys while the block runs."""
    keyring = Keyring(state)
    try:
        await keyring.read()
        async with keyring.kept():
            yield Guard(keyring, frozenset(settings.public), time.time, on_loopback=settings.on_loopback)
    finally:
        await state.close()


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until *stop* is set, then end cleanly: stop listening, finish replies, ship what is in the spool.

    Raises:
        DataFolderTaken: another Metronome works in the data folder.
        OSError: the address cannot be listened on.

    """
    lock = FolderLock(settings.data)
    try:
        if settings.workers == 1:
            await _serve_alone(settings, stop)
        else:
            await _serve_with_workers(settings, stop)
    finally:
        lock.release()


def open_doorway(settings: Settings, spool: Spool, guard: Guard, telemetry: Telemetry) -> Doorway:
    """Make what all routes need that take events into a spool."""
    hosts = own_hosts(settings.own_hosts)
    policy = DoorPolicy(
        max_age=settings.door_max_age,
        event_max_bytes=settings.event_max_bytes,
        own_hosts=hosts,
        cut_addresses=settings.addresses == "cut",
    )
    return Doorway(
        Intake(spool, policy, time.time, telemetry),
        guard,
        Senders(settings.trusted_proxies),
        telemetry,
        Site(item_rule(settings.item_pattern), hosts),
        time.time,
        settings.body_max_bytes,
        settings.batch_max_events,
    )


def write_routes(doorway: Doorway) -> list[web.RouteDef]:
    """List the routes that take events."""
    return [route_of(address, doorway) for address in PROTOCOLS]


async def _serve_alone(settings: Settings, stop: asyncio.Event) -> None:
    telemetry = Telemetry(CollectorRegistry())
    folder = settings.data / SPOOL_FOLDER / "0"
    store = open_store(settings)
    shippers: list[Shipper] = []

    def committed(seconds: float, events: int) -> None:
        telemetry.commit(seconds, events)
        shippers[0].wake()

    spool = Spool(folder, settings.spool_max_bytes, committed)
    shippers += [_shipper(path, store, settings, telemetry) for path in _spool_folders(settings, folder)]
    state = open_state(settings)
    async with guarding(settings, state) as guard, _shipping(shippers, store, settings):
        try:
            check_streams(settings, guard)
            doorway = open_doorway(settings, spool, guard, telemetry)
            health = Health(store, shippers, settings.spool_max_bytes, guard, lambda: [telemetry.registry])
            answering = Answering(store, guard, telemetry, time.time)
            hits = hit_routes(settings.hit_prefix, doorway, ask_handler(settings.hit_prefix, answering))
            exhibits = [
                *microticks.write_routes(doorway, state),
                *microticks.list_routes(answering, doorway.senders, settings.microticks_key),
            ]
            reports = [*read_routes(answering), *micrometrics.report_routes(answering)]
            routes = [*write_routes(doorway), *exhibits, *hits, *reports, *health.routes()]
            async with (
                listening(settings, routes),
                listening_beside(settings, doorway, ask_handler("", answering)),
            ):
                await stop.wait()
        finally:
            await spool.close()


async def _serve_with_workers(settings: Settings, stop: asyncio.Event) -> None:
    telemetry = Telemetry(CollectorRegistry())
    store = open_store(settings)
    folders = [settings.data / SPOOL_FOLDER / str(number) for number in range(settings.workers)]
    async with workers.running(settings, folders) as crew, guarding(settings, open_state(settings)) as guard:
        check_streams(settings, guard)
        shippers = [_shipper(path, store, settings, telemetry) for path in _spool_folders(settings, *folders)]
        health = Health(store, shippers, settings.spool_max_bytes, guard, lambda: [telemetry.registry, crew.collect()])
        answering = Answering(store, guard, telemetry, time.time)
        lists = microticks.list_routes(answering, Senders(settings.trusted_proxies), settings.microticks_key)
        reports = [*read_routes(answering), *micrometrics.report_routes(answering)]
        routes = [*ask_routes(settings.hit_prefix, answering), *lists, *reports, *health.routes()]
        async with _shipping(shippers, store, settings):
            runner = make_runner(make_app(routes, settings.body_max_bytes), settings.stop_seconds)
            await runner.setup()
            await web.UnixSite(runner, str(crew.socket)).start()
            await crew.start()
            try:
                await stop.wait()
            finally:
                await crew.stop()
                await runner.cleanup()


def _spool_folders(settings: Settings, *first: Path) -> list[Path]:
    """List the spools to ship: these, and those that workers have left that are no more."""
    found = (path.parent for path in sorted((settings.data / SPOOL_FOLDER).glob(f"*/{FILE_NAME}")))
    return list(dict.fromkeys([*first, *found]))


def _shipper(folder: Path, store: Store, settings: Settings, telemetry: Telemetry) -> Shipper:
    return Shipper(Outlet(folder), store, settings.data / DEAD_FOLDER, telemetry)


@contextlib.asynccontextmanager
async def _shipping(shippers: Sequence[Shipper], store: Store, settings: Settings) -> AsyncIterator[None]:
    """Ship while the block runs; as it ends, ship the rest as far as time allows."""
    tasks = [asyncio.create_task(shipper.run()) for shipper in shippers]
    try:
        yield
    finally:
        for shipper in shippers:
            shipper.stop()
        _, late = await asyncio.wait(tasks, timeout=settings.stop_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shipper in shippers:
            shipper.close()
        await store.close()
        log.info("stopped", all_shipped=not late)


@contextlib.asynccontextmanager
async def listening_beside(
    settings: Settings, doorway: Doorway, ask_hits: Handler, *, shared: bool = False
) -> AsyncIterator[None]:
    """Listen at the ports of protocols that have their own, while the block runs.

    Args:
        settings: say which.
        doorway: where events go.
        ask_hits: answers what is asked at `Settings.hit_port`.
        shared: whether other processes listen there too.

    """
    async with contextlib.AsyncExitStack() as listeners:
        if settings.hit_port is not None:
            routes = hit_routes("", doorway, ask_hits)
            await listeners.enter_async_context(listening(settings, routes, port=settings.hit_port, shared=shared))
        await listeners.enter_async_context(streaming(settings, doorway, shared=shared))
        yield


@contextlib.asynccontextmanager
async def listening(
    settings: Settings,
    routes: Sequence[web.RouteDef],
    fallback: web.RouteDef | None = None,
    *,
    port: int | None = None,
    shared: bool = False,
) -> AsyncIterator[None]:
    """Listen at the settings' address, or another port of it, while the block runs, and finish replies as it ends."""
    runner = make_runner(make_app(routes, settings.body_max_bytes, fallback), settings.stop_seconds)
    await runner.setup()
    try:
        at = settings.port if port is None else port
        await web.TCPSite(runner, settings.host, at, reuse_port=shared or None, backlog=1024).start()
        for address in runner.addresses:
            log.info("listening", url=f"http://{address[0]}:{address[1]}", store=settings.store.rpartition("@")[2])
        yield
    finally:
        await runner.cleanup()
