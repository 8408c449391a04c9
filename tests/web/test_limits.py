"""Few queries run at once, a bounded number waits, and the others are rejected."""

import asyncio
import contextlib
from contextlib import AsyncExitStack

import pytest

from metronome.errors import Overloaded, RateLimited
from metronome.web.limits import ConcurrencyLimiter, ConcurrencyLimits, RateLimiter, ReportSlots


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


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def count_allowed(rates: RateLimiter, client: str, requests: int) -> int:
    allowed = 0
    for _ in range(requests):
        with contextlib.suppress(RateLimited):
            rates.check(client)
            allowed += 1
    return allowed


def test_a_client_may_send_a_burst_and_then_its_rate() -> None:
    clock = Clock()
    rates = RateLimiter(100.0, clock)
    assert count_allowed(rates, "192.0.2.1", 2000) == 1000
    assert count_allowed(rates, "192.0.2.2", 2000) == 1000
    clock.now += 0.5
    assert count_allowed(rates, "192.0.2.1", 2000) in {49, 50, 51}
    clock.now += 3600
    assert count_allowed(rates, "192.0.2.1", 2000) == 1000


def test_there_is_no_limit_for_this_machine_or_if_it_is_off() -> None:
    assert count_allowed(RateLimiter(1.0), "", 100) == 100
    assert count_allowed(RateLimiter(0.0), "192.0.2.1", 100) == 100


def test_the_table_of_clients_is_bounded() -> None:
    clock = Clock()
    rates = RateLimiter(1.0, clock, max_clients=100)
    for number in range(10_000):
        rates.check(f"2001:db8:{number:x}::/64")
        assert len(rates._busy_until) <= 100
        clock.now += 0.001


async def test_requests_without_a_key_leave_a_slot_to_others() -> None:
    slots = ReportSlots(ConcurrencyLimiter())
    held = asyncio.Event()

    async def hold() -> None:
        async with slots.acquire(is_public=True):
            held.set()
            await asyncio.sleep(3600)

    strangers = [asyncio.create_task(hold()) for _ in range(20)]
    await held.wait()
    async with asyncio.timeout(1), slots.acquire(is_public=False), slots.acquire(is_public=True, is_cheap=True):
        pass
    for stranger in strangers:
        stranger.cancel()
    await asyncio.gather(*strangers, return_exceptions=True)
