"""Turns: of what may take seconds, few are worked on at once, and a few more wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from metronome.errors import Overloaded

MAX_CONCURRENT: Final = 2
"""Fewer than a store answers at once, so that what is quick never waits for these."""
MAX_WAITING: Final = 64
WAIT_TIMEOUT_SECONDS: Final = 30.0
"""Who waits for longer has mostly gone."""


class ConcurrencyLimiter:
    """Turns at something, in the order in which they are asked for.

    Args:
        max_concurrent: how many may have theirs at once.
        max_waiting: how many more may wait.
        timeout_seconds: for how many seconds each waits.

    """

    def __init__(
        self,
        max_concurrent: int = MAX_CONCURRENT,
        max_waiting: int = MAX_WAITING,
        timeout_seconds: float = WAIT_TIMEOUT_SECONDS,
    ) -> None:
        self._semaphore = asyncio.Semaphore(max_concurrent)
        self._waiting = 0
        self._max_waiting = max_waiting
        self._timeout_seconds = timeout_seconds

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Have a turn while the block runs.

        Raises:
            Busy: as many wait as may, or it did not come in time.

        """
        if self._semaphore.locked() and self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} other questions wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._semaphore.acquire()
        except TimeoutError:
            raise Overloaded(f"other questions took over {self._timeout_seconds:g} s") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._semaphore.release()
