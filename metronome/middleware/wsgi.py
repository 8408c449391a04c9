"""Middleware for WSGI applications: Flask, Django and all others.

Source: PEP 3333. What the application returns is iterated and closed by the server as it would be without.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
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
from metronome.middleware.paths import ROUTE_KEY, WILDCARD, PathFilter, normalize_angles, normalize_braces
from metronome.middleware.reporter import Reporter

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

_ERROR_STATUS: Final = 500
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_MAX_CHARACTERS: Final = TEXT_MAX_CHARACTERS


class WSGIMiddleware:
    """Reports each request to an application.

    Args:
        app: the application.
        reporter: where to.

    """

    def __init__(self, app: WSGIApp, reporter: Reporter) -> None:
        self.app = app
        self.reporter = reporter
        self._is_skipped = PathFilter(reporter)
        self._report_on_start = reporter.config.mode == "request"

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request as the application does."""
        if self._is_skipped(environ.get("REQUEST_METHOD", "GET"), environ.get("PATH_INFO", "")):
            return self.app(environ, start_response)
        request = _WSGIRequest(self.reporter, environ, report_on_start=self._report_on_start)
        CURRENT_REQUEST.set(request)
        try:
            body = self.app(environ, request.wrap_start_response(start_response))
        except BaseException as error:
            request.report_end(failed=isinstance(error, Exception))
            raise
        if isinstance(body, list | tuple):
            # All of it is there, and servers look at how long a list is.
            request.report_end()
            return body
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            # Only what is one itself is sent by the system.
            request.report_end()
            return body
        return _ReportingBody(body, request)


class _WSGIRequest(CurrentRequest):
    """One request, from its start to the end of its response."""

    __slots__ = (
        "_environ",
        "_is_reported",
        "_original_path",
        "_report_on_start",
        "_reporter",
        "_route",
        "_started_at",
        "_started_clock",
        "_status",
    )

    def __init__(self, reporter: Reporter, environ: Environ, *, report_on_start: bool) -> None:
        super().__init__(self._build_record)
        self._started_at = time.time()
        self._started_clock = time.perf_counter()
        self._reporter = reporter
        self._environ = environ
        # Dispatchers move what they have looked at from one to the other.
        self._original_path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
        self._report_on_start = report_on_start
        self._status: int | None = None
        self._route: str | None = None
        self._is_reported = False

    def wrap_start_response(self, start_response: StartResponse) -> StartResponse:
        """Return what starts a response as *start_response* does, and looks at it."""

        def watching(status: str, headers: list[tuple[str, str]], *exc_info: Any, **more: Any) -> Any:
            write = start_response(status, headers, *exc_info, **more)
            self._inspect_start(status, headers)
            return write

        return watching

    def report_end(self, *, failed: bool = False) -> None:
        """Report the request, unless that is done; then nothing is being handled any more."""
        CURRENT_REQUEST.set(None)
        if failed and self._status is None:
            self._status = _ERROR_STATUS
        if not self._is_reported:
            self._report(
                (time.perf_counter() - self._started_clock) * 1000 if not self._report_on_start else None, failed=failed
            )

    def _inspect_start(self, status: str, headers: list[tuple[str, str]]) -> None:
        try:
            self._status = int(status[:3])
            # Flask forgets it before the response has ended.
            self._route = route_pattern(self._environ, self._original_path[0])
            if not self._report_on_start:
                kinds = [value for name, value in headers if name.lower() == "content-type"]
                self._report_on_start = bool(kinds) and kinds[0].startswith(EVENT_STREAM_TYPE)
        except Exception as error:  # noqa: BLE001  # whatever the application says is the server's to judge
            self._reporter.count_error(error)
        if self._report_on_start and not self._is_reported:
            self._report(None, failed=False)

    def _report(self, milliseconds: float | None, *, failed: bool) -> None:
        self._is_reported = True
        try:
            self._reporter.report(self._build_record(milliseconds, failed=failed))
        except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
            self._reporter.count_error(error)

    def _build_record(self, milliseconds: float | None = None, *, failed: bool = False) -> RequestRecord:
        get = self._environ.get
        script, path = self._original_path
        scheme = get("wsgi.url_scheme", "http")
        return RequestRecord(
            self._started_at,
            milliseconds,
            get("REQUEST_METHOD", "GET"),
            self._route or route_pattern(self._environ, script),
            self._status,
            failed,
            scheme,
            get("HTTP_HOST") or _server_host(scheme, get("SERVER_NAME", "localhost"), get("SERVER_PORT", "")),
            # What stands there are bytes, each as the character of its number.
            quote((script + path)[:_MAX_CHARACTERS].encode("latin-1", "replace"), safe=SAFE_IN_PATHS)[:_MAX_CHARACTERS],
            get("QUERY_STRING", "")[:_MAX_CHARACTERS],
            get("REMOTE_ADDR", ""),
            get("HTTP_X_FORWARDED_FOR", "")[-_MAX_CHARACTERS:],
            get("HTTP_X_FORWARDED_PROTO", "")[:_MAX_CHARACTERS],
            get("HTTP_REFERER", "")[:_MAX_CHARACTERS],
            get("HTTP_USER_AGENT", "")[:_MAX_CHARACTERS],
            get("HTTP_ACCEPT_LANGUAGE", "")[:_MAX_CHARACTERS],
            get("HTTP_SEC_GPC") == "1" or get("HTTP_DNT") == "1",
            self.extra_fields,
        )


class _ReportingBody:
    """What an application returned, whose end ends the request."""

    def __init__(self, body: Iterable[bytes], request: _WSGIRequest) -> None:
        self._body = body
        self._request = request
        self._failed = False
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._parts is None:
            self._parts = iter(self._body)
        try:
            return next(self._parts)
        except StopIteration:
            raise
        except Exception:
            self._failed = True
            raise

    def close(self) -> None:
        """Close the body as the server would, and report the request."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except Exception:
            self._failed = True
            raise
        finally:
            self._request.report_end(failed=self._failed)


def route_pattern(environ: Environ, script_name: str) -> str:
    """Return the pattern of the route that a request took, in the form of `metronome.middleware.paths`.

    Args:
        environ: as the application has left it.
        script_name: the ``SCRIPT_NAME`` that it came with: what is more by now are applications inside the application.

    """
    told = environ.get(ROUTE_KEY)
    if told is not None:
        return normalize_braces(str(told))
    mounted = environ.get("SCRIPT_NAME", "")[len(script_name) :]
    # Werkzeug, and so Flask, leaves its request here.
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    if rule is not None:
        return f"{mounted}{normalize_angles(rule.rule)}"
    return f"{mounted}/{WILDCARD}" if mounted else UNMATCHED


def _server_host(scheme: str, name: str, port: str) -> str:
    return name if port in {"", _DEFAULT_PORTS.get(scheme)} else f"{name}:{port}"
