"""Retry operations that may succeed later, with exponential backoff and jitter.

This is the only retry loop, except that of `metronome.middleware`, which has no dependencies.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception

from metronome.errors import MetronomeError

Result = TypeVar("Result")

_JITTER: Final = 0.25
_MAX_DOUBLINGS: Final = 60


class Backoff(NamedTuple):
    """The delays between attempts: they double, and each is off by up to a quarter, so that clients spread out.

    Attributes:
        first_seconds: the delay after the first failure.
        max_seconds: the longest delay.

    """

    first_seconds: float
    max_seconds: float

    def delay_after(self, attempts: int) -> float:
        """Return the delay after a number of failed attempts, in seconds."""
        doubled = self.first_seconds * 2.0 ** min(max(0, attempts - 1), _MAX_DOUBLINGS)
        return min(doubled * random.uniform(1 - _JITTER, 1 + _JITTER), self.max_seconds)  # noqa: S311  # not for secrets


DEFAULT_BACKOFF: Final = Backoff(0.25, 30.0)


def is_retryable(error: BaseException) -> bool:
    """Return whether the same call may succeed later (see `MetronomeError.retry`)."""
    return isinstance(error, MetronomeError) and error.retry


async def retry(
    operation: Callable[[], Awaitable[Result]],
    backoff: Backoff = DEFAULT_BACKOFF,
    *,
    should_retry: Callable[[BaseException], bool] = is_retryable,
    on_retry: Callable[[Any, float], None] | None = None,
    timeout_seconds: float | None = None,
    max_attempts: int | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Result:
    """Return the result of an operation, once it succeeds.

    Args:
        operation: is called for each attempt. An error may ask for a longer delay by ``retry_after_seconds``.
        backoff: the delays between attempts.
        should_retry: returns whether to try again after an error.
        on_retry: is called before each delay with the error and the delay in seconds.
        timeout_seconds: how long to try again after the first failure; None for as long as it takes.
        max_attempts: how often to try; None for any number of times.
        sleep: waits for a number of seconds; it may return early.

    Raises:
        Exception: the error of the last attempt.

    """

    async def attempt() -> Result:
        return await operation()

    retrying = AsyncRetrying(sleep=sleep, **_options(backoff, should_retry, on_retry, timeout_seconds, max_attempts))
    return await retrying(attempt)


def retry_blocking(
    operation: Callable[[], Result],
    backoff: Backoff = DEFAULT_BACKOFF,
    *,
    should_retry: Callable[[BaseException], bool] = is_retryable,
    on_retry: Callable[[Any, float], None] | None = None,
    timeout_seconds: float | None = None,
    max_attempts: int | None = None,
) -> Result:
    """Return the result of an operation, once it succeeds, and block the thread until then (see `retry`)."""
    return Retrying(**_options(backoff, should_retry, on_retry, timeout_seconds, max_attempts))(operation)


def _options(
    backoff: Backoff,
    should_retry: Callable[[BaseException], bool],
    on_retry: Callable[[Any, float], None] | None,
    timeout_seconds: float | None,
    max_attempts: int | None,
) -> dict[str, Any]:
    def report(state: RetryCallState) -> None:
        if on_retry is not None and state.outcome is not None and state.next_action is not None:
            on_retry(state.outcome.exception(), state.next_action.sleep)

    schedule = _Schedule(backoff, timeout_seconds, max_attempts)
    return {
        "retry": retry_if_exception(should_retry),
        "wait": schedule.delay,
        "stop": schedule.is_over,
        "before_sleep": report,
        "reraise": True,
    }


class _Schedule:
    """Computes delays, and when to give up: the timeout starts with the first failure."""

    def __init__(self, backoff: Backoff, timeout_seconds: float | None, max_attempts: int | None) -> None:
        self._backoff = backoff
        self._timeout_seconds = timeout_seconds
        self._max_attempts = max_attempts
        self._deadline: float | None = None

    def delay(self, state: RetryCallState) -> float:
        seconds = self._backoff.delay_after(state.attempt_number)
        error = state.outcome.exception() if state.outcome is not None else None
        seconds = max(seconds, float(getattr(error, "retry_after_seconds", 0.0)))
        return seconds if self._timeout_seconds is None else min(seconds, self._remaining(self._timeout_seconds))

    def is_over(self, state: RetryCallState) -> bool:
        if self._max_attempts is not None and state.attempt_number >= self._max_attempts:
            return True
        return self._timeout_seconds is not None and self._remaining(self._timeout_seconds) <= 0

    def _remaining(self, timeout_seconds: float) -> float:
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + timeout_seconds
        return max(0.0, self._deadline - now)
