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

from tests.faults.rounds import Sent
from tests.servers import unique_name

HOST: Final = "127.0.0.1"
ANSWER_SECONDS: Final = 30.0
UNHEARD: Final = (aiohttp.ClientError, OSError, EOFError, TimeoutError)
"""What says that no acknowledgement came."""

_PAUSE_SECONDS: Final = 0.02
_HANGS_UP_SHARE: Final = 0.1
_HANGS_UP_SECONDS: Final = 0.03
_OLDEST: Final = timedelta(hours=20)

Attempt = Callable[[], Awaitable[None]]
"""Sends something, and returns once it is acknowledged; else raises one of `UNHEARD`. It may be called again."""


class Busy(OSError):
    """The server asks to be sent the same later."""


class Sender(ABC):
    """One client.

    Attributes:
        name: of its protocol; its marks begin with it.
        sizes: how many events it sends at once, one as often as the other.

    Args:
        sent: where it notes what it sends.

    """

    name: ClassVar[str]
    sizes: ClassVar[tuple[int, ...]] = (1, 1, 1, 40)

    def __init__(self, sent: Sent) -> None:
        self.sent = sent
        self.choice = random.Random(unique_name())

    async def send(self, over: asyncio.Event) -> None:
        """Send until it is over; what was begun by then is brought to its end."""
        while not over.is_set():
            marks = [unique_name(self.name) for _ in range(self.choice.choice(self.sizes))]
            self.sent.tried.update(marks)
            with contextlib.suppress(*UNHEARD):
                await self.deliver(marks)
                self.sent.acknowledged.update(marks)
            await asyncio.sleep(self.choice.uniform(0, _PAUSE_SECONDS))

    @abstractmethod
    async def deliver(self, marks: list[str]) -> None:
        """Send new events, each with its mark, and return once all are acknowledged.

        Raises:
            OSError, EOFError, TimeoutError: they were not, and are not to be sent again.

        """

    async def until_acknowledged(self, attempt: Attempt) -> None:
        """Try until it is acknowledged."""
        while True:
            hangs_up = self.choice.random() < _HANGS_UP_SHARE
            patience = self.choice.uniform(0, _HANGS_UP_SECONDS) if hangs_up else ANSWER_SECONDS
            with contextlib.suppress(*UNHEARD):
                async with asyncio.timeout(patience):
                    return await attempt()
            await asyncio.sleep(_PAUSE_SECONDS)

    def moment(self) -> datetime:
        """Return a time of today or yesterday with milliseconds, which tell a single document from others."""
        moment = datetime.now(UTC) - self.choice.random() * _OLDEST
        return moment.replace(microsecond=self.choice.randint(1, 999) * 1000)


class HttpSender(Sender):
    """One client over HTTP.

    Args:
        sent: see `Sender`.
        http: knows where the server is.

    """

    def __init__(self, sent: Sent, http: aiohttp.ClientSession) -> None:
        super().__init__(sent)
        self._http = http

    async def post(self, path: str, body: bytes, content_type: str = "application/json", again: str = "") -> Any:
        """Send a body once, with an idempotency key if there is one, and return the answer."""
        headers = {"Content-Type": content_type, **({"Idempotency-Key": again} if again else {})}
        async with self._http.post(path, data=body, headers=headers) as answer:
            content = await answer.read()
        if answer.status in {429, 503}:
            raise Busy(content)
        assert answer.status == 200, content
        return orjson.loads(content)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Have a connection to a port of this machine while the block runs."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
