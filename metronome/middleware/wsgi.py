"""Middleware for WSGI applications: Flask, Django and all others.

Source: PEP 3333. The server iterates and closes the response as it would without the middleware.
"""

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

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_MAX_CHARACTERS: Final = TEXT_MAX_CHARACTERS


class WSGIMiddleware:
    """Reports each request to an application.

    Args:
        app: the application.
        reporter: receives the requests.

    """

    def __init__(self, app: WSGIApp, reporter: Reporter) -> None:
        self.app = app
        self.reporter = reporter
        self._is_skipped = PathFilter(reporter)
        self._report_on_start = reporter.config.mode == "request"

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Pass a request to the application."""
        if self._is_skipped(environ.get("REQUEST_METHOD", "GET"), environ.get("PATH_INFO", "")):
            return self.app(environ, start_response)
        request = _WSGIRequest(self.reporter, environ, report_on_start=self._report_on_start)
        CURRENT_REQUEST.set(request)
        try:
            body = self.app(environ, request.wrap_start_response(start_response))
        except BaseException as error:
            request.finish(failed=isinstance(error, Exception))
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            # Servers read the length of a list, and send a file with sendfile only if it is their own wrapper.
            request.finish()
            return body
        return _ReportingBody(body, request)


class _WSGIRequest(CurrentRequest):
    __slots__ = ("_environ", "_original_path", "_route")

    def __init__(self, reporter: Reporter, environ: Environ, *, report_on_start: bool) -> None:
        super().__init__(reporter, report_on_start=report_on_start)
        self._environ = environ
        # Dispatchers move the parts that they have handled from PATH_INFO to SCRIPT_NAME.
        self._original_path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
        self._route: str | None = None

    def wrap_start_response(self, start_response: StartResponse) -> StartResponse:
        """Return a callable that starts a response as *start_response* does and records its status."""

        def start_and_inspect(status: str, headers: list[tuple[str, str]], *exc_info: Any, **kwargs: Any) -> Any:
            write = start_response(status, headers, *exc_info, **kwargs)
            self._inspect_start(status, headers)
            return write

        return start_and_inspect

    def finish(self, *, failed: bool = False) -> None:
        """Report the request unless that has been done; afterwards no request is current."""
        CURRENT_REQUEST.set(None)
        if failed:
            self.mark_failed()
        self.report_end()

    def _inspect_start(self, status: str, headers: list[tuple[str, str]]) -> None:
        try:
            self._status = int(status[:3])
            # Flask forgets its route before the response has ended.
            self._route = route_pattern(self._environ, self._original_path[0])
            if not self._report_on_start:
                content_types = [value for name, value in headers if name.lower() == "content-type"]
                self._report_on_start = bool(content_types) and content_types[0].startswith(EVENT_STREAM_TYPE)
        except Exception as error:  # noqa: BLE001  # an invalid response is for the server to reject
            self._reporter.count_error(error)
        self.report_start()

    def snapshot(self, duration_ms: float | None = None) -> RequestRecord:
        get = self._environ.get
        script_name, path = self._original_path
        scheme = get("wsgi.url_scheme", "http")
        # PEP 3333: each character stands for a byte.
        path_bytes = (script_name + path)[:_MAX_CHARACTERS].encode("latin-1", "replace")
        return RequestRecord(
            self._started_at,
            duration_ms,
            get("REQUEST_METHOD", "GET"),
            self._route or route_pattern(self._environ, script_name),
            self._status,
            self._failed,
            scheme,
            get("HTTP_HOST") or _server_host(scheme, get("SERVER_NAME", "localhost"), get("SERVER_PORT", "")),
            quote(path_bytes, safe=SAFE_IN_PATHS)[:_MAX_CHARACTERS],
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
    """A response's body; the request is reported when the server closes it."""

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
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except Exception:
            self._failed = True
            raise
        finally:
            self._request.finish(failed=self._failed)


def route_pattern(environ: Environ, script_name: str) -> str:
    """Return the pattern of a request's route, in the form of `metronome.middleware.paths`.

    Args:
        environ: the environment as the application has left it.
        script_name: the ``SCRIPT_NAME`` before the application ran; what has been added since are mounts.

    """
    explicit = environ.get(ROUTE_KEY)
    if explicit is not None:
        return normalize_braces(str(explicit))
    mount_path = environ.get("SCRIPT_NAME", "")[len(script_name) :]
    # Werkzeug, and thus Flask, stores its request here.
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    if rule is not None:
        return f"{mount_path}{normalize_angles(rule.rule)}"
    return f"{mount_path}/{WILDCARD}" if mount_path else UNMATCHED


def _server_host(scheme: str, name: str, port: str) -> str:
    return name if port in {"", _DEFAULT_PORTS.get(scheme)} else f"{name}:{port}"
