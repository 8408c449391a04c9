"""Middleware for aiohttp's servers."""

import asyncio
import time
from typing import Any, Final

from aiohttp import hdrs, web

from metronome.middleware.current_request import EVENT_STREAM, HANDLED, TEXT_MAX_CHARACTERS, UNMATCHED, Handled, Hit
from metronome.middleware.paths import ANYTHING, Skipping, from_braces
from metronome.middleware.reporter import Reporter

_FAILED: Final = 500
_MAX: Final = TEXT_MAX_CHARACTERS
_REQUEST: Final = web.RequestKey("metronome_request", Handled) if hasattr(web, "RequestKey") else "metronome_request"


def report_requests(app: web.Application, reporter: Reporter) -> None:
    """Have each request to an application reported, and those to the applications in it.

    Args:
        app: is not started yet.
        reporter: where to; what is queued when the application is cleaned up is sent then.

    """
    skips = Skipping(reporter)
    at_the_start = reporter.config.mode == "request"

    @web.middleware
    async def reporting(request: web.Request, handler: Any) -> web.StreamResponse:
        if skips(request.method, request.path):
            return await _answer(handler, request)
        handled = _Request(reporter, request, at_the_start=at_the_start)
        request[_REQUEST] = handled
        token = HANDLED.set(handled)
        try:
            response = await _answer(handler, request)
            handled.end(getattr(response, "status", None))
        except web.HTTPException as error:
            handled.end(error.status)
            raise
        except Exception:
            handled.end(_FAILED, failed=True)
            raise
        except BaseException:
            handled.end(None)
            raise
        finally:
            HANDLED.reset(token)
        return response

    async def prepared(request: web.BaseRequest, response: web.StreamResponse) -> None:
        handled = request.get(_REQUEST)
        if isinstance(handled, _Request):
            try:
                handled.begin(response)
            except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
                reporter.fault(error)

    async def cleaned_up(_: web.Application) -> None:
        await asyncio.to_thread(reporter.flush)

    app.middlewares.insert(0, reporting)
    app.on_response_prepare.append(prepared)
    app.on_cleanup.append(cleaned_up)


async def _answer(handler: Any, request: web.Request) -> web.StreamResponse:
    response: web.StreamResponse = await handler(request)
    return response


class _Request(Handled):
    """One request, from its start to where its handler has ended."""

    __slots__ = ("_at_the_start", "_began", "_done", "_reporter", "_request", "_started", "_status")

    def __init__(self, reporter: Reporter, request: web.Request, *, at_the_start: bool) -> None:
        super().__init__(self._seen)
        self._started = time.time()
        self._began = time.perf_counter()
        self._reporter = reporter
        self._request = request
        self._at_the_start = at_the_start
        self._status: int | None = None
        self._done = False

    def begin(self, response: web.StreamResponse) -> None:
        """Look at a response that is about to begin."""
        long_lived = isinstance(response, web.WebSocketResponse) or response.content_type == EVENT_STREAM
        self._at_the_start = self._at_the_start or long_lived
        if self._at_the_start:
            self.end(response.status)

    def end(self, status: int | None, *, failed: bool = False) -> None:
        """Report the request, unless that is done."""
        if self._done:
            return
        self._done = True
        self._status = status
        milliseconds = (time.perf_counter() - self._began) * 1000 if not self._at_the_start else None
        try:
            self._reporter.report(self._seen(milliseconds, failed=failed))
        except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
            self._reporter.fault(error)

    def _seen(self, milliseconds: float | None = None, *, failed: bool = False) -> Hit:
        request = self._request
        get = request.headers.get
        url = request.rel_url
        return Hit(
            self._started,
            milliseconds,
            request.method,
            route_of(request),
            self._status,
            failed,
            request.scheme,
            request.host,
            url.raw_path[:_MAX],
            url.raw_query_string[:_MAX],
            request.remote or "",
            ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))[-_MAX:],
            get(hdrs.X_FORWARDED_PROTO, "")[:_MAX],
            get(hdrs.REFERER, "")[:_MAX],
            get(hdrs.USER_AGENT, "")[:_MAX],
            get(hdrs.ACCEPT_LANGUAGE, "")[:_MAX],
            get("Sec-GPC") == "1" or get("DNT") == "1",
            self.described,
        )


def route_of(request: web.Request) -> str:
    """Return the pattern of the route that a request took, in the form of `metronome.middleware.paths`."""
    resource = request.match_info.route.resource
    if resource is None:
        return UNMATCHED
    pattern = from_braces(resource.canonical)
    return f"{pattern.rstrip('/')}/{ANYTHING}" if isinstance(resource, web.StaticResource) else pattern
