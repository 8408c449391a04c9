"""Sharing: any number of processes work on one state, and of two at once one wins."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import pytest

from metronome.state.base import State
from tests.contracts.state.opening import StateContract

RECORD_COUNT: Final = 10_500
CONCURRENT_WRITERS: Final = 10
COMPETING_CLIENTS: Final = 4
ROUNDS: Final = 10


class StateConcurrencyTests(StateContract):
    """What one has written the others read, and nobody overwrites what they have not seen."""

    async def test_writes_are_visible_to_other_clients_immediately(self, state: State, other: State) -> None:
        assert await other.get_all("key") == {}
        await state.add("key", "a", {"n": 1})
        assert await other.get("key", "a") == {"n": 1}
        assert await other.get_all("key") == {"a": {"n": 1}}
        assert not await other.add("key", "a", {"n": 2})
        assert await other.compare_and_swap("key", "a", {"n": 1}, {"n": 2})
        assert await state.get("key", "a") == {"n": 2}
        assert await state.get_all("key") == {"a": {"n": 2}}
        assert await other.remove("key", "a")
        assert await state.get("key", "a") is None
        assert await state.get_all("key") == {}

    async def test_records_persist_after_close(self, open_state: Callable[[], State]) -> None:
        first = open_state()
        await first.setup()
        await first.add("key", "a", {"n": 1})
        await first.close()
        second = open_state()
        await second.setup()
        assert await second.get_all("key") == {"a": {"n": 1}}
        await second.close()

    async def test_setup_is_idempotent_and_concurrent(self, open_state: Callable[[], State]) -> None:
        states = [open_state() for _ in range(COMPETING_CLIENTS)]
        await asyncio.gather(*(state.setup() for state in states))
        assert await states[0].add("key", "a", {"n": 1})
        await asyncio.gather(*(state.setup() for state in states))
        assert [await state.get("key", "a") for state in states] == [{"n": 1}] * COMPETING_CLIENTS
        await asyncio.gather(*(state.close() for state in states))
        await asyncio.gather(*(state.close() for state in states))

    async def test_one_of_concurrent_first_adds_succeeds(self, open_state: Callable[[], State]) -> None:
        states = [open_state() for _ in range(COMPETING_CLIENTS)]
        won = await asyncio.gather(*(state.add("key", "a", {"by": by}) for by, state in enumerate(states)))
        assert sorted(won) == [False] * (COMPETING_CLIENTS - 1) + [True]
        assert await states[0].get("key", "a") == {"by": won.index(True)}
        await asyncio.gather(*(state.close() for state in states))

    async def test_one_of_concurrent_adds_succeeds(self, state: State, other: State) -> None:
        for number in range(ROUNDS):
            name = str(number)
            won = await asyncio.gather(
                *(each.add("key", name, {"by": by}) for by, each in enumerate((state, other) * COMPETING_CLIENTS))
            )
            assert won.count(True) == 1
            assert await other.get("key", name) == {"by": won.index(True)}

    async def test_one_of_concurrent_swaps_succeeds(self, state: State, other: State) -> None:
        await state.add("key", "a", {"round": 0})
        before: dict[str, int] = {"round": 0}
        for number in range(1, ROUNDS + 1):
            afters = [{"round": number, "by": by} for by in range(2 * COMPETING_CLIENTS)]
            won = await asyncio.gather(
                *(
                    each.compare_and_swap("key", "a", before, after)
                    for each, after in zip((state, other) * COMPETING_CLIENTS, afters, strict=True)
                )
            )
            assert won.count(True) == 1
            before = afters[won.index(True)]
            assert await other.get("key", "a") == before

    async def test_one_of_concurrent_removes_succeeds(self, state: State, other: State) -> None:
        await state.add("key", "a", {})
        assert sorted(await asyncio.gather(state.remove("key", "a"), other.remove("key", "a"))) == [False, True]

    async def test_concurrent_increments_are_not_lost(self, state: State, other: State) -> None:
        await state.add("count", "a", {"n": 0})
        await asyncio.gather(*(_increment(each, ROUNDS) for each in (state, other)))
        assert await state.get("count", "a") == {"n": 2 * ROUNDS}

    @pytest.mark.slow  # Elasticsearch returns at most 10,000 records at once
    async def test_lists_more_records_than_one_page(self, state: State, other: State) -> None:
        names = [f"name {number:05}" for number in range(RECORD_COUNT)]
        await asyncio.gather(
            *(_add_all(state, names[start::CONCURRENT_WRITERS]) for start in range(CONCURRENT_WRITERS))
        )
        found = await other.get_all("key")
        assert list(found) == names
        assert all(record == {"name": name} for name, record in found.items())


async def _increment(state: State, times: int) -> None:
    while times:
        before = await state.get("count", "a")
        assert before is not None
        times -= await state.compare_and_swap("count", "a", before, {"n": before["n"] + 1})


async def _add_all(state: State, names: Iterable[str]) -> None:
    for name in names:
        assert await state.add("key", name, {"name": name})
