"""Keeping: each record under its kind and name, as it was, whatever they hold."""

from typing import Any, Final

import pytest

from metronome.state.base import State
from tests.contracts.state.opening import StateContract

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


class StateRecordTests(StateContract):
    """Each record is kept under its kind and name, and comes back as it was."""

    async def test_new_state_is_empty(self, other: State) -> None:
        assert await other.get("key", "a") is None
        assert await other.get_all("key") == {}
        assert not await other.compare_and_swap("key", "a", {}, {"n": 1})
        assert not await other.remove("key", "a")

    async def test_a_record_is_added_once(self, state: State) -> None:
        assert await state.add("key", "a", {"n": 1})
        assert not await state.add("key", "a", {"n": 2})
        assert await state.get("key", "a") == {"n": 1}

    async def test_add_works_without_setup(self, other: State) -> None:
        assert await other.add("key", "a", {"n": 1})
        assert await other.get("key", "a") == {"n": 1}

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
        big = {"text": "x" * LARGE_RECORD_CHARACTERS}
        await state.add("key", "a", big)
        assert await state.get("key", "a") == big
        assert await state.compare_and_swap("key", "a", big, {**big, "more": 1})
        assert await state.get_all("key") == {"a": {**big, "more": 1}}
