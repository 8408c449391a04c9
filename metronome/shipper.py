"""Ship documents from a spool into the store, exactly once in effect.

As soon as one shipment ends, the next one takes everything that was committed meanwhile: under light load shipments are
small and quick, under heavy load large. After a small one the shipper rests, unless a report waits for events.

A document leaves the spool only when the store has it, or when the store rejected it for good and it is among the dead
letters. So an interrupted shipment is sent again, and the store skips the documents it already has.
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from metronome.errors import MetronomeError
from metronome.retry import DEFAULT_BACKOFF, Backoff
from metronome.spool import Chunk, PendingEvents, SpoolReader
from metronome.spool.dead_letters import append_dead_letters
from metronome.spool.drain import DrainLoop
from metronome.stores.base import DocumentBatch, Sink
from metronome.telemetry import Telemetry

log = structlog.get_logger()

_MAX_IN_FLIGHT: Final = 2
"""Concurrent shipments: the store need not wait for the next one."""
_REST_FACTOR: Final = 4
"""A small shipment is followed by a rest of this multiple of its duration: light load must not keep a core busy."""
_MAX_REST_SECONDS: Final = 1.0


class _Shipment(NamedTuple):
    chunk: Chunk
    task: "asyncio.Task[float]"
    began: float


class Shipper(DrainLoop):
    """Ship the documents of one spool into the store.

    Args:
        reader: the reading end of the spool; the shipper closes it.
        sink: the store.
        dead_letter_folder: where to keep rejected documents.
        telemetry: counts shipped documents and failures.
        backoff: the delays between attempts.

    """

    failure_event = "shipment_failed"
    crash_event = "shipper_failed"

    def __init__(
        self,
        reader: SpoolReader,
        sink: Sink,
        dead_letter_folder: Path,
        telemetry: Telemetry,
        backoff: Backoff = DEFAULT_BACKOFF,
    ) -> None:
        super().__init__(reader, telemetry.shipment_failures, backoff)
        self._sink = sink
        self._dead_letter_folder = dead_letter_folder
        self._telemetry = telemetry
        self.pending = PendingEvents(reader, sink.refresh_seconds)
        """The events that queries do not see yet."""
        self._in_flight: deque[_Shipment] = deque()
        self._small_bytes = sink.preferred_batch_bytes // 8
        self._last_shipment = (0.0, 0)
        self._waiting_reads = 0
        self._progress_event = asyncio.Event()
        self._rest_ended = asyncio.Event()

    @property
    def shipping_seconds(self) -> float:
        """How long the oldest shipment in flight has taken so far; 0 if there is none."""
        return time.perf_counter() - self._in_flight[0].began if self._in_flight else 0.0

    def expected_seconds(self, size: int) -> float:
        """Estimate the time to ship a number of bytes from the last shipment."""
        seconds, last_size = self._last_shipment
        if last_size < self._small_bytes:
            # The size of a small shipment hardly matters.
            return seconds * max(1.0, size / self._small_bytes)
        return seconds * size / last_size

    async def wait_until_stored(self, seq: int) -> bool:
        """Wait until the store has all commits up to and including *seq*; end a rest for it.

        Returns:
            Whether the store has them: False as soon as shipping fails.

        """
        self._waiting_reads += 1
        self._rest_ended.set()
        try:
            while self.pending.stored_seq < seq:
                if self.is_failing:
                    return False
                await self._progress_event.wait()
        finally:
            self._waiting_reads -= 1
        return True

    def stop(self) -> None:
        """Let `run` return as soon as the spool is drained."""
        super().stop()
        self._rest_ended.set()

    async def _drain(self) -> None:
        await self._retry(self._sink.setup)
        in_flight = self._in_flight
        try:
            while True:
                is_stopping = self._look()
                chunk = await self._read_chunk(in_flight) if self._can_start_shipment(in_flight) else None
                if chunk is not None:
                    task = asyncio.create_task(self._ship(chunk.batch))
                    in_flight.append(_Shipment(chunk, task, time.perf_counter()))
                elif in_flight:
                    await self._complete_shipment(in_flight[0])
                    in_flight.popleft()
                elif is_stopping:
                    return
                else:
                    await self._wait()
        finally:
            for shipment in in_flight:
                shipment.task.cancel()
            await asyncio.gather(*(shipment.task for shipment in in_flight), return_exceptions=True)
            in_flight.clear()

    def _can_start_shipment(self, in_flight: "deque[_Shipment]") -> bool:
        """Return whether to start a shipment now: next to another one only if that one is large."""
        if not in_flight:
            return True
        return (
            len(in_flight) < _MAX_IN_FLIGHT
            and len(in_flight[-1].chunk.batch.body) > self._sink.preferred_batch_bytes // 2
        )

    async def _read_chunk(self, in_flight: "deque[_Shipment]") -> Chunk | None:
        # From the start if nothing is in flight: a worker that returns to an empty spool numbers its commits anew.
        after = in_flight[-1].chunk.last_seq if in_flight else 0
        return await asyncio.to_thread(self._reader.read_chunk, after, self._sink.preferred_batch_bytes)

    async def _ship(self, batch: DocumentBatch) -> float:
        """Write a batch to the store, and return the duration in seconds."""
        began = time.perf_counter()
        remaining: DocumentBatch | None = batch
        while remaining is not None:
            remaining = await self._write(remaining)
        return time.perf_counter() - began

    async def _write(self, batch: DocumentBatch) -> DocumentBatch | None:
        """Write a batch, however long that takes, and return the documents that the store was too busy for."""
        result = await self._retry(lambda: self._sink.write(batch))
        if result.rejected:
            await asyncio.to_thread(append_dead_letters, self._dead_letter_folder, result.rejected, datetime.now(UTC))
            log.warning("dead_letters", count=len(result.rejected), reason=result.rejected[0].reason)
        self._telemetry.shipped.inc(result.stored)
        self._telemetry.duplicates.inc(result.duplicates)
        self._telemetry.dead_letters.inc(len(result.rejected))
        if result.retry is not None:
            self._telemetry.shipment_failures.labels("busy").inc()
            await self._sleep(self._backoff.first_seconds)
        return result.retry

    async def _complete_shipment(self, shipment: _Shipment) -> None:
        """Wait for a shipment, and acknowledge its documents to the spool."""
        seconds = await shipment.task
        self._telemetry.shipment_seconds.observe(seconds)
        size = len(shipment.chunk.batch.body)
        self._last_shipment = (seconds, size)
        await self.pending.record_stored(shipment.chunk)
        self._announce_progress()
        await asyncio.to_thread(self._reader.acknowledge, shipment.chunk.last_seq)
        if size < self._small_bytes:
            await self._rest(min(seconds * _REST_FACTOR, _MAX_REST_SECONDS))

    async def _rest(self, seconds: float) -> None:
        if self._waiting_reads or self._stop_event.is_set():
            return
        self._rest_ended.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rest_ended.wait()

    def _set_failure(self, failure: MetronomeError | None) -> None:
        super()._set_failure(failure)
        if failure is not None:
            self._announce_progress()

    def _announce_progress(self) -> None:
        self._progress_event.set()
        self._progress_event = asyncio.Event()
