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

from metronome.config import Settings
from metronome.dead import FOLDER_NAME as DEAD_FOLDER
from metronome.locks import FolderLock
from metronome.service import routes, workers
from metronome.service.app import make_app, make_runner
from metronome.service.health import Health
from metronome.service.hits import ask_handler
from metronome.service.listen import end, listening, listening_beside
from metronome.service.parts import guarding, open_doorway, open_enrichment, open_state, open_store, salting
from metronome.service.reads import Answering
from metronome.service.senders import Senders
from metronome.service.streams import check_streams
from metronome.ship import Shipper
from metronome.spool import FILE_NAME, Outlet, Spool
from metronome.stores.store import Store
from metronome.telemetry import Telemetry

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
    store = open_store(settings)
    shippers: list[Shipper] = []

    def committed(seconds: float, events: int) -> None:
        telemetry.commit(seconds, events)
        shippers[0].wake()

    spool = Spool(folder, settings.spool_max_bytes, committed)
    shippers += [_shipper(path, store, settings, telemetry) for path in _spool_folders(settings, folder)]
    state = open_state(settings)
    async with (
        guarding(settings, state) as guard,
        salting(settings, state) as salts,
        _shipping(shippers, store, settings),
    ):
        try:
            check_streams(settings, guard)
            doorway = open_doorway(settings, spool, guard, telemetry, salts.known)
            answering = Answering(store, guard, doorway.senders, telemetry, time.time, settings.min_visitors)
            health = Health(store, shippers, settings.spool_max_bytes, answering, lambda: [telemetry.registry])
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
    async with workers.running(settings, folders) as crew, guarding(settings, open_state(settings)) as guard:
        check_streams(settings, guard)
        shippers = [_shipper(path, store, settings, telemetry) for path in _spool_folders(settings, *folders)]
        answering = Answering(
            store, guard, Senders(settings.trusted_proxies), telemetry, time.time, settings.min_visitors
        )
        health = Health(
            store, shippers, settings.spool_max_bytes, answering, lambda: [telemetry.registry, crew.collect()]
        )
        answers = [*routes.behind_workers(settings, answering), *health.routes()]
        async with _shipping(shippers, store, settings):
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
