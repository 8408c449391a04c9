"""Trying again: what a store or an archive that is away asks of those who bring it something."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from metronome.errors import MetronomeError

Result = TypeVar("Result")

BACKOFF_SECONDS: Final = (0.25, 30.0)
"""The first pause and the longest, in seconds."""


class RetryPolicy:
    """Does what may fail for a while again and again, at growing and jittered pauses.

    Args:
        on_retry: called with each error that lets it try again, and with the pause that follows, in seconds.
        backoff: how long to wait before the first such time, and at the most, in seconds.

    """

    def __init__(
        self, on_retry: Callable[[MetronomeError, float], None], backoff: tuple[float, float] = BACKOFF_SECONDS
    ) -> None:
        self._on_retry = on_retry
        self._initial_delay, self.max_delay = backoff
        self._stop_event = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether an end was asked for."""
        return self._stop_event.is_set()

    def stop(self) -> None:
        """Make no long pauses any more."""
        self._stop_event.set()

    async def call(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return what *work* does, once it succeeds.

        Raises:
            MetronomeError: one that trying again does not help.

        """
        pause = self.initial_delay()
        while True:
            try:
                return await work()
            except MetronomeError as error:
                if not error.retry:
                    raise
                self._on_retry(error, pause)
                await self.sleep(pause)
                pause = min(_jittered(pause * 2), self.max_delay)

    def initial_delay(self) -> float:
        """Return about the first pause, in seconds."""
        return _jittered(self._initial_delay)

    async def sleep(self, seconds: float) -> None:
        """Wait; but once an end was asked for, no longer than the first pause."""
        if self._stop_event.is_set():
            await asyncio.sleep(min(seconds, self._initial_delay))
            return
        ending = asyncio.ensure_future(self._stop_event.wait())
        await asyncio.wait([ending], timeout=seconds)
        ending.cancel()


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311  # spreads retries, hides nothing
