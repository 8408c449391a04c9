"""Ship documents from a spool into the store, exactly once in effect.

As soon as one shipment ends, the next one takes everything that was committed meanwhile: under light load shipments are
small and quick, under heavy load large. After a small one the shipper rests, unless a report waits for events.

A document leaves the spool only when the store has it, or when the store rejected it for good and it is among the dead
letters. So an interrupted shipment is sent again, and the store skips the documents it already has.

Documents that the store cannot accept until its operator changes something, such as those of a closed index, wait in
the spool on their own, and are sent again from time to time. Others do not wait for them.
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from metronome.errors import MetronomeError, OperatorError
from metronome.retry import DEFAULT_BACKOFF, Backoff
from metronome.spool import Chunk, PendingEvents, SpoolReader, WaitingChunk
from metronome.spool.dead_letters import append_dead_letters
from metronome.spool.drain import DrainLoop
from metronome.stores.base import DocumentBatch, Sink, StoreBusy, WriteResult, concatenate_batches
from metronome.telemetry import Telemetry

log = structlog.get_logger()

_MAX_IN_FLIGHT: Final = 2
"""Concurrent shipments: the store need not wait for the next one."""
_REST_FACTOR: Final = 4
"""A small shipment is followed by a rest of this multiple of its duration: light load must not keep a core busy."""
_MAX_REST_SECONDS: Final = 1.0
_FRUITLESS_CHUNKS: Final = 4
"""After so many chunks of waiting documents of which the store accepts none, the others are sent after the delay."""
_REMINDER_SECONDS: Final = 600.0
"""How often to log that documents still wait for the same reason."""


class _Outcome(NamedTuple):
    seconds: float
    waiting: DocumentBatch | None


class _Shipment(NamedTuple):
    chunk: Chunk
    task: "asyncio.Task[_Outcome]"
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
        self._fruitless_shipments = 0
        self._has_waiting_event = asyncio.Event()
        self._waiting_lock = asyncio.Lock()
        if self.pending.has_waiting:
            self._has_waiting_event.set()
        self.waiting_failure: MetronomeError | None = None
        """Why the store cannot accept some documents, which wait; None if none do."""
        self._logged_failure: tuple[type[MetronomeError] | None, float] = (None, 0.0)

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

    def hold(self) -> None:
        """Ship nothing further until `release` (see `DrainLoop.hold`)."""
        super().hold()
        self._rest_ended.set()

    async def wait_until_held(self) -> None:
        """Wait until nothing is in progress, after `hold`; neither commits nor documents that wait."""
        await super().wait_until_held()
        async with self._waiting_lock:
            pass

    def stop(self) -> None:
        """Let `run` return as soon as the spool is drained."""
        super().stop()
        self._rest_ended.set()

    async def _drain(self) -> None:
        await self._retry(self._sink.setup)
        in_flight = self._in_flight
        waiting = asyncio.create_task(self._ship_waiting())
        try:
            while True:
                is_stopping = self._look()
                can_start = not self.is_held and self._can_start_shipment(in_flight)
                chunk = await self._read_chunk(in_flight) if can_start else None
                if chunk is not None:
                    task = asyncio.create_task(self._ship(chunk.batch))
                    in_flight.append(_Shipment(chunk, task, time.perf_counter()))
                elif in_flight:
                    await self._complete_shipment(in_flight[0])
                    in_flight.popleft()
                elif is_stopping:
                    return
                elif self.is_held:
                    await self._wait_for_release()
                else:
                    await self._wait()
        finally:
            for shipment in in_flight:
                shipment.task.cancel()
            await asyncio.gather(*(shipment.task for shipment in in_flight), return_exceptions=True)
            in_flight.clear()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

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

    async def _ship(self, batch: DocumentBatch) -> _Outcome:
        """Write a batch to the store, however long that takes, except for documents that have to wait."""
        began = time.perf_counter()
        # Commits whose events were all forgotten are empty.
        remaining = batch if batch.count else None
        waiting: DocumentBatch | None = None
        attempts = 0
        while remaining is not None:
            result = await self._write(remaining)
            waiting = concatenate_batches(waiting, result.waiting)
            if result.failure is not None and result.waiting is not None:
                self._record_waiting(result.waiting, result.failure)
            if result.retry is not None:
                attempts = 0 if _has_progress(result) else attempts + 1
                delay = self._backoff.delay_after(attempts)
                self._record_failure(result.failure or StoreBusy("the store cannot store some events now"), delay)
                await self._sleep(delay)
            remaining = result.retry
        if waiting is None or waiting.count < batch.count:
            self._fruitless_shipments = 0
        else:
            # Perhaps the store can accept nothing at all.
            self._fruitless_shipments += 1
            await self._sleep(self._backoff.delay_after(self._fruitless_shipments))
        return _Outcome(time.perf_counter() - began, waiting)

    async def _write(self, batch: DocumentBatch) -> WriteResult:
        """Write a batch to the store, and keep the documents that it rejects as dead letters."""
        result = await self._retry(lambda: self._sink.write(batch))
        await self._record_result(result)
        return result

    async def _record_result(self, result: WriteResult) -> None:
        if result.rejected:
            await asyncio.to_thread(append_dead_letters, self._dead_letter_folder, result.rejected, datetime.now(UTC))
            log.warning("dead_letters", count=len(result.rejected), reason=result.rejected[0].reason)
        self._telemetry.shipped.inc(result.stored)
        self._telemetry.duplicates.inc(result.duplicates)
        self._telemetry.dead_letters.inc(len(result.rejected))

    def _record_waiting(self, waiting: DocumentBatch, failure: MetronomeError) -> None:
        self.waiting_failure = failure
        self._telemetry.shipment_failures.labels(type(failure).__name__).inc()
        logged_class, logged_at = self._logged_failure
        now = time.monotonic()
        if type(failure) is logged_class and now < logged_at + _REMINDER_SECONDS:
            return
        self._logged_failure = (type(failure), now)
        level = log.error if isinstance(failure, OperatorError) else log.warning
        level("events_waiting", count=waiting.count, error=str(failure), advice=failure.advice)

    async def _ship_waiting(self) -> None:
        """Send the documents that wait again, with growing delays while the store accepts none of them."""
        after = attempts = 0
        while True:
            await self._has_waiting_event.wait()
            await asyncio.sleep(self._backoff.delay_after(attempts))
            if self.is_held:
                await self._release_event.wait()
            try:
                async with self._waiting_lock:
                    has_progress, after = (False, after) if self.is_held else await self._retry_waiting(after)
            except MetronomeError:
                # The store is unavailable: the shipment of new events reports it.
                has_progress = False
            except Exception:
                # The events are still in the spool.
                log.exception(self.crash_event)
                has_progress = False
            attempts = 0 if has_progress else attempts + 1

    async def _retry_waiting(self, after: int) -> tuple[bool, int]:
        """Send waiting documents after a number, and return whether some were stored, and the last number."""
        for _ in range(_FRUITLESS_CHUNKS):
            if not after:
                # Before the spool is read: documents may be added meanwhile.
                self._has_waiting_event.clear()
            chunk = await asyncio.to_thread(self._reader.read_waiting, after, self._sink.preferred_batch_bytes)
            if chunk is None:
                if not after and not self._has_waiting_event.is_set():
                    self._end_waiting()
                return False, 0
            self._has_waiting_event.set()
            after = chunk.numbers[1]
            result = await self._sink.write(chunk.batch)
            if await self._record_waiting_result(chunk, result):
                return True, 0
        return False, after

    async def _record_waiting_result(self, chunk: WaitingChunk, result: WriteResult) -> bool:
        await self._record_result(result)
        remaining = concatenate_batches(result.retry, result.waiting)
        if remaining is not None and result.failure is not None:
            self._record_waiting(remaining, result.failure)
        if remaining is not None and remaining.count == chunk.batch.count:
            return False
        await asyncio.to_thread(self._reader.replace_waiting, chunk, remaining)
        return True

    def _end_waiting(self) -> None:
        if self.waiting_failure is not None:
            log.info("events_no_longer_waiting")
        self.pending.has_waiting = False
        self.waiting_failure = None
        self._logged_failure = (None, 0.0)

    async def _complete_shipment(self, shipment: _Shipment) -> None:
        """Wait for a shipment, and acknowledge its documents to the spool."""
        seconds, waiting = await shipment.task
        self._telemetry.shipment_seconds.observe(seconds)
        size = len(shipment.chunk.batch.body)
        self._last_shipment = (seconds, size)
        await self.pending.record_stored(shipment.chunk)
        self._announce_progress()
        await asyncio.to_thread(self._reader.acknowledge, shipment.chunk.last_seq, waiting)
        if waiting is not None:
            self.pending.has_waiting = True
            self._has_waiting_event.set()
        if size < self._small_bytes:
            await self._rest(min(seconds * _REST_FACTOR, _MAX_REST_SECONDS))

    async def _rest(self, seconds: float) -> None:
        if self._waiting_reads or self._stop_event.is_set() or self.is_held:
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


def _has_progress(result: WriteResult) -> bool:
    return bool(result.stored or result.duplicates or result.rejected or result.waiting)
