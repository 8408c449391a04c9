"""The HTTP application of a process: its routes, and responses for all other paths and methods."""

from collections.abc import Sequence
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from metronome.errors import Malformed, MethodNotAllowed, NotFound
from metronome.protocols.registry import ENDPOINTS
from metronome.web.problems import problem_response

_PREFLIGHT_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding, Idempotency-Key, If-None-Match",
    "Access-Control-Max-Age": "86400",
}
_CREDENTIALED_PATHS: Final = frozenset(
    endpoint.prefix + endpoint.path for endpoint in ENDPOINTS if endpoint.allow_credentials
)
_KEEP_ALIVE_SECONDS: Final = 75.0
_CONTINUE_RESPONSE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CATCH_ALL_PATH: Final = r"/{rest:[\s\S]*}"


def build_app(
    routes: Sequence[web.RouteDef], body_max_bytes: int, fallback: web.RouteDef | None = None
) -> web.Application:
    """Return an application.

    Args:
        routes: its routes.
        body_max_bytes: maximum size of a request body, as sent.
        fallback: handles all other paths; without it, the response is 404.

    """

    async def handle_other(request: web.Request) -> web.StreamResponse:
        allowed_methods = await _allowed_methods(request)
        if allowed_methods:
            return _method_not_allowed(request, allowed_methods)
        if fallback is not None:
            return await fallback.handler(request)
        return problem_response(NotFound(f"unknown path {request.path[:100]}"))

    app = web.Application(client_max_size=body_max_bytes)
    app.add_routes(
        web.route(route.method, route.path, route.handler, expect_handler=_handle_expect, **route.kwargs)
        for route in (*routes, web.route("*", _CATCH_ALL_PATH, handle_other))
    )
    return app


def build_runner(app: web.Application, stop_seconds: float) -> web.AppRunner:
    """Return a runner of an application; bodies stay compressed, so that `read_body` can limit their size."""
    return web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=_KEEP_ALIVE_SECONDS,
        shutdown_timeout=stop_seconds,
    )


async def _handle_expect(request: web.Request) -> web.Response | None:
    """Tell a client that waits for it to send its body; ignore other expectations."""
    if request.version != HttpVersion11 or request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        return None
    try:
        await request.writer.write(_CONTINUE_RESPONSE)
    except ConnectionError:
        # The client has disconnected. The framework's own handler would log a traceback.
        return problem_response(Malformed("the connection closed before the body was complete"))
    # These bytes are not part of the response.
    request.writer.output_size = 0
    return None


async def _allowed_methods(request: web.Request) -> set[str]:
    methods: set[str] = set()
    for resource in request.app.router.resources():
        if resource.canonical != "/{rest}":
            methods |= (await resource.resolve(request))[1]
    return methods


def _method_not_allowed(request: web.Request, allowed_methods: set[str]) -> web.Response:
    methods = ", ".join(sorted(allowed_methods | {hdrs.METH_OPTIONS}))
    if request.method == hdrs.METH_OPTIONS:
        return web.Response(status=204, headers=_build_preflight_headers(request, methods))
    response = problem_response(
        MethodNotAllowed(f"{request.path[:100]} does not support {request.method[:20]}: expected {methods}")
    )
    response.headers[hdrs.ALLOW] = methods
    return response


def _build_preflight_headers(request: web.Request, methods: str) -> dict[str, str]:
    headers = {**_PREFLIGHT_HEADERS, "Access-Control-Allow-Methods": methods}
    origin = request.headers.get(hdrs.ORIGIN)
    if origin and origin.isascii() and request.path in _CREDENTIALED_PATHS:
        # Browsers do not accept `*` for requests with credentials.
        headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
    return headers
