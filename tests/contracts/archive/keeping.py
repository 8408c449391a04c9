"""Keeping: each object under its name, as it was put last."""

import asyncio

import pytest

from metronome.archive.base import Archive, ObjectInfo
from metronome.errors import ArchiveDamaged

_PATHS = ("2015/01/22/09/web1-1.ndjson.gz", "2015/01/22/10/web1-1.ndjson.gz", "2015/01/23/09/web1-1.ndjson.gz")


class ArchiveContractTests:
    """The tests; they run as they are over every back end."""

    @pytest.fixture
    def archive(self) -> Archive:
        """Open an archive that holds nothing."""
        raise NotImplementedError("override this fixture with one that opens the archive to test")

    async def test_get_returns_what_put_stored(self, archive: Archive) -> None:
        for body in (b"", b"text\n", bytes(range(256)) * 5000):
            await archive.put(_PATHS[0], body)
            assert await archive.get(_PATHS[0]) == body

    async def test_put_overwrites(self, archive: Archive) -> None:
        await archive.put(_PATHS[0], b"longer than the other")
        await archive.put(_PATHS[0], b"other")
        assert await archive.get(_PATHS[0]) == b"other"
        assert [one async for one in archive.iterate_objects()] == [ObjectInfo(_PATHS[0], 5)]

    async def test_get_of_a_missing_object_raises_damaged(self, archive: Archive) -> None:
        await archive.put(_PATHS[0], b"x")
        for path in (_PATHS[1], "2015", "2015/01/22/09"):
            with pytest.raises(ArchiveDamaged, match=f"^{path} is missing"):
                await archive.get(path)

    async def test_an_empty_archive_lists_nothing(self, archive: Archive) -> None:
        await archive.ping()
        assert [one async for one in archive.iterate_objects()] == []
        assert [one async for one in archive.iterate_objects("2015/01")] == []

    async def test_prefix_matches_whole_path_segments(self, archive: Archive) -> None:
        others = ("2015/012/a", "manifests/2015/01/22/web1-1.json")
        for path in (*_PATHS, *others):
            await archive.put(path, path.encode())
        expected = {"": {*_PATHS, *others}, "2015/01/22": {*_PATHS[:2]}, "2015/01": {*_PATHS}, "2016": set()}
        for prefix, paths in expected.items():
            listed = [one async for one in archive.iterate_objects(prefix)]
            assert {one.path for one in listed} == paths
            assert all(one.size == len(one.path) for one in listed)

    @pytest.mark.slow
    async def test_concurrent_puts_and_gets(self, archive: Archive) -> None:
        wanted = {f"2015/01/{day:02}/{hour:02}/n.ndjson.gz": b"%d" % hour for day in range(1, 51) for hour in range(24)}
        for some in range(0, len(wanted), 100):
            await asyncio.gather(*(archive.put(path, wanted[path]) for path in [*wanted][some : some + 100]))
        assert {one.path async for one in archive.iterate_objects()} == wanted.keys()
        assert len([one async for one in archive.iterate_objects("2015/01/07")]) == 24
        bodies = await asyncio.gather(*(archive.get(path) for path in [*wanted][:100]))
        assert bodies == [*wanted.values()][:100]

    async def test_ping_succeeds(self, archive: Archive) -> None:
        await archive.ping()
        await archive.put(_PATHS[0], b"x")
        await archive.ping()
