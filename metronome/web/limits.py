"""Turns: of what may take seconds, few are worked on at once, and a few more wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from metronome.errors import Busy

AT_ONCE: Final = 2
"""Fewer than a store answers at once, so that what is quick never waits for these."""
MOST_WAITING: Final = 64
PATIENCE_SECONDS: Final = 30.0
"""Who waits for longer has mostly gone."""


class Turns:
    """Turns at something, in the order in which they are asked for.

    Args:
        at_once: how many may have theirs at once.
        most_waiting: how many more may wait.
        patience: for how many seconds each waits.

    """

    def __init__(
        self, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._most_waiting = most_waiting
        self._patience = patience

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Have a turn while the block runs.

        Raises:
            Busy: as many wait as may, or it did not come in time.

        """
        if self._free.locked() and self._waiting >= self._most_waiting:
            raise Busy(f"{self._waiting} other questions wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise Busy(f"other questions took over {self._patience:g} s") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
