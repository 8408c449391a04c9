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

from metronome.stores.conformance.asking import AskingTests
from metronome.stores.conformance.events import StoreTests
from metronome.stores.conformance.filtering import FilterTests
from metronome.stores.conformance.following import TrailTests
from metronome.stores.conformance.forgetting import ForgettingTests
from metronome.stores.conformance.properties import PropertyTests
from metronome.stores.conformance.replacing import ReplacingTests
from metronome.stores.conformance.writing import WritingTests
from metronome.stores.conformance.zones import ZoneTests

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
