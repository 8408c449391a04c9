"""What passes through the ASGI middleware passes as it is, and the host's errors are the host's."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.middleware.asgi import ASGIMiddleware
from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import TEXT_MAX_CHARACTERS
from metronome.middleware.paths import ROUTE_KEY
from metronome.middleware.reporter import Reporter


class Kept(Reporter):
    """A reporter that keeps what it is given, and sends nothing."""

    def __init__(self, **config: Any) -> None:
        super().__init__(ClientConfig(url="http://127.0.0.1:1", **config))
        self.kept: list[Any] = []

    def report(self, seen: Any) -> None:
        self.kept.append(seen)


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


async def through(app: Any, scope: dict[str, Any], incoming: list[Any]) -> list[Any]:
    """Call an application with what comes in, and return what it sends."""
    left, sent = list(incoming), []

    async def receive() -> Any:
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(dict(scope), receive, send)
    return sent


def sending(*messages: Any, error: BaseException | None = None) -> Callable[..., Any]:
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
async def test_messages_pass_untouched_and_each_request_is_reported_once(messages: list[Any]) -> None:
    reporter = Kept()
    assert await through(ASGIMiddleware(sending(*messages), reporter), SCOPE, []) == messages
    assert len(reporter.kept) == 1


async def test_a_request_is_seen_as_it_came() -> None:
    reporter = Kept()
    await through(ASGIMiddleware(sending(START, END), reporter), SCOPE | {ROUTE_KEY: "/a/{x}"}, [])
    (seen,) = reporter.kept
    assert (seen.method, seen.route, seen.status, seen.path, seen.query) == ("GET", "/a/:x", 200, "/a%20b", "q=1")
    assert (seen.host, seen.peer, seen.forwarded) == ("h", "192.0.2.1", "1.1.1.1,2.2.2.2")
    assert seen.milliseconds > 0


async def test_no_visitor_fills_the_memory_with_long_texts() -> None:
    reporter = Kept()
    long = b"x" * 100_000
    headers = [(name, long) for name in (b"user-agent", b"referer", b"accept-language", b"x-forwarded-for", b"host")]
    scope = SCOPE | {"headers": headers, "raw_path": long, "query_string": long}
    await through(ASGIMiddleware(sending(START, END), reporter), scope, [])
    assert max(len(value) for value in reporter.kept[0] if isinstance(value, str)) == TEXT_MAX_CHARACTERS


async def test_it_is_reported_when_the_response_has_ended_not_when_the_work_behind_it_has() -> None:
    reporter = Kept()

    async def app(_: Any, __: Any, send: Any) -> None:
        await send(START)
        assert reporter.kept == []
        await send(END)
        assert len(reporter.kept) == 1

    await through(ASGIMiddleware(app, reporter), SCOPE, [])


@pytest.mark.parametrize(
    ("messages", "status"), [((), 500), ((START | {"status": 201},), 201)], ids=["before", "while it answers"]
)
async def test_the_host_s_own_error_goes_on_and_is_reported(messages: tuple[Any, ...], status: int) -> None:
    reporter = Kept()
    error = KeyError("the host's own")
    with pytest.raises(KeyError) as raised:
        await through(ASGIMiddleware(sending(*messages, error=error), reporter), SCOPE, [])
    assert raised.value is error
    assert (reporter.kept[0].failed, reporter.kept[0].status) == (True, status)


async def test_a_request_whose_client_has_gone_is_no_error() -> None:
    reporter = Kept()
    with pytest.raises(asyncio.CancelledError):
        await through(ASGIMiddleware(sending(error=asyncio.CancelledError()), reporter), SCOPE, [])
    assert (reporter.kept[0].failed, reporter.kept[0].status) == (False, None)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"type": "websocket.accept"}, 101),
        ({"type": "websocket.close"}, 403),
        ({"type": "websocket.http.response.start", "status": 401}, 401),
    ],
)
async def test_a_websocket_is_reported_by_its_handshake(message: dict[str, Any], status: int) -> None:
    reporter = Kept()
    scope = {name: value for name, value in SCOPE.items() if name != "method"} | {"type": "websocket", "scheme": "ws"}
    close = {"type": "websocket.close"}
    assert await through(ASGIMiddleware(sending(message, close), reporter), scope, []) == [message, close]
    (seen,) = reporter.kept
    assert (seen.method, seen.status, seen.milliseconds) == ("GET", status, None)


async def test_what_is_skipped_is_not_reported() -> None:
    reporter = Kept(skip=("/health", "/static/"), skip_if=lambda method, path: path == "/probe" or method == "TRACE")
    app = ASGIMiddleware(sending(START, END), reporter)
    for path in ("/health", "/health/live", "/static/a", "/probe"):
        await through(app, SCOPE | {"path": path}, [])
    assert reporter.kept == []
    for path in ("/healthy", "/static"):
        await through(app, SCOPE | {"path": path}, [])
    assert len(reporter.kept) == 1 + 1


async def test_what_the_host_s_own_hook_raises_is_counted_and_nobody_notices() -> None:
    def decide(method: str, path: str) -> bool:
        raise RuntimeError(method + path)

    reporter = Kept(skip_if=decide)
    assert await through(ASGIMiddleware(sending(START, END), reporter), SCOPE, []) == [START, END]
    assert reporter.stats().errors == 1


LIFE = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
LIVED = [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


async def test_an_application_that_knows_no_lifespan_is_lent_one() -> None:
    reporter = Kept()
    app = ASGIMiddleware(sending(error=ValueError("it takes HTTP only")), reporter)
    assert await through(app, {"type": "lifespan"}, LIFE) == LIVED


async def test_an_error_at_the_start_is_the_application_s_own() -> None:
    async def app(_: Any, receive: Any, __: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        await through(ASGIMiddleware(app, Kept()), {"type": "lifespan"}, LIFE)


async def test_other_protocols_pass_by() -> None:
    reporter = Kept()
    assert await through(ASGIMiddleware(sending({"type": "x"}), reporter), {"type": "webtransport"}, []) == [
        {"type": "x"}
    ]
    assert reporter.kept == []
