"""The archiver: each document is in the archive exactly once before it leaves the spool."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from metronome.archive.base import Archive, ObjectInfo
from metronome.archive.segments import MANIFEST_PREFIX, decode_manifest, decompress_object
from metronome.archiver import Archiver, ArchiveThresholds
from metronome.errors import ArchiveAccessDenied, ArchiveDamaged, ArchiveUnavailable
from metronome.retry import Backoff
from metronome.spool import ARCHIVE_READER, STORE_READER, SpoolReader, SpoolWriter, register_readers
from metronome.telemetry import Telemetry

NEVER = ArchiveThresholds(10**9, 10**9)


class ScriptedArchive(Archive):
    """An archive in memory that raises scripted errors, one for each `put`, and then accepts everything.

    Args:
        script: errors to raise; None takes the object.

    """

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def put(self, path: str, body: bytes) -> None:
        await self.is_open.wait()
        self.puts.append(path)
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error
        self.objects[path] = body

    async def get(self, path: str) -> bytes:
        if path not in self.objects:
            raise ArchiveDamaged(f"{path} is missing")
        return self.objects[path]

    async def delete(self, path: str) -> None:
        self.objects.pop(path, None)

    async def iterate_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        for path, body in self.objects.items():
            if not prefix or path.startswith(f"{prefix}/"):
                yield ObjectInfo(path, len(body))

    async def ping(self) -> None:
        return


class Pipeline:
    """A spool and its archiver."""

    def __init__(self, folder: Path, archive: Archive, limits: ArchiveThresholds) -> None:
        register_readers(folder / "spool", (STORE_READER, ARCHIVE_READER))
        self.folder = folder / "spool"
        self.telemetry = Telemetry(CollectorRegistry())
        self.spool = SpoolWriter(self.folder, 10**9, lambda _seconds, _events: self.archiver.wake())
        self.archiver = Archiver(
            SpoolReader(self.folder, ARCHIVE_READER), archive, limits, self.telemetry, Backoff(0.005, 0.02)
        )

    async def waiting(self) -> int:
        return (await self.archiver.pending_stats()).events

    def counted(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(f"metronome_{name}_total", labels) or 0.0

    async def until_done(self) -> None:
        async with asyncio.timeout(10):
            while await self.waiting():  # noqa: ASYNC110  # what it waits for is on the disk
                await asyncio.sleep(0.01)


@asynccontextmanager
async def rolling(
    folder: Path, archive: Archive, *documents: bytes, limits: ArchiveThresholds = NEVER, kill: bool = False
) -> AsyncIterator[Pipeline]:
    """Archive these documents while the block runs, and, unless it is killed, the rest as it ends."""
    pipeline = Pipeline(folder, archive, limits)
    for line in documents:
        await pipeline.spool.put(line, 1)
    running = asyncio.create_task(pipeline.archiver.run())
    try:
        yield pipeline
        if not kill:
            pipeline.archiver.stop()
            await asyncio.wait_for(running, 10)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await pipeline.spool.close()
        pipeline.archiver.close()


def line(number: int, hour: str = "09") -> bytes:
    return orjson.dumps(
        {"@timestamp": f"2015-01-22T{hour}:00:00.000Z", "event_id": str(number)}, option=orjson.OPT_APPEND_NEWLINE
    )


def documents(archive: ScriptedArchive) -> list[bytes]:
    """Return the documents that the manifests list, as a replay reads them."""
    found: list[bytes] = []
    for path in sorted(path for path in archive.objects if path.startswith(MANIFEST_PREFIX)):
        for listed in decode_manifest(path, archive.objects[path]).objects:
            found += decompress_object(listed.path, archive.objects[listed.path], listed).splitlines(keepends=True)
    return found


async def test_stop_archives_the_rest(tmp_path: Path) -> None:
    archive = ScriptedArchive()
    async with rolling(tmp_path, archive, line(1), line(2), line(3, "10")) as pipeline:
        await asyncio.sleep(0.5)
        assert (archive.puts, await pipeline.waiting()) == ([], 3)
    assert documents(archive) == [line(1), line(2), line(3, "10")]
    assert [path.split("/")[0] for path in archive.puts] == ["2015", "2015", MANIFEST_PREFIX]
    assert (pipeline.counted("events_archived"), pipeline.counted("archive_objects")) == (3, 2)


async def test_old_documents_are_archived(tmp_path: Path) -> None:
    archive = ScriptedArchive()
    async with rolling(tmp_path, archive, line(1), limits=ArchiveThresholds(10**9, 0.2), kill=True) as pipeline:
        await pipeline.until_done()
        assert documents(archive) == [line(1)]


async def test_uploads_have_the_configured_size(tmp_path: Path) -> None:
    archive = ScriptedArchive()
    lines = [line(number) for number in range(100, 150)]
    async with rolling(
        tmp_path, archive, *lines, limits=ArchiveThresholds(10 * len(lines[0]), 10**9), kill=True
    ) as pipeline:
        await pipeline.until_done()
        assert documents(archive) == lines
        assert len([path for path in archive.puts if path.startswith(MANIFEST_PREFIX)]) == 5


async def test_spool_keeps_events_while_the_archive_is_unavailable(tmp_path: Path) -> None:
    archive = ScriptedArchive(
        *[ArchiveUnavailable("no answer"), ArchiveAccessDenied("who are you")] * 2, None, ArchiveUnavailable("gone")
    )
    archive.is_open.clear()
    async with rolling(tmp_path, archive, line(1), limits=ArchiveThresholds(1, 10**9)) as pipeline:
        await asyncio.sleep(0.4)
        assert await pipeline.waiting() == 1
        archive.is_open.set()
        await pipeline.until_done()
        assert documents(archive) == [line(1)]
        assert pipeline.counted("roll_failures", reason="ArchiveUnavailable") == 3
        assert pipeline.counted("roll_failures", reason="ArchiveAccessDenied") == 2


async def test_retry_uploads_only_missing_objects(tmp_path: Path) -> None:
    archive = ScriptedArchive(None, ArchiveUnavailable("no answer"), None)
    async with rolling(tmp_path, archive, line(1, "01"), line(2, "02"), line(3, "03")):
        pass
    hours = [path.split("/")[3] for path in archive.puts if not path.startswith(MANIFEST_PREFIX)]
    assert hours == ["01", "02", "03", "02"]
    assert documents(archive) == [line(1, "01"), line(2, "02"), line(3, "03")]


async def test_unavailable_archive_does_not_delay_the_store(tmp_path: Path) -> None:
    archive = ScriptedArchive()
    archive.is_open.clear()
    async with rolling(tmp_path, archive, line(1), line(2), limits=ArchiveThresholds(1, 10**9)) as pipeline:
        with SpoolReader(pipeline.folder, STORE_READER) as store:
            taken = store.read_chunk(0, 10**9)
            assert taken
            store.acknowledge(taken.last_seq)
            assert (store.pending_stats().events, store.total_stats().events) == (0, 2)
        archive.is_open.set()


@pytest.mark.parametrize("after", range(5))
async def test_interrupted_upload_is_repeated_under_the_same_names(tmp_path: Path, after: int) -> None:
    archive = ScriptedArchive()
    lines = [line(number, f"{hour:02}") for number, hour in enumerate(range(4))]

    class Stopping(ScriptedArchive):
        """Takes so many objects, and then nothing."""

        async def put(self, path: str, body: bytes) -> None:
            if len(self.objects) == after:
                await asyncio.Event().wait()
            await super().put(path, body)

    cut = Stopping()
    async with rolling(tmp_path, cut, *lines, limits=ArchiveThresholds(1000, 0.0), kill=True):
        await asyncio.sleep(0.4)
    archive.objects = dict(cut.objects)
    async with rolling(tmp_path, archive, line(9, "09"), limits=ArchiveThresholds(10**9, 10**9)):
        pass
    assert documents(archive) == [*lines, line(9, "09")]
    assert cut.objects.items() <= archive.objects.items()
    # Every object is in a manifest.
    objects = [body for path, body in archive.objects.items() if not path.startswith(MANIFEST_PREFIX)]
    assert sum(gzip.decompress(body).count(b"\n") for body in objects) == 5


async def test_unexpected_exceptions_lose_nothing(tmp_path: Path) -> None:
    archive = ScriptedArchive(RuntimeError("a bug"), ArchiveDamaged("odd"), KeyError("x"))
    async with rolling(tmp_path, archive, line(1), line(2), limits=ArchiveThresholds(1, 10**9)) as pipeline:
        await pipeline.until_done()
    assert documents(archive) == [line(1), line(2)]


async def test_archives_nothing_while_it_is_held(tmp_path: Path) -> None:
    archive = ScriptedArchive()
    async with rolling(tmp_path, archive, line(1), limits=ArchiveThresholds(1, 0)) as pipeline:
        await pipeline.until_done()
        pipeline.archiver.hold()
        await pipeline.archiver.wait_until_held()
        await pipeline.spool.put(line(2), 1)
        await asyncio.sleep(0.05)
        assert (documents(archive), await pipeline.waiting()) == ([line(1)], 1)
        pipeline.archiver.release()
        await pipeline.until_done()
    assert documents(archive) == [line(1), line(2)]
