"""Middleware for aiohttp servers."""

import asyncio
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

_MAX_CHARACTERS: Final = TEXT_MAX_CHARACTERS
_REQUEST_KEY: Final = (
    web.RequestKey("metronome_request", CurrentRequest) if hasattr(web, "RequestKey") else "metronome_request"
)


def report_requests(app: web.Application, reporter: Reporter) -> None:
    """Report each request to an application, including its subapplications.

    Args:
        app: an application that has not been started.
        reporter: receives the requests; its queue is flushed when the application is cleaned up.

    """
    is_skipped = PathFilter(reporter)
    report_on_start = reporter.config.mode == "request"

    @web.middleware
    async def report_request(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse
        if is_skipped(request.method, request.path):
            response = await handler(request)
            return response
        current = _AiohttpRequest(reporter, request, report_on_start=report_on_start)
        request[_REQUEST_KEY] = current
        token = CURRENT_REQUEST.set(current)
        try:
            response = await handler(request)
            current.set_status(getattr(response, "status", None))
        except web.HTTPException as error:
            current.set_status(error.status)
            raise
        except Exception:
            current.mark_failed()
            raise
        finally:
            CURRENT_REQUEST.reset(token)
            current.report_end()
        return response

    async def on_response_prepare(request: web.BaseRequest, response: web.StreamResponse) -> None:
        current = request.get(_REQUEST_KEY)
        if isinstance(current, _AiohttpRequest):
            try:
                current.inspect_response(response)
            except Exception as error:  # noqa: BLE001  # reporting must not break the host
                reporter.count_error(error)

    async def on_cleanup(_: web.Application) -> None:
        await asyncio.to_thread(reporter.flush)

    app.middlewares.insert(0, report_request)
    app.on_response_prepare.append(on_response_prepare)
    app.on_cleanup.append(on_cleanup)


class _AiohttpRequest(CurrentRequest):
    __slots__ = ("_request",)

    def __init__(self, reporter: Reporter, request: web.Request, *, report_on_start: bool) -> None:
        super().__init__(reporter, report_on_start=report_on_start)
        self._request = request

    def set_status(self, status: int | None) -> None:
        self._status = status

    def inspect_response(self, response: web.StreamResponse) -> None:
        """Report the request now if its response, which is about to start, is long-lived."""
        if isinstance(response, web.WebSocketResponse) or response.content_type == EVENT_STREAM_TYPE:
            self._report_on_start = True
        if self._report_on_start:
            self._status = response.status
            self.report_start()

    def snapshot(self, duration_ms: float | None = None) -> RequestRecord:
        request = self._request
        get = request.headers.get
        url = request.rel_url
        return RequestRecord(
            self._started_at,
            duration_ms,
            request.method,
            route_pattern(request),
            self._status,
            self._failed,
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
    """Return the pattern of a request's route, in the form of `metronome.middleware.paths`."""
    resource = request.match_info.route.resource
    if resource is None:
        return UNMATCHED
    pattern = normalize_braces(resource.canonical)
    return f"{pattern.rstrip('/')}/{WILDCARD}" if isinstance(resource, web.StaticResource) else pattern
