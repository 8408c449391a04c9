"""The shipper: each document reaches the store or the dead letters before it leaves the spool."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from metronome.errors import ConfigurationError, MetronomeError, StoreAccessDenied, StoreUnavailable
from metronome.retry import Backoff
from metronome.shipper import Shipper
from metronome.spool import SpoolReader, SpoolWriter, drain
from metronome.spool.dead_letters import iterate_dead_letters
from metronome.stores.base import DocumentBatch, RejectedDocument, Sink, WriteResult
from metronome.stores.elasticsearch.connection import IndexClosed, IndexMissing
from metronome.telemetry import Telemetry

Play = Callable[[DocumentBatch], WriteResult]


class ScriptedSink(Sink):
    """A sink in memory that returns scripted results, and then accepts everything.

    Args:
        script: errors to raise, or what to answer; one for each `write`.
        setups: errors to raise; one for each `setup`.

    """

    preferred_batch_bytes: ClassVar[int] = 1000

    def __init__(self, *script: Exception | Play, setups: tuple[Exception, ...] = ()) -> None:
        self.script = list(script)
        self._setups = list(setups)
        self.kept: dict[bytes, None] = {}
        self.batches: list[DocumentBatch] = []
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def setup(self) -> None:
        if self._setups:
            raise self._setups.pop(0)

    async def write(self, batch: DocumentBatch) -> WriteResult:
        await self.is_open.wait()
        self.batches.append(batch)
        if not self.script:
            return self.keep(batch.documents())
        outcome = self.script.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome(batch)

    def keep(self, documents: list[bytes]) -> WriteResult:
        new = [line for line in dict.fromkeys(documents) if line not in self.kept]
        self.kept.update(dict.fromkeys(new))
        return WriteResult(len(new), len(documents) - len(new))


class RecordingShipper(Shipper):
    """A shipper that remembers the outcome of each attempt."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.failures: list[MetronomeError | None] = []

    def _set_failure(self, failure: MetronomeError | None) -> None:
        super()._set_failure(failure)
        self.failures.append(failure)


class Pipeline:
    """A spool and its shipper."""

    def __init__(self, folder: Path, store: ScriptedSink) -> None:
        self.folder = folder
        self.telemetry = Telemetry(CollectorRegistry())
        self.spool = self.open_spool()
        self.shipper = RecordingShipper(
            SpoolReader(folder / "spool"), store, folder / "dead", self.telemetry, Backoff(0.005, 0.02)
        )
        self.failures = self.shipper.failures

    def open_spool(self) -> SpoolWriter:
        return SpoolWriter(self.folder / "spool", 10**9, lambda _seconds, _events: self.shipper.wake())

    def held(self) -> int:
        with SpoolReader(self.folder / "spool") as reader:
            return reader.pending_stats().events

    def dead(self) -> list[RejectedDocument]:
        return list(iterate_dead_letters(self.folder / "dead"))

    def counted(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(f"metronome_{name}_total", labels) or 0.0

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110  # what it waits for is on the disk
                await asyncio.sleep(0.005)


@asynccontextmanager
async def shipping(folder: Path, store: ScriptedSink, *documents: bytes) -> AsyncIterator[Pipeline]:
    """Ship these documents while the block runs, and the rest as it ends."""
    pipeline = Pipeline(folder, store)
    for line in documents:
        await pipeline.spool.put(line + b"\n", 1)
    running = asyncio.create_task(pipeline.shipper.run())
    try:
        yield pipeline
        pipeline.shipper.stop()
        await asyncio.wait_for(running, 5)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await pipeline.spool.close()
        pipeline.shipper.close()


def refuse(*numbers: bytes) -> Play:
    """Reject these documents, and accept the others."""
    return lambda batch: WriteResult(
        batch.count - len(numbers), rejected=tuple(RejectedDocument(number, "too odd") for number in numbers)
    )


async def test_ships_in_order_and_empties_the_spool(tmp_path: Path) -> None:
    store = ScriptedSink()
    async with shipping(tmp_path, store, b"1", b"2", b"3") as pipeline:
        await pipeline.until(lambda: not pipeline.held())
        await pipeline.spool.put(b"4\n5\n", 2)
        await pipeline.until(lambda: not pipeline.held())
        assert list(store.kept) == [b"1", b"2", b"3", b"4", b"5"]
        assert pipeline.counted("events_shipped") == 5
        assert set(pipeline.failures) == {None}


async def test_spool_keeps_events_while_the_store_is_unavailable(tmp_path: Path) -> None:
    away = [StoreUnavailable(f"no answer {number}") for number in range(3)]
    store = ScriptedSink(*away)
    store.is_open.clear()
    async with shipping(tmp_path, store, b"1", b"2") as pipeline:
        await asyncio.sleep(0.05)
        assert pipeline.held() == 2
        store.is_open.set()
        await pipeline.until(lambda: not pipeline.held())
        assert list(store.kept) == [b"1", b"2"]
        assert [str(error) for error in pipeline.failures if error] == ["no answer 0", "no answer 1", "no answer 2"]
        assert pipeline.failures[-1] is None
        assert pipeline.counted("shipment_failures", reason="StoreUnavailable") == 3


async def test_spool_keeps_events_while_access_is_denied(tmp_path: Path) -> None:
    store = ScriptedSink(StoreAccessDenied("who are you"), setups=(StoreAccessDenied("who"), StoreUnavailable("gone")))
    async with shipping(tmp_path, store, b"1") as pipeline:
        await pipeline.until(lambda: not pipeline.held())
        assert [type(error) for error in pipeline.failures] == [
            StoreAccessDenied,
            StoreUnavailable,
            type(None),
            StoreAccessDenied,
            type(None),
        ]
        assert list(store.kept) == [b"1"]


async def test_missing_index_keeps_the_spool_and_logs_a_warning(tmp_path: Path) -> None:
    store = ScriptedSink(*[IndexMissing("no such index")] * 3)
    store.is_open.clear()
    with capture_logs() as logs:
        async with shipping(tmp_path, store, b"1") as pipeline:
            store.is_open.set()
            await pipeline.until(lambda: not pipeline.held())
            assert [type(error) for error in pipeline.failures if error] == [IndexMissing] * 3
            assert pipeline.shipper.failure is None
            assert pipeline.dead() == []
            assert list(store.kept) == [b"1"]
            assert pipeline.counted("shipment_failures", reason="IndexMissing") == 3
    warnings = [line for line in logs if line["event"] == "shipment_failed"]
    assert [line["log_level"] for line in warnings] == ["warning"] * 3
    assert (warnings[0]["error"], warnings[0]["advice"]) == ("no such index", IndexMissing.advice)


async def test_retry_delays_grow_up_to_the_maximum(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def away(_: DocumentBatch) -> WriteResult:
        times.append(loop.time())
        raise StoreUnavailable("no answer")

    store = ScriptedSink(*[away] * 8)
    async with shipping(tmp_path, store, b"1") as pipeline:
        await pipeline.until(lambda: not pipeline.held())
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[0] >= 0.003
    assert min(pauses[4:]) >= 0.015
    assert sum(pauses) < 2


async def test_rejected_documents_become_dead_letters_before_they_leave_the_spool(tmp_path: Path) -> None:
    store = ScriptedSink(refuse(b"2"))
    async with shipping(tmp_path, store, b"1", b"2", b"3") as pipeline:
        dead: list[RejectedDocument] = []

        def is_shipped() -> bool:
            dead[:] = pipeline.dead()
            return not pipeline.held()

        await pipeline.until(is_shipped)
        assert dead == [RejectedDocument(b"2", "too odd")]
        assert pipeline.counted("events_dead") == 1
        assert pipeline.counted("events_shipped") == 2


@pytest.mark.slow
async def test_spool_keeps_documents_whose_dead_letters_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "dead").write_text("no folder")
    store = ScriptedSink(*[refuse(b"1")] * 2)
    async with shipping(tmp_path, store, b"1") as pipeline:
        await pipeline.until(lambda: len(store.batches) == 2)
        assert pipeline.held() == 1
        (tmp_path / "dead").unlink()
        await pipeline.until(lambda: not pipeline.held())
        assert list(store.kept) == [b"1"]


async def test_only_documents_that_the_store_was_too_busy_for_are_resent(tmp_path: Path) -> None:
    store = ScriptedSink()

    def busy(batch: DocumentBatch) -> WriteResult:
        first, *rest = batch.documents()
        return WriteResult(store.keep([first]).stored, retry=DocumentBatch.from_documents(rest))

    store.script += [busy, busy]
    async with shipping(tmp_path, store, b"1", b"2", b"3") as pipeline:
        await pipeline.until(lambda: not pipeline.held())
        assert [batch.documents() for batch in store.batches] == [[b"1", b"2", b"3"], [b"2", b"3"], [b"3"]]
        assert pipeline.counted("events_shipped") == 3
        assert pipeline.counted("shipment_failures", reason="StoreBusy") == 2


def close_index_of(*numbers: bytes, store: ScriptedSink) -> Play:
    """Let these documents wait, and accept the others."""

    def play(batch: DocumentBatch) -> WriteResult:
        waiting = [line for line in batch.documents() if line in numbers]
        return replace(
            store.keep([line for line in batch.documents() if line not in numbers]),
            waiting=DocumentBatch.from_documents(waiting) if waiting else None,
            failure=IndexClosed("the index is closed") if waiting else None,
        )

    return play


async def test_new_documents_do_not_wait_for_those_that_the_store_cannot_accept(tmp_path: Path) -> None:
    store = ScriptedSink()
    store.script += [close_index_of(b"1", b"2", store=store)] * 1000
    with capture_logs() as logs:
        async with shipping(tmp_path, store, b"1", b"2", b"3") as pipeline:
            await pipeline.until(lambda: b"3" in store.kept)
            await pipeline.spool.put(b"1\n", 1)
            await pipeline.spool.put(b"4\n", 1)
            await pipeline.until(lambda: b"4" in store.kept)
            await asyncio.sleep(0.1)
            assert pipeline.held() == 3
            assert list(store.kept) == [b"3", b"4"]
            assert str(pipeline.shipper.waiting_failure) == "the index is closed"
            assert pipeline.counted("shipment_failures", reason="IndexClosed") > 3
            assert (await pipeline.shipper.pending.find([])).waiting == 3
            store.script.clear()
            await pipeline.until(lambda: not pipeline.held())
            await pipeline.until(lambda: not pipeline.shipper.pending.has_waiting)
            assert sorted(store.kept) == [b"1", b"2", b"3", b"4"]
            assert pipeline.shipper.waiting_failure is None
    events = [line for line in logs if line["event"].startswith("events_")]
    assert [line["event"] for line in events] == ["events_waiting", "events_no_longer_waiting"]
    assert (events[0]["error"], events[0]["advice"]) == ("the index is closed", IndexClosed.advice)


async def test_documents_that_wait_are_sent_again_after_a_restart(tmp_path: Path) -> None:
    store = ScriptedSink()
    store.script += [close_index_of(b"1", b"2", store=store)] * 1000
    async with shipping(tmp_path, store, b"1", b"2", b"3") as pipeline:
        await pipeline.until(lambda: pipeline.shipper.pending.has_waiting)
    assert list(store.kept) == [b"3"]
    store.script.clear()
    async with shipping(tmp_path, store) as pipeline:
        assert pipeline.shipper.pending.has_waiting
        await pipeline.until(lambda: not pipeline.held())
    assert sorted(store.kept) == [b"1", b"2", b"3"]


async def test_delays_grow_while_the_store_accepts_no_document(tmp_path: Path) -> None:
    store = ScriptedSink()
    loop = asyncio.get_running_loop()
    times: list[float] = []
    numbers = [b"%d" % number for number in range(8)]

    def closed(batch: DocumentBatch) -> WriteResult:
        times.append(loop.time())
        return close_index_of(*numbers, store=store)(batch)

    store.script += [closed] * 1000
    async with shipping(tmp_path, store) as pipeline:
        for number in numbers:
            await pipeline.spool.put(number + b"\n", 1)
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert pipeline.held() == 8
        # Two attempts at a time: of new documents, and of those that wait.
        assert len(times) < 2 * 0.4 / 0.012 + 8
        store.script.clear()
        await pipeline.until(lambda: not pipeline.held())
    assert sorted(store.kept) == numbers


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError("a bug"), ConfigurationError("wrong"), KeyError("x")])
async def test_unexpected_exceptions_lose_nothing(tmp_path: Path, error: Exception) -> None:
    store = ScriptedSink(error, setups=(error,))
    async with shipping(tmp_path, store, b"1", b"2") as pipeline:
        await pipeline.until(lambda: not pipeline.held())
        assert list(store.kept) == [b"1", b"2"]


async def test_interrupted_shipment_is_repeated_and_counts_once(tmp_path: Path) -> None:
    store = ScriptedSink()

    def keep_and_break(batch: DocumentBatch) -> WriteResult:
        store.keep(batch.documents())
        raise StoreUnavailable("the answer was lost")

    store.script.append(keep_and_break)
    async with shipping(tmp_path, store, b"1", b"2") as pipeline:
        await pipeline.until(lambda: not pipeline.held())
        assert pipeline.counted("events_duplicate") == 2
        assert list(store.kept) == [b"1", b"2"]


async def test_stop_ships_the_rest(tmp_path: Path) -> None:
    store = ScriptedSink(StoreUnavailable("no answer"))
    store.is_open.clear()
    documents = [b"%d" % number * 300 for number in range(10)]
    async with shipping(tmp_path, store, *documents) as pipeline:
        pipeline.shipper.stop()
        store.is_open.set()
    assert sorted(store.kept) == documents
    assert pipeline.held() == 0
    assert all(len(batch.body) <= ScriptedSink.preferred_batch_bytes for batch in store.batches)


async def test_unshipped_documents_are_left_for_the_next_shipper(tmp_path: Path) -> None:
    store = ScriptedSink()
    store.is_open.clear()
    pipeline = Pipeline(tmp_path, store)
    await pipeline.spool.put(b"1\n", 1)
    running = asyncio.create_task(pipeline.shipper.run())
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])
    pipeline.shipper.close()
    await pipeline.spool.close()
    store.is_open.set()
    async with shipping(tmp_path, store, b"2") as again:
        await again.until(lambda: not again.held())
        assert list(store.kept) == [b"1", b"2"]


async def test_reopened_empty_spool_is_shipped(tmp_path: Path) -> None:
    store = ScriptedSink()
    async with shipping(tmp_path, store, b"1", b"2") as pipeline:
        await pipeline.until(lambda: not pipeline.held())
        await pipeline.spool.close()
        pipeline.spool = pipeline.open_spool()
        await pipeline.spool.put(b"3\n", 1)
        await pipeline.until(lambda: not pipeline.held())
        assert list(store.kept) == [b"1", b"2", b"3"]
        assert (await pipeline.shipper.pending_stats()).events == 0


async def test_commit_wakes_the_shipper(tmp_path: Path) -> None:
    store = ScriptedSink()
    async with shipping(tmp_path, store) as pipeline:
        # Enough for the first look, which finds nothing.
        await asyncio.sleep(0.1)
        async with asyncio.timeout(drain.FALLBACK_POLL_SECONDS / 2):
            await pipeline.spool.put(b"1\n", 1)
            await pipeline.until(lambda: not pipeline.held())


async def test_ships_nothing_while_it_is_held(tmp_path: Path) -> None:
    store = ScriptedSink()
    store.is_open.clear()
    async with shipping(tmp_path, store, b"1") as pipeline:
        shipper = pipeline.shipper
        await pipeline.until(lambda: shipper.shipping_seconds > 0)
        shipper.hold()
        shipper.hold()
        waiting = asyncio.create_task(shipper.wait_until_held())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        store.is_open.set()
        await waiting
        assert list(store.kept) == [b"1"]
        await pipeline.spool.put(b"2\n", 1)
        assert not shipper.is_idle
        shipper.release()
        await asyncio.sleep(0.05)
        assert list(store.kept) == [b"1"]
        shipper.release()
        await pipeline.until(lambda: not pipeline.held())
        assert list(store.kept) == [b"1", b"2"]


async def test_leaves_the_rest_in_the_spool_if_it_is_stopped_while_held(tmp_path: Path) -> None:
    store = ScriptedSink()
    async with shipping(tmp_path, store) as pipeline:
        pipeline.shipper.hold()
        await pipeline.shipper.wait_until_held()
        await pipeline.spool.put(b"1\n", 1)
    assert (list(store.kept), pipeline.held()) == ([], 1)
