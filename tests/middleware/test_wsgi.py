"""What passes through the WSGI middleware passes as it is, and the host's errors are the host's."""

import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import CURRENT_REQUEST, TEXT_MAX_CHARACTERS
from metronome.middleware.paths import ROUTE_KEY
from metronome.middleware.reporter import Reporter
from metronome.middleware.wsgi import WSGIMiddleware


class Kept(Reporter):
    """A reporter that keeps what it is given, and sends nothing."""

    def __init__(self, **config: Any) -> None:
        super().__init__(ClientConfig(url="http://127.0.0.1:1", **config))
        self.kept: list[Any] = []

    def report(self, seen: Any) -> None:
        self.kept.append(seen)


def environ(**changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "REMOTE_ADDR": "192.0.2.1",
        "QUERY_STRING": "q=1",
        "PATH_INFO": "/caf\xc3\xa9",
        "SCRIPT_NAME": "",
    }
    setup_testing_defaults(made)
    return made | changed


class Parts:
    """A response in parts, with an end."""

    def __init__(self, *parts: bytes, error: Exception | None = None) -> None:
        self.parts = parts
        self.error = error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1


def answering(body: Iterable[bytes], kind: str = "text/plain") -> Callable[..., Iterable[bytes]]:
    def app(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", kind)])
        return body

    return app


def served(app: Any, given: dict[str, Any]) -> tuple[list[Any], list[bytes]]:
    """Serve a request as PEP 3333 asks a server to."""
    started: list[Any] = []

    def start_response(*arguments: Any) -> Callable[[bytes], None]:
        started.append(arguments)
        return sent.append

    sent: list[bytes] = []
    body = app(given, start_response)
    try:
        sent.extend(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return started, sent


def test_a_response_in_parts_passes_and_is_closed_once() -> None:
    reporter, body = Kept(), Parts(b"a", b"", b"b")
    started, sent = served(validator(WSGIMiddleware(validator(answering(body)), reporter)), environ())
    assert (started, sent, body.closed) == ([("200 OK", [("Content-Type", "text/plain")])], [b"a", b"", b"b"], 1)
    (seen,) = reporter.kept
    assert (seen.status, seen.path, seen.query, seen.peer, seen.failed) == (
        200,
        "/caf%C3%A9",
        "q=1",
        "192.0.2.1",
        False,
    )
    assert CURRENT_REQUEST.get() is None


def test_no_visitor_fills_the_memory_with_long_texts() -> None:
    reporter = Kept()
    names = (
        "PATH_INFO",
        "QUERY_STRING",
        "HTTP_REFERER",
        "HTTP_USER_AGENT",
        "HTTP_ACCEPT_LANGUAGE",
        "HTTP_X_FORWARDED_FOR",
    )
    served(WSGIMiddleware(answering([b""]), reporter), environ(**dict.fromkeys(names, "/" * 100_000)))
    assert max(len(value) for value in reporter.kept[0] if isinstance(value, str)) == TEXT_MAX_CHARACTERS


def test_it_is_reported_as_it_is_closed_and_not_before() -> None:
    reporter = Kept()
    body = WSGIMiddleware(answering(Parts(b"a")), reporter)(environ(), lambda *_: None)
    assert list(body) == [b"a"]
    assert reporter.kept == []
    body.close()  # type: ignore[attr-defined]  # it is no list
    assert len(reporter.kept) == 1


def test_a_list_stays_a_list_and_a_file_a_file() -> None:
    reporter = Kept()
    whole = [b"a"]
    assert WSGIMiddleware(answering(whole), reporter)(environ(), lambda *_: None) is whole
    file = FileWrapper(BytesIO(b"a"))
    given = environ(**{"wsgi.file_wrapper": FileWrapper})
    assert WSGIMiddleware(answering(file), reporter)(given, lambda *_: None) is file
    assert len(reporter.kept) == 2


def test_a_generator_that_starts_late_is_seen() -> None:
    def app(_: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("404 Not Found", [])
        yield b"a"

    reporter = Kept()
    served(WSGIMiddleware(app, reporter), environ())
    assert reporter.kept[0].status == 404


def test_the_host_s_own_error_goes_on_and_is_reported() -> None:
    error = KeyError("the host's own")

    def app(_: dict[str, Any], __: Any) -> Iterable[bytes]:
        raise error

    reporter = Kept()
    with pytest.raises(KeyError) as raised:
        served(WSGIMiddleware(app, reporter), environ())
    assert raised.value is error
    with pytest.raises(KeyError) as raised:
        served(WSGIMiddleware(answering(Parts(b"a", error=error)), reporter), environ())
    assert raised.value is error
    assert [(seen.failed, seen.status) for seen in reporter.kept] == [(True, 500), (True, 200)]


def test_a_response_may_start_again_after_an_error() -> None:
    def app(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            raise ValueError("too late")
        except ValueError:
            start_response("500 Error", [], sys.exc_info())
        return [b""]

    reporter = Kept()
    started, _ = served(WSGIMiddleware(app, reporter), environ())
    assert [len(arguments) for arguments in started] == [2, 3]
    assert reporter.kept[0].status == 500


def test_server_sent_events_are_reported_as_they_begin() -> None:
    reporter = Kept()
    WSGIMiddleware(answering(Parts(b"a"), "text/event-stream; charset=utf-8"), reporter)(environ(), lambda *_: None)
    assert reporter.kept[0].milliseconds is None


def test_the_route_may_be_told_and_what_is_mounted_stands_before_it() -> None:
    def inner(given: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        given["SCRIPT_NAME"] += "/inner"
        start_response("200 OK", [])
        return [b""]

    reporter = Kept()
    served(WSGIMiddleware(inner, reporter), environ(SCRIPT_NAME="/behind/a/proxy"))
    served(WSGIMiddleware(inner, reporter), environ(**{ROUTE_KEY: "/users/{id}"}))
    assert [seen.route for seen in reporter.kept] == ["/inner/*", "/users/:id"]
    assert reporter.kept[0].path.startswith("/behind/a/proxy/")
