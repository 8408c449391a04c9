"""Write a spool's events to the archive, once there are enough of them or the oldest is old enough.

Documents are gathered in the spool itself: they stay there until their objects and then the manifest are in the
archive. The spool remembers which commits an upload consists of before the upload begins, so that an interrupted one is
repeated under the same names.
"""

import asyncio
import time
from typing import Final, NamedTuple

from metronome.archive.base import Archive
from metronome.archive.segments import ArchiveUpload, build_objects, encode_manifest
from metronome.errors import MetronomeError
from metronome.retry import DEFAULT_BACKOFF, Backoff
from metronome.spool import CommitRange, SpoolReader
from metronome.spool.drain import FALLBACK_POLL_SECONDS, DrainLoop
from metronome.telemetry import Telemetry

_MIN_CHECK_SECONDS: Final = 0.25
"""The shortest time between two checks whether an upload is due: commits may be many."""
_ARCHIVE_CHECK_SECONDS: Final = 10.0
"""How often to check whether an unavailable archive has recovered, while no upload is due."""
_CONCURRENT_PUTS: Final = 8


class ArchiveThresholds(NamedTuple):
    """When an upload is due.

    Attributes:
        max_bytes: as soon as the waiting documents have this size; an upload is not much larger.
        max_age_seconds: as soon as the oldest document has waited this long.

    """

    max_bytes: int
    max_age_seconds: float


class Archiver(DrainLoop):
    """Write the documents of one spool to the archive.

    Args:
        reader: the reading end of the spool for the archive; the archiver closes it.
        archive: where to write.
        thresholds: when an upload is due.
        telemetry: counts archived documents and failures.
        backoff: the delays between attempts.

    """

    failure_event = "roll_failed"
    crash_event = "roller_failed"

    def __init__(
        self,
        reader: SpoolReader,
        archive: Archive,
        thresholds: ArchiveThresholds,
        telemetry: Telemetry,
        backoff: Backoff = DEFAULT_BACKOFF,
    ) -> None:
        super().__init__(reader, telemetry.archive_failures, backoff)
        self._archive = archive
        self._thresholds = thresholds
        self._telemetry = telemetry
        self._checked_at = 0.0

    async def _drain(self) -> None:
        # A wrong configuration is better reported now than when the first upload is due.
        await self._check_archive()
        while True:
            is_stopping = self._look()
            if self.is_held and not is_stopping:
                await self._wait_for_release()
                continue
            if self.is_held:
                return
            stats = await self.pending_stats()
            if stats.events and (
                is_stopping
                or stats.bytes >= self._thresholds.max_bytes
                or stats.oldest_seconds >= self._thresholds.max_age_seconds
            ):
                commit_range = await asyncio.to_thread(self._reader.reserve_range, self._thresholds.max_bytes)
                if commit_range is not None:
                    await self._upload(commit_range)
            elif is_stopping:
                return
            else:
                if self.failure is not None and time.monotonic() - self._checked_at > _ARCHIVE_CHECK_SECONDS:
                    await self._check_archive()
                due_seconds = self._thresholds.max_age_seconds - stats.oldest_seconds if stats.events else float("inf")
                await self._wait(min(due_seconds, FALLBACK_POLL_SECONDS))
                await self._sleep(min(due_seconds, _MIN_CHECK_SECONDS))

    async def _check_archive(self) -> None:
        """Record whether the archive responds. One that may not be listed may still accept objects."""
        try:
            await self._archive.ping()
        except MetronomeError as error:
            self._record_failure(error, _ARCHIVE_CHECK_SECONDS)
        else:
            self._set_failure(None)
        self._checked_at = time.monotonic()

    async def _upload(self, commit_range: CommitRange) -> None:
        """Write a range of commits to the archive, however long that takes, and acknowledge it to the spool."""
        began = time.perf_counter()
        upload = await asyncio.to_thread(build_objects, commit_range, self._reader.iterate_bodies(commit_range))
        manifest, remaining = upload.manifest, dict(upload.objects)
        await self._retry(lambda: self._put_objects(remaining))
        await self._retry(lambda: self._archive.put(manifest.path, encode_manifest(manifest)))
        await asyncio.to_thread(self._reader.acknowledge, commit_range.last_seq)
        self._count(upload, time.perf_counter() - began)

    async def _put_objects(self, remaining: dict[str, bytes]) -> None:
        """Write objects, and remove those from *remaining* that are in the archive."""
        while remaining:
            objects = [*remaining.items()][:_CONCURRENT_PUTS]
            results = await asyncio.gather(*(self._archive.put(*item) for item in objects), return_exceptions=True)
            for (path, _), error in zip(objects, results, strict=True):
                if error is None:
                    del remaining[path]
            for error in results:
                if error is not None:
                    raise error

    def _count(self, upload: ArchiveUpload, seconds: float) -> None:
        self._telemetry.archived.inc(upload.manifest.events)
        self._telemetry.archived_objects.inc(len(upload.objects))
        self._telemetry.archive_write_seconds.observe(seconds)
