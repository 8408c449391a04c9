"""Ship documents from a spool into the store, exactly once in effect.

As soon as one shipment ends, the next one takes everything that was committed meanwhile: under light load shipments are
small and quick, under heavy load large. A document leaves the spool only when the store has it, or when the store
rejected it for good and it is among the dead letters. So an interrupted shipment is sent again, and the store skips
the documents it already has.
"""

import asyncio
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from metronome.retry import DEFAULT_BACKOFF, Backoff
from metronome.spool import Chunk, SpoolReader
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

    async def _drain(self) -> None:
        await self._retry(self._sink.setup)
        in_flight: deque[_Shipment] = deque()
        try:
            while True:
                is_stopping = self._look()
                chunk = await self._read_chunk(in_flight) if self._can_start_shipment(in_flight) else None
                if chunk is not None:
                    in_flight.append(_Shipment(chunk, asyncio.create_task(self._ship(chunk.batch))))
                elif in_flight:
                    await self._complete_shipment(in_flight[0])
                    in_flight.popleft()
                elif is_stopping:
                    return
                else:
                    await self._wait()
        finally:
            for _, task in in_flight:
                task.cancel()
            await asyncio.gather(*(task for _, task in in_flight), return_exceptions=True)

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
        await asyncio.to_thread(self._reader.acknowledge, shipment.chunk.last_seq)
        is_small = len(shipment.chunk.batch.body) < self._sink.preferred_batch_bytes // 8
        if is_small and not self._stop_event.is_set():
            await self._sleep(min(seconds * _REST_FACTOR, _MAX_REST_SECONDS))
