"""Middleware for WSGI applications: Flask, Django and all others.

Source: PEP 3333. What the application returns is iterated and closed by the server as it would be without.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
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
from metronome.middleware.paths import ANYTHING, ROUTE_KEY, Skipping, from_angles, from_braces
from metronome.middleware.reporter import Reporter

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

_FAILED: Final = 500
_USUAL_PORTS: Final = {"http": "80", "https": "443"}
_MAX: Final = TEXT_MAX_CHARACTERS


class WSGIMiddleware:
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

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request as the application does."""
        if self._skips(environ.get("REQUEST_METHOD", "GET"), environ.get("PATH_INFO", "")):
            return self.app(environ, start_response)
        request = _Request(self.reporter, environ, at_the_start=self._at_the_start)
        HANDLED.set(request)
        try:
            body = self.app(environ, request.watching(start_response))
        except BaseException as error:
            request.end(failed=isinstance(error, Exception))
            raise
        if isinstance(body, list | tuple):
            # All of it is there, and servers look at how long a list is.
            request.end()
            return body
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            # Only what is one itself is sent by the system.
            request.end()
            return body
        return _Body(body, request)


class _Request(Handled):
    """One request, from its start to the end of its response."""

    __slots__ = ("_at_the_start", "_began", "_done", "_environ", "_reporter", "_root", "_route", "_started", "_status")

    def __init__(self, reporter: Reporter, environ: Environ, *, at_the_start: bool) -> None:
        super().__init__(self._seen)
        self._started = time.time()
        self._began = time.perf_counter()
        self._reporter = reporter
        self._environ = environ
        # Dispatchers move what they have looked at from one to the other.
        self._root = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
        self._at_the_start = at_the_start
        self._status: int | None = None
        self._route: str | None = None
        self._done = False

    def watching(self, start_response: StartResponse) -> StartResponse:
        """Return what starts a response as *start_response* does, and looks at it."""

        def watching(status: str, headers: list[tuple[str, str]], *exc_info: Any, **more: Any) -> Any:
            write = start_response(status, headers, *exc_info, **more)
            self._look_at(status, headers)
            return write

        return watching

    def end(self, *, failed: bool = False) -> None:
        """Report the request, unless that is done; then nothing is being handled any more."""
        HANDLED.set(None)
        if failed and self._status is None:
            self._status = _FAILED
        if not self._done:
            self._report((time.perf_counter() - self._began) * 1000 if not self._at_the_start else None, failed=failed)

    def _look_at(self, status: str, headers: list[tuple[str, str]]) -> None:
        try:
            self._status = int(status[:3])
            # Flask forgets it before the response has ended.
            self._route = route_of(self._environ, self._root[0])
            if not self._at_the_start:
                kinds = [value for name, value in headers if name.lower() == "content-type"]
                self._at_the_start = bool(kinds) and kinds[0].startswith(EVENT_STREAM)
        except Exception as error:  # noqa: BLE001  # whatever the application says is the server's to judge
            self._reporter.fault(error)
        if self._at_the_start and not self._done:
            self._report(None, failed=False)

    def _report(self, milliseconds: float | None, *, failed: bool) -> None:
        self._done = True
        try:
            self._reporter.report(self._seen(milliseconds, failed=failed))
        except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
            self._reporter.fault(error)

    def _seen(self, milliseconds: float | None = None, *, failed: bool = False) -> Hit:
        get = self._environ.get
        script, path = self._root
        scheme = get("wsgi.url_scheme", "http")
        return Hit(
            self._started,
            milliseconds,
            get("REQUEST_METHOD", "GET"),
            self._route or route_of(self._environ, script),
            self._status,
            failed,
            scheme,
            get("HTTP_HOST") or _host(scheme, get("SERVER_NAME", "localhost"), get("SERVER_PORT", "")),
            # What stands there are bytes, each as the character of its number.
            quote((script + path)[:_MAX].encode("latin-1", "replace"), safe=SAFE_IN_PATHS)[:_MAX],
            get("QUERY_STRING", "")[:_MAX],
            get("REMOTE_ADDR", ""),
            get("HTTP_X_FORWARDED_FOR", "")[-_MAX:],
            get("HTTP_X_FORWARDED_PROTO", "")[:_MAX],
            get("HTTP_REFERER", "")[:_MAX],
            get("HTTP_USER_AGENT", "")[:_MAX],
            get("HTTP_ACCEPT_LANGUAGE", "")[:_MAX],
            get("HTTP_SEC_GPC") == "1" or get("HTTP_DNT") == "1",
            self.described,
        )


class _Body:
    """What an application returned, whose end ends the request."""

    def __init__(self, body: Iterable[bytes], request: _Request) -> None:
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
            self._request.end(failed=self._failed)


def route_of(environ: Environ, script: str) -> str:
    """Return the pattern of the route that a request took, in the form of `metronome.middleware.paths`.

    Args:
        environ: as the application has left it.
        script: the ``SCRIPT_NAME`` that it came with: what is more by now are applications inside the application.

    """
    told = environ.get(ROUTE_KEY)
    if told is not None:
        return from_braces(str(told))
    mounted = environ.get("SCRIPT_NAME", "")[len(script) :]
    # Werkzeug, and so Flask, leaves its request here.
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    if rule is not None:
        return f"{mounted}{from_angles(rule.rule)}"
    return f"{mounted}/{ANYTHING}" if mounted else UNMATCHED


def _host(scheme: str, name: str, port: str) -> str:
    return name if port in {"", _USUAL_PORTS.get(scheme)} else f"{name}:{port}"
