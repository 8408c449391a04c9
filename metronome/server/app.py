"""One HTTP server: routes, and an answer for every address that has none.

The addresses that a process listens at, while a block runs.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import structlog
from aiohttp import HttpVersion11, hdrs, web

from metronome.config import Settings
from metronome.errors import Malformed, MethodNotAllowed, NotFound
from metronome.protocols.micro_analytics import build_routes
from metronome.protocols.registry import ENDPOINTS
from metronome.server.listeners import run_listeners
from metronome.web.handlers import Handler, IngestContext
from metronome.web.problems import problem_response

_PREFLIGHT_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding, Idempotency-Key, If-None-Match",
    "Access-Control-Max-Age": "86400",
}
_CREDENTIALED_PATHS: Final = frozenset(
    address.prefix + address.path for address in ENDPOINTS if address.allow_credentials
)
_KEEP_ALIVE_SECONDS: Final = 75.0
_CONTINUE_RESPONSE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CATCH_ALL_PATH: Final = r"/{rest:[\s\S]*}"


def build_app(
    routes: Sequence[web.RouteDef], body_max_bytes: int, fallback: web.RouteDef | None = None
) -> web.Application:
    """Make an application of routes.

    Args:
        routes: what it answers.
        body_max_bytes: how large a request may be, as it comes.
        fallback: what answers at all other addresses; without it, that is answered with 404.

    """

    async def rest(request: web.Request) -> web.StreamResponse:
        allowed = await _allowed_methods(request)
        if allowed:
            return _method_not_allowed(request, allowed)
        if fallback is not None:
            return await fallback.handler(request)
        return problem_response(NotFound(f"nothing answers at {request.path[:100]}"))

    app = web.Application(client_max_size=body_max_bytes)
    app.add_routes(_with_expect_handler(one) for one in (*routes, web.route("*", _CATCH_ALL_PATH, rest)))
    return app


def build_runner(app: web.Application, stop_seconds: float) -> web.AppRunner:
    """Make what runs an application; it leaves bodies as they come, so that what they become can be limited."""
    return web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=_KEEP_ALIVE_SECONDS,
        shutdown_timeout=stop_seconds,
    )


def _with_expect_handler(route: web.RouteDef) -> web.RouteDef:
    return web.route(route.method, route.path, route.handler, expect_handler=_handle_expect, **route.kwargs)


async def _handle_expect(request: web.Request) -> web.Response | None:
    """Tell a client that waits for it to send its body; any other expectation is nobody's here."""
    if request.version != HttpVersion11 or request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        return None
    try:
        await request.writer.write(_CONTINUE_RESPONSE)
    except ConnectionError:
        # It has hung up: nobody reads what is answered, and the framework's own handler would log a trace.
        return problem_response(Malformed("the body breaks off: send it again, whole"))
    # What was written is no part of the answer.
    request.writer.output_size = 0
    return None


async def _allowed_methods(request: web.Request) -> set[str]:
    """Return the methods that the address takes."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource.canonical != "/{rest}":
            allowed |= (await resource.resolve(request))[1]
    return allowed


def _method_not_allowed(request: web.Request, allowed: set[str]) -> web.Response:
    methods = ", ".join(sorted(allowed | {hdrs.METH_OPTIONS}))
    if request.method == hdrs.METH_OPTIONS:
        return web.Response(status=204, headers=_build_preflight_headers(request, methods))
    answer = problem_response(MethodNotAllowed(f"{request.path[:100]} takes {methods}, not {request.method[:20]}"))
    answer.headers[hdrs.ALLOW] = methods
    return answer


def _build_preflight_headers(request: web.Request, methods: str) -> dict[str, str]:
    headers = {**_PREFLIGHT_HEADERS, "Access-Control-Allow-Methods": methods}
    origin = request.headers.get(hdrs.ORIGIN)
    if origin and origin.isascii() and request.path in _CREDENTIALED_PATHS:
        # With credentials, browsers do not take `*` for an origin.
        headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
    return headers


log = structlog.get_logger()

_LOOP_TURNS = 5


@contextlib.asynccontextmanager
async def serve_extra_ports(
    settings: Settings, context: IngestContext, hit_report_handler: Handler, *, reuse_port: bool = False
) -> AsyncIterator[None]:
    """Listen at the ports of protocols that have their own, while the block runs.

    Args:
        settings: say which.
        context: where events go.
        hit_report_handler: answers what is asked at `Settings.hit_port`.
        reuse_port: whether other processes listen there too.

    """
    async with contextlib.AsyncExitStack() as listeners:
        if settings.hit_port is not None:
            routes = build_routes("", context, hit_report_handler)
            await listeners.enter_async_context(
                serve_http(settings, routes, port=settings.hit_port, reuse_port=reuse_port)
            )
        await listeners.enter_async_context(run_listeners(settings, context, reuse_port=reuse_port))
        yield


@contextlib.asynccontextmanager
async def serve_http(
    settings: Settings,
    routes: Sequence[web.RouteDef],
    fallback: web.RouteDef | None = None,
    *,
    port: int | None = None,
    reuse_port: bool = False,
) -> AsyncIterator[None]:
    """Listen at the settings' address, or another port of it, while the block runs, and finish replies as it ends."""
    runner = build_runner(build_app(routes, settings.body_max_bytes, fallback), settings.stop_seconds)
    await runner.setup()
    try:
        at = settings.port if port is None else port
        await web.TCPSite(runner, settings.host, at, reuse_port=reuse_port or None, backlog=1024).start()
        for address in runner.addresses:
            log.info("listening", url=f"http://{address[0]}:{address[1]}", store=settings.store.rpartition("@")[2])
        yield
    finally:
        await stop_runner(runner)


async def stop_runner(runner: web.AppRunner) -> None:
    """Stop listening, finish replies, and close."""
    for site in list(runner.sites):
        await site.stop()
    # On connections that were made in this very turn, aiohttp would wait for a request until its time is up.
    for _ in range(_LOOP_TURNS):
        await asyncio.sleep(0)
    await runner.cleanup()
