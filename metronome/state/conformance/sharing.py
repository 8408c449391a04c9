"""Sharing: any number of processes work on one state, and of two at once one wins."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import pytest

from metronome.state.conformance.opening import StateTests
from metronome.state.state import State

MANY: Final = 10_500
AT_ONCE: Final = 10
RIVALS: Final = 4
ROUNDS: Final = 10


class SharingTests(StateTests):
    """What one has written the others read, and nobody overwrites what they have not seen."""

    async def test_what_one_writes_the_other_reads_at_once(self, state: State, other: State) -> None:
        assert await other.all("key") == {}
        await state.add("key", "a", {"n": 1})
        assert await other.get("key", "a") == {"n": 1}
        assert await other.all("key") == {"a": {"n": 1}}
        assert not await other.add("key", "a", {"n": 2})
        assert await other.swap("key", "a", {"n": 1}, {"n": 2})
        assert await state.get("key", "a") == {"n": 2}
        assert await state.all("key") == {"a": {"n": 2}}
        assert await other.remove("key", "a")
        assert await state.get("key", "a") is None
        assert await state.all("key") == {}

    async def test_what_was_written_outlives_whoever_wrote_it(self, open_state: Callable[[], State]) -> None:
        first = open_state()
        await first.setup()
        await first.add("key", "a", {"n": 1})
        await first.close()
        second = open_state()
        await second.setup()
        assert await second.all("key") == {"a": {"n": 1}}
        await second.close()

    async def test_several_may_set_it_up_at_once_and_again(self, open_state: Callable[[], State]) -> None:
        states = [open_state() for _ in range(RIVALS)]
        await asyncio.gather(*(state.setup() for state in states))
        assert await states[0].add("key", "a", {"n": 1})
        await asyncio.gather(*(state.setup() for state in states))
        assert [await state.get("key", "a") for state in states] == [{"n": 1}] * RIVALS
        await asyncio.gather(*(state.close() for state in states))
        await asyncio.gather(*(state.close() for state in states))

    async def test_of_several_who_add_the_first_record_of_all_one_wins(self, open_state: Callable[[], State]) -> None:
        states = [open_state() for _ in range(RIVALS)]
        won = await asyncio.gather(*(state.add("key", "a", {"by": by}) for by, state in enumerate(states)))
        assert sorted(won) == [False] * (RIVALS - 1) + [True]
        assert await states[0].get("key", "a") == {"by": won.index(True)}
        await asyncio.gather(*(state.close() for state in states))

    async def test_of_several_who_add_the_same_one_wins(self, state: State, other: State) -> None:
        for number in range(ROUNDS):
            name = str(number)
            won = await asyncio.gather(
                *(each.add("key", name, {"by": by}) for by, each in enumerate((state, other) * RIVALS))
            )
            assert won.count(True) == 1
            assert await other.get("key", name) == {"by": won.index(True)}

    async def test_of_several_who_swap_the_same_one_wins(self, state: State, other: State) -> None:
        await state.add("key", "a", {"round": 0})
        before: dict[str, int] = {"round": 0}
        for number in range(1, ROUNDS + 1):
            afters = [{"round": number, "by": by} for by in range(2 * RIVALS)]
            won = await asyncio.gather(
                *(
                    each.swap("key", "a", before, after)
                    for each, after in zip((state, other) * RIVALS, afters, strict=True)
                )
            )
            assert won.count(True) == 1
            before = afters[won.index(True)]
            assert await other.get("key", "a") == before

    async def test_of_several_who_remove_the_same_one_wins(self, state: State, other: State) -> None:
        await state.add("key", "a", {})
        assert sorted(await asyncio.gather(state.remove("key", "a"), other.remove("key", "a"))) == [False, True]

    async def test_a_count_that_several_raise_misses_none(self, state: State, other: State) -> None:
        await state.add("count", "a", {"n": 0})
        await asyncio.gather(*(_raise(each, ROUNDS) for each in (state, other)))
        assert await state.get("count", "a") == {"n": 2 * ROUNDS}

    @pytest.mark.slow  # Elasticsearch returns at most 10,000 records at once
    async def test_all_are_seen_however_many_there_are(self, state: State, other: State) -> None:
        names = [f"name {number:05}" for number in range(MANY)]
        await asyncio.gather(*(_add(state, names[start::AT_ONCE]) for start in range(AT_ONCE)))
        found = await other.all("key")
        assert list(found) == names
        assert all(record == {"name": name} for name, record in found.items())


async def _raise(state: State, times: int) -> None:
    while times:
        before = await state.get("count", "a")
        assert before is not None
        times -= await state.swap("count", "a", before, {"n": before["n"] + 1})


async def _add(state: State, names: Iterable[str]) -> None:
    for name in names:
        assert await state.add("key", name, {"name": name})
