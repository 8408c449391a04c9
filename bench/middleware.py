"""The overhead of `metronome.middleware` for each request of a service that only responds with 204.

The service runs in this process without a network; its reports go to a real Metronome in another one. The first figure
is the time until the response, the second all CPU time of the process, including the background thread's.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from bench.harness import BenchmarkRow, sized, temporary_folder
from metronome.middleware.asgi import ASGIMiddleware
from metronome.middleware.config import ClientConfig
from metronome.middleware.reporter import Reporter
from metronome.middleware.wsgi import WSGIMiddleware
from tests.servers import running_server

REQUESTS: Final = sized(5000, 500)
ROUNDS: Final = sized(15, 2)
_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_HEADERS: Final = {
    "host": "data.example.org",
    "user-agent": _AGENT,
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language": "de,en-US;q=0.7,en;q=0.3",
    "accept-encoding": "gzip, deflate, br, zstd",
    "referer": "https://www.example.org/links/rivers",
    "connection": "keep-alive",
    "cookie": "session=0123456789abcdef",
}
_ASGI_HEADERS: Final = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
_WSGI_HEADERS: Final = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in _HEADERS.items()}

RequestLoop = Callable[[], None]


class _RequestCost(NamedTuple):
    """Microseconds per request: until the response, and of CPU time."""

    latency: float
    cpu: float


def measure() -> list[BenchmarkRow]:
    """Run each service with and without the middleware in turns, and compare the fastest of each."""
    with temporary_folder() as folder, running_server(folder / "data") as server:
        rows = []
        for name, plain, reported in (
            ("ASGI", _asgi_host, _asgi_host_with_middleware),
            ("WSGI", _wsgi_host, _wsgi_host_with_middleware),
        ):
            for protocol in ("metronome", "matomo"):
                config = ClientConfig(
                    url=server.url, protocol=protocol, flush_interval_seconds=60, shutdown_timeout_seconds=60
                )
                with Reporter(config) as reporter:
                    rows.append(_row(f"{name} middleware, to {protocol}", plain(), reported(reporter), reporter))
        return rows


def _row(name: str, plain: RequestLoop, reported: RequestLoop, reporter: Reporter) -> BenchmarkRow:
    without = with_it = _RequestCost(float("inf"), float("inf"))
    for _ in range(ROUNDS):
        without = _minimum(without, _measure_cost(plain, reporter))
        with_it = _minimum(with_it, _measure_cost(reported, reporter))
    stats = reporter.stats()
    if stats.sent != REQUESTS * ROUNDS:
        raise SystemExit(f"the middleware did not report every request: {stats}")
    latency, cpu = with_it.latency - without.latency, with_it.cpu - without.cpu
    return BenchmarkRow(
        f"{name}: added to each request of a service that responds with 204",
        f"{latency:.1f} µs, {cpu:.1f} µs with the background thread",
        f"{without.latency:.1f} µs (the service alone)",
        "",
        "≤ 20 µs",
    )


def _minimum(one: _RequestCost, other: _RequestCost) -> _RequestCost:
    return _RequestCost(min(one.latency, other.latency), min(one.cpu, other.cpu))


def _measure_cost(loop: RequestLoop, reporter: Reporter) -> _RequestCost:
    started, cpu_started = time.perf_counter(), time.process_time()
    loop()
    latency = time.perf_counter() - started
    if not reporter.flush():
        raise SystemExit(f"the queue was not drained: {reporter.stats()}")
    return _RequestCost(latency / REQUESTS * 1e6, (time.process_time() - cpu_started) / REQUESTS * 1e6)


async def _asgi_app(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _asgi_host(app: Any = _asgi_app) -> RequestLoop:
    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(_: Any) -> None:
        pass

    async def run_requests() -> None:
        for number in range(REQUESTS):
            path = f"/datasets/{number}"
            scope = {
                "type": "http",
                "method": "GET",
                "scheme": "https",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"as=csv",
                "root_path": "",
                "headers": _ASGI_HEADERS,
                "client": ("203.0.113.77", 40000),
                "server": ("127.0.0.1", 443),
            }
            await app(scope, receive, send)

    return lambda: asyncio.run(run_requests())


def _asgi_host_with_middleware(reporter: Reporter) -> RequestLoop:
    return _asgi_host(ASGIMiddleware(_asgi_app, reporter))


def _wsgi_app(_: Any, start_response: Any) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


def _wsgi_host(app: Any = _wsgi_app) -> RequestLoop:
    def start_response(*_: Any) -> None:
        pass

    def run_requests() -> None:
        for number in range(REQUESTS):
            environ = {
                "REQUEST_METHOD": "GET",
                "SCRIPT_NAME": "",
                "PATH_INFO": f"/datasets/{number}",
                "QUERY_STRING": "as=csv",
                "REMOTE_ADDR": "203.0.113.77",
                "wsgi.url_scheme": "https",
                **_WSGI_HEADERS,
            }
            app(environ, start_response)

    return run_requests


def _wsgi_host_with_middleware(reporter: Reporter) -> RequestLoop:
    return _wsgi_host(WSGIMiddleware(_wsgi_app, reporter))
