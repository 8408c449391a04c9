"""The contract of every state: `StateRecordTests` and `StateConcurrencyTests`.

The tests of a back end subclass them and override one fixture, which opens the same state as often as it is called::

    class TestRecords(StateRecordTests):
        @pytest.fixture
        def open_state(self, tmp_path: Path) -> Callable[[], State]:
            return lambda: MyState(tmp_path)
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

import pytest

from metronome.state.base import State

NAMES: Final = (
    "",
    " ",
    "a",
    "A",
    "a ",
    "á",
    "a\u0301",
    "a/b?c#d%e%20f+g",
    "../../a",
    "_id",
    "quotes \" \\ ' ; --",
    "nul\0inside",
    "line\nfeed\r\ttab\u2028",
    "👩\u200d👩\u200d👧 \u202ertl مرحبا",
    "\ud800 lone",
    "\ud83d\ude00",
    "\U0001f600",
    "x" * 10_000,
    "x" * 10_001,
)
RECORDS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"": None, " ": True, "a.b": {"c.d": [1, {"e": None}]}, "_id": "x", "_source": {"y": 1}},
    {"int": 2**63 - 1, "low": -(2**63), "third": 1 / 3, "tiny": 5e-324, "large": 1.7976931348623157e308},
    {"text": "nul\0inside \u2028 👍 \x7f", "empty": "", "list": [], "object": {}, "key\0nul": 1},
    {"mixed": 1},
    {"mixed": "text"},
    {"mixed": {"deep": "2015-01-22"}},
    {"deep": [[[[[[[[[["ten"]]]]]]]]]]},
)
LARGE_RECORD_CHARACTERS: Final = 3_000_000
RECORD_COUNT: Final = 10_500
CONCURRENT_WRITERS: Final = 10
COMPETING_CLIENTS: Final = 4
ROUNDS: Final = 10


class StateContract:
    """The fixtures of the contract."""

    @pytest.fixture
    def open_state(self) -> Callable[[], State]:
        """Provide a function that opens the state of this test, which is empty and not set up at first."""
        raise NotImplementedError("override this fixture with one that opens the state to test")

    @pytest.fixture
    async def state(self, open_state: Callable[[], State]) -> AsyncIterator[State]:
        """Provide the state, set up."""
        state = open_state()
        await state.setup()
        yield state
        await state.close()

    @pytest.fixture
    async def other_state(self, open_state: Callable[[], State]) -> AsyncIterator[State]:
        """Provide the same state as another process opens it, not set up."""
        state = open_state()
        yield state
        await state.close()


class StateRecordTests(StateContract):
    """A record is stored under its kind and name, and returned unchanged."""

    async def test_new_state_is_empty(self, other_state: State) -> None:
        assert await other_state.get("key", "a") is None
        assert await other_state.get_all("key") == {}
        assert not await other_state.compare_and_swap("key", "a", {}, {"n": 1})
        assert not await other_state.remove("key", "a")

    async def test_a_record_is_added_once(self, state: State) -> None:
        assert await state.add("key", "a", {"n": 1})
        assert not await state.add("key", "a", {"n": 2})
        assert await state.get("key", "a") == {"n": 1}

    async def test_add_works_without_setup(self, other_state: State) -> None:
        assert await other_state.add("key", "a", {"n": 1})
        assert await other_state.get("key", "a") == {"n": 1}

    async def test_swap_requires_the_current_value(self, state: State) -> None:
        await state.add("key", "a", {"n": 1, "m": [1, {"x": 1, "y": 2}]})
        assert not await state.compare_and_swap("key", "a", {"n": 1}, {"n": 2})
        assert not await state.compare_and_swap("key", "b", {"n": 1}, {"n": 2})
        assert await state.compare_and_swap("key", "a", {"m": [1, {"y": 2, "x": 1}], "n": 1}, {"n": 2})
        assert not await state.compare_and_swap("key", "a", {"n": 1, "m": [1, {"x": 1, "y": 2}]}, {"n": 3})
        assert await state.get("key", "a") == {"n": 2}

    async def test_read_records_can_be_swapped(self, state: State) -> None:
        for number, record in enumerate(RECORDS):
            await state.add("key", str(number), record)
            found = await state.get("key", str(number))
            assert found is not None
            assert await state.compare_and_swap("key", str(number), found, {"swapped": True})

    async def test_a_record_is_removed_once_and_can_be_added_again(self, state: State) -> None:
        await state.add("key", "a", {"n": 1})
        assert await state.remove("key", "a")
        assert not await state.remove("key", "a")
        assert await state.get("key", "a") is None
        assert await state.get_all("key") == {}
        assert await state.add("key", "a", {"n": 2})
        assert await state.get("key", "a") == {"n": 2}

    async def test_kinds_are_separate(self, state: State) -> None:
        await state.add("key", "a", {"kind": "key"})
        await state.add("session", "a", {"kind": "session"})
        await state.add("session", "b", {"kind": "session"})
        assert await state.remove("session", "a")
        assert await state.get_all("key") == {"a": {"kind": "key"}}
        assert await state.get_all("session") == {"b": {"kind": "session"}}

    async def test_names_are_compared_exactly_and_sorted(self, state: State) -> None:
        for number, name in enumerate(NAMES):
            assert await state.add("key", name, {"n": number})
        for number, name in enumerate(NAMES):
            assert await state.get("key", name) == {"n": number}
        found = await state.get_all("key")
        assert found == {name: {"n": number} for number, name in enumerate(NAMES)}
        assert list(found) == sorted(NAMES)

    @pytest.mark.parametrize("record", RECORDS)
    async def test_records_are_returned_unchanged(self, state: State, record: dict[str, Any]) -> None:
        await state.add("key", "a", record)
        assert await state.get("key", "a") == record
        assert await state.get_all("key") == {"a": record}

    async def test_stores_large_records(self, state: State) -> None:
        record = {"text": "x" * LARGE_RECORD_CHARACTERS}
        await state.add("key", "a", record)
        assert await state.get("key", "a") == record
        assert await state.compare_and_swap("key", "a", record, {**record, "more": 1})
        assert await state.get_all("key") == {"a": {**record, "more": 1}}


class StateConcurrencyTests(StateContract):
    """Several processes use a state concurrently: writes are visible to all, and none is lost."""

    async def test_writes_are_visible_to_other_clients_immediately(self, state: State, other_state: State) -> None:
        assert await other_state.get_all("key") == {}
        await state.add("key", "a", {"n": 1})
        assert await other_state.get("key", "a") == {"n": 1}
        assert await other_state.get_all("key") == {"a": {"n": 1}}
        assert not await other_state.add("key", "a", {"n": 2})
        assert await other_state.compare_and_swap("key", "a", {"n": 1}, {"n": 2})
        assert await state.get("key", "a") == {"n": 2}
        assert await state.get_all("key") == {"a": {"n": 2}}
        assert await other_state.remove("key", "a")
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

    async def test_one_of_concurrent_adds_succeeds(self, state: State, other_state: State) -> None:
        for number in range(ROUNDS):
            name = str(number)
            won = await asyncio.gather(
                *(
                    client.add("key", name, {"by": by})
                    for by, client in enumerate((state, other_state) * COMPETING_CLIENTS)
                )
            )
            assert won.count(True) == 1
            assert await other_state.get("key", name) == {"by": won.index(True)}

    async def test_one_of_concurrent_swaps_succeeds(self, state: State, other_state: State) -> None:
        await state.add("key", "a", {"round": 0})
        before: dict[str, int] = {"round": 0}
        for number in range(1, ROUNDS + 1):
            afters = [{"round": number, "by": by} for by in range(2 * COMPETING_CLIENTS)]
            won = await asyncio.gather(
                *(
                    client.compare_and_swap("key", "a", before, after)
                    for client, after in zip((state, other_state) * COMPETING_CLIENTS, afters, strict=True)
                )
            )
            assert won.count(True) == 1
            before = afters[won.index(True)]
            assert await other_state.get("key", "a") == before

    async def test_one_of_concurrent_removes_succeeds(self, state: State, other_state: State) -> None:
        await state.add("key", "a", {})
        assert sorted(await asyncio.gather(state.remove("key", "a"), other_state.remove("key", "a"))) == [False, True]

    async def test_concurrent_increments_are_not_lost(self, state: State, other_state: State) -> None:
        await state.add("count", "a", {"n": 0})
        await asyncio.gather(*(_increment(client, ROUNDS) for client in (state, other_state)))
        assert await state.get("count", "a") == {"n": 2 * ROUNDS}

    @pytest.mark.slow  # Elasticsearch returns at most 10,000 records at once
    async def test_lists_more_records_than_one_page(self, state: State, other_state: State) -> None:
        names = [f"name {number:05}" for number in range(RECORD_COUNT)]
        await asyncio.gather(
            *(_add_all(state, names[start::CONCURRENT_WRITERS]) for start in range(CONCURRENT_WRITERS))
        )
        found = await other_state.get_all("key")
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
