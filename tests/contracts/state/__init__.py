"""What every keeper of state promises, as tests.

A back end's test file makes a class of each of these and overrides one fixture, which opens the same state, empty at
first, as often as it is called::

    class TestMineKeeping(KeepingTests):
        @pytest.fixture
        def open_state(self, tmp_path: Path) -> Callable[[], State]:
            return lambda: MyState(tmp_path)

The tests need pytest in asyncio's automatic mode.
"""

from tests.contracts.state.keeping import StateRecordTests
from tests.contracts.state.opening import StateContract
from tests.contracts.state.sharing import StateConcurrencyTests

__all__ = ["StateConcurrencyTests", "StateContract", "StateRecordTests"]
