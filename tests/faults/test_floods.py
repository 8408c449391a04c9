"""A few strangers cannot stop the rest: events are accepted while they request the most expensive reports."""

import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.servers import Server

CONNECTIONS: Final = 20
MEASURED_SECONDS: Final = 5.0
WARM_UP_SECONDS: Final = 2.0
TICK_SECONDS: Final = 0.05
READY_SECONDS: Final = 0.1
BATCH: Final = 10_000
VIEWS: Final = 100_000
_NOT_YET: Final = pytest.mark.xfail(
    reason="handing over 100,000 rows holds the interpreter's lock, and not measured on an idle machine yet"
)
PATHS: Final = (
    "/hit/x?views",
    "/tock/%2Fx.json?limit=100000",
    "/badge/%2Fx.svg",
    *(
        pytest.param(path, marks=_NOT_YET)
        for path in (
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
    ),
)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Provide a server with 100,000 views of one item, and as many items and referrers."""
    # It is killed: reports that strangers no longer wait for may run when the store closes, which is logged.
    with Server(tmp_path_factory.mktemp("full") / "data") as server:
        server.start()
        for start in range(0, VIEWS, BATCH):
            numbers = range(start, start + BATCH)
            views = [{"event": "view", "id": "/x", "referer": f"https://site{number}.example/"} for number in numbers]
            others = [{"event": "view", "id": f"/item/{number}", "visitor": f"v{number % 5000}"} for number in numbers]
            for events in (views, others):
                server.post_events(b"\n".join(map(orjson.dumps, events)))
        deadline = time.monotonic() + 300
        while server.get("/health/ready")["store"]["events"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield server


@contextlib.contextmanager
def flood(server: Server, path: str) -> Iterator[None]:
    script = Path(__file__).with_name("flood.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(server.port), path, str(CONNECTIONS)]
    )  # our own script
    try:
        time.sleep(WARM_UP_SECONDS)
        assert process.poll() is None
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def measure(server: Server) -> tuple[float, float]:
    """Return the 99th percentiles of the seconds that a tick and a health check take."""
    ticks, checks = list[float](), list[float]()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    deadline = time.monotonic() + MEASURED_SECONDS
    while time.monotonic() < deadline:
        for seconds, request in (
            (ticks, ("POST", "/tick", b'{"id":"measured"}')),
            (checks, ("GET", "/health/ready", None)),
        ):
            start = time.monotonic()
            connection.request(*request)
            response = connection.getresponse()
            response.read()
            seconds.append(time.monotonic() - start)
            assert response.status in {200, 204}
        time.sleep(0.005)
    connection.close()
    return _percentile(ticks), _percentile(checks)


def _percentile(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


@pytest.mark.slow  # a flood lasts for seconds
@pytest.mark.parametrize("path", PATHS)
def test_events_are_accepted_while_strangers_request_expensive_reports(full: Server, path: str) -> None:
    # A machine that is busy with other things delays everything.
    usual_tick, usual_check = measure(full)
    with flood(full, path):
        tick, check = measure(full)
    times = {"tick": (usual_tick, tick), "ready": (usual_check, check)}
    assert tick < TICK_SECONDS + 2 * usual_tick, times
    assert check < READY_SECONDS + 2 * usual_check, times
