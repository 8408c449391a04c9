"""Middleware for ASGI applications: FastAPI, Starlette, Django and all others.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html. Messages pass between server and application unchanged.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from metronome.middleware.current_request import (
    CURRENT_REQUEST,
    EVENT_STREAM_TYPE,
    SAFE_IN_PATHS,
    TEXT_MAX_CHARACTERS,
    UNMATCHED,
    CurrentRequest,
    RequestRecord,
)
from metronome.middleware.paths import ROUTE_KEY, WILDCARD, PathFilter, normalize_braces, replace_values_with_names
from metronome.middleware.reporter import Reporter

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_WEBSOCKET_STATUSES: Final = {"websocket.accept": 101, "websocket.close": 403}
"""The HTTP status by which a server answers a handshake."""
_EVENT_STREAM: Final = EVENT_STREAM_TYPE.encode()
_START_TYPES: Final = frozenset({"http.response.start", "websocket.http.response.start"})
_REPORTED_TYPES: Final = frozenset({"http", "websocket"})
_SHUTDOWN_TYPES: Final = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})
_READ_HEADERS: Final = frozenset(
    {b"host", b"referer", b"user-agent", b"accept-language", b"sec-gpc", b"dnt"}
    | {b"x-forwarded-for", b"x-forwarded-proto"}
)
_MAX_CHARACTERS: Final = TEXT_MAX_CHARACTERS
_PARAMETER_PATTERN: Final = re.compile(r":(\w+)")
_CACHE_SIZE: Final = 4096
_EMPTY: Final[Mapping[str, Any]] = {}


class ASGIMiddleware:
    """Reports each request to an application.

    Args:
        app: the application.
        reporter: receives the requests.

    """

    def __init__(self, app: ASGIApp, reporter: Reporter) -> None:
        self.app = app
        self.reporter = reporter
        self._is_skipped = PathFilter(reporter)
        self._report_on_start = reporter.config.mode == "request"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection to the application."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._handle_lifespan(scope, receive, send)
        elif kind not in _REPORTED_TYPES or self._is_skipped(scope.get("method", "GET"), scope["path"]):
            await self.app(scope, receive, send)
        else:
            request = _ASGIRequest(self.reporter, scope, report_on_start=self._report_on_start or kind == "websocket")
            token = CURRENT_REQUEST.set(request)
            try:
                await self.app(scope, receive, request.wrap_send(send))
            except Exception:
                request.mark_failed()
                raise
            finally:
                CURRENT_REQUEST.reset(token)
                request.report_end()

    async def _handle_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Flush the reporter before the server learns that the application has shut down.

        Applications without lifespan support, such as Django's, get one here: a server may end its process with the
        signal that it received, and then nothing else runs at shutdown.
        """
        app_has_lifespan = False

        async def receive_lifespan() -> Message:
            nonlocal app_has_lifespan
            app_has_lifespan = True
            return await receive()

        async def send_flushed(message: Message) -> None:
            if message["type"] in _SHUTDOWN_TYPES:
                # Blocks, but nothing else runs in this event loop any more, whichever implementation it is.
                self.reporter.flush()
            await send(message)

        try:
            await self.app(scope, receive_lifespan, send_flushed)
        except Exception:
            if app_has_lifespan:
                raise
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send_flushed({"type": "lifespan.shutdown.complete"})


class _ASGIRequest(CurrentRequest):
    __slots__ = ("_root_path", "_scope")

    def __init__(self, reporter: Reporter, scope: Scope, *, report_on_start: bool) -> None:
        super().__init__(reporter, report_on_start=report_on_start)
        self._scope = scope
        self._root_path = scope.get("root_path", "")

    def wrap_send(self, send: Send) -> Send:
        """Return a callable that sends as *send* does and reports the request."""

        async def send_and_report(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.body":
                await send(message)
                if not message.get("more_body"):
                    self.report_end()
                return
            if self._status is None:
                self._inspect_message(kind, message)
            await send(message)

        return send_and_report

    def _inspect_message(self, kind: str, message: Message) -> None:
        try:
            self._status = message["status"] if kind in _START_TYPES else _WEBSOCKET_STATUSES.get(kind)
            if kind == "http.response.start" and not self._report_on_start:
                for name, value in message.get("headers") or ():
                    if name.lower() == b"content-type":
                        self._report_on_start = value.startswith(_EVENT_STREAM)
                        break
        except Exception as error:  # noqa: BLE001  # an invalid message is for the server to reject
            self._reporter.count_error(error)
        self.report_start()

    def snapshot(self, duration_ms: float | None = None) -> RequestRecord:
        scope = self._scope
        headers = {name: value[:_MAX_CHARACTERS] for name, value in scope["headers"] if name in _READ_HEADERS}
        get = headers.get
        peer, host, raw_path = scope.get("client"), get(b"host"), scope.get("raw_path")
        forwarded_for = get(b"x-forwarded-for", b"")
        if forwarded_for:
            values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            forwarded_for = b",".join(values)[-_MAX_CHARACTERS:]
        path = raw_path.decode("latin-1") if raw_path else quote(scope["path"], safe=SAFE_IN_PATHS, errors="replace")
        return RequestRecord(
            self._started_at,
            duration_ms,
            scope.get("method", "GET"),
            route_pattern(scope, self._root_path),
            self._status,
            self._failed,
            scope.get("scheme", "http"),
            host.decode("latin-1") if host is not None else _server_host(scope.get("server")),
            path[:_MAX_CHARACTERS],
            scope.get("query_string", b"")[:_MAX_CHARACTERS].decode("latin-1"),
            peer[0] if peer else "",
            forwarded_for.decode("latin-1"),
            get(b"x-forwarded-proto", b"").decode("latin-1"),
            get(b"referer", b"").decode("latin-1"),
            get(b"user-agent", b"").decode("latin-1"),
            get(b"accept-language", b"").decode("latin-1"),
            get(b"sec-gpc") == b"1" or get(b"dnt") == b"1",
            self.extra_fields,
        )


def _server_host(server: Any) -> str:
    if not server:
        return "localhost"
    name, port = server
    return f"{name}:{port}" if port else str(name)


def route_pattern(scope: Mapping[str, Any], root_path: str) -> str:
    """Return the pattern of a request's route, in the form of `metronome.middleware.paths`.

    Args:
        scope: the scope as the application has left it; Starlette and FastAPI add the matched route.
        root_path: the ``root_path`` before the application ran; what has been added since are mounts.

    """
    explicit = scope.get(ROUTE_KEY)
    if explicit is not None:
        return normalize_braces(str(explicit))
    mount_path = scope.get("root_path", "")[len(root_path) :]
    route = scope.get("route")
    if not hasattr(route, "endpoint"):
        # No route, or a mount without routes, such as one of static files.
        return _pattern_from_parameters(scope, root_path, mount_path)
    context = scope.get("fastapi", _EMPTY).get("effective_route_context")
    if context is not None and getattr(context, "original_route", None) is not route:
        context = None
    cached = _route_cache.get((id(route), id(context)))
    if cached is None:
        cached = _cache_route(route, context)
    if not mount_path:
        return cached.pattern
    mount_values = {
        name: value for name, value in scope.get("path_params", _EMPTY).items() if name not in cached.parameter_names
    }
    prefix = replace_values_with_names(mount_path, mount_values) if mount_values else mount_path
    return f"{prefix}{cached.pattern}" if prefix is not None else UNMATCHED


def _pattern_from_parameters(scope: Mapping[str, Any], root_path: str, mount_path: str) -> str:
    params = scope.get("path_params", _EMPTY)
    if mount_path:
        prefix = replace_values_with_names(mount_path, params)
        return f"{prefix}/{WILDCARD}" if prefix is not None else UNMATCHED
    if scope.get("route") is not None:
        return f"/{WILDCARD}"
    if scope.get("endpoint") is None or not params:
        return UNMATCHED
    # The framework provides only the parameters' values.
    return replace_values_with_names(scope["path"][len(root_path) :], params) or UNMATCHED


class _CachedRoute(NamedTuple):
    """A route's pattern; references to the keys' objects keep their `id` from being reused."""

    route: Any
    context: Any
    pattern: str
    parameter_names: frozenset[str]


_route_cache: dict[tuple[int, int], _CachedRoute] = {}


def _cache_route(route: Any, context: Any) -> _CachedRoute:
    """Read a route's pattern; for a route of an included router, FastAPI stores it in a separate context."""
    context_pattern = getattr(context, "path_format", None) or getattr(
        getattr(context, "starlette_route", None), "path_format", None
    )
    pattern = normalize_braces(context_pattern or getattr(route, "path_format", None) or route.path)
    cached = _CachedRoute(route, context, pattern, frozenset(_PARAMETER_PATTERN.findall(pattern)))
    if len(_route_cache) >= _CACHE_SIZE:
        _route_cache.clear()
    _route_cache[id(route), id(context)] = cached
    return cached
