"""The handles on a state that the tests work with."""

from collections.abc import AsyncIterator, Callable

import pytest

from metronome.state.base import State


class StateContract:
    """What the tests of one back end are made of."""

    @pytest.fixture
    def open_state(self) -> Callable[[], State]:
        """Provide what opens the state of this test: empty, and not set up before the first time."""
        raise NotImplementedError("override this fixture with one that opens the state to test")

    @pytest.fixture
    async def state(self, open_state: Callable[[], State]) -> AsyncIterator[State]:
        """Provide the state, set up, and close it after the test."""
        state = open_state()
        await state.setup()
        yield state
        await state.close()

    @pytest.fixture
    async def other_state(self, open_state: Callable[[], State]) -> AsyncIterator[State]:
        """Provide the same state as another process has it, not set up, and close it after the test."""
        state = open_state()
        yield state
        await state.close()
