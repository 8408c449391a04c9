"""The WSGI middleware passes responses and errors through unchanged, and reports each request once."""

import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from metronome.middleware.current_request import CURRENT_REQUEST, TEXT_MAX_CHARACTERS
from metronome.middleware.paths import ROUTE_KEY
from metronome.middleware.wsgi import WSGIMiddleware
from tests.middleware.records import RecordingReporter


def environ(**changes: Any) -> dict[str, Any]:
    environment: dict[str, Any] = {
        "REMOTE_ADDR": "192.0.2.1",
        "QUERY_STRING": "q=1",
        "PATH_INFO": "/caf\xc3\xa9",
        "SCRIPT_NAME": "",
    }
    setup_testing_defaults(environment)
    return environment | changes


class Parts:
    """A response in parts that counts how often it is closed."""

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


def app_returning(body: Iterable[bytes], kind: str = "text/plain") -> Callable[..., Iterable[bytes]]:
    def app(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", kind)])
        return body

    return app


def serve(app: Any, environment: dict[str, Any]) -> tuple[list[Any], list[bytes]]:
    """Serve a request as PEP 3333 specifies; return the calls of start_response and the body's parts."""
    started: list[Any] = []

    def start_response(*arguments: Any) -> Callable[[bytes], None]:
        started.append(arguments)
        return sent.append

    sent: list[bytes] = []
    body = app(environment, start_response)
    try:
        sent.extend(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return started, sent


def test_a_response_in_parts_passes_unchanged_and_is_closed_once() -> None:
    reporter, body = RecordingReporter(), Parts(b"a", b"", b"b")
    started, sent = serve(validator(WSGIMiddleware(validator(app_returning(body)), reporter)), environ())
    assert (started, sent, body.closed) == ([("200 OK", [("Content-Type", "text/plain")])], [b"a", b"", b"b"], 1)
    (record,) = reporter.records
    assert (record.status, record.path, record.query, record.peer_address, record.failed) == (
        200,
        "/caf%C3%A9",
        "q=1",
        "192.0.2.1",
        False,
    )
    assert CURRENT_REQUEST.get() is None


def test_long_texts_are_truncated() -> None:
    reporter = RecordingReporter()
    names = (
        "PATH_INFO",
        "QUERY_STRING",
        "HTTP_REFERER",
        "HTTP_USER_AGENT",
        "HTTP_ACCEPT_LANGUAGE",
        "HTTP_X_FORWARDED_FOR",
    )
    serve(WSGIMiddleware(app_returning([b""]), reporter), environ(**dict.fromkeys(names, "/" * 100_000)))
    assert max(len(value) for value in reporter.records[0] if isinstance(value, str)) == TEXT_MAX_CHARACTERS


def test_a_request_is_reported_when_its_response_is_closed() -> None:
    reporter = RecordingReporter()
    body = WSGIMiddleware(app_returning(Parts(b"a")), reporter)(environ(), lambda *_: None)
    assert list(body) == [b"a"]
    assert reporter.records == []
    body.close()  # type: ignore[attr-defined]  # not a list
    assert len(reporter.records) == 1


def test_lists_and_file_wrappers_are_returned_as_they_are() -> None:
    reporter = RecordingReporter()
    parts = [b"a"]
    assert WSGIMiddleware(app_returning(parts), reporter)(environ(), lambda *_: None) is parts
    file = FileWrapper(BytesIO(b"a"))
    environment = environ(**{"wsgi.file_wrapper": FileWrapper})
    assert WSGIMiddleware(app_returning(file), reporter)(environment, lambda *_: None) is file
    assert len(reporter.records) == 2


def test_the_status_of_a_generator_is_recorded() -> None:
    def app(_: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("404 Not Found", [])
        yield b"a"

    reporter = RecordingReporter()
    serve(WSGIMiddleware(app, reporter), environ())
    assert reporter.records[0].status == 404


def test_an_error_of_the_host_is_reported_and_raised() -> None:
    error = KeyError("the host's own")

    def app(_: dict[str, Any], __: Any) -> Iterable[bytes]:
        raise error

    reporter = RecordingReporter()
    with pytest.raises(KeyError) as raised:
        serve(WSGIMiddleware(app, reporter), environ())
    assert raised.value is error
    with pytest.raises(KeyError) as raised:
        serve(WSGIMiddleware(app_returning(Parts(b"a", error=error)), reporter), environ())
    assert raised.value is error
    assert [(record.failed, record.status) for record in reporter.records] == [(True, 500), (True, 200)]


def test_a_response_can_be_restarted_after_an_error() -> None:
    def app(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        try:
            raise ValueError("too late")
        except ValueError:
            start_response("500 Error", [], sys.exc_info())
        return [b""]

    reporter = RecordingReporter()
    started, _ = serve(WSGIMiddleware(app, reporter), environ())
    assert [len(arguments) for arguments in started] == [2, 3]
    assert reporter.records[0].status == 500


def test_server_sent_events_are_reported_at_the_start() -> None:
    reporter = RecordingReporter()
    WSGIMiddleware(app_returning(Parts(b"a"), "text/event-stream; charset=utf-8"), reporter)(environ(), lambda *_: None)
    assert reporter.records[0].duration_ms is None


def test_the_environment_can_name_the_route_and_mounts_are_prepended() -> None:
    def inner(environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environment["SCRIPT_NAME"] += "/inner"
        start_response("200 OK", [])
        return [b""]

    reporter = RecordingReporter()
    serve(WSGIMiddleware(inner, reporter), environ(SCRIPT_NAME="/behind/a/proxy"))
    serve(WSGIMiddleware(inner, reporter), environ(**{ROUTE_KEY: "/users/{id}"}))
    assert [record.route for record in reporter.records] == ["/inner/*", "/users/:id"]
    assert reporter.records[0].path.startswith("/behind/a/proxy/")
