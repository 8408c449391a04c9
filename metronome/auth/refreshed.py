"""Data of the state that a process keeps in memory and refreshes in the background."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, Final

import structlog

log: Final = structlog.get_logger()


class RefreshedState(ABC):
    """Keeps data of the state in memory.

    While the state is unavailable, the last data stays. A problem is logged once, not at each attempt.

    Args:
        log_event: name of the log event for problems.
        refresh_seconds: how often the data is read.
        retry_seconds: how soon it is read again after a failure.

    """

    def __init__(self, log_event: str, refresh_seconds: float, retry_seconds: float) -> None:
        self._log_event = log_event
        self._refresh_seconds = refresh_seconds
        self._retry_seconds = retry_seconds
        self._refresh_lock = asyncio.Lock()
        self._last_problem: dict[str, Any] = {}

    @abstractmethod
    async def _load(self) -> dict[str, Any]:
        """Read the data from the state; return the log fields of a problem with part of it, or nothing."""

    @abstractmethod
    def _describe_failure(self, error: Exception) -> dict[str, Any]:
        """Return the log fields for an error of `_load`."""

    async def refresh(self) -> bool:
        """Read the data now; return whether that succeeded."""
        async with self._refresh_lock:
            return await self._try_load()

    @contextlib.asynccontextmanager
    async def keep_refreshed(self, first_timeout_seconds: float | None = None) -> AsyncIterator[None]:
        """Read the data, and again at intervals while the block runs.

        Args:
            first_timeout_seconds: how long the start of the block waits for the first attempt; None for no limit.

        """
        first_attempt = asyncio.Event()
        refreshing = asyncio.create_task(self._refresh_loop(first_attempt))
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(first_attempt.wait(), first_timeout_seconds)
            yield
        finally:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)

    async def _refresh_loop(self, first_attempt: asyncio.Event) -> None:
        while True:
            succeeded = await self.refresh()
            first_attempt.set()
            await asyncio.sleep(self._refresh_seconds if succeeded else self._retry_seconds)

    async def _try_load(self) -> bool:
        try:
            problem = await self._load()
        except Exception as error:  # noqa: BLE001  # the loop must go on: later attempts have to succeed
            self._log_problem(self._describe_failure(error))
            return False
        self._log_problem(problem)
        return True

    def _log_problem(self, problem: dict[str, Any]) -> None:
        if problem and problem != self._last_problem:
            log.warning(self._log_event, **problem)
        self._last_problem = problem
