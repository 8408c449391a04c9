"""What the middleware of `metronome.middleware` adds to each request of a host that does nothing but answer 204.

The host runs in this process, in a loop without a network; its reports go to a real Metronome in another. First
comes what a request waits for, then all that the process works for it, with what its thread makes and sends of it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from bench.figures import BenchmarkRow, temporary_folder
from metronome.middleware.asgi import ASGIMiddleware
from metronome.middleware.config import ClientConfig
from metronome.middleware.reporter import Reporter
from metronome.middleware.wsgi import WSGIMiddleware
from tests.servers import running_server

REQUESTS: Final = 5000
ROUNDS: Final = 15
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
    """Microseconds a request: until it was answered, and of work in all."""

    latency: float
    cpu: float


def measure() -> list[BenchmarkRow]:
    """Run each kind of host with the middleware and without, in turns, and compare the best of each."""
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
        raise SystemExit(f"the middleware did not report all that it should have: {stats}")
    waiting, working = with_it.latency - without.latency, with_it.cpu - without.cpu
    return BenchmarkRow(
        f"{name}: added to each request of a host that answers 204",
        f"{waiting:.1f} µs, {working:.1f} µs with the sending in the background",
        f"{without.latency:.1f} µs (the host alone)",
        "",
        "≤ 20 µs",
    )


def _minimum(one: _RequestCost, other: _RequestCost) -> _RequestCost:
    return _RequestCost(min(one.latency, other.latency), min(one.cpu, other.cpu))


def _measure_cost(loop: RequestLoop, reporter: Reporter) -> _RequestCost:
    began, worked = time.perf_counter(), time.process_time()
    loop()
    waiting = time.perf_counter() - began
    if not reporter.flush():
        raise SystemExit(f"the reports do not go out: {reporter.stats()}")
    return _RequestCost(waiting / REQUESTS * 1e6, (time.process_time() - worked) / REQUESTS * 1e6)


async def _asgi_app(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _asgi_host(app: Any = _asgi_app) -> RequestLoop:
    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(_: Any) -> None:
        pass

    async def ask() -> None:
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

    return lambda: asyncio.run(ask())


def _asgi_host_with_middleware(reporter: Reporter) -> RequestLoop:
    return _asgi_host(ASGIMiddleware(_asgi_app, reporter))


def _wsgi_app(_: Any, start_response: Any) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


def _wsgi_host(app: Any = _wsgi_app) -> RequestLoop:
    def start_response(*_: Any) -> None:
        pass

    def ask() -> None:
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

    return ask


def _wsgi_host_with_middleware(reporter: Reporter) -> RequestLoop:
    return _wsgi_host(WSGIMiddleware(_wsgi_app, reporter))
