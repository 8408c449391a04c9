"""Few queries run at once, a bounded number waits, and the others are rejected."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from metronome.errors import Overloaded
from metronome.web.limits import ConcurrencyLimiter, ConcurrencyLimits


def limiter(max_concurrent: int, max_waiting: int, timeout_seconds: float = 30.0) -> ConcurrencyLimiter:
    return ConcurrencyLimiter(ConcurrencyLimits(max_concurrent, max_waiting, timeout_seconds))


async def test_queries_beyond_the_limit_wait_in_order_and_the_rest_is_rejected() -> None:
    slots, order = limiter(2, 3), list[int]()
    both_running, proceed = asyncio.Event(), asyncio.Event()

    async def run(number: int) -> None:
        async with slots.acquire():
            order.append(number)
            if len(order) == 2:
                both_running.set()
            await proceed.wait()

    tasks = [asyncio.create_task(run(number)) for number in range(5)]
    await both_running.wait()
    with pytest.raises(Overloaded, match="3 other queries are already waiting"):
        async with slots.acquire():
            pass
    assert order == [0, 1]
    proceed.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    async with slots.acquire():
        pass


async def test_a_query_that_waits_too_long_is_rejected_and_frees_its_place() -> None:
    slots = limiter(1, 1, timeout_seconds=0.01)
    async with slots.acquire():
        for _ in range(3):
            with pytest.raises(Overloaded, match=r"timed out after waiting 0\.01 s"):
                async with slots.acquire():
                    pass
    async with slots.acquire():
        pass


async def test_a_slot_is_released_when_its_query_fails() -> None:
    slots = limiter(1, 0)
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            async with slots.acquire():
                raise ValueError("no")


async def test_a_cancelled_query_frees_its_place() -> None:
    slots = limiter(1, 1)
    async with AsyncExitStack() as first:
        await first.enter_async_context(slots.acquire())
        waiting = asyncio.create_task(AsyncExitStack().enter_async_context(slots.acquire()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        other = asyncio.create_task(first.enter_async_context(slots.acquire()))
        await asyncio.sleep(0)
        assert not other.done()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
