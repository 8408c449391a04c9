"""Operations are retried with growing delays, within limits."""

import asyncio
from collections.abc import Callable

import pytest

from metronome.errors import Malformed, StoreUnavailable
from metronome.retry import Backoff, retry, retry_blocking

FAST = Backoff(0.001, 0.004)


class Operation:
    """Fails a number of times, then returns how often it was called."""

    def __init__(self, failures: int, error: Callable[[str], Exception] = StoreUnavailable) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def run(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"failure {self.calls}")
        return self.calls

    async def run_async(self) -> int:
        return self.run()


class RetryAfter(StoreUnavailable):
    """Asks for a delay."""

    retry_after_seconds = 7.0


async def delays_of(operation: Operation, backoff: Backoff) -> list[float]:
    """Return the delays between attempts, in seconds, without sleeping."""
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    await retry(operation.run_async, backoff, sleep=sleep)
    return delays


async def test_retries_until_the_operation_succeeds() -> None:
    reported: list[str] = []
    result = await retry(Operation(3).run_async, FAST, on_retry=lambda error, _: reported.append(str(error)))
    assert result == 4
    assert reported == ["failure 1", "failure 2", "failure 3"]


async def test_delays_double_with_jitter_up_to_the_maximum() -> None:
    delays = await delays_of(Operation(2000), Backoff(1.0, 10.0))
    for delay, doubled in zip(delays, [1, 2, 4, 8], strict=False):
        assert doubled * 0.75 <= delay <= min(doubled * 1.25, 10)
    assert set(delays[5:]) == {10.0}
    assert len({*delays[:3]}) == 3


async def test_an_error_may_ask_for_a_longer_delay() -> None:
    assert await delays_of(Operation(2, RetryAfter), FAST) == [7.0, 7.0]


async def test_an_error_that_retrying_does_not_help_is_raised() -> None:
    operation = Operation(1, Malformed)
    with pytest.raises(Malformed, match="failure 1"):
        await retry(operation.run_async, FAST)
    assert operation.calls == 1


async def test_the_last_error_is_raised_after_the_timeout() -> None:
    operation = Operation(10**6)
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable, match="failure"):
            await retry(operation.run_async, FAST, timeout_seconds=0.02)
    assert operation.calls > 2


async def test_the_last_error_is_raised_after_the_maximum_number_of_attempts() -> None:
    operation = Operation(10)
    with pytest.raises(StoreUnavailable, match="failure 3"):
        await retry(operation.run_async, FAST, max_attempts=3)


def test_a_thread_is_blocked_until_the_operation_succeeds() -> None:
    assert retry_blocking(Operation(2).run, FAST) == 3
    with pytest.raises(StoreUnavailable):
        retry_blocking(Operation(10**6).run, FAST, timeout_seconds=0.01)
