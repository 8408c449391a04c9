"""The loop that moves what a spool holds to the store or the archive."""

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import ClassVar, Final, TypeVar

import structlog
from prometheus_client import Counter

from metronome.errors import MetronomeError, OperatorError, Unavailable
from metronome.retry import DEFAULT_BACKOFF, Backoff, retry
from metronome.spool.file import SpoolStats
from metronome.spool.reader import SpoolReader, measure

log = structlog.get_logger()

Result = TypeVar("Result")

FALLBACK_POLL_SECONDS: Final = 5.0
"""How often to check a spool without a reported commit: a worker's report may be lost when the worker is killed."""


class SpoolDamaged(Unavailable):
    """The spool's file is damaged, or cannot be read for another reason."""

    advice = "check the disk, then restart Metronome: it sets a damaged file aside and salvages what can be read"
    public_message = "the service cannot store events at the moment"


class DrainLoop(ABC):
    """Drain a spool: run until stopped, retry failed attempts, and wait for commits while the spool is empty.

    Args:
        reader: the reading end of the spool; the loop closes it.
        failures: counts failed attempts by the name of the error class.
        backoff: the delays between attempts.

    """

    failure_event: ClassVar[str]
    """The event of a failed attempt in the log."""
    crash_event: ClassVar[str]
    """The event of an unexpected exception in the log."""

    def __init__(self, reader: SpoolReader, failures: Counter, backoff: Backoff = DEFAULT_BACKOFF) -> None:
        self._reader = reader
        self._failures = failures
        self._backoff = backoff
        self._stop_event = asyncio.Event()
        self._wake_event = asyncio.Event()
        self._is_waiting = False
        self._has_crashed = False
        self._holds = 0
        self._held_event = asyncio.Event()
        self._release_event = asyncio.Event()
        self.failure: MetronomeError | None = None
        """Why the last attempt failed; None if it succeeded."""

    @property
    def is_idle(self) -> bool:
        """Whether everything was drained whose commit has been reported."""
        return self._is_waiting and not self._wake_event.is_set()

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed, for whatever reason."""
        return self.failure is not None or self._has_crashed

    async def pending_stats(self) -> SpoolStats:
        """Measure what is left to drain."""
        return await measure(self._reader.pending_stats)

    async def total_stats(self) -> SpoolStats:
        """Measure what the spool holds for any of its readers."""
        return await measure(self._reader.total_stats)

    async def spool_failure(self) -> MetronomeError | None:
        """Return why the spool's writer refuses events: its file is lost, or its disk full; None if it does not."""
        return await measure(self._reader.check_file)

    def wake(self) -> None:
        """Report a commit to the spool."""
        self._wake_event.set()

    @property
    def spool_name(self) -> str:
        """The unique and permanent name of the spool."""
        return self._reader.spool_name

    @property
    def acknowledged_seq(self) -> int:
        """The number of the last commit that was drained; 0 if there is none."""
        return self._reader.acknowledged_seq

    @property
    def is_held(self) -> bool:
        """Whether nothing further is drained until `release`."""
        return self._holds > 0

    def hold(self) -> None:
        """Drain nothing further until `release` is called as often; what is in progress is completed.

        While held, a drain loop that is stopped does not drain the rest.
        """
        self._holds += 1
        self._release_event.clear()
        self._wake_event.set()

    async def wait_until_held(self) -> None:
        """Wait until nothing is in progress, after `hold`."""
        await self._held_event.wait()

    def release(self) -> None:
        """Undo one `hold`."""
        self._holds -= 1
        if not self._holds:
            self._release_event.set()

    def stop(self) -> None:
        """Let `run` return as soon as the spool is drained."""
        self._stop_event.set()
        self._wake_event.set()
        self._release_event.set()

    def close(self) -> None:
        """Close the reader, after `run` has returned."""
        self._reader.close()

    async def run(self) -> None:
        """Drain the spool until `stop` is called and nothing is left, or the task is cancelled."""
        while True:
            try:
                return await self._drain()
            except sqlite3.DatabaseError as error:
                # The events are still in the spool, if it can be read.
                self._record_failure(SpoolDamaged(f"the spool cannot be read: {error}"), self._backoff.max_seconds)
                await self._sleep(self._backoff.max_seconds)
            except Exception:
                # The events are still in the spool.
                log.exception(self.crash_event)
                self._has_crashed = True
                await self._sleep(self._backoff.max_seconds)
                self._has_crashed = False

    @abstractmethod
    async def _drain(self) -> None:
        """Drain the spool until `_is_stopping` and nothing is left.

        It must call `_look` before it looks for new commits, and may then call `_wait`.
        """

    def _look(self) -> bool:
        """Return whether to stop once nothing is left, and notice all commits from now on."""
        self._wake_event.clear()
        # Read before the spool: what was committed before the stop is then found.
        return self._stop_event.is_set()

    async def _wait_for_release(self) -> None:
        """Wait until `release`, or `stop`; call this while held, when nothing is in progress."""
        self._held_event.set()
        try:
            await self._release_event.wait()
        finally:
            self._held_event.clear()

    async def _wait(self, seconds: float = FALLBACK_POLL_SECONDS) -> None:
        """Wait until a commit since `_look`, `stop`, or for the given time."""
        self._is_waiting = True
        try:
            with suppress(TimeoutError):
                # Not `wait_for`, which may ignore a cancellation.
                async with asyncio.timeout(seconds):
                    await self._wake_event.wait()
        finally:
            self._is_waiting = False

    async def _sleep(self, seconds: float) -> None:
        """Sleep; but once stopped, no longer than the first delay of the backoff."""
        if self._stop_event.is_set():
            await asyncio.sleep(min(seconds, self._backoff.first_seconds))
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stop_event.wait()

    async def _retry(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        result = await retry(operation, self._backoff, on_retry=self._record_failure, sleep=self._sleep)
        self._set_failure(None)
        return result

    def _record_failure(self, error: MetronomeError, delay_seconds: float) -> None:
        self._set_failure(error)
        self._failures.labels(type(error).__name__).inc()
        level = log.error if isinstance(error, OperatorError) else log.warning
        level(self.failure_event, error=str(error), advice=error.advice, retry_seconds=round(delay_seconds, 1))

    def _set_failure(self, failure: MetronomeError | None) -> None:
        self.failure = failure
