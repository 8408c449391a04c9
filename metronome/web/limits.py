"""Limits on how many expensive queries run at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from aiohttp import web

from metronome.errors import Overloaded


class ConcurrencyLimits(NamedTuple):
    """How many queries of one kind may run, and how many may wait.

    Attributes:
        max_concurrent: how many run at once.
        max_waiting: how many more may wait.
        timeout_seconds: how long each may wait.

    """

    max_concurrent: int
    max_waiting: int
    timeout_seconds: float


QUERY_LIMITS: Final = ConcurrencyLimits(2, 64, 30.0)
"""Fewer than a store runs at once, so that cheap reports never wait for these. After 30 s most clients have gone."""
PAGE_LIMITS: Final = ConcurrencyLimits(1, 32, 15.0)
"""Pages also take a slot of `QUERY_LIMITS` each: one is left for other queries, however many pages are requested."""
COUNTER_ITEM_LIMITS: Final = ConcurrencyLimits(2, 64, 8.0)
"""With the 50 s that counting may take, less than the minute that a worker waits for the main process."""
COUNTER_SITE_LIMITS: Final = ConcurrencyLimits(1, 4, 8.0)


class ConcurrencyLimiter:
    """Limit how many queries run at once; a bounded number may wait, in order of arrival."""

    def __init__(self, limits: ConcurrencyLimits = QUERY_LIMITS) -> None:
        self._limits = limits
        self._semaphore = asyncio.Semaphore(limits.max_concurrent)
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def acquire(self, request: web.Request | None = None) -> AsyncIterator[None]:
        """Hold a slot while the block runs.

        Args:
            request: its client may disconnect while it waits; the block then does not run.

        Raises:
            Overloaded: too many queries wait, the wait timed out, or the client has disconnected.

        """
        if self._semaphore.locked() and self._waiting >= self._limits.max_waiting:
            raise Overloaded(f"{self._waiting} other queries are already waiting")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                await self._semaphore.acquire()
        except TimeoutError:
            raise Overloaded(f"timed out after waiting {self._limits.timeout_seconds:g} s for other queries") from None
        finally:
            self._waiting -= 1
        try:
            if request is not None and (request.transport is None or request.transport.is_closing()):
                raise Overloaded("the client disconnected while its query waited")
            yield
        finally:
            self._semaphore.release()
