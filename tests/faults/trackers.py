"""Clients that behave like trackers: of Matomo's bulk API, of microticks, and of the pixel, which never resends."""

import asyncio
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import orjson

from metronome.times import format_timestamp
from tests.faults.rounds import SentEvents
from tests.faults.sender import (
    HOST,
    RESPONSE_TIMEOUT_SECONDS,
    RetryingClient,
    RetryingHttpClient,
    ServerBusyError,
    open_connection,
)
from tests.servers import unique_name

FORM_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"


class MatomoClient(RetryingHttpClient):
    """Send bulk requests like Matomo's trackers, with a time in each.

    Times in whole seconds do not tell a resend from equal actions, so each bulk has an idempotency key.
    """

    name = "matomo"
    batch_sizes = (2, 2, 2, 40)

    async def send_events(self, marks: list[str]) -> None:
        requests = [
            {
                "idsite": "1",
                "rec": "1",
                "url": "https://data.example.org/crash",
                "mark": mark,
                "cdt": f"{self.random_time():%Y-%m-%d %H:%M:%S}",
            }
            for mark in marks
        ]
        body = orjson.dumps({"requests": [f"?{urlencode(request)}" for request in requests]})
        key = unique_name()

        async def send() -> None:
            response = await self.post("/matomo.php", body, idempotency_key=key)
            assert response == {"status": "success", "tracked": len(marks), "invalid": 0}

        await self.retry_until_acknowledged(send)


class MicroticksClient(RetryingHttpClient):
    """Run sessions like an exhibit, with a click per mark; each request has its own idempotency key.

    Args:
        sent: see `RetryingClient`; a session's start and stop are recorded by event ID.
        http: see `RetryingHttpClient`.
        consumer_key: of the exhibit.

    """

    name = "microticks"
    batch_sizes = (1, 5, 10)

    def __init__(self, sent: SentEvents, http: aiohttp.ClientSession, consumer_key: str) -> None:
        super().__init__(sent, http)
        self._consumer_key = consumer_key

    async def send_events(self, marks: list[str]) -> None:
        name, started = unique_name(), self.random_time()
        ticks = iter(format_timestamp(started + timedelta(seconds=second)) for second in range(len(marks) + 2))
        start = {"consumer_key": self._consumer_key, "ts": next(ticks)}
        token = (await self._send_request("/sessions", start, f"{name} start"))["token"]
        self.sent.attempted.update((f"{token}-start", f"{token}-stop"))
        self.sent.acknowledged.add(f"{token}-start")
        for mark in marks:
            data = orjson.dumps({"id": "crash", "mark": mark}).decode()
            await self._send_request(
                "/events", {"token": token, "action": "click", "data": data, "ts": next(ticks)}, mark
            )
        await self._send_request("/sessions/stop", {"token": token, "ts": next(ticks)}, f"{name} stop")
        self.sent.acknowledged.add(f"{token}-stop")

    async def _send_request(self, path: str, fields: dict[str, str], idempotency_key: str) -> Any:
        """Send a request until it is acknowledged, and return the response."""
        responses: list[Any] = []

        async def send() -> None:
            responses.append(await self.post(path, urlencode(fields).encode(), FORM_CONTENT_TYPE, idempotency_key))

        await self.retry_until_acknowledged(send)
        return responses[-1]


class PixelClient(RetryingClient):
    """Load pixels like a page, each only once.

    Args:
        sent: see `RetryingClient`.
        port: of the server.

    """

    name = "pixel"
    batch_sizes = (1,)

    def __init__(self, sent: SentEvents, port: int) -> None:
        super().__init__(sent)
        self._port = port

    async def send_events(self, marks: list[str]) -> None:
        (mark,) = marks
        async with asyncio.timeout(RESPONSE_TIMEOUT_SECONDS):
            # Without aiohttp, whose client retries when the connection breaks.
            async with open_connection(self._port) as (reader, writer):
                writer.write(f"GET /tick.gif?id=crash&mark={mark} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
                head, _, image = (await reader.read(-1)).partition(b"\r\n\r\n")
        if not image:
            raise EOFError
        assert head.split()[1] == b"200"
        if b"X-Metronome-Error" in head:
            raise ServerBusyError(head)
