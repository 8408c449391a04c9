"""Middleware for ASGI applications: FastAPI, Starlette, Django and all others.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html. Everything that passes between server and application
passes as it is.

The route that an ASGI application has chosen, as Starlette and FastAPI leave it in the scope.
"""

import re
import time
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

_PARAMETER_PATTERN = re.compile(r":(\w+)")
_CACHE_SIZE: Final = 4096


class _CachedRoute(NamedTuple):
    """A route that was seen before; it is held, so that its number is no other's."""

    route: Any
    context: Any
    pattern: str
    parameter_names: frozenset[str]


_route_cache: dict[tuple[int, int], _CachedRoute] = {}


def route_pattern(scope: Mapping[str, Any], root: str) -> str:
    """Return the pattern of the route that a request took, in the form of `metronome.middleware.paths`.

    Args:
        scope: as the application has left it.
        root: the ``root_path`` that it came with: what is more by now are the mounts that it went through.

    """
    told = scope.get(ROUTE_KEY)
    if told is not None:
        return normalize_braces(str(told))
    mounted = scope.get("root_path", "")[len(root) :]
    route = scope.get("route")
    if not hasattr(route, "endpoint"):
        # None, or a mount in which nothing was found or looked for: as static files.
        return _pattern_from_parameters(scope, root, mounted)
    context = scope.get("fastapi", _EMPTY).get("effective_route_context")
    if context is not None and getattr(context, "original_route", None) is not route:
        context = None
    known = _route_cache.get((id(route), id(context)))
    if known is None:
        known = _cache_route(route, context)
    if not mounted:
        return known.pattern
    outer = {
        name: value for name, value in scope.get("path_params", _EMPTY).items() if name not in known.parameter_names
    }
    prefix = replace_values_with_names(mounted, outer) if outer else mounted
    return f"{prefix}{known.pattern}" if prefix is not None else UNMATCHED


_EMPTY: Final[Mapping[str, Any]] = {}


def _pattern_from_parameters(scope: Mapping[str, Any], root: str, mounted: str) -> str:
    params = scope.get("path_params", _EMPTY)
    if mounted:
        prefix = replace_values_with_names(mounted, params)
        return f"{prefix}/{WILDCARD}" if prefix is not None else UNMATCHED
    if scope.get("route") is not None:
        return f"/{WILDCARD}"
    if scope.get("endpoint") is None or not params:
        return UNMATCHED
    # Frameworks that tell the values only.
    return replace_values_with_names(scope["path"][len(root) :], params) or UNMATCHED


def _cache_route(route: Any, context: Any) -> _CachedRoute:
    """Read a route's pattern; FastAPI has that of a route in an included router in a context beside it."""
    of_context = getattr(context, "path_format", None) or getattr(
        getattr(context, "starlette_route", None), "path_format", None
    )
    pattern = normalize_braces(of_context or getattr(route, "path_format", None) or route.path)
    known = _CachedRoute(route, context, pattern, frozenset(_PARAMETER_PATTERN.findall(pattern)))
    if len(_route_cache) >= _CACHE_SIZE:
        _route_cache.clear()
    _route_cache[id(route), id(context)] = known
    return known


Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_ERROR_STATUS: Final = 500
_WEBSOCKET_STATUSES: Final = {"websocket.accept": 101, "websocket.close": 403}
"""With what a handshake is answered."""
_EVENT_STREAM: Final = EVENT_STREAM_TYPE.encode()
_START_TYPES: Final = frozenset({"http.response.start", "websocket.http.response.start"})
_REPORTED_TYPES: Final = frozenset({"http", "websocket"})
_SHUTDOWN_TYPES: Final = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})
_MAX_CHARACTERS: Final = TEXT_MAX_CHARACTERS


class ASGIMiddleware:
    """Reports each request to an application.

    Args:
        app: the application.
        reporter: where to.

    """

    def __init__(self, app: ASGIApp, reporter: Reporter) -> None:
        self.app = app
        self.reporter = reporter
        self._is_skipped = PathFilter(reporter)
        self._report_on_start = reporter.config.mode == "request"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection as the application does."""
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
        """Let the application live its life, and send what is queued before the server hears of its end.

        To an application that knows no lifespan, as Django, one is lent: servers may end their process with the signal
        that they got, and then nothing else is called at its end.
        """
        heard = False

        async def hearing() -> Message:
            nonlocal heard
            heard = True
            return await receive()

        async def flushing(message: Message) -> None:
            if message["type"] in _SHUTDOWN_TYPES:
                # Nothing else runs in this loop any more, whichever loop it is.
                self.reporter.flush()
            await send(message)

        try:
            await self.app(scope, hearing, flushing)
        except Exception:
            if heard:
                raise
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await flushing({"type": "lifespan.shutdown.complete"})


class _ASGIRequest(CurrentRequest):
    """One request, from its start to the end of its response."""

    __slots__ = (
        "_failed",
        "_is_reported",
        "_report_on_start",
        "_reporter",
        "_root_path",
        "_scope",
        "_started_at",
        "_started_clock",
        "_status",
    )

    def __init__(self, reporter: Reporter, scope: Scope, *, report_on_start: bool) -> None:
        super().__init__(self._build_record)
        self._started_at = time.time()
        self._started_clock = time.perf_counter()
        self._reporter = reporter
        self._scope = scope
        self._root_path = scope.get("root_path", "")
        self._report_on_start = report_on_start
        self._status: int | None = None
        self._is_reported = self._failed = False

    def wrap_send(self, send: Send) -> Send:
        """Return what sends as *send* does, and looks at what it sends."""

        async def watching(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.body":
                await send(message)
                if not message.get("more_body"):
                    self.report_end()
                return
            if self._status is None:
                self._inspect_message(kind, message)
            await send(message)

        return watching

    def mark_failed(self) -> None:
        """Note that the application raised an error, which the server answers with 500 where nothing is sent yet."""
        self._failed = True
        if self._status is None:
            self._status = _ERROR_STATUS

    def report_end(self) -> None:
        """Report the request, unless that is done."""
        if not self._is_reported:
            self._report((time.perf_counter() - self._started_clock) * 1000 if not self._report_on_start else None)

    def _inspect_message(self, kind: str, message: Message) -> None:
        try:
            self._status = message["status"] if kind in _START_TYPES else _WEBSOCKET_STATUSES.get(kind)
            if kind == "http.response.start" and not self._report_on_start:
                for name, value in message.get("headers") or ():
                    if name.lower() == b"content-type":
                        self._report_on_start = value.startswith(_EVENT_STREAM)
                        break
        except Exception as error:  # noqa: BLE001  # whatever the application sends is the server's to judge
            self._reporter.count_error(error)
        if self._report_on_start and self._status is not None:
            self._report(None)

    def _report(self, milliseconds: float | None) -> None:
        self._is_reported = True
        try:
            self._reporter.report(self._build_record(milliseconds))
        except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
            self._reporter.count_error(error)

    def _build_record(self, milliseconds: float | None = None) -> RequestRecord:
        scope = self._scope
        headers = {name: value[:_MAX_CHARACTERS] for name, value in scope["headers"] if name in _READ_HEADERS}
        get = headers.get
        peer, host, raw = scope.get("client"), get(b"host"), scope.get("raw_path")
        forwarded = get(b"x-forwarded-for", b"")
        if forwarded:
            forwarded = b",".join([value for name, value in scope["headers"] if name == b"x-forwarded-for"])[
                -_MAX_CHARACTERS:
            ]
        path = raw.decode("latin-1") if raw else quote(scope["path"], safe=SAFE_IN_PATHS, errors="replace")
        return RequestRecord(
            self._started_at,
            milliseconds,
            scope.get("method", "GET"),
            route_pattern(scope, self._root_path),
            self._status,
            self._failed,
            scope.get("scheme", "http"),
            host.decode("latin-1") if host is not None else _server_host(scope.get("server")),
            path[:_MAX_CHARACTERS],
            scope.get("query_string", b"")[:_MAX_CHARACTERS].decode("latin-1"),
            peer[0] if peer else "",
            forwarded.decode("latin-1"),
            get(b"x-forwarded-proto", b"").decode("latin-1"),
            get(b"referer", b"").decode("latin-1"),
            get(b"user-agent", b"").decode("latin-1"),
            get(b"accept-language", b"").decode("latin-1"),
            get(b"sec-gpc") == b"1" or get(b"dnt") == b"1",
            self.extra_fields,
        )


_READ_HEADERS: Final = frozenset(
    {b"host", b"referer", b"user-agent", b"accept-language", b"sec-gpc", b"dnt"}
    | {b"x-forwarded-for", b"x-forwarded-proto"}
)


def _server_host(server: Any) -> str:
    if not server:
        return "localhost"
    name, port = server
    return f"{name}:{port}" if port else str(name)
