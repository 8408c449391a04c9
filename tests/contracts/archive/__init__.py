"""What every archive promises, as tests.

A back end's test file makes a class of each of these and overrides one fixture, which opens an archive that holds
nothing::

    class TestMine(ArchiveTests):
        @pytest.fixture
        def archive(self) -> Archive:
            return MyArchive()

The tests need pytest in asyncio's automatic mode.
"""

from tests.contracts.archive.keeping import ArchiveContractTests

__all__ = ["ArchiveContractTests"]
