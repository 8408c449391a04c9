"""The loop that brings a spool into the archive: what has gathered becomes a roll, by size or by age.

The spool is all that a roll is gathered in: until its objects and then its manifest are in the archive, everything
stays there. Which commits a roll has is kept before it is written, so that one that was cut off is written again under
the same names.
"""

import asyncio
import time
from typing import Final, NamedTuple

import structlog

from metronome.archive.base import Archive
from metronome.archive.segments import ArchiveUpload, build_objects, encode_manifest
from metronome.errors import ArchiveAccessDenied, MetronomeError
from metronome.retry import BACKOFF_SECONDS, RetryPolicy
from metronome.spool import CommitRange, SpoolReader, SpoolStats, measure
from metronome.telemetry import Telemetry

log = structlog.get_logger()

_POLL_SECONDS: Final = 0.25
_ARCHIVE_CHECK_SECONDS: Final = 10.0
"""How often it is seen whether an archive that was away is back, while nothing is due."""
_CONCURRENT_PUTS: Final = 8
"""So many objects are put at the same time."""


class ArchiveThresholds(NamedTuple):
    """When a roll is due.

    Attributes:
        bytes: as soon as documents of this size wait; a roll has about that at the most.
        seconds: as soon as the oldest has waited that long.

    """

    max_bytes: int
    max_age_seconds: float


class Archiver:
    """Bring what one spool holds into the archive.

    Args:
        reader: the spool's reading end for the archive, which the roller owns.
        archive: where it goes.
        thresholds: when it is due.
        telemetry: where it is counted.
        backoff: see `RetryPolicy`.

    """

    def __init__(
        self,
        reader: SpoolReader,
        archive: Archive,
        thresholds: ArchiveThresholds,
        telemetry: Telemetry,
        backoff: tuple[float, float] = BACKOFF_SECONDS,
    ) -> None:
        self._reader = reader
        self._archive = archive
        self._thresholds = thresholds
        self._telemetry = telemetry
        self._retry_policy = RetryPolicy(self._record_failure, backoff)
        self._checked_at = 0.0
        self.last_failure: MetronomeError | None = None
        """Why the archive could not be reached when that was tried last; None if it could."""

    async def pending_stats(self) -> SpoolStats:
        """Measure what is not in the archive yet."""
        return await measure(self._reader.pending_stats)

    async def run(self) -> None:
        """Roll until `stop` is called and the archive has everything, or for as long as the task lives."""
        while True:
            try:
                return await self._archive_loop()
            except Exception:
                # No event is lost by it: they are in the spool still.
                log.exception("roller_failed")
                await self._retry_policy.sleep(self._retry_policy.max_delay)

    def stop(self) -> None:
        """Let `run` end as soon as the archive has everything; what has gathered is due at once."""
        self._retry_policy.stop()

    def close(self) -> None:
        """Let go of the spool, once `run` has ended."""
        self._reader.close()

    async def _archive_loop(self) -> None:
        # What is wrong with it is better known now than when the first roll is due.
        await self._check_archive()
        while True:
            # Known before the look: what was put before the stop is then seen by it.
            stopping = self._retry_policy.is_stopping
            span = await asyncio.to_thread(self._next_range, stopping)
            if span is not None:
                await self._archive_range(span)
            elif stopping:
                return
            else:
                if self.last_failure is not None and time.monotonic() - self._checked_at > _ARCHIVE_CHECK_SECONDS:
                    await self._check_archive()
                await self._retry_policy.sleep(_POLL_SECONDS)

    async def _check_archive(self) -> None:
        """See whether the archive answers; where it lets nobody look, it may take objects all the same."""
        try:
            await self._archive.ping()
        except MetronomeError as error:
            self._record_failure(error, _ARCHIVE_CHECK_SECONDS)
        else:
            self.last_failure = None
        self._checked_at = time.monotonic()

    def _next_range(self, flush: bool) -> CommitRange | None:  # noqa: FBT001  # it goes through a thread
        depth = self._reader.pending_stats()
        due = (
            flush
            or depth.bytes >= self._thresholds.max_bytes
            or depth.oldest_seconds >= self._thresholds.max_age_seconds
        )
        return self._reader.reserve_range(self._thresholds.max_bytes) if depth.events and due else None

    async def _archive_range(self, commit_range: CommitRange) -> None:
        """Bring a span into the archive, however long that takes, and let go of it."""
        began = time.perf_counter()
        roll = await asyncio.to_thread(build_objects, commit_range, self._reader.iterate_bodies(commit_range))
        left = dict(roll.objects)
        await self._retry_policy.call(lambda: self._put_objects(left))
        manifest = roll.manifest
        await self._retry_policy.call(lambda: self._archive.put(manifest.path, encode_manifest(manifest)))
        await asyncio.to_thread(self._reader.acknowledge, commit_range.last_seq)
        self._record_success(roll, time.perf_counter() - began)

    async def _put_objects(self, remaining: dict[str, bytes]) -> None:
        """Put objects, and take those out of *remaining* that are there."""
        while remaining:
            some = [*remaining.items()][:_CONCURRENT_PUTS]
            done = await asyncio.gather(*(self._archive.put(*one) for one in some), return_exceptions=True)
            for (path, _), error in zip(some, done, strict=True):
                if error is None:
                    del remaining[path]
            for error in done:
                if error is not None:
                    raise error

    def _record_success(self, upload: ArchiveUpload, seconds: float) -> None:
        self.last_failure = None
        self._telemetry.archived.inc(upload.manifest.events)
        self._telemetry.archived_objects.inc(len(upload.objects))
        self._telemetry.archive_write_seconds.observe(seconds)

    def _record_failure(self, error: MetronomeError, delay: float) -> None:
        """Tell of a roll that could not be written, and how long it will be until the next attempt."""
        self.last_failure = error
        self._telemetry.archive_failures.labels(type(error).__name__).inc()
        level = log.error if isinstance(error, ArchiveAccessDenied) else log.warning
        level("roll_failed", error=str(error), advice=error.advice, retry_seconds=round(delay, 1))
