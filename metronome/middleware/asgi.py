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
    EVENT_STREAM,
    HANDLED,
    SAFE_IN_PATHS,
    TEXT_MAX_CHARACTERS,
    UNMATCHED,
    Handled,
    Hit,
)
from metronome.middleware.paths import ANYTHING, ROUTE_KEY, Skipping, from_braces, with_values_named
from metronome.middleware.reporter import Reporter

_NAMES = re.compile(r":(\w+)")
_MAX_REMEMBERED: Final = 4096


class _Known(NamedTuple):
    """A route that was seen before; it is held, so that its number is no other's."""

    route: Any
    context: Any
    pattern: str
    names: frozenset[str]


_known: dict[tuple[int, int], _Known] = {}


def route_of(scope: Mapping[str, Any], root: str) -> str:
    """Return the pattern of the route that a request took, in the form of `metronome.middleware.paths`.

    Args:
        scope: as the application has left it.
        root: the ``root_path`` that it came with: what is more by now are the mounts that it went through.

    """
    told = scope.get(ROUTE_KEY)
    if told is not None:
        return from_braces(str(told))
    mounted = scope.get("root_path", "")[len(root) :]
    route = scope.get("route")
    if not hasattr(route, "endpoint"):
        # None, or a mount in which nothing was found or looked for: as static files.
        return _without_a_route(scope, root, mounted)
    context = scope.get("fastapi", _NOTHING).get("effective_route_context")
    if context is not None and getattr(context, "original_route", None) is not route:
        context = None
    known = _known.get((id(route), id(context)))
    if known is None:
        known = _remember(route, context)
    if not mounted:
        return known.pattern
    outer = {name: value for name, value in scope.get("path_params", _NOTHING).items() if name not in known.names}
    prefix = with_values_named(mounted, outer) if outer else mounted
    return f"{prefix}{known.pattern}" if prefix is not None else UNMATCHED


_NOTHING: Final[Mapping[str, Any]] = {}


def _without_a_route(scope: Mapping[str, Any], root: str, mounted: str) -> str:
    params = scope.get("path_params", _NOTHING)
    if mounted:
        prefix = with_values_named(mounted, params)
        return f"{prefix}/{ANYTHING}" if prefix is not None else UNMATCHED
    if scope.get("route") is not None:
        return f"/{ANYTHING}"
    if scope.get("endpoint") is None or not params:
        return UNMATCHED
    # Frameworks that tell the values only.
    return with_values_named(scope["path"][len(root) :], params) or UNMATCHED


def _remember(route: Any, context: Any) -> _Known:
    """Read a route's pattern; FastAPI has that of a route in an included router in a context beside it."""
    of_context = getattr(context, "path_format", None) or getattr(
        getattr(context, "starlette_route", None), "path_format", None
    )
    pattern = from_braces(of_context or getattr(route, "path_format", None) or route.path)
    known = _Known(route, context, pattern, frozenset(_NAMES.findall(pattern)))
    if len(_known) >= _MAX_REMEMBERED:
        _known.clear()
    _known[id(route), id(context)] = known
    return known


Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FAILED: Final = 500
_OF_WEBSOCKETS: Final = {"websocket.accept": 101, "websocket.close": 403}
"""With what a handshake is answered."""
_EVENT_STREAM: Final = EVENT_STREAM.encode()
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})
_REPORTED: Final = frozenset({"http", "websocket"})
_SHUT_DOWN: Final = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})
_MAX: Final = TEXT_MAX_CHARACTERS


class ASGIMiddleware:
    """Reports each request to an application.

    Args:
        app: the application.
        reporter: where to.

    """

    def __init__(self, app: App, reporter: Reporter) -> None:
        self.app = app
        self.reporter = reporter
        self._skips = Skipping(reporter)
        self._at_the_start = reporter.config.mode == "request"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection as the application does."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(scope, receive, send)
        elif kind not in _REPORTED or self._skips(scope.get("method", "GET"), scope["path"]):
            await self.app(scope, receive, send)
        else:
            request = _Request(self.reporter, scope, at_the_start=self._at_the_start or kind == "websocket")
            token = HANDLED.set(request)
            try:
                await self.app(scope, receive, request.watching(send))
            except Exception:
                request.fail()
                raise
            finally:
                HANDLED.reset(token)
                request.end()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            if message["type"] in _SHUT_DOWN:
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


class _Request(Handled):
    """One request, from its start to the end of its response."""

    __slots__ = ("_at_the_start", "_began", "_done", "_failed", "_reporter", "_root", "_scope", "_started", "_status")

    def __init__(self, reporter: Reporter, scope: Scope, *, at_the_start: bool) -> None:
        super().__init__(self._seen)
        self._started = time.time()
        self._began = time.perf_counter()
        self._reporter = reporter
        self._scope = scope
        self._root = scope.get("root_path", "")
        self._at_the_start = at_the_start
        self._status: int | None = None
        self._done = self._failed = False

    def watching(self, send: Send) -> Send:
        """Return what sends as *send* does, and looks at what it sends."""

        async def watching(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.body":
                await send(message)
                if not message.get("more_body"):
                    self.end()
                return
            if self._status is None:
                self._look_at(kind, message)
            await send(message)

        return watching

    def fail(self) -> None:
        """Note that the application raised an error, which the server answers with 500 where nothing is sent yet."""
        self._failed = True
        if self._status is None:
            self._status = _FAILED

    def end(self) -> None:
        """Report the request, unless that is done."""
        if not self._done:
            self._report((time.perf_counter() - self._began) * 1000 if not self._at_the_start else None)

    def _look_at(self, kind: str, message: Message) -> None:
        try:
            self._status = message["status"] if kind in _STARTS else _OF_WEBSOCKETS.get(kind)
            if kind == "http.response.start" and not self._at_the_start:
                for name, value in message.get("headers") or ():
                    if name.lower() == b"content-type":
                        self._at_the_start = value.startswith(_EVENT_STREAM)
                        break
        except Exception as error:  # noqa: BLE001  # whatever the application sends is the server's to judge
            self._reporter.fault(error)
        if self._at_the_start and self._status is not None:
            self._report(None)

    def _report(self, milliseconds: float | None) -> None:
        self._done = True
        try:
            self._reporter.report(self._seen(milliseconds))
        except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
            self._reporter.fault(error)

    def _seen(self, milliseconds: float | None = None) -> Hit:
        scope = self._scope
        headers = {name: value[:_MAX] for name, value in scope["headers"] if name in _WANTED}
        get = headers.get
        peer, host, raw = scope.get("client"), get(b"host"), scope.get("raw_path")
        forwarded = get(b"x-forwarded-for", b"")
        if forwarded:
            forwarded = b",".join([value for name, value in scope["headers"] if name == b"x-forwarded-for"])[-_MAX:]
        path = raw.decode("latin-1") if raw else quote(scope["path"], safe=SAFE_IN_PATHS, errors="replace")
        return Hit(
            self._started,
            milliseconds,
            scope.get("method", "GET"),
            route_of(scope, self._root),
            self._status,
            self._failed,
            scope.get("scheme", "http"),
            host.decode("latin-1") if host is not None else _address_of(scope.get("server")),
            path[:_MAX],
            scope.get("query_string", b"")[:_MAX].decode("latin-1"),
            peer[0] if peer else "",
            forwarded.decode("latin-1"),
            get(b"x-forwarded-proto", b"").decode("latin-1"),
            get(b"referer", b"").decode("latin-1"),
            get(b"user-agent", b"").decode("latin-1"),
            get(b"accept-language", b"").decode("latin-1"),
            get(b"sec-gpc") == b"1" or get(b"dnt") == b"1",
            self.described,
        )


_WANTED: Final = frozenset(
    {b"host", b"referer", b"user-agent", b"accept-language", b"sec-gpc", b"dnt"}
    | {b"x-forwarded-for", b"x-forwarded-proto"}
)


def _address_of(server: Any) -> str:
    if not server:
        return "localhost"
    name, port = server
    return f"{name}:{port}" if port else str(name)
