"""Middleware for aiohttp's servers."""

import asyncio
import time
from typing import Any, Final

from aiohttp import hdrs, web

from metronome.middleware.current_request import (
    CURRENT_REQUEST,
    EVENT_STREAM_TYPE,
    TEXT_MAX_CHARACTERS,
    UNMATCHED,
    CurrentRequest,
    RequestRecord,
)
from metronome.middleware.paths import WILDCARD, PathFilter, normalize_braces
from metronome.middleware.reporter import Reporter

_ERROR_STATUS: Final = 500
_MAX_CHARACTERS: Final = TEXT_MAX_CHARACTERS
_REQUEST_KEY: Final = (
    web.RequestKey("metronome_request", CurrentRequest) if hasattr(web, "RequestKey") else "metronome_request"
)


def report_requests(app: web.Application, reporter: Reporter) -> None:
    """Have each request to an application reported, and those to the applications in it.

    Args:
        app: is not started yet.
        reporter: where to; what is queued when the application is cleaned up is sent then.

    """
    skips = PathFilter(reporter)
    at_the_start = reporter.config.mode == "request"

    @web.middleware
    async def reporting(request: web.Request, handler: Any) -> web.StreamResponse:
        if skips(request.method, request.path):
            return await _call_handler(handler, request)
        handled = _AiohttpRequest(reporter, request, report_on_start=at_the_start)
        request[_REQUEST_KEY] = handled
        token = CURRENT_REQUEST.set(handled)
        try:
            response = await _call_handler(handler, request)
            handled.report_end(getattr(response, "status", None))
        except web.HTTPException as error:
            handled.report_end(error.status)
            raise
        except Exception:
            handled.report_end(_ERROR_STATUS, failed=True)
            raise
        except BaseException:
            handled.report_end(None)
            raise
        finally:
            CURRENT_REQUEST.reset(token)
        return response

    async def prepared(request: web.BaseRequest, response: web.StreamResponse) -> None:
        handled = request.get(_REQUEST_KEY)
        if isinstance(handled, _AiohttpRequest):
            try:
                handled.response_started(response)
            except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
                reporter.count_error(error)

    async def cleaned_up(_: web.Application) -> None:
        await asyncio.to_thread(reporter.flush)

    app.middlewares.insert(0, reporting)
    app.on_response_prepare.append(prepared)
    app.on_cleanup.append(cleaned_up)


async def _call_handler(handler: Any, request: web.Request) -> web.StreamResponse:
    response: web.StreamResponse = await handler(request)
    return response


class _AiohttpRequest(CurrentRequest):
    """One request, from its start to where its handler has ended."""

    __slots__ = (
        "_is_reported",
        "_report_on_start",
        "_reporter",
        "_request",
        "_started_at",
        "_started_clock",
        "_status",
    )

    def __init__(self, reporter: Reporter, request: web.Request, *, report_on_start: bool) -> None:
        super().__init__(self._build_record)
        self._started_at = time.time()
        self._started_clock = time.perf_counter()
        self._reporter = reporter
        self._request = request
        self._report_on_start = report_on_start
        self._status: int | None = None
        self._is_reported = False

    def response_started(self, response: web.StreamResponse) -> None:
        """Look at a response that is about to begin."""
        long_lived = isinstance(response, web.WebSocketResponse) or response.content_type == EVENT_STREAM_TYPE
        self._report_on_start = self._report_on_start or long_lived
        if self._report_on_start:
            self.report_end(response.status)

    def report_end(self, status: int | None, *, failed: bool = False) -> None:
        """Report the request, unless that is done."""
        if self._is_reported:
            return
        self._is_reported = True
        self._status = status
        milliseconds = (time.perf_counter() - self._started_clock) * 1000 if not self._report_on_start else None
        try:
            self._reporter.report(self._build_record(milliseconds, failed=failed))
        except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
            self._reporter.count_error(error)

    def _build_record(self, milliseconds: float | None = None, *, failed: bool = False) -> RequestRecord:
        request = self._request
        get = request.headers.get
        url = request.rel_url
        return RequestRecord(
            self._started_at,
            milliseconds,
            request.method,
            route_pattern(request),
            self._status,
            failed,
            request.scheme,
            request.host,
            url.raw_path[:_MAX_CHARACTERS],
            url.raw_query_string[:_MAX_CHARACTERS],
            request.remote or "",
            ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))[-_MAX_CHARACTERS:],
            get(hdrs.X_FORWARDED_PROTO, "")[:_MAX_CHARACTERS],
            get(hdrs.REFERER, "")[:_MAX_CHARACTERS],
            get(hdrs.USER_AGENT, "")[:_MAX_CHARACTERS],
            get(hdrs.ACCEPT_LANGUAGE, "")[:_MAX_CHARACTERS],
            get("Sec-GPC") == "1" or get("DNT") == "1",
            self.extra_fields,
        )


def route_pattern(request: web.Request) -> str:
    """Return the pattern of the route that a request took, in the form of `metronome.middleware.paths`."""
    resource = request.match_info.route.resource
    if resource is None:
        return UNMATCHED
    pattern = normalize_braces(resource.canonical)
    return f"{pattern.rstrip('/')}/{WILDCARD}" if isinstance(resource, web.StaticResource) else pattern
