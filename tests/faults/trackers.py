"""Clients as trackers are: of Matomo's bulks, of microticks, and of the pixel, which sends nothing again."""

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
    """Sends bulks as Matomo's trackers do, in which everything has its time."""

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

        async def send() -> None:
            answer = await self.post("/matomo.php", body)
            assert answer == {"status": "success", "tracked": len(marks), "invalid": 0}

        await self.retry_until_acknowledged(send)


class MicroticksClient(RetryingHttpClient):
    """Has sessions as an exhibit does, with a click for each mark; each request has a key of its own.

    Args:
        sent: see `RetryingClient`; a session's start and stop are noted by their identities.
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
        """Send one request until it is answered, and return the answer."""
        answers: list[Any] = []

        async def send() -> None:
            answers.append(await self.post(path, urlencode(fields).encode(), FORM_CONTENT_TYPE, idempotency_key))

        await self.retry_until_acknowledged(send)
        return answers[-1]


class PixelClient(RetryingClient):
    """Asks for pictures as a page does, each only once.

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
            # By hand: aiohttp's client would ask once more where the connection breaks.
            async with open_connection(self._port) as (reader, writer):
                writer.write(f"GET /tick.gif?id=crash&mark={mark} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
                head, _, picture = (await reader.read(-1)).partition(b"\r\n\r\n")
        if not picture:
            raise EOFError
        assert head.split()[1] == b"200"
        if b"X-Metronome-Error" in head:
            raise ServerBusyError(head)
