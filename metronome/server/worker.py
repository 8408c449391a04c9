"""A worker process: it accepts events into its spool and forwards all other requests to the main process."""

import asyncio
import contextlib
import os
from functools import partial
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from metronome.auth.client_address import ClientAddress
from metronome.config import Settings, read_settings
from metronome.server import routes
from metronome.server.bootstrap import build_ingest_context, open_authorizer, open_state, open_visitor_salts
from metronome.server.listeners import serve_extra_ports, serve_http
from metronome.server.logs import configure_logging
from metronome.server.processes import (
    COMMIT_PIPE_VARIABLE,
    SOCKET_VARIABLE,
    SPOOL_FOLDER_VARIABLE,
    MainProcessRelay,
    run_process,
)
from metronome.spool import SpoolWriter
from metronome.telemetry import Telemetry


async def run_worker(
    settings: Settings, spool_folder: Path, main_socket: str, commit_pipe: int, stop: asyncio.Event
) -> None:
    """Accept events until *stop* is set or the main process has exited."""

    def on_commit(seconds: float, events: int) -> None:
        telemetry.count_commit(seconds, events)
        # If the pipe is full, the main process has yet to read of an earlier commit.
        with contextlib.suppress(OSError):
            os.write(commit_pipe, b"\0")

    _stop_when_main_exits(stop)
    telemetry = Telemetry(CollectorRegistry())
    spool = SpoolWriter(spool_folder, settings.spool_max_bytes, on_commit)
    try:
        state = open_state(settings)
        async with (
            open_authorizer(settings, state) as authorizer,
            open_visitor_salts(settings, state) as salts,
            MainProcessRelay(
                main_socket, settings.body_max_bytes, ClientAddress(settings.trusted_proxies), authorizer
            ) as relay,
        ):
            fallback = web.route("*", "/{rest:.*}", relay.handle)
            context = build_ingest_context(settings, spool, authorizer, telemetry, salts.current)
            worker_routes = routes.worker_routes(settings, context, state, relay.handle)
            async with (
                serve_http(
                    settings,
                    worker_routes,
                    fallback,
                    reuse_port=True,
                    budget=context.body_budget(),
                ),
                serve_extra_ports(
                    settings, context, partial(relay.handle, prefix=settings.hit_prefix), reuse_port=True
                ),
            ):
                await stop.wait()
    finally:
        await spool.close()


def _stop_when_main_exits(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def read_stdin() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, read_stdin)


def main() -> None:
    """Run the worker that the environment variables describe."""
    settings = read_settings()
    configure_logging(settings)
    folder, main_socket = Path(os.environ[SPOOL_FOLDER_VARIABLE]), os.environ[SOCKET_VARIABLE]
    commit_pipe = int(os.environ[COMMIT_PIPE_VARIABLE])
    run_process(lambda stop: run_worker(settings, folder, main_socket, commit_pipe, stop))


if __name__ == "__main__":
    main()
