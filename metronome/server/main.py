"""The composition root: which parts run in which process, and in which order they start and end.

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

from metronome.archive.objects import open_archive
from metronome.archiver import Limits, Roller
from metronome.auth.client_address import Senders
from metronome.config import Settings
from metronome.files import FolderLock
from metronome.protocols.micro_analytics.routes import ask_handler
from metronome.server import processes, routes
from metronome.server.app import end, listening, listening_beside, make_app, make_runner
from metronome.server.bootstrap import guarding, open_doorway, open_enrichment, open_state, open_store, salting
from metronome.server.health import Health
from metronome.server.listeners import check_streams
from metronome.shipper import Shipper
from metronome.spool import ARCHIVE, FILE_NAME, STORE, Outlet, Spool, appoint
from metronome.spool.dead_letters import FOLDER_NAME as DEAD_FOLDER
from metronome.stores.base import Store
from metronome.telemetry import Telemetry
from metronome.web.handlers import Answering

log = structlog.get_logger()

SPOOL_FOLDER = "spool"


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


async def _serve_alone(settings: Settings, stop: asyncio.Event) -> None:
    telemetry = Telemetry(CollectorRegistry())
    folder = settings.data / SPOOL_FOLDER / "0"
    folders = _spool_folders(settings, folder)
    store = open_store(settings)
    rollers = _rollers(settings, folders, telemetry)
    shippers: list[Shipper] = []

    def committed(seconds: float, events: int) -> None:
        telemetry.commit(seconds, events)
        shippers[0].wake()

    spool = Spool(folder, settings.spool_max_bytes, committed)
    shippers += [_shipper(path, store, settings, telemetry) for path in folders]
    state = open_state(settings)
    async with (
        guarding(settings, state) as guard,
        salting(settings, state) as salts,
        _draining(shippers, rollers, store, settings),
    ):
        try:
            check_streams(settings, guard)
            doorway = open_doorway(settings, spool, guard, telemetry, salts.known)
            answering = Answering(store, guard, doorway.senders, telemetry, time.time, settings.min_visitors)
            health = Health(store, shippers, settings.spool_max_bytes, answering, lambda: [telemetry.registry], rollers)
            everything = [*routes.alone(settings, doorway, state, answering), *health.routes()]
            async with (
                listening(settings, everything),
                listening_beside(settings, doorway, ask_handler("", answering)),
            ):
                await stop.wait()
        finally:
            await spool.close()


async def _serve_with_workers(settings: Settings, stop: asyncio.Event) -> None:
    telemetry = Telemetry(CollectorRegistry())
    # Each worker needs one, and would die without saying why once and for all.
    open_enrichment(settings)
    store = open_store(settings)
    folders = [settings.data / SPOOL_FOLDER / str(number) for number in range(settings.workers)]
    async with processes.running(settings, folders) as crew, guarding(settings, open_state(settings)) as guard:
        check_streams(settings, guard)
        spools = _spool_folders(settings, *folders)
        rollers = _rollers(settings, spools, telemetry)
        shippers = [_shipper(path, store, settings, telemetry) for path in spools]
        answering = Answering(
            store, guard, Senders(settings.trusted_proxies), telemetry, time.time, settings.min_visitors
        )
        health = Health(
            store,
            shippers,
            settings.spool_max_bytes,
            answering,
            lambda: [telemetry.registry, crew.collect()],
            rollers,
        )
        answers = [*routes.behind_workers(settings, answering), *health.routes()]
        async with _draining(shippers, rollers, store, settings):
            runner = make_runner(make_app(answers, settings.body_max_bytes), settings.stop_seconds)
            await runner.setup()
            await web.UnixSite(runner, str(crew.socket)).start()
            await crew.start()
            try:
                await stop.wait()
            finally:
                await crew.stop()
                await end(runner)


def _spool_folders(settings: Settings, *first: Path) -> list[Path]:
    """List the spools to drain: these, and those that workers have left that are no more; and say who reads them."""
    found = (path.parent for path in sorted((settings.data / SPOOL_FOLDER).glob(f"*/{FILE_NAME}")))
    folders = list(dict.fromkeys([*first, *found]))
    for folder in folders:
        appoint(folder, (STORE, ARCHIVE) if settings.archive else (STORE,))
    return folders


def _shipper(folder: Path, store: Store, settings: Settings, telemetry: Telemetry) -> Shipper:
    return Shipper(Outlet(folder, STORE), store, settings.data / DEAD_FOLDER, telemetry)


def _rollers(settings: Settings, folders: Sequence[Path], telemetry: Telemetry) -> list[Roller]:
    """Make what brings spools into the archive; none where there is no archive."""
    if not settings.archive:
        return []
    archive = open_archive(settings.archive, make=True)
    limits = Limits(settings.archive_roll_bytes, settings.archive_roll_age.total_seconds())
    return [Roller(Outlet(folder, ARCHIVE), archive, limits, telemetry) for folder in folders]


@contextlib.asynccontextmanager
async def _draining(
    shippers: Sequence[Shipper], rollers: Sequence[Roller], store: Store, settings: Settings
) -> AsyncIterator[None]:
    """Ship and archive while the block runs; as it ends, do so with the rest as far as time allows."""
    drains: list[Shipper | Roller] = [*shippers, *rollers]
    tasks = [asyncio.create_task(drain.run()) for drain in drains]
    try:
        yield
    finally:
        for drain in drains:
            drain.stop()
        _, late = await asyncio.wait(tasks, timeout=settings.stop_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for drain in drains:
            drain.close()
        await store.close()
        log.info(
            "stopped",
            all_shipped=late.isdisjoint(tasks[: len(shippers)]),
            all_archived=late.isdisjoint(tasks[len(shippers) :]),
        )
