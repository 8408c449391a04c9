"""The composition root: what runs in which process, and in which order it starts and stops.

With one worker, one process does everything. With more, each worker accepts events into its own spool and forwards all
other requests over a Unix socket to the main process, which owns the store and drains all spools.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from metronome.archive.objects import open_archive
from metronome.archiver import Archiver, ArchiveThresholds
from metronome.auth.client_address import ClientAddress
from metronome.backup import Backups
from metronome.config import Settings
from metronome.demo import continue_demo, load_demo
from metronome.erasures import Erasures, Retention, SpoolDrains
from metronome.errors import ConfigurationError, MetronomeError
from metronome.files import FolderLock, protect_data_folder
from metronome.intake import Intake
from metronome.protocols.micro_analytics import build_query_handler
from metronome.server import processes, routes
from metronome.server.admin_routes import backup_routes, erasure_routes
from metronome.server.bootstrap import (
    build_budget,
    build_enrichment,
    build_ingest_context,
    open_authorizer,
    open_state,
    open_store,
    open_visitor_salts,
)
from metronome.server.health import HealthRoutes
from metronome.server.listeners import serve_extra_ports, serve_http, validate_listeners
from metronome.shipper import Shipper
from metronome.spool import (
    ARCHIVE_READER,
    SPOOL_FILE_NAME,
    SPOOL_FOLDER,
    STORE_READER,
    SpoolReader,
    SpoolWriter,
    register_readers,
)
from metronome.spool.dead_letters import DEAD_LETTER_FOLDER
from metronome.spool.drain import DrainLoop
from metronome.spool.repair import repair_spool
from metronome.state.base import State
from metronome.stores.base import Store
from metronome.telemetry import Telemetry
from metronome.visibility import Visibility
from metronome.web.budget import BodyBudget
from metronome.web.handlers import QueryContext
from metronome.web.limits import RateLimiter

log = structlog.get_logger()

_ALL_ADDRESSES: Final = ("0.0.0.0", "::")  # noqa: S104  # compared with, not listened on
_POLL_SECONDS: Final = 0.1
_STARTING_SECONDS: Final = 2.0
"""How long a server that is stopped right after its start waits for its state before it ships nothing."""


async def serve(settings: Settings, stop: asyncio.Event, on_demo_loaded: Callable[[str], None] | None = None) -> None:
    """Serve until *stop* is set, then shut down: stop listening, complete responses, drain the spools.

    Args:
        settings: of the installation.
        stop: is set to stop.
        on_demo_loaded: if given, the demo is loaded in the background, which needs a server of one process; called with
            the URL of the page once it is in the store.

    Raises:
        ConfigurationError: settings contradict each other, or name what does not exist.
        DataFolderLocked: another Metronome uses the data folder.
        OSError: a port is in use or not permitted.

    """
    for path in protect_data_folder(settings.data, settings.data_group):
        log.warning(
            "data_not_private",
            path=str(path),
            error="other users can read it, and it belongs to another user than that of Metronome",
            advice="change its owner to that user, or its mode to 0600 (folders: 0700)",
        )
    lock = FolderLock(settings.data)
    try:
        if settings.workers == 1:
            await _serve_single_process(settings, stop, on_demo_loaded)
        else:
            await _serve_with_workers(settings, stop)
    finally:
        lock.release()


async def _serve_single_process(
    settings: Settings, stop: asyncio.Event, on_demo_loaded: Callable[[str], None] | None
) -> None:
    telemetry = Telemetry(CollectorRegistry())
    folder = settings.data / SPOOL_FOLDER / "0"
    folders = _register_spools(settings, folder)
    store = open_store(settings)
    archivers = _build_archivers(settings, folders, telemetry)
    shippers = [_build_shipper(path, store, settings, telemetry) for path in folders]
    wake_drains = _waker(folders, shippers, archivers)

    def on_commit(seconds: float, events: int) -> None:
        telemetry.count_commit(seconds, events)
        wake_drains(folder)

    spool = SpoolWriter(folder, settings.spool_max_bytes, on_commit)
    state = open_state(settings)
    erasures = _build_erasures(settings, state, store, folders, shippers, archivers)
    async with (
        open_authorizer(settings, state) as authorizer,
        open_visitor_salts(settings, state) as salts,
        _run_drains(shippers, archivers, store, settings, erasures),
    ):
        try:
            validate_listeners(settings, authorizer)
            ingest_context = build_ingest_context(settings, spool, authorizer, telemetry, salts.current)
            query_context = QueryContext(
                store,
                authorizer,
                ingest_context.client_address,
                telemetry,
                time.time,
                visibility=Visibility(
                    shippers,
                    store,
                    settings.read_wait_seconds,
                    telemetry,
                    deletions=lambda: erasures.deletions,
                ),
                rates=ingest_context.rates,
            )
            health = HealthRoutes(
                store, shippers, settings.spool_max_bytes, query_context, lambda: [telemetry.registry], archivers
            )
            all_routes = [
                *routes.single_process_routes(settings, ingest_context, state, query_context),
                *erasure_routes(query_context, erasures),
                *backup_routes(query_context, Backups(settings.data, store, folders)),
                *health.routes(),
            ]
            async with (
                serve_http(settings, all_routes, budget=ingest_context.body_budget()) as port,
                serve_extra_ports(settings, ingest_context, build_query_handler("", query_context)),
                contextlib.AsyncExitStack() as demo,
            ):
                if on_demo_loaded is not None:
                    url = _local_url(settings, port)
                    await demo.enter_async_context(_run_demo(ingest_context.intake, shippers, url, on_demo_loaded))
                await stop.wait()
        finally:
            await spool.close()


async def _serve_with_workers(settings: Settings, stop: asyncio.Event) -> None:
    telemetry = Telemetry(CollectorRegistry())
    # Check its files here: each worker would fail at its start, again and again.
    build_enrichment(settings)
    store = open_store(settings)
    folders = [settings.data / SPOOL_FOLDER / str(number) for number in range(settings.workers)]
    state = open_state(settings)
    async with (
        processes.open_worker_pool(settings, folders) as workers,
        open_authorizer(settings, state) as authorizer,
    ):
        validate_listeners(settings, authorizer)
        spools = _register_spools(settings, *folders)
        archivers = _build_archivers(settings, spools, telemetry)
        shippers = [_build_shipper(path, store, settings, telemetry) for path in spools]
        erasures = _build_erasures(settings, state, store, spools, shippers, archivers)
        query_context = QueryContext(
            store,
            authorizer,
            ClientAddress(settings.trusted_proxies),
            telemetry,
            time.time,
            visibility=Visibility(
                shippers,
                store,
                settings.read_wait_seconds,
                telemetry,
                report_commits=workers.report_commits,
                deletions=lambda: erasures.deletions,
            ),
            rates=RateLimiter(settings.rate_limit),
        )
        health = HealthRoutes(
            store,
            shippers,
            settings.spool_max_bytes,
            query_context,
            lambda: [telemetry.registry, workers.collect_metrics()],
            archivers,
        )
        main_routes = [
            *routes.main_process_routes(settings, query_context, state),
            *erasure_routes(query_context, erasures),
            *backup_routes(query_context, Backups(settings.data, store, spools)),
            *health.routes(),
        ]
        async with (
            _run_drains(shippers, archivers, store, settings, erasures),
            serve_http(
                settings,
                main_routes,
                socket_path=workers.socket_path,
                budget=BodyBudget(build_budget(settings), query_context.client_address.resolve_request),
            ),
        ):
            await workers.start(_waker(spools, shippers, archivers))
            try:
                await stop.wait()
            finally:
                await workers.stop()


def _local_url(settings: Settings, port: int) -> str:
    """Return the URL of the page, as a browser on this machine can open it."""
    is_reachable_as_localhost = settings.on_loopback or settings.host in _ALL_ADDRESSES
    return f"http://{'localhost' if is_reachable_as_localhost else settings.host}:{port}{settings.base_path}/"


@contextlib.asynccontextmanager
async def _run_demo(
    intake: Intake, shippers: Sequence[Shipper], url: str, on_loaded: Callable[[str], None]
) -> AsyncIterator[None]:
    """Load the demo in the background while the block runs, and then continue it."""

    async def run() -> None:
        now = datetime.now(UTC)
        log.info("demo_loading", url=url)
        try:
            count = await load_demo(intake, now)
            while any([(await shipper.pending_stats()).events for shipper in shippers]):  # noqa: ASYNC110  # polls files
                await asyncio.sleep(_POLL_SECONDS)
            log.info("demo_loaded", events=count, url=url)
            on_loaded(url)
            await continue_demo(intake, now, time.time)
        except MetronomeError as error:
            log.warning("demo_failed", error=str(error), advice=error.advice)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _register_spools(settings: Settings, *first: Path) -> list[Path]:
    """Return the spools to drain: these, and those of earlier workers; and register their readers."""
    existing = (path.parent for path in sorted((settings.data / SPOOL_FOLDER).glob(f"*/{SPOOL_FILE_NAME}")))
    folders = list(dict.fromkeys([*first, *existing]))
    for folder in folders:
        repair_spool(folder, datetime.now(UTC))
        register_readers(folder, (STORE_READER, ARCHIVE_READER) if settings.archive else (STORE_READER,))
    return folders


def _build_shipper(folder: Path, store: Store, settings: Settings, telemetry: Telemetry) -> Shipper:
    return Shipper(SpoolReader(folder, STORE_READER), store, settings.data / DEAD_LETTER_FOLDER, telemetry)


def _build_archivers(settings: Settings, folders: Sequence[Path], telemetry: Telemetry) -> list[Archiver]:
    """Return the archivers of the spools; none without an archive."""
    if not settings.archive:
        return []
    archive = open_archive(settings.archive, create=True)
    limits = ArchiveThresholds(settings.archive_roll_bytes, settings.archive_roll_age.total_seconds())
    return [Archiver(SpoolReader(folder, ARCHIVE_READER), archive, limits, telemetry) for folder in folders]


def _build_erasures(
    settings: Settings,
    state: State,
    store: Store,
    folders: Sequence[Path],
    shippers: Sequence[Shipper],
    archivers: Sequence[Archiver],
) -> Erasures:
    if settings.keep_counts and not settings.keep_events:
        raise ConfigurationError("METRONOME_KEEP_COUNTS needs METRONOME_KEEP_EVENTS: counts are kept as long as events")
    of_archive: Sequence[Archiver | None] = archivers or [None for _ in folders]
    return Erasures(
        state,
        store,
        [SpoolDrains(*drains) for drains in zip(folders, shippers, of_archive, strict=True)],
        settings.data / DEAD_LETTER_FOLDER,
        open_archive(settings.archive, create=True) if settings.archive else None,
        Retention(settings.keep_events_months, settings.keep_counts_months),
        time.time,
    )


def _waker(
    folders: Sequence[Path], shippers: Sequence[Shipper], archivers: Sequence[Archiver]
) -> Callable[[Path], None]:
    """Return a function that wakes the shipper and the archiver of a spool."""
    drains: dict[Path, list[DrainLoop]] = {folder: [shipper] for folder, shipper in zip(folders, shippers, strict=True)}
    for folder, archiver in zip(folders, archivers, strict=bool(archivers)):
        drains[folder].append(archiver)

    def wake(folder: Path) -> None:
        for drain in drains[folder]:
            drain.wake()

    return wake


@contextlib.asynccontextmanager
async def _run_drains(
    shippers: Sequence[Shipper],
    archivers: Sequence[Archiver],
    store: Store,
    settings: Settings,
    erasures: Erasures,
) -> AsyncIterator[None]:
    """Ship, archive and forget while the block runs; at its end, drain the spools until the timeout."""
    drains: list[DrainLoop] = [*shippers, *archivers]
    tasks = [asyncio.create_task(drain.run()) for drain in drains]
    erasing = asyncio.create_task(erasures.run())
    try:
        yield
    finally:
        await erasures.wait_until_started(min(settings.stop_seconds, _STARTING_SECONDS))
        for drain in drains:
            drain.stop()
        _, late = await asyncio.wait(tasks, timeout=settings.stop_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # After the drain loops: it would release those that it holds.
        erasing.cancel()
        await asyncio.gather(erasing, return_exceptions=True)
        for drain in drains:
            drain.close()
        await store.close()
        log.info(
            "stopped",
            all_shipped=late.isdisjoint(tasks[: len(shippers)])
            and not any(shipper.pending.has_waiting for shipper in shippers),
            all_archived=late.isdisjoint(tasks[len(shippers) :]),
        )
