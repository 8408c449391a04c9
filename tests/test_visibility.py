"""Reports wait until queries see the events that were acknowledged before: not for others, and not for long."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from metronome import visibility
from metronome.errors import StoreAccessDenied, StoreUnavailable
from metronome.retry import Backoff
from metronome.shipper import Shipper
from metronome.spool import SpoolReader, SpoolWriter
from metronome.stores.base import DocumentBatch, WriteResult
from metronome.stores.duckdb import DuckDBStore
from metronome.telemetry import Telemetry
from metronome.visibility import Visibility

LONG: Final = 5.0
"""A limit that no test reaches."""
SHORT: Final = 0.05


class GatedStore(DuckDBStore):
    """A store in memory that writes while its gate is open; queries see writes at once, or after a refresh."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.refresh_error: Exception | None = None
        self.written = b""
        self.visible = b""
        self.refreshes = 0

    async def setup(self) -> None:
        """Do nothing."""

    async def write(self, batch: DocumentBatch) -> WriteResult:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.written += batch.body
        if not self.refresh_seconds:
            self.visible = self.written
        return WriteResult(batch.count)

    async def refresh_written(self) -> None:
        written = self.written
        self.refreshes += 1
        await asyncio.sleep(0.01)
        if self.refresh_error is not None:
            raise self.refresh_error
        self.visible = written


class RefreshedStore(GatedStore):
    refresh_seconds = 10.0


class Server:
    """The spools and shippers of a server with any number of workers."""

    def __init__(self, folder: Path, store: GatedStore, max_seconds: float, workers: int) -> None:
        self.store = store
        self.telemetry = Telemetry(CollectorRegistry())
        folders = [folder / str(number) for number in range(workers)]
        self.spools = [SpoolWriter(path, 10**9, partial(self.on_commit, number)) for number, path in enumerate(folders)]
        self.shippers = [
            Shipper(SpoolReader(path), store, folder / "dead", self.telemetry, Backoff(0.01, 0.02)) for path in folders
        ]
        self.unreported: list[int] = []
        self.reports_late = False
        self.visibility = Visibility(self.shippers, store, max_seconds, self.telemetry, self.report)

    def on_commit(self, number: int, *_: float) -> None:
        self.unreported.append(number)
        if not self.reports_late:
            self.report()

    def report(self) -> None:
        while self.unreported:
            self.shippers[self.unreported.pop()].wake()

    async def tick(self, item: str, worker: int = 0) -> None:
        await self.spools[worker].put(document(item), 1)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110  # what it waits for happens in threads
                await asyncio.sleep(0.005)

    def waits(self) -> float:
        return self.telemetry.registry.get_sample_value("metronome_read_wait_seconds_count") or 0.0


def document(item: str) -> bytes:
    return b'{"@timestamp":"2015-01-22T09:30:00.000Z","event_id":"e","id":"%s"}\n' % item.encode()


@asynccontextmanager
async def serving(
    store: GatedStore, folder: Path, max_seconds: float = LONG, workers: int = 1
) -> AsyncIterator[Server]:
    server = Server(folder, store, max_seconds, workers)
    running = [asyncio.create_task(shipper.run()) for shipper in server.shippers]
    await server.until(lambda: all(shipper.is_idle for shipper in server.shippers))
    try:
        yield server
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for spool, shipper in zip(server.spools, server.shippers, strict=True):
            await spool.close()
            shipper.close()
        await store.close()


async def test_a_report_sees_the_events_acknowledged_before_it(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path, workers=2) as server:
        for number in range(48):
            item = f"item-{number}"
            await server.tick(item, worker=number % 2)
            assert await server.visibility.wait_for([item] if number % 3 else ()) == 0
            assert document(item) in server.store.visible
        assert server.waits() > 0


async def test_a_report_sees_events_whose_commit_is_reported_late(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path, workers=2) as server:
        server.reports_late = True
        await server.tick("a", worker=1)
        assert all(shipper.is_idle for shipper in server.shippers)
        assert await server.visibility.wait_for(["a"]) == 0
        assert document("a") in server.store.visible


async def test_an_idle_server_answers_without_a_wait(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path) as server:
        await server.tick("a")
        await server.until(lambda: server.shippers[0].is_idle)
        assert await server.visibility.wait_for() == 0
        assert server.waits() == 0


async def test_a_report_does_not_wait_for_other_items(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path) as server:
        server.store.gate.clear()
        await server.tick("a")
        async with asyncio.timeout(1):
            assert await server.visibility.wait_for(["b"]) == 0
        assert server.waits() == 0


async def test_a_report_does_not_wait_for_later_events(tmp_path: Path) -> None:
    store = GatedStore(tmp_path)
    async with serving(store, tmp_path) as server:
        store.gate.clear()
        await server.tick("a")
        await server.until(lambda: server.shippers[0].shipping_seconds > 0)
        waiting = asyncio.create_task(server.visibility.wait_for(["a"]))
        await server.until(lambda: server.shippers[0]._waiting_reads == 1)
        await server.tick("a")
        # The next write has to wait.
        store.gate, first_gate = asyncio.Event(), store.gate
        first_gate.set()
        assert await waiting == 0
        assert store.visible == document("a")


async def test_past_the_limit_a_report_says_how_many_events_are_missing(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path, SHORT) as server:
        server.store.gate.clear()
        await server.tick("a")
        await server.tick("a")
        await server.tick("b")
        began = time.monotonic()
        assert await server.visibility.wait_for(["a"]) == 2
        assert time.monotonic() - began >= SHORT
        assert await server.visibility.wait_for() == 3


async def test_no_report_waits_for_a_shipment_that_takes_longer_than_the_limit(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path, SHORT) as server:
        server.store.gate.clear()
        await server.tick("a")
        await server.until(lambda: server.shippers[0].shipping_seconds > SHORT)
        assert await server.visibility.wait_for(["a"]) == 1
        assert server.waits() == 0


async def test_no_report_waits_while_the_store_is_unavailable(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path) as server:
        server.store.error = StoreUnavailable("gone")
        await server.tick("a")
        async with asyncio.timeout(1):
            # The first one may begin to wait before the first attempt has failed.
            await server.visibility.wait_for(["a"])
            waits = server.waits()
            assert await server.visibility.wait_for(["a"]) == 1
            assert await server.visibility.wait_for() == 1
        assert server.waits() == waits
        server.store.error = None
        await server.until(lambda: not server.shippers[0].is_failing)
        assert await server.visibility.wait_for(["a"]) == 0


async def test_no_report_waits_after_a_bug_in_the_shipper(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path) as server:
        server.store.error = ValueError("a bug")
        with capture_logs():
            await server.tick("a")
            await server.until(lambda: server.shippers[0].is_failing)
            server.store.error = None
            async with asyncio.timeout(1):
                assert await server.visibility.wait_for(["a"]) in {0, 1}


async def test_reports_about_all_events_wait_only_for_a_small_backlog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(GatedStore(tmp_path), tmp_path) as server:
        server.store.gate.clear()
        await server.tick("a")
        # The last shipment was small, and took long.
        monkeypatch.setattr(server.shippers[0], "_last_shipment", (LONG * 2, 100))
        assert await server.visibility.wait_for() == 1
        assert server.waits() == 0
        server.store.gate.set()
        assert await server.visibility.wait_for(["a"]) == 0


async def test_the_time_to_ship_a_backlog_is_estimated_from_the_last_shipment(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path) as server:
        shipper, small = server.shippers[0], server.store.preferred_batch_bytes // 8
        assert shipper.expected_seconds(8 * small) == 0
        shipper._last_shipment = (0.5, 100)
        assert [shipper.expected_seconds(size) for size in (100, small, 8 * small)] == [0.5, 0.5, 4.0]
        shipper._last_shipment = (2.0, 8 * small)
        assert [shipper.expected_seconds(size) for size in (small, 16 * small)] == [0.25, 4.0]


async def test_a_waiting_report_ends_the_shipper_s_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metronome.shipper._REST_FACTOR", 10**6)
    monkeypatch.setattr("metronome.shipper._MAX_REST_SECONDS", 60.0)
    async with serving(GatedStore(tmp_path), tmp_path) as server:
        await server.tick("a")
        await server.until(lambda: server.store.visible != b"")
        await server.tick("b")
        assert await server.visibility.wait_for(["b"]) == 0
        assert document("b") in server.store.visible


async def test_zero_turns_waiting_off(tmp_path: Path) -> None:
    async with serving(GatedStore(tmp_path), tmp_path, 0.0) as server:
        server.store.gate.clear()
        await server.tick("a")
        assert await server.visibility.wait_for(["a"]) == 0
        assert server.waits() == 0


async def test_events_left_in_the_spool_by_a_crash_are_waited_for(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path / "0", 10**9)
    await spool.put(document("a"), 1)
    await spool.close()
    store = GatedStore(tmp_path)
    server = Server(tmp_path, store, LONG, 1)
    assert await Visibility(server.shippers, store, SHORT, server.telemetry).wait_for(["a"]) == 1
    running = asyncio.create_task(server.shippers[0].run())
    assert await server.visibility.wait_for(["a"]) == 0
    assert document("a") in store.visible
    running.cancel()
    await asyncio.wait([running])
    await server.spools[0].close()
    server.shippers[0].close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "REFRESH_SECONDS", SHORT)


async def test_a_refresh_makes_stored_events_visible(tmp_path: Path) -> None:
    async with serving(RefreshedStore(tmp_path), tmp_path) as server:
        await server.tick("a")
        await server.tick("b")
        await server.until(lambda: server.shippers[0].is_idle)
        assert await server.visibility.wait_for(["c"]) == 0
        assert server.store.refreshes == 0
        assert await server.visibility.wait_for(["a"]) == 0
        assert document("a") in server.store.visible
        # It made both visible.
        assert await server.visibility.wait_for(["b"]) == 0
        assert await server.visibility.wait_for() == 0
        assert server.store.refreshes == 1


async def test_reports_at_once_share_a_refresh(tmp_path: Path) -> None:
    async with serving(RefreshedStore(tmp_path), tmp_path) as server:
        for item in "abc":
            await server.tick(item)
        await server.until(lambda: server.shippers[0].is_idle)
        first = [asyncio.create_task(server.visibility.wait_for([item])) for item in "abc"]
        await server.until(lambda: server.store.refreshes == 1)
        assert await server.visibility.wait_for() == 0
        assert await asyncio.gather(*first) == [0, 0, 0]
        assert server.store.refreshes == 1


@pytest.mark.usefixtures("often")
async def test_refreshes_are_a_minimum_time_apart(tmp_path: Path) -> None:
    async with serving(RefreshedStore(tmp_path), tmp_path) as server:
        began = time.monotonic()
        for number in range(3):
            item = f"item-{number}"
            await server.tick(item)
            assert await server.visibility.wait_for([item]) == 0
            assert document(item) in server.store.visible
        assert server.store.refreshes == 3
        assert time.monotonic() - began >= 2 * SHORT


@pytest.mark.usefixtures("often")
async def test_a_refresh_that_is_not_permitted_delays_no_further_report(tmp_path: Path) -> None:
    async with serving(RefreshedStore(tmp_path), tmp_path) as server:
        server.store.refresh_error = StoreAccessDenied("no privilege")
        await server.tick("a")
        with capture_logs() as logs:
            assert await server.visibility.wait_for(["a"]) == 1
            assert await server.visibility.wait_for(["a"]) == 1
            assert await server.visibility.wait_for() == 1
        assert [entry["event"] for entry in logs] == ["refresh_failed"]
        assert (server.store.refreshes, server.waits()) == (1, 1)
