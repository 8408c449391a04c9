"""The drain loop: from a spool into the store, exactly once in effect.

As soon as one shipment ends, the next begins with all that has gathered: light load makes small and quick
ones, heavy load large ones. A document leaves the spool only when the store has it, or when it was
refused for good and lies among the dead letters; so a shipment that is cut off is made again, and the store knows
what it has already.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog

from metronome.errors import MetronomeError, StoreDenied
from metronome.retry import PAUSES, Patience
from metronome.spool import Depth, Outlet, Taken, measure
from metronome.spool.dead_letters import bury
from metronome.stores.base import Batch, Sink
from metronome.telemetry import Telemetry

log = structlog.get_logger()

_UNDER_WAY = 2
"""So many shipments at once: the store need not wait for the next."""
_LOOK_SECONDS = 0.05
"""How often a spool is looked at that another process writes."""
_REST_SHARE = 4
"""A small shipment is followed by a rest of so many times its length: light load must not keep a core busy."""
_LONGEST_REST_SECONDS = 1.0


class _Shipment(NamedTuple):
    taken: Taken
    task: "asyncio.Task[float]"


class Shipper:
    """Ship one spool's documents into the store.

    Args:
        outlet: the spool's reading end, which the shipper owns.
        sink: where they go.
        dead_folder: where refused documents go.
        telemetry: where they are counted.
        on_failure: called with the error each time a shipment has to be made again, and with None as one succeeds.
        pauses: see `Patience`.

    """

    def __init__(
        self,
        outlet: Outlet,
        sink: Sink,
        dead_folder: Path,
        telemetry: Telemetry,
        on_failure: Callable[[MetronomeError | None], None] = lambda _: None,
        pauses: tuple[float, float] = PAUSES,
    ) -> None:
        self._outlet = outlet
        self._sink = sink
        self._dead_folder = dead_folder
        self._telemetry = telemetry
        self._on_failure = on_failure
        self._patience = Patience(self._note_failure, pauses)
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Tell that the spool has something new."""
        self._woken.set()

    async def depth(self) -> Depth:
        """Measure what is left to ship."""
        return await measure(self._outlet.depth)

    async def held(self) -> Depth:
        """Measure what the spool holds, be it shipped already or not."""
        return await measure(self._outlet.held)

    async def run(self) -> None:
        """Ship until `stop` is called and the spool is empty, or for as long as the task lives."""
        while True:
            try:
                return await self._drain()
            except Exception:
                # No event is lost by it: they are in the spool still.
                log.exception("shipper_failed")
                await self._patience.sleep(self._patience.longest_pause)

    async def _drain(self) -> None:
        await self._patience.insist(self._sink.setup)
        self._on_failure(None)
        under_way: deque[_Shipment] = deque()
        try:
            while True:
                # Known before the look: what was put before the stop is then seen by it.
                stopping = self._patience.is_ending
                taken = await self._take(under_way) if self._has_room_for_one_more(under_way) else None
                if taken is not None:
                    under_way.append(_Shipment(taken, asyncio.create_task(self._ship(taken.batch))))
                elif under_way:
                    await self._land(under_way[0])
                    under_way.popleft()
                elif stopping:
                    return
                else:
                    await self._wait()
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)

    def _has_room_for_one_more(self, under_way: "deque[_Shipment]") -> bool:
        """Tell whether to ship something beside what is under way: only where so much has gathered."""
        if not under_way:
            return True
        return len(under_way) < _UNDER_WAY and len(under_way[-1].taken.batch.body) > self._sink.batch_bytes // 2

    async def _take(self, under_way: "deque[_Shipment]") -> Taken | None:
        # From the start where nothing is under way: a worker that comes back to an empty spool counts anew.
        after = under_way[-1].taken.upto if under_way else 0
        return await asyncio.to_thread(self._outlet.take, after, self._sink.batch_bytes)

    def close(self) -> None:
        """Let go of the spool, once `run` has ended."""
        self._outlet.close()

    def stop(self) -> None:
        """Let `run` end as soon as the spool is empty."""
        self._patience.end_soon()
        self._woken.set()

    async def _wait(self) -> None:
        self._woken.clear()
        try:
            await asyncio.wait_for(self._woken.wait(), _LOOK_SECONDS)
        except TimeoutError:
            return

    async def _ship(self, batch: Batch) -> float:
        """Ship a batch, and return the seconds that it took."""
        began = time.perf_counter()
        left: Batch | None = batch
        while left is not None:
            left = await self._write(left)
        return time.perf_counter() - began

    async def _land(self, shipment: "_Shipment") -> None:
        """Wait for a shipment, and let go of what it held."""
        seconds = await shipment.task
        self._telemetry.shipments.observe(seconds)
        await asyncio.to_thread(self._outlet.drop, shipment.taken.upto)
        if len(shipment.taken.batch.body) < self._sink.batch_bytes // 8 and not self._patience.is_ending:
            await asyncio.sleep(min(seconds * _REST_SHARE, _LONGEST_REST_SECONDS))

    async def _write(self, batch: Batch) -> Batch | None:
        """Write a batch, however long that takes; return what the store was too busy for."""
        verdicts = await self._patience.insist(lambda: self._sink.write(batch))
        self._on_failure(None)
        if verdicts.refused:
            await asyncio.to_thread(bury, self._dead_folder, verdicts.refused, datetime.now(UTC))
            log.warning("dead_letters", count=len(verdicts.refused), reason=verdicts.refused[0].reason)
        self._telemetry.shipped.inc(verdicts.stored)
        self._telemetry.duplicates.inc(verdicts.duplicates)
        self._telemetry.dead.inc(len(verdicts.refused))
        if verdicts.again is not None:
            self._telemetry.ship_failures.labels("busy").inc()
            await self._patience.sleep(self._patience.short_pause())
        return verdicts.again

    def _note_failure(self, error: MetronomeError, pause: float) -> None:
        """Tell of a failed shipment, and how long it will be until the next."""
        self._on_failure(error)
        self._telemetry.ship_failures.labels(type(error).__name__).inc()
        level = log.error if isinstance(error, StoreDenied) else log.warning
        level("shipment_failed", error=str(error), advice=error.advice, retry_seconds=round(pause, 1))
