"""What every store promises, as tests.

A back end's test file makes a class of each of these and overrides one fixture::

    class TestMineWriting(WritingTests):
        @pytest.fixture
        async def store(self) -> AsyncIterator[Store]:
            store = MyStore()
            await store.setup()
            yield store
            await store.close()

The store is empty and set up. The tests need pytest in asyncio's automatic mode, and hypothesis.
"""

from tests.contracts.store.asking import AskingTests
from tests.contracts.store.events import StoreTests
from tests.contracts.store.filtering import FilterTests
from tests.contracts.store.following import TrailTests
from tests.contracts.store.forgetting import ForgettingTests
from tests.contracts.store.properties import PropertyTests
from tests.contracts.store.replacing import ReplacingTests
from tests.contracts.store.writing import WritingTests
from tests.contracts.store.zones import ZoneTests

__all__ = [
    "AskingTests",
    "FilterTests",
    "ForgettingTests",
    "PropertyTests",
    "ReplacingTests",
    "StoreTests",
    "TrailTests",
    "WritingTests",
    "ZoneTests",
]
