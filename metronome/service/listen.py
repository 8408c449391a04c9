"""The addresses that a process listens at, while a block runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import structlog
from aiohttp import web

from metronome.config import Settings
from metronome.service.app import make_app, make_runner
from metronome.service.hits import hit_routes
from metronome.service.streams import streaming
from metronome.service.writes import Doorway, Handler

log = structlog.get_logger()

_TURNS = 5


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
        await end(runner)


async def end(runner: web.AppRunner) -> None:
    """Stop listening, finish replies, and close."""
    for site in list(runner.sites):
        await site.stop()
    # On connections that were made in this very turn, aiohttp would wait for a request until its time is up.
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    await runner.cleanup()
