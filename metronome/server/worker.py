"""One worker process: it takes ticks into its spool and hands everything else to the main process."""

import asyncio
import os
from functools import partial
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from metronome.auth.client_address import Senders
from metronome.config import Settings, read_settings
from metronome.server import routes
from metronome.server.app import listening, listening_beside
from metronome.server.bootstrap import guarding, open_doorway, open_state, salting
from metronome.server.logs import set_up_logs
from metronome.server.processes import FOLDER_VARIABLE, SOCKET_VARIABLE, Relay, run
from metronome.spool import Spool
from metronome.telemetry import Telemetry


async def work(settings: Settings, folder: Path, main_socket: str, stop: asyncio.Event) -> None:
    """Take ticks until *stop* is set or the main process is gone."""
    _stop_with_main(stop)
    telemetry = Telemetry(CollectorRegistry())
    spool = Spool(folder, settings.spool_max_bytes, telemetry.commit)
    try:
        state = open_state(settings)
        async with (
            guarding(settings, state) as guard,
            salting(settings, state) as salts,
            Relay(main_socket, settings.body_max_bytes, Senders(settings.trusted_proxies)) as relay,
        ):
            fallback = web.route("*", "/{rest:.*}", relay.handle)
            doorway = open_doorway(settings, spool, guard, telemetry, salts.known)
            own = routes.of_worker(settings, doorway, state, relay.handle)
            async with (
                listening(settings, own, fallback, shared=True),
                listening_beside(settings, doorway, partial(relay.handle, prefix=settings.hit_prefix), shared=True),
            ):
                await stop.wait()
    finally:
        await spool.close()


def _stop_with_main(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, look)


def main() -> None:
    """Run a worker as its environment says."""
    settings = read_settings()
    set_up_logs(settings)
    folder, main_socket = Path(os.environ[FOLDER_VARIABLE]), os.environ[SOCKET_VARIABLE]
    run(lambda stop: work(settings, folder, main_socket, stop))


if __name__ == "__main__":
    main()
