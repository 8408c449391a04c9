"""A client that sends what was not acknowledged again as it was, until it is.

A reply is lost to it also where the server lives on: now and then it hangs up before the reply comes.
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
"""What says that no acknowledgement came."""

_RETRY_SECONDS: Final = 0.02
_DISCONNECT_PROBABILITY: Final = 0.1
_DISCONNECT_SECONDS: Final = 0.03
_MAX_AGE: Final = timedelta(hours=20)

Attempt = Callable[[], Awaitable[None]]
"""Send something and return once it is acknowledged, or raise one of `CONNECTION_ERRORS`; may be called again."""


class ServerBusyError(OSError):
    """The server asks to be sent the same later."""


class RetryingClient(ABC):
    """One client.

    Attributes:
        name: of its protocol; its marks begin with it.
        sizes: how many events it sends at once, one as often as the other.

    Args:
        sent: where it notes what it sends.

    """

    name: ClassVar[str]
    batch_sizes: ClassVar[tuple[int, ...]] = (1, 1, 1, 40)

    def __init__(self, sent: SentEvents) -> None:
        self.sent = sent
        self.random = random.Random(unique_name())

    async def send(self, stop: asyncio.Event) -> None:
        """Send until it is over; what was begun by then is brought to its end."""
        while not stop.is_set():
            marks = [unique_name(self.name) for _ in range(self.random.choice(self.batch_sizes))]
            self.sent.attempted.update(marks)
            with contextlib.suppress(*CONNECTION_ERRORS):
                await self.send_events(marks)
                self.sent.acknowledged.update(marks)
            await asyncio.sleep(self.random.uniform(0, _RETRY_SECONDS))

    @abstractmethod
    async def send_events(self, marks: list[str]) -> None:
        """Send new events, each with its mark, and return once all are acknowledged.

        Raises:
            OSError, EOFError, TimeoutError: they were not, and are not to be sent again.

        """

    async def retry_until_acknowledged(self, attempt: Attempt) -> None:
        """Try until it is acknowledged."""
        while True:
            hangs_up = self.random.random() < _DISCONNECT_PROBABILITY
            patience = self.random.uniform(0, _DISCONNECT_SECONDS) if hangs_up else RESPONSE_TIMEOUT_SECONDS
            with contextlib.suppress(*CONNECTION_ERRORS):
                async with asyncio.timeout(patience):
                    return await attempt()
            await asyncio.sleep(_RETRY_SECONDS)

    def random_time(self) -> datetime:
        """Return a time of today or yesterday with milliseconds, which tell a single document from others."""
        moment = datetime.now(UTC) - self.random.random() * _MAX_AGE
        return moment.replace(microsecond=self.random.randint(1, 999) * 1000)


class RetryingHttpClient(RetryingClient):
    """One client over HTTP.

    Args:
        sent: see `RetryingClient`.
        http: knows where the server is.

    """

    def __init__(self, sent: SentEvents, http: aiohttp.ClientSession) -> None:
        super().__init__(sent)
        self._http = http

    async def post(
        self, path: str, body: bytes, content_type: str = "application/json", idempotency_key: str = ""
    ) -> Any:
        """Send a body once, with an idempotency key if there is one, and return the answer."""
        headers = {"Content-Type": content_type, **({"Idempotency-Key": idempotency_key} if idempotency_key else {})}
        async with self._http.post(path, data=body, headers=headers) as answer:
            content = await answer.read()
        if answer.status in {429, 503}:
            raise ServerBusyError(content)
        assert answer.status == 200, content
        return orjson.loads(content)


@contextlib.asynccontextmanager
async def open_connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Have a connection to a port of this machine while the block runs."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
