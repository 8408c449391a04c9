"""Turns: few at once, a few more waiting, and a word to the others."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from metronome.errors import Overloaded
from metronome.web.limits import ConcurrencyLimiter


async def test_as_many_as_may_have_their_turn_and_the_others_wait_in_order() -> None:
    turns, order = ConcurrencyLimiter(max_concurrent=2, max_waiting=3), list[int]()
    begun, go = asyncio.Event(), asyncio.Event()

    async def take(number: int) -> None:
        async with turns.acquire():
            order.append(number)
            if len(order) == 2:
                begun.set()
            await go.wait()

    tasks = [asyncio.create_task(take(number)) for number in range(5)]
    await begun.wait()
    with pytest.raises(Overloaded, match="3 other questions wait already"):
        async with turns.acquire():
            pass
    assert order == [0, 1]
    go.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    async with turns.acquire():
        pass


async def test_whoever_waits_too_long_is_told_so_and_leaves_the_place() -> None:
    turns = ConcurrencyLimiter(max_concurrent=1, max_waiting=1, timeout_seconds=0.01)
    async with turns.acquire():
        for _ in range(3):
            with pytest.raises(Overloaded, match=r"took over 0\.01 s"):
                async with turns.acquire():
                    pass
    async with turns.acquire():
        pass


async def test_a_turn_ends_whatever_happens_in_it() -> None:
    turns = ConcurrencyLimiter(max_concurrent=1, max_waiting=0)
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            async with turns.acquire():
                raise ValueError("no")


async def test_whoever_is_called_off_while_waiting_leaves_the_place() -> None:
    turns = ConcurrencyLimiter(max_concurrent=1, max_waiting=1)
    async with AsyncExitStack() as first:
        await first.enter_async_context(turns.acquire())
        waiting = asyncio.create_task(AsyncExitStack().enter_async_context(turns.acquire()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        other = asyncio.create_task(first.enter_async_context(turns.acquire()))
        await asyncio.sleep(0)
        assert not other.done()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
