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
from metronome.archive.segments import Roll, encode_manifest, lay_out
from metronome.errors import ArchiveDenied, MetronomeError
from metronome.retry import PAUSES, Patience
from metronome.spool import Depth, Outlet, Span, measure
from metronome.telemetry import Telemetry

log = structlog.get_logger()

_LOOK_SECONDS: Final = 0.25
_LOOK_AGAIN_SECONDS: Final = 10.0
"""How often it is seen whether an archive that was away is back, while nothing is due."""
_AT_ONCE: Final = 8
"""So many objects are put at the same time."""


class Limits(NamedTuple):
    """When a roll is due.

    Attributes:
        bytes: as soon as documents of this size wait; a roll has about that at the most.
        seconds: as soon as the oldest has waited that long.

    """

    bytes: int
    seconds: float


class Roller:
    """Bring what one spool holds into the archive.

    Args:
        outlet: the spool's reading end for the archive, which the roller owns.
        archive: where it goes.
        limits: when it is due.
        telemetry: where it is counted.
        pauses: see `Patience`.

    """

    def __init__(
        self,
        outlet: Outlet,
        archive: Archive,
        limits: Limits,
        telemetry: Telemetry,
        pauses: tuple[float, float] = PAUSES,
    ) -> None:
        self._outlet = outlet
        self._archive = archive
        self._limits = limits
        self._telemetry = telemetry
        self._patience = Patience(self._note_failure, pauses)
        self._looked_at = 0.0
        self.failure: MetronomeError | None = None
        """Why the archive could not be reached when that was tried last; None if it could."""

    async def depth(self) -> Depth:
        """Measure what is not in the archive yet."""
        return await measure(self._outlet.depth)

    async def run(self) -> None:
        """Roll until `stop` is called and the archive has everything, or for as long as the task lives."""
        while True:
            try:
                return await self._roll_on()
            except Exception:
                # No event is lost by it: they are in the spool still.
                log.exception("roller_failed")
                await self._patience.sleep(self._patience.longest_pause)

    def stop(self) -> None:
        """Let `run` end as soon as the archive has everything; what has gathered is due at once."""
        self._patience.end_soon()

    def close(self) -> None:
        """Let go of the spool, once `run` has ended."""
        self._outlet.close()

    async def _roll_on(self) -> None:
        # What is wrong with it is better known now than when the first roll is due.
        await self._look_at_archive()
        while True:
            # Known before the look: what was put before the stop is then seen by it.
            stopping = self._patience.is_ending
            span = await asyncio.to_thread(self._next, stopping)
            if span is not None:
                await self._write(span)
            elif stopping:
                return
            else:
                if self.failure is not None and time.monotonic() - self._looked_at > _LOOK_AGAIN_SECONDS:
                    await self._look_at_archive()
                await self._patience.sleep(_LOOK_SECONDS)

    async def _look_at_archive(self) -> None:
        """See whether the archive answers; where it lets nobody look, it may take objects all the same."""
        try:
            await self._archive.ping()
        except MetronomeError as error:
            self._note_failure(error, _LOOK_AGAIN_SECONDS)
        else:
            self.failure = None
        self._looked_at = time.monotonic()

    def _next(self, everything: bool) -> Span | None:  # noqa: FBT001  # it goes through a thread
        depth = self._outlet.depth()
        due = everything or depth.bytes >= self._limits.bytes or depth.oldest_seconds >= self._limits.seconds
        return self._outlet.plan(self._limits.bytes) if depth.events and due else None

    async def _write(self, span: Span) -> None:
        """Bring a span into the archive, however long that takes, and let go of it."""
        began = time.perf_counter()
        roll = await asyncio.to_thread(lay_out, span, self._outlet.read(span))
        left = dict(roll.objects)
        await self._patience.insist(lambda: self._put(left))
        manifest = roll.manifest
        await self._patience.insist(lambda: self._archive.put(manifest.path, encode_manifest(manifest)))
        await asyncio.to_thread(self._outlet.drop, span.last)
        self._count(roll, time.perf_counter() - began)

    async def _put(self, left: dict[str, bytes]) -> None:
        """Put objects, and take those out of *left* that are there."""
        while left:
            some = [*left.items()][:_AT_ONCE]
            done = await asyncio.gather(*(self._archive.put(*one) for one in some), return_exceptions=True)
            for (path, _), error in zip(some, done, strict=True):
                if error is None:
                    del left[path]
            for error in done:
                if error is not None:
                    raise error

    def _count(self, roll: Roll, seconds: float) -> None:
        self.failure = None
        self._telemetry.archived.inc(roll.manifest.events)
        self._telemetry.archived_objects.inc(len(roll.objects))
        self._telemetry.rolls.observe(seconds)

    def _note_failure(self, error: MetronomeError, pause: float) -> None:
        """Tell of a roll that could not be written, and how long it will be until the next attempt."""
        self.failure = error
        self._telemetry.roll_failures.labels(type(error).__name__).inc()
        level = log.error if isinstance(error, ArchiveDenied) else log.warning
        level("roll_failed", error=str(error), advice=error.advice, retry_seconds=round(pause, 1))
