"""Floods of expensive reports, for the tests and the benchmark: what they request, and how long others then wait.

``python -m tests.faults.floods PORT PATH`` requests the same path over many connections, again and again, until it is
killed. It is a process of its own, so that reading large responses does not delay what is measured.
"""

import asyncio
import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import orjson
from aiohttp import ClientError, ClientSession, TCPConnector

from tests.servers import Server

ROOT: Final = Path(__file__).parent.parent.parent
CONNECTIONS: Final = 20
VIEWS: Final = 100_000
BATCH: Final = 10_000
WARM_UP_SECONDS: Final = 2.0
PATHS: Final = (
    "/hit/x?views",
    "/tock/%2Fx.json?limit=100000",
    "/badge/%2Fx.svg",
    "/items.json?limit=999999999",
    "/items.csv",
    "/items.json?order=visitors&limit=0",
    "/tock/%2Fx.csv",
    "/flow.json",
    "/flow/%2Fx.json?steps=5",
    "/time.json",
    "/recommendations.json",
    "/counter/%2Fx.json",
    "/",
    "/items//x",
    "/embed//x",
)


class Waits(NamedTuple):
    """The 99th percentiles of the seconds that a tick and a health check take."""

    tick: float
    ready: float


@contextlib.contextmanager
def full_server(data: Path) -> Iterator[Server]:
    """Run a server with 100,000 views of one item, and as many items and referrers."""
    # It is killed: reports that strangers no longer wait for may run when the store closes, which is logged.
    with Server(data) as server:
        server.start()
        for start in range(0, VIEWS, BATCH):
            numbers = range(start, start + BATCH)
            views = [{"event": "view", "id": "/x", "referer": f"https://site{number}.example/"} for number in numbers]
            others = [{"event": "view", "id": f"/item/{number}", "visitor": f"v{number % 5000}"} for number in numbers]
            for events in (views, others):
                server.post_events(b"\n".join(map(orjson.dumps, events)))
        deadline = time.monotonic() + 300
        while server.get("/health/ready")["store"]["events"]:
            if time.monotonic() > deadline:
                raise TimeoutError("the events are not stored after 5 minutes")
            time.sleep(0.2)
        yield server


@contextlib.contextmanager
def flood(server: Server, path: str) -> Iterator[None]:
    """Request a path over 20 connections during the block.

    Raises:
        RuntimeError: The requests ended before the block did.

    """
    command = [sys.executable, "-m", "tests.faults.floods", str(server.port), path]
    process = subprocess.Popen(command, cwd=ROOT)  # our own script
    try:
        time.sleep(WARM_UP_SECONDS)
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the flood ended with exit code {process.returncode}")
    finally:
        process.kill()
        process.wait()


def measure_waits(server: Server, seconds: float) -> Waits:
    """Send ticks and health checks in turns for some seconds.

    Raises:
        RuntimeError: One of them was refused.

    """
    ticks, checks = list[float](), list[float]()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for times, request in (
            (ticks, ("POST", "/tick", b'{"id":"measured"}')),
            (checks, ("GET", "/health/ready", None)),
        ):
            start = time.monotonic()
            connection.request(*request)
            response = connection.getresponse()
            response.read()
            times.append(time.monotonic() - start)
            if response.status not in {200, 204}:
                raise RuntimeError(f"{request[1]} returned status {response.status}")
        time.sleep(0.005)
    connection.close()
    return Waits(_percentile(ticks), _percentile(checks))


def _percentile(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


async def _request_forever(session: ClientSession, url: str, client: str) -> None:
    while True:
        try:
            async with session.get(url, headers={"X-Forwarded-For": client}) as response:
                async for _ in response.content.iter_chunked(1 << 20):
                    pass
                if response.status >= 400:
                    await asyncio.sleep(0.05)
        except ClientError:
            await asyncio.sleep(0.05)


async def _request_over_all_connections(port: int, path: str) -> None:
    url = f"http://127.0.0.1:{port}{path}"
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        await asyncio.gather(
            *(_request_forever(session, url, f"203.0.113.{number % 250 + 1}") for number in range(CONNECTIONS))
        )


if __name__ == "__main__":
    asyncio.run(_request_over_all_connections(int(sys.argv[1]), sys.argv[2]))
