"""A client that resends unacknowledged events unchanged until they are acknowledged.

It also loses responses of servers that keep running: sometimes it disconnects before the response arrives.
"""

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import aiohttp
import orjson

from tests.faults.rounds import SentEvents
from tests.servers import unique_name

HOST: Final = "127.0.0.1"
RESPONSE_TIMEOUT_SECONDS: Final = 30.0
CONNECTION_ERRORS: Final = (aiohttp.ClientError, OSError, EOFError, TimeoutError)
"""Errors that mean that no acknowledgement was received."""

_RETRY_SECONDS: Final = 0.02
_DISCONNECT_PROBABILITY: Final = 0.1
_DISCONNECT_SECONDS: Final = 0.03
_MAX_AGE: Final = timedelta(hours=20)

Attempt = Callable[[], Awaitable[None]]
"""Sends something, and returns once it is acknowledged or raises one of `CONNECTION_ERRORS`; can be called again."""


class ServerBusyError(OSError):
    """The server asks the client to retry later."""


class RetryingClient(ABC):
    """A client of one protocol.

    Attributes:
        name: of the protocol; the prefix of the client's marks.
        batch_sizes: numbers of events per batch, chosen with equal probability.

    Args:
        sent: records the events that the client sends.

    """

    name: ClassVar[str]
    batch_sizes: ClassVar[tuple[int, ...]] = (1, 1, 1, 40)

    def __init__(self, sent: SentEvents) -> None:
        self.sent = sent
        self.random = random.Random(unique_name())

    async def send(self, stop: asyncio.Event) -> None:
        """Send until *stop* is set, and finish the current batch."""
        while not stop.is_set():
            marks = [unique_name(self.name) for _ in range(self.random.choice(self.batch_sizes))]
            self.sent.attempted.update(marks)
            with contextlib.suppress(*CONNECTION_ERRORS):
                await self.send_events(marks)
                self.sent.acknowledged.update(marks)
            await asyncio.sleep(self.random.uniform(0, _RETRY_SECONDS))

    @abstractmethod
    async def send_events(self, marks: list[str]) -> None:
        """Send new events with these marks, and return once all are acknowledged.

        Raises:
            OSError, EOFError, TimeoutError: they were not acknowledged, and must not be resent.

        """

    async def retry_until_acknowledged(self, attempt: Attempt) -> None:
        """Repeat the attempt until it is acknowledged."""
        while True:
            disconnects = self.random.random() < _DISCONNECT_PROBABILITY
            timeout = self.random.uniform(0, _DISCONNECT_SECONDS) if disconnects else RESPONSE_TIMEOUT_SECONDS
            with contextlib.suppress(*CONNECTION_ERRORS):
                async with asyncio.timeout(timeout):
                    return await attempt()
            await asyncio.sleep(_RETRY_SECONDS)

    def random_time(self) -> datetime:
        """Return a time of today or yesterday, with milliseconds that make it almost unique."""
        moment = datetime.now(UTC) - self.random.random() * _MAX_AGE
        return moment.replace(microsecond=self.random.randint(1, 999) * 1000)


class RetryingHttpClient(RetryingClient):
    """A client of a protocol over HTTP.

    Args:
        sent: see `RetryingClient`.
        http: a session with the server's URL as base.

    """

    def __init__(self, sent: SentEvents, http: aiohttp.ClientSession) -> None:
        super().__init__(sent)
        self._http = http

    async def post(
        self, path: str, body: bytes, content_type: str = "application/json", idempotency_key: str = ""
    ) -> Any:
        """Send a body once, and return the parsed response.

        Raises:
            ServerBusyError: the status is 429 or 503.

        """
        headers = {"Content-Type": content_type, **({"Idempotency-Key": idempotency_key} if idempotency_key else {})}
        async with self._http.post(path, data=body, headers=headers) as response:
            content = await response.read()
        if response.status in {429, 503}:
            raise ServerBusyError(content)
        assert response.status == 200, content
        return orjson.loads(content)


@contextlib.asynccontextmanager
async def open_connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection to a local port, and close it after the block."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
