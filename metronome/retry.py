"""Trying again: what a store or an archive that is away asks of those who bring it something."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from metronome.errors import MetronomeError

Result = TypeVar("Result")

PAUSES: Final = (0.25, 30.0)
"""The first pause and the longest, in seconds."""


class Patience:
    """Does what may fail for a while again and again, at growing and jittered pauses.

    Args:
        noted: called with each error that lets it try again, and with the pause that follows, in seconds.
        pauses: how long to wait before the first such time, and at the most, in seconds.

    """

    def __init__(self, noted: Callable[[MetronomeError, float], None], pauses: tuple[float, float] = PAUSES) -> None:
        self._noted = noted
        self._first_pause, self.longest_pause = pauses
        self._ending = asyncio.Event()

    @property
    def is_ending(self) -> bool:
        """Whether an end was asked for."""
        return self._ending.is_set()

    def end_soon(self) -> None:
        """Make no long pauses any more."""
        self._ending.set()

    async def insist(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return what *work* does, once it succeeds.

        Raises:
            MetronomeError: one that trying again does not help.

        """
        pause = self.short_pause()
        while True:
            try:
                return await work()
            except MetronomeError as error:
                if not error.retry:
                    raise
                self._noted(error, pause)
                await self.sleep(pause)
                pause = min(_jittered(pause * 2), self.longest_pause)

    def short_pause(self) -> float:
        """Return about the first pause, in seconds."""
        return _jittered(self._first_pause)

    async def sleep(self, seconds: float) -> None:
        """Wait; but once an end was asked for, no longer than the first pause."""
        if self._ending.is_set():
            await asyncio.sleep(min(seconds, self._first_pause))
            return
        ending = asyncio.ensure_future(self._ending.wait())
        await asyncio.wait([ending], timeout=seconds)
        ending.cancel()


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311  # spreads retries, hides nothing
