"""The sockets of a process: HTTP, and the protocols with ports of their own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import structlog
from aiohttp import web

from metronome.auth.authorizer import Authorizer
from metronome.config import Settings
from metronome.protocols import micro_analytics
from metronome.protocols.forward.listener import run_forward_listener, validate_forward_settings
from metronome.protocols.syslog.listener import run_syslog_listener, validate_syslog_access
from metronome.server.app import build_app, build_runner
from metronome.web.budget import BodyBudget
from metronome.web.handlers import Handler, IngestContext

log = structlog.get_logger()

_LOOP_TURNS = 5


def validate_listeners(settings: Settings, authorizer: Authorizer) -> None:
    """Check the settings of all listeners, before any process listens.

    Raises:
        ConfigurationError: settings contradict each other.

    """
    if settings.forward_port is not None:
        validate_forward_settings(settings, authorizer)
    if settings.syslog_port is not None:
        validate_syslog_access(authorizer)


@contextlib.asynccontextmanager
async def serve_extra_ports(
    settings: Settings, context: IngestContext, hit_report_handler: Handler, *, reuse_port: bool = False
) -> AsyncIterator[None]:
    """Listen on the ports of protocols that have their own, while the block runs.

    Args:
        settings: the ports.
        context: where events go.
        hit_report_handler: handles the reports of true-micro-analytics on `Settings.hit_port`.
        reuse_port: whether other processes listen on the same ports.

    Raises:
        OSError: a port is in use or not permitted.

    """
    async with contextlib.AsyncExitStack() as listeners:
        if settings.hit_port is not None:
            routes = micro_analytics.build_routes("", context, hit_report_handler)
            await listeners.enter_async_context(
                serve_http(
                    settings, routes, port=settings.hit_port, reuse_port=reuse_port, budget=context.body_budget()
                )
            )
        if settings.forward_port is not None:
            await listeners.enter_async_context(run_forward_listener(settings, context, reuse_port=reuse_port))
        if settings.syslog_port is not None:
            await listeners.enter_async_context(
                run_syslog_listener(context, settings.host, settings.syslog_port, reuse_port=reuse_port)
            )
        yield


@contextlib.asynccontextmanager
async def serve_http(
    settings: Settings,
    routes: Sequence[web.RouteDef],
    fallback: web.RouteDef | None = None,
    *,
    port: int | None = None,
    socket_path: Path | None = None,
    reuse_port: bool = False,
    budget: BodyBudget | None = None,
) -> AsyncIterator[int]:
    """Serve HTTP while the block runs, and complete open responses at its end; yield the port, 0 for a socket.

    Args:
        settings: the address, and limits.
        routes: the routes.
        fallback: handles all other paths.
        port: another port than that of the settings, on which there is no base path.
        socket_path: a Unix socket to listen on instead.
        reuse_port: whether other processes listen on the same port.
        budget: limits the memory of all bodies.

    Raises:
        OSError: the port is in use or not permitted.

    """
    base_path = settings.base_path if port is None else ""
    app = build_app(routes, settings.body_max_bytes, fallback, base_path, budget)
    runner = build_runner(app, settings.stop_seconds)
    await runner.setup()
    try:
        if socket_path is not None:
            await web.UnixSite(runner, str(socket_path)).start()
            port = 0
        else:
            port = settings.port if port is None else port
            await web.TCPSite(runner, settings.host, port, reuse_port=reuse_port or None, backlog=1024).start()
            for address in runner.addresses:
                log.info("listening", url=f"http://{address[0]}:{address[1]}", store=settings.store.rpartition("@")[2])
            port = int(runner.addresses[0][1])
        yield port
    finally:
        for site in list(runner.sites):
            await site.stop()
        # aiohttp would wait for requests, until its timeout, on connections that were accepted in this very turn.
        for _ in range(_LOOP_TURNS):
            await asyncio.sleep(0)
        await runner.cleanup()
