"""The HTTP application of a process: its routes, and responses for all other paths and methods."""

import re
from collections.abc import Sequence
from typing import Final

from aiohttp import HttpVersion11, hdrs, web, web_response
from yarl import URL

from metronome.errors import ConfigurationError, Malformed, MethodNotAllowed, NotFound
from metronome.page.routes import accepts_page, not_found_page
from metronome.protocols.microticks import routes as microticks
from metronome.protocols.registry import ENDPOINTS
from metronome.web.beacon import BEACON_PATH
from metronome.web.budget import BODY_BUDGET, BodyBudget
from metronome.web.handlers import Handler
from metronome.web.problems import credentials_headers, problem_response

_PREFLIGHT_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding, Idempotency-Key, If-None-Match",
    "Access-Control-Max-Age": "86400",
}
_CREDENTIALED_PATHS: Final = frozenset(
    {
        *(endpoint.prefix + endpoint.path for endpoint in ENDPOINTS if endpoint.allow_credentials),
        *microticks.INGEST_PATHS,
    }
)
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*", re.ASCII)
_KEEP_ALIVE_SECONDS: Final = 75.0
_CONTINUE_RESPONSE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_SERVER_NAME: Final = "Metronome"
_CATCH_ALL_PATH: Final = r"/{rest:[\s\S]*}"


def build_app(
    routes: Sequence[web.RouteDef],
    body_max_bytes: int,
    fallback: web.RouteDef | None = None,
    base_path: str = "",
    budget: BodyBudget | None = None,
) -> web.Application:
    """Return an application.

    Args:
        routes: its routes.
        body_max_bytes: maximum size of a request body, as sent.
        fallback: handles all other paths; without it, the response is 404.
        base_path: each path is served below this one, too, such as ``/metronome``: some proxies strip it from the
            requests that they forward, others do not. Handlers see paths without it.
        budget: limits the memory of all bodies; without it, only that of each body is limited.

    Raises:
        ConfigurationError: a path below the base path could also be one of *routes*.

    """

    async def handle_other(request: web.Request) -> web.StreamResponse:
        allowed_methods = await _allowed_methods(request, base_path)
        if allowed_methods:
            return _method_not_allowed(request, allowed_methods)
        if fallback is not None:
            return await fallback.handler(request)
        if accepts_page(request):
            return not_found_page(base_path)
        return problem_response(NotFound(f"unknown path {request.path[:100]}"))

    app = web.Application(client_max_size=body_max_bytes)
    all_routes = [*routes, web.route("*", _CATCH_ALL_PATH, handle_other)]
    if budget is not None:
        app[BODY_BUDGET] = budget
        all_routes = [
            web.route(route.method, route.path, _release_memory(route.handler, budget), **route.kwargs)
            for route in all_routes
        ]
    if base_path:
        check_base_path(base_path, routes)
        all_routes = [*_routes_below(base_path, all_routes), *all_routes]
    app.add_routes(
        web.route(route.method, route.path, route.handler, expect_handler=_handle_expect, **route.kwargs)
        for route in all_routes
    )
    return app


def _release_memory(handler: Handler, budget: BodyBudget) -> Handler:
    """Return a handler that releases the memory of a request's body once the request is answered."""
    leases = budget.leases

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            if leases:
                budget.release(request)

    return handle


def check_base_path(base_path: str, routes: Sequence[web.RouteDef]) -> None:
    """Check that no path below the base path could also be one of the routes of any process.

    Args:
        base_path: to be checked; may be empty.
        routes: of this process.

    Raises:
        ConfigurationError: it could.

    """
    first_segment = f"{base_path}/".split("/")[1]
    worker_paths = [*(endpoint.prefix + endpoint.path for endpoint in ENDPOINTS), BEACON_PATH]
    for path in (*worker_paths, *(route.path for route in routes)):
        if first_segment and path.split("/")[1] == first_segment:
            raise ConfigurationError(
                f"invalid METRONOME_BASE_PATH {base_path!r}: Metronome itself serves {path}, so choose another one"
            )


def _routes_below(base_path: str, routes: Sequence[web.RouteDef]) -> list[web.RouteDef]:
    """Return the same routes below the base path, and a redirect from the base path itself."""

    def strip(handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            url = request.rel_url
            path = url.raw_path.removeprefix(base_path)
            stripped = URL.build(path=path, query_string=url.raw_query_string, encoded=True)
            return await handler(request.clone(rel_url=stripped))

        return handle

    async def add_slash(request: web.Request) -> web.StreamResponse:
        # 308 keeps the method. The path is absolute: a proxy may serve another scheme or port.
        query = request.rel_url.raw_query_string
        return web.Response(status=308, headers={hdrs.LOCATION: f"{base_path}/{'?' if query else ''}{query}"})

    return [
        web.route("*", base_path, add_slash),
        *(web.route(route.method, base_path + route.path, strip(route.handler), **route.kwargs) for route in routes),
    ]


def build_runner(app: web.Application, stop_seconds: float) -> web.AppRunner:
    """Return a runner of an application; bodies stay compressed, so that `read_body` can limit their size."""
    # aiohttp has no setting for the header `Server`, in which it would tell its version and Python's.
    web_response.SERVER_SOFTWARE = _SERVER_NAME  # type: ignore[attr-defined]
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


async def _allowed_methods(request: web.Request, base_path: str) -> set[str]:
    """Return the methods that a path, without the base path, supports."""
    methods: set[str] = set()
    for resource in request.app.router.resources():
        is_below = base_path and resource.canonical.startswith(base_path)
        if resource.canonical != "/{rest}" and not is_below:
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
    # Tracing and error reporting add headers to all requests of a page, and none can do harm here.
    names = request.headers.get("Access-Control-Request-Headers", "")
    if _HEADER_NAMES.fullmatch(names):
        headers["Access-Control-Allow-Headers"] = names
    if request.path in _CREDENTIALED_PATHS:
        headers |= credentials_headers(request.headers.get(hdrs.ORIGIN, ""))
    return headers
