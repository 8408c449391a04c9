"""The ASGI middleware passes messages and errors through unchanged, and reports each request once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.middleware.asgi import ASGIMiddleware
from metronome.middleware.current_request import TEXT_MAX_CHARACTERS
from metronome.middleware.paths import ROUTE_KEY
from tests.middleware.records import RecordingReporter

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "/a b",
    "raw_path": b"/a%20b",
    "query_string": b"q=1",
    "headers": [(b"host", b"h"), (b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2")],
    "client": ("192.0.2.1", 5),
    "server": ("127.0.0.1", 80),
    "scheme": "http",
}
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
END = {"type": "http.response.body", "body": b""}


async def run_app(app: Any, scope: dict[str, Any], incoming: list[Any]) -> list[Any]:
    """Call an application with incoming messages and return the messages that it sends."""
    pending, sent = list(incoming), []

    async def receive() -> Any:
        return pending.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(dict(scope), receive, send)
    return sent


def app_sending(*messages: Any, error: BaseException | None = None) -> Callable[..., Any]:
    async def app(_: Any, __: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


MESSAGES = st.lists(
    st.sampled_from(
        [START, END, END | {"more_body": True}, {"type": "http.response.trailers"}, {"type": "http.response.debug"}]
    )
    | st.binary(max_size=50).map(lambda body: {"type": "http.response.body", "body": body, "more_body": True}),
    max_size=6,
)


@given(MESSAGES)
async def test_messages_pass_unchanged_and_each_request_is_reported_once(messages: list[Any]) -> None:
    reporter = RecordingReporter()
    assert await run_app(ASGIMiddleware(app_sending(*messages), reporter), SCOPE, []) == messages
    assert len(reporter.records) == 1


async def test_a_request_is_recorded_with_its_headers_and_route() -> None:
    reporter = RecordingReporter()
    await run_app(ASGIMiddleware(app_sending(START, END), reporter), SCOPE | {ROUTE_KEY: "/a/{x}"}, [])
    (record,) = reporter.records
    assert (record.method, record.route, record.status, record.path, record.query) == (
        "GET",
        "/a/:x",
        200,
        "/a%20b",
        "q=1",
    )
    assert (record.host, record.peer_address, record.forwarded_for) == ("h", "192.0.2.1", "1.1.1.1,2.2.2.2")
    assert record.duration_ms > 0


async def test_long_texts_are_truncated() -> None:
    reporter = RecordingReporter()
    long = b"x" * 100_000
    headers = [(name, long) for name in (b"user-agent", b"referer", b"accept-language", b"x-forwarded-for", b"host")]
    scope = SCOPE | {"headers": headers, "raw_path": long, "query_string": long}
    await run_app(ASGIMiddleware(app_sending(START, END), reporter), scope, [])
    assert max(len(value) for value in reporter.records[0] if isinstance(value, str)) == TEXT_MAX_CHARACTERS


async def test_a_request_is_reported_when_its_response_ends_not_when_background_tasks_do() -> None:
    reporter = RecordingReporter()

    async def app(_: Any, __: Any, send: Any) -> None:
        await send(START)
        assert reporter.records == []
        await send(END)
        assert len(reporter.records) == 1

    await run_app(ASGIMiddleware(app, reporter), SCOPE, [])


@pytest.mark.parametrize(
    ("messages", "status"),
    [((), 500), ((START | {"status": 201},), 201)],
    ids=["before the response", "during the response"],
)
async def test_an_error_of_the_host_is_reported_and_raised(messages: tuple[Any, ...], status: int) -> None:
    reporter = RecordingReporter()
    error = KeyError("the host's own")
    with pytest.raises(KeyError) as raised:
        await run_app(ASGIMiddleware(app_sending(*messages, error=error), reporter), SCOPE, [])
    assert raised.value is error
    assert (reporter.records[0].failed, reporter.records[0].status) == (True, status)


async def test_a_request_whose_client_has_disconnected_is_not_an_error() -> None:
    reporter = RecordingReporter()
    with pytest.raises(asyncio.CancelledError):
        await run_app(ASGIMiddleware(app_sending(error=asyncio.CancelledError()), reporter), SCOPE, [])
    assert (reporter.records[0].failed, reporter.records[0].status) == (False, None)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"type": "websocket.accept"}, 101),
        ({"type": "websocket.close"}, 403),
        ({"type": "websocket.http.response.start", "status": 401}, 401),
    ],
)
async def test_a_websocket_is_reported_after_its_handshake(message: dict[str, Any], status: int) -> None:
    reporter = RecordingReporter()
    scope = {name: value for name, value in SCOPE.items() if name != "method"} | {"type": "websocket", "scheme": "ws"}
    close = {"type": "websocket.close"}
    assert await run_app(ASGIMiddleware(app_sending(message, close), reporter), scope, []) == [message, close]
    (record,) = reporter.records
    assert (record.method, record.status, record.duration_ms) == ("GET", status, None)


async def test_skipped_paths_are_not_reported() -> None:
    reporter = RecordingReporter(
        skip=("/health", "/static/"), skip_if=lambda method, path: path == "/probe" or method == "TRACE"
    )
    app = ASGIMiddleware(app_sending(START, END), reporter)
    for path in ("/health", "/health/live", "/static/a", "/probe"):
        await run_app(app, SCOPE | {"path": path}, [])
    assert reporter.records == []
    for path in ("/healthy", "/static"):
        await run_app(app, SCOPE | {"path": path}, [])
    assert len(reporter.records) == 2


async def test_an_error_in_skip_if_is_counted_and_hidden() -> None:
    def decide(method: str, path: str) -> bool:
        raise RuntimeError(method + path)

    reporter = RecordingReporter(skip_if=decide)
    assert await run_app(ASGIMiddleware(app_sending(START, END), reporter), SCOPE, []) == [START, END]
    assert reporter.stats().errors == 1


LIFESPAN = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
COMPLETED = [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


async def test_an_application_without_lifespan_support_gets_one() -> None:
    reporter = RecordingReporter()
    app = ASGIMiddleware(app_sending(error=ValueError("only HTTP is supported")), reporter)
    assert await run_app(app, {"type": "lifespan"}, LIFESPAN) == COMPLETED


async def test_an_error_at_startup_is_raised() -> None:
    async def app(_: Any, receive: Any, __: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        await run_app(ASGIMiddleware(app, RecordingReporter()), {"type": "lifespan"}, LIFESPAN)


async def test_other_protocols_are_passed_through() -> None:
    reporter = RecordingReporter()
    assert await run_app(ASGIMiddleware(app_sending({"type": "x"}), reporter), {"type": "webtransport"}, []) == [
        {"type": "x"}
    ]
    assert reporter.records == []
