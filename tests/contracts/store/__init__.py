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

from tests.contracts.store.asking import QueryTests
from tests.contracts.store.events import StoreContract
from tests.contracts.store.filtering import FilterTests
from tests.contracts.store.following import SequenceTests
from tests.contracts.store.forgetting import DeletionTests
from tests.contracts.store.properties import PropertyTests
from tests.contracts.store.replacing import ReplacementTests
from tests.contracts.store.writing import WriteTests
from tests.contracts.store.zones import TimeZoneTests

__all__ = [
    "DeletionTests",
    "FilterTests",
    "PropertyTests",
    "QueryTests",
    "ReplacementTests",
    "SequenceTests",
    "StoreContract",
    "TimeZoneTests",
    "WriteTests",
]
