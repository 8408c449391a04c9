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

from metronome.errors import MetronomeError, StoreAccessDenied
from metronome.retry import BACKOFF_SECONDS, RetryPolicy
from metronome.spool import Chunk, SpoolReader, SpoolStats, measure
from metronome.spool.dead_letters import append_dead_letters
from metronome.stores.base import DocumentBatch, Sink
from metronome.telemetry import Telemetry

log = structlog.get_logger()

_MAX_IN_FLIGHT = 2
"""So many shipments at once: the store need not wait for the next."""
_POLL_SECONDS = 0.05
"""How often a spool is looked at that another process writes."""
_REST_FACTOR = 4
"""A small shipment is followed by a rest of so many times its length: light load must not keep a core busy."""
_MAX_REST_SECONDS = 1.0


class _Shipment(NamedTuple):
    chunk: Chunk
    task: "asyncio.Task[float]"


class Shipper:
    """Ship one spool's documents into the store.

    Args:
        reader: the spool's reading end, which the shipper owns.
        sink: where they go.
        dead_letter_folder: where refused documents go.
        telemetry: where they are counted.
        on_failure: called with the error each time a shipment has to be made again, and with None as one succeeds.
        backoff: see `RetryPolicy`.

    """

    def __init__(
        self,
        reader: SpoolReader,
        sink: Sink,
        dead_letter_folder: Path,
        telemetry: Telemetry,
        on_failure: Callable[[MetronomeError | None], None] = lambda _: None,
        backoff: tuple[float, float] = BACKOFF_SECONDS,
    ) -> None:
        self._reader = reader
        self._sink = sink
        self._dead_letter_folder = dead_letter_folder
        self._telemetry = telemetry
        self._on_failure = on_failure
        self._retry_policy = RetryPolicy(self._record_failure, backoff)
        self._wake_event = asyncio.Event()
        self.failure: MetronomeError | None = None
        """Why the last attempt to ship failed; None if it succeeded."""

    def wake(self) -> None:
        """Tell that the spool has something new."""
        self._wake_event.set()

    async def pending_stats(self) -> SpoolStats:
        """Measure what is left to ship."""
        return await measure(self._reader.pending_stats)

    async def total_stats(self) -> SpoolStats:
        """Measure what the spool holds, be it shipped already or not."""
        return await measure(self._reader.total_stats)

    async def run(self) -> None:
        """Ship until `stop` is called and the spool is empty, or for as long as the task lives."""
        while True:
            try:
                return await self._drain()
            except Exception:
                # No event is lost by it: they are in the spool still.
                log.exception("shipper_failed")
                await self._retry_policy.sleep(self._retry_policy.max_delay)

    async def _drain(self) -> None:
        await self._retry_policy.call(self._sink.setup)
        self._set_failure(None)
        under_way: deque[_Shipment] = deque()
        try:
            while True:
                # Known before the look: what was put before the stop is then seen by it.
                stopping = self._retry_policy.is_stopping
                taken = await self._read_chunk(under_way) if self._can_start_shipment(under_way) else None
                if taken is not None:
                    under_way.append(_Shipment(taken, asyncio.create_task(self._ship(taken.batch))))
                elif under_way:
                    await self._complete_shipment(under_way[0])
                    under_way.popleft()
                elif stopping:
                    return
                else:
                    await self._wait_for_data()
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)

    def _can_start_shipment(self, in_flight: "deque[_Shipment]") -> bool:
        """Tell whether to ship something beside what is under way: only where so much has gathered."""
        if not in_flight:
            return True
        return (
            len(in_flight) < _MAX_IN_FLIGHT
            and len(in_flight[-1].chunk.batch.body) > self._sink.preferred_batch_bytes // 2
        )

    async def _read_chunk(self, in_flight: "deque[_Shipment]") -> Chunk | None:
        # From the start where nothing is under way: a worker that comes back to an empty spool counts anew.
        after = in_flight[-1].chunk.last_seq if in_flight else 0
        return await asyncio.to_thread(self._reader.read_chunk, after, self._sink.preferred_batch_bytes)

    def close(self) -> None:
        """Let go of the spool, once `run` has ended."""
        self._reader.close()

    def stop(self) -> None:
        """Let `run` end as soon as the spool is empty."""
        self._retry_policy.stop()
        self._wake_event.set()

    async def _wait_for_data(self) -> None:
        self._wake_event.clear()
        try:
            await asyncio.wait_for(self._wake_event.wait(), _POLL_SECONDS)
        except TimeoutError:
            return

    async def _ship(self, batch: DocumentBatch) -> float:
        """Ship a batch, and return the seconds that it took."""
        began = time.perf_counter()
        left: DocumentBatch | None = batch
        while left is not None:
            left = await self._write_batch(left)
        return time.perf_counter() - began

    async def _complete_shipment(self, shipment: "_Shipment") -> None:
        """Wait for a shipment, and let go of what it held."""
        seconds = await shipment.task
        self._telemetry.shipment_seconds.observe(seconds)
        await asyncio.to_thread(self._reader.acknowledge, shipment.chunk.last_seq)
        if (
            len(shipment.chunk.batch.body) < self._sink.preferred_batch_bytes // 8
            and not self._retry_policy.is_stopping
        ):
            await asyncio.sleep(min(seconds * _REST_FACTOR, _MAX_REST_SECONDS))

    async def _write_batch(self, batch: DocumentBatch) -> DocumentBatch | None:
        """Write a batch, however long that takes; return what the store was too busy for."""
        verdicts = await self._retry_policy.call(lambda: self._sink.write(batch))
        self._set_failure(None)
        if verdicts.rejected:
            await asyncio.to_thread(append_dead_letters, self._dead_letter_folder, verdicts.rejected, datetime.now(UTC))
            log.warning("dead_letters", count=len(verdicts.rejected), reason=verdicts.rejected[0].reason)
        self._telemetry.shipped.inc(verdicts.stored)
        self._telemetry.duplicates.inc(verdicts.duplicates)
        self._telemetry.dead_letters.inc(len(verdicts.rejected))
        if verdicts.retry is not None:
            self._telemetry.shipment_failures.labels("busy").inc()
            await self._retry_policy.sleep(self._retry_policy.initial_delay())
        return verdicts.retry

    def _set_failure(self, failure: MetronomeError | None) -> None:
        self.failure = failure
        self._on_failure(failure)

    def _record_failure(self, error: MetronomeError, delay: float) -> None:
        """Tell of a failed shipment, and how long it will be until the next."""
        self._set_failure(error)
        self._telemetry.shipment_failures.labels(type(error).__name__).inc()
        level = log.error if isinstance(error, StoreAccessDenied) else log.warning
        level("shipment_failed", error=str(error), advice=error.advice, retry_seconds=round(delay, 1))
