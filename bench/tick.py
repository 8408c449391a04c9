"""Single events to ``POST /tick``, compared with a bare aiohttp handler that parses the body, each on one core."""

import asyncio
import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import orjson
import uvloop
from aiohttp import web

from bench.harness import BenchmarkRow, build_events, pinned_to_core, run_load, sized, spread, temporary_folder
from bench.peers import sync_rate
from tests.servers import free_port, running_server

ROUNDS: Final = sized(5, 1)
SECONDS: Final = sized(5, 1)
CONNECTIONS: Final = 128


def measure() -> list[BenchmarkRow]:
    """Alternate between the two and compare the medians."""
    bodies = build_events(1000)
    with (
        temporary_folder() as folder,
        pinned_to_core(0),
        _bare_server() as bare,
        running_server(folder / "data") as server,
    ):
        rates: dict[str, list[float]] = {bare: [], server.url: []}
        for _ in range(ROUNDS):
            for url, url_rates in rates.items():
                with pinned_to_core(1):
                    load = run_load(f"{url}/tick", bodies, "application/json", CONNECTIONS, SECONDS)
                url_rates.append(load.rate)
                server.wait_until_shipped()
    synced = sync_rate(bodies)
    limit, own = (statistics.median(url_rates) for url_rates in rates.values())
    return [
        BenchmarkRow(
            f"`POST /tick`, one event a request, {CONNECTIONS} connections, server on one core",
            f"{spread(rates[server.url])} requests/s",
            f"{spread(rates[bare])} (bare aiohttp handler); {synced:,.0f} (a write and fdatasync each)",
            f"{own / limit:.2f}",
            "≥ 0.65",
        )
    ]


@contextlib.contextmanager
def _bare_server() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "bench.tick", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


async def _serve_bare(port: int) -> None:
    async def handle(request: web.Request) -> web.Response:
        orjson.loads(await request.read())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/tick", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve_bare(int(sys.argv[1])))
