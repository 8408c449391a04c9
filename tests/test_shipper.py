"""The shipper: each document reaches the store or the dead letters before it leaves the spool."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
from metronome.stores.elasticsearch.connection import IndexMissing
from metronome.telemetry import Telemetry

Play = Callable[[DocumentBatch], WriteResult]


class ScriptedSink(Sink):
    """A sink in memory that plays a list of outcomes, and after these takes everything.

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


class Yard:
    """One spool, its shipper, and what became of it."""

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
        with SpoolReader(self.folder / "spool") as outlet:
            return outlet.pending_stats().events

    def dead(self) -> list[RejectedDocument]:
        return list(iterate_dead_letters(self.folder / "dead"))

    def counted(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(f"metronome_{name}_total", labels) or 0.0

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110  # what it waits for is on the disk
                await asyncio.sleep(0.005)


@asynccontextmanager
async def shipping(folder: Path, store: ScriptedSink, *documents: bytes) -> AsyncIterator[Yard]:
    """Ship these documents while the block runs, and what is left as it ends."""
    yard = Yard(folder, store)
    for line in documents:
        await yard.spool.put(line + b"\n", 1)
    running = asyncio.create_task(yard.shipper.run())
    try:
        yield yard
        yard.shipper.stop()
        await asyncio.wait_for(running, 5)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await yard.spool.close()
        yard.shipper.close()


def refuse(*numbers: bytes) -> Play:
    """Refuse these documents; what the others become does not matter here."""
    return lambda batch: WriteResult(
        batch.count - len(numbers), rejected=tuple(RejectedDocument(number, "too odd") for number in numbers)
    )


async def test_what_is_in_the_spool_reaches_the_store_in_its_order_and_leaves_the_spool(tmp_path: Path) -> None:
    store = ScriptedSink()
    async with shipping(tmp_path, store, b"1", b"2", b"3") as yard:
        await yard.until(lambda: not yard.held())
        await yard.spool.put(b"4\n5\n", 2)
        await yard.until(lambda: not yard.held())
        assert list(store.kept) == [b"1", b"2", b"3", b"4", b"5"]
        assert yard.counted("events_shipped") == 5
        assert set(yard.failures) == {None}


async def test_while_the_store_is_away_the_spool_keeps_everything(tmp_path: Path) -> None:
    away = [StoreUnavailable(f"no answer {number}") for number in range(3)]
    store = ScriptedSink(*away)
    store.is_open.clear()
    async with shipping(tmp_path, store, b"1", b"2") as yard:
        await asyncio.sleep(0.05)
        assert yard.held() == 2
        store.is_open.set()
        await yard.until(lambda: not yard.held())
        assert list(store.kept) == [b"1", b"2"]
        assert [str(error) for error in yard.failures if error] == ["no answer 0", "no answer 1", "no answer 2"]
        assert yard.failures[-1] is None
        assert yard.counted("shipment_failures", reason="StoreUnavailable") == 3


async def test_credentials_that_are_denied_keep_the_spool_until_they_are_not(tmp_path: Path) -> None:
    store = ScriptedSink(StoreAccessDenied("who are you"), setups=(StoreAccessDenied("who"), StoreUnavailable("gone")))
    async with shipping(tmp_path, store, b"1") as yard:
        await yard.until(lambda: not yard.held())
        assert [type(error) for error in yard.failures] == [
            StoreAccessDenied,
            StoreUnavailable,
            type(None),
            StoreAccessDenied,
            type(None),
        ]
        assert list(store.kept) == [b"1"]


async def test_a_missing_index_keeps_the_spool_and_warns_the_operator(tmp_path: Path) -> None:
    store = ScriptedSink(*[IndexMissing("no such index")] * 3)
    store.is_open.clear()
    with capture_logs() as logs:
        async with shipping(tmp_path, store, b"1") as yard:
            store.is_open.set()
            await yard.until(lambda: not yard.held())
            assert [type(error) for error in yard.failures if error] == [IndexMissing] * 3
            assert yard.shipper.failure is None
            assert yard.dead() == []
            assert list(store.kept) == [b"1"]
            assert yard.counted("shipment_failures", reason="IndexMissing") == 3
    warnings = [line for line in logs if line["event"] == "shipment_failed"]
    assert [line["log_level"] for line in warnings] == ["warning"] * 3
    assert (warnings[0]["error"], warnings[0]["advice"]) == ("no such index", IndexMissing.advice)


async def test_pauses_grow_and_stay_below_the_longest(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def away(_: DocumentBatch) -> WriteResult:
        times.append(loop.time())
        raise StoreUnavailable("no answer")

    store = ScriptedSink(*[away] * 8)
    async with shipping(tmp_path, store, b"1") as yard:
        await yard.until(lambda: not yard.held())
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[0] >= 0.003
    assert min(pauses[4:]) >= 0.015
    assert sum(pauses) < 2


async def test_what_is_refused_lies_among_the_dead_before_it_leaves_the_spool(tmp_path: Path) -> None:
    store = ScriptedSink(refuse(b"2"))
    async with shipping(tmp_path, store, b"1", b"2", b"3") as yard:
        dead: list[RejectedDocument] = []

        def is_shipped() -> bool:
            dead[:] = yard.dead()
            return not yard.held()

        await yard.until(is_shipped)
        assert dead == [RejectedDocument(b"2", "too odd")]
        assert yard.counted("events_dead") == 1
        assert yard.counted("events_shipped") == 2


async def test_where_the_dead_cannot_be_buried_the_spool_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "dead").write_text("no folder")
    store = ScriptedSink(*[refuse(b"1")] * 2)
    async with shipping(tmp_path, store, b"1") as yard:
        await yard.until(lambda: len(store.batches) == 2)
        assert yard.held() == 1
        (tmp_path / "dead").unlink()
        await yard.until(lambda: not yard.held())
        assert list(store.kept) == [b"1"]


async def test_what_the_store_was_too_busy_for_is_written_again_alone(tmp_path: Path) -> None:
    store = ScriptedSink()

    def busy(batch: DocumentBatch) -> WriteResult:
        first, *rest = batch.documents()
        return WriteResult(store.keep([first]).stored, retry=DocumentBatch.from_documents(rest))

    store.script += [busy, busy]
    async with shipping(tmp_path, store, b"1", b"2", b"3") as yard:
        await yard.until(lambda: not yard.held())
        assert [batch.documents() for batch in store.batches] == [[b"1", b"2", b"3"], [b"2", b"3"], [b"3"]]
        assert yard.counted("events_shipped") == 3
        assert yard.counted("shipment_failures", reason="busy") == 2


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ConfigurationError("wrong"), KeyError("x")])
async def test_an_error_that_nobody_foresaw_loses_nothing(tmp_path: Path, error: Exception) -> None:
    store = ScriptedSink(error, setups=(error,))
    async with shipping(tmp_path, store, b"1", b"2") as yard:
        await yard.until(lambda: not yard.held())
        assert list(store.kept) == [b"1", b"2"]


async def test_a_shipment_that_was_cut_off_is_made_again_and_counts_once(tmp_path: Path) -> None:
    store = ScriptedSink()

    def keep_and_break(batch: DocumentBatch) -> WriteResult:
        store.keep(batch.documents())
        raise StoreUnavailable("the answer was lost")

    store.script.append(keep_and_break)
    async with shipping(tmp_path, store, b"1", b"2") as yard:
        await yard.until(lambda: not yard.held())
        assert yard.counted("events_duplicate") == 2
        assert list(store.kept) == [b"1", b"2"]


async def test_a_stop_ships_what_is_left(tmp_path: Path) -> None:
    store = ScriptedSink(StoreUnavailable("no answer"))
    store.is_open.clear()
    documents = [b"%d" % number * 300 for number in range(10)]
    async with shipping(tmp_path, store, *documents) as yard:
        yard.shipper.stop()
        store.is_open.set()
    assert sorted(store.kept) == documents
    assert yard.held() == 0
    assert all(len(batch.body) <= ScriptedSink.preferred_batch_bytes for batch in store.batches)


async def test_what_is_not_shipped_at_the_end_is_there_for_the_next_shipper(tmp_path: Path) -> None:
    store = ScriptedSink()
    store.is_open.clear()
    yard = Yard(tmp_path, store)
    await yard.spool.put(b"1\n", 1)
    running = asyncio.create_task(yard.shipper.run())
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])
    yard.shipper.close()
    await yard.spool.close()
    store.is_open.set()
    async with shipping(tmp_path, store, b"2") as again:
        await again.until(lambda: not again.held())
        assert list(store.kept) == [b"1", b"2"]


async def test_an_emptied_spool_that_is_opened_again_is_shipped_as_well(tmp_path: Path) -> None:
    store = ScriptedSink()
    async with shipping(tmp_path, store, b"1", b"2") as yard:
        await yard.until(lambda: not yard.held())
        await yard.spool.close()
        yard.spool = yard.open_spool()
        await yard.spool.put(b"3\n", 1)
        await yard.until(lambda: not yard.held())
        assert list(store.kept) == [b"1", b"2", b"3"]
        assert (await yard.shipper.pending_stats()).events == 0


async def test_a_commit_is_shipped_without_waiting_for_the_next_look(tmp_path: Path) -> None:
    store = ScriptedSink()
    async with shipping(tmp_path, store) as yard:
        # Enough for the first look, which finds nothing.
        await asyncio.sleep(0.1)
        async with asyncio.timeout(drain.FALLBACK_POLL_SECONDS / 2):
            await yard.spool.put(b"1\n", 1)
            await yard.until(lambda: not yard.held())
