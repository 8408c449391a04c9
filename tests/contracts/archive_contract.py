"""The contract of archives: what every back end promises, as tests.

The test file of a back end subclasses `ArchiveContractTests` and overrides one fixture::

    class TestMyArchive(ArchiveContractTests):
        @pytest.fixture
        def archive(self) -> Archive:
            return MyArchive()

The archive must be empty.
"""

import asyncio

import pytest

from metronome.archive.base import Archive, ObjectInfo
from metronome.errors import ArchiveDamaged

_PATHS = ("2015/01/22/09/web1-1.ndjson.gz", "2015/01/22/10/web1-1.ndjson.gz", "2015/01/23/09/web1-1.ndjson.gz")


class ArchiveContractTests:
    """Objects are stored under their names, and can be listed, read and overwritten."""

    @pytest.fixture
    def archive(self) -> Archive:
        """Return an empty archive."""
        raise NotImplementedError("override this fixture with one that returns the archive to test")

    async def test_get_returns_what_put_stored(self, archive: Archive) -> None:
        for body in (b"", b"text\n", bytes(range(256)) * 5000):
            await archive.put(_PATHS[0], body)
            assert await archive.get(_PATHS[0]) == body

    async def test_put_overwrites(self, archive: Archive) -> None:
        await archive.put(_PATHS[0], b"longer than the other")
        await archive.put(_PATHS[0], b"other")
        assert await archive.get(_PATHS[0]) == b"other"
        assert [info async for info in archive.iterate_objects()] == [ObjectInfo(_PATHS[0], 5)]

    async def test_get_of_a_missing_object_raises_damaged(self, archive: Archive) -> None:
        await archive.put(_PATHS[0], b"x")
        for path in (_PATHS[1], "2015", "2015/01/22/09"):
            with pytest.raises(ArchiveDamaged, match=f"^{path} is missing"):
                await archive.get(path)

    async def test_a_deleted_object_is_gone_and_can_be_deleted_again(self, archive: Archive) -> None:
        for path in _PATHS:
            await archive.put(path, b"x")
        for _ in range(2):
            await archive.delete(_PATHS[1])
        assert {info.path async for info in archive.iterate_objects()} == {_PATHS[0], _PATHS[2]}
        with pytest.raises(ArchiveDamaged):
            await archive.get(_PATHS[1])

    async def test_an_empty_archive_lists_nothing(self, archive: Archive) -> None:
        await archive.ping()
        assert [info async for info in archive.iterate_objects()] == []
        assert [info async for info in archive.iterate_objects("2015/01")] == []

    async def test_prefix_matches_whole_path_segments(self, archive: Archive) -> None:
        others = ("2015/012/a", "manifests/2015/01/22/web1-1.json")
        for path in (*_PATHS, *others):
            await archive.put(path, path.encode())
        expected = {"": {*_PATHS, *others}, "2015/01/22": {*_PATHS[:2]}, "2015/01": {*_PATHS}, "2016": set()}
        for prefix, paths in expected.items():
            objects = [info async for info in archive.iterate_objects(prefix)]
            assert {info.path for info in objects} == paths
            assert all(info.size == len(info.path) for info in objects)

    @pytest.mark.slow
    async def test_concurrent_puts_and_gets(self, archive: Archive) -> None:
        bodies = {f"2015/01/{day:02}/{hour:02}/n.ndjson.gz": b"%d" % hour for day in range(1, 51) for hour in range(24)}
        for start in range(0, len(bodies), 100):
            await asyncio.gather(*(archive.put(path, bodies[path]) for path in [*bodies][start : start + 100]))
        assert {info.path async for info in archive.iterate_objects()} == bodies.keys()
        assert len([info async for info in archive.iterate_objects("2015/01/07")]) == 24
        results = await asyncio.gather(*(archive.get(path) for path in [*bodies][:100]))
        assert results == [*bodies.values()][:100]

    async def test_ping_succeeds(self, archive: Archive) -> None:
        await archive.ping()
        await archive.put(_PATHS[0], b"x")
        await archive.ping()
