"""Readiness never waits behind queries."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry

from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import ClientAddress
from metronome.auth.key_cache import KeyCache
from metronome.errors import MetronomeError
from metronome.server.app import build_app, build_runner
from metronome.server.health import HealthRoutes
from metronome.shipper import Shipper
from metronome.spool import SpoolReader, SpoolWriter
from metronome.state.sqlite import SQLiteState
from metronome.stores.base import DocumentBatch, Store, WriteResult
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.elasticsearch.connection import IndexMissing
from metronome.stores.query import Query, QueryResult
from metronome.telemetry import Telemetry
from metronome.web.handlers import QueryContext

QUERIES: Final = 20
AT_ONCE_SECONDS: Final = 2.0
"""What "at once" means on a busy machine."""
BY_EVENTS: Final = Query(group_by=("minute",))
BY_ROLLUP: Final = Query(group_by=("day",))


class BlockedStore(DuckDBStore):
    """A store whose queries run until they are released."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.released = threading.Event()

    def _run_queries(self, cursor: Any, questions: tuple[Query, ...]) -> tuple[QueryResult, ...]:
        self.released.wait()
        return super()._run_queries(cursor, questions)


class SilentStore(DuckDBStore):
    """A store that never answers a ping."""

    async def ping(self) -> None:
        await asyncio.Event().wait()


class StoreWithoutIndex(DuckDBStore):
    """A store that answers pings and whose index for events is missing."""

    async def write(self, batch: DocumentBatch) -> WriteResult:
        raise IndexMissing(f"no index for {batch.count} events")


@pytest.fixture
async def blocked(tmp_path: Path) -> AsyncIterator[BlockedStore]:
    """Provide a store all of whose threads for queries are busy, and whose queues hold more queries."""
    store = BlockedStore(tmp_path / "blocked")
    await store.setup()
    queries = [asyncio.create_task(store.query(question)) for question in (BY_EVENTS, BY_ROLLUP) * QUERIES]
    await asyncio.sleep(0.1)
    assert not any(query.done() for query in queries)
    yield store
    store.released.set()
    await asyncio.gather(*queries)
    await store.close()


@asynccontextmanager
async def health_of(store: Store, folder: Path) -> AsyncIterator[ClientSession]:
    """Provide a client of a service that reports the health of this store."""
    keyring = KeyCache(SQLiteState(folder))
    await keyring.refresh()
    guard, telemetry = Authorizer(keyring, frozenset(), lambda: 0.0, on_loopback=True), Telemetry(CollectorRegistry())
    answering = QueryContext(store, guard, ClientAddress(()), telemetry, lambda: 1.5e9)
    spool = SpoolWriter(folder / "spool", 10**9)
    await spool.put(b"1\n", 1)
    shipper = Shipper(SpoolReader(folder / "spool"), store, folder / "dead", telemetry)
    shipping = asyncio.create_task(shipper.run())
    health = HealthRoutes(store, [shipper], 10**9, answering, lambda: [telemetry.registry])
    runner = build_runner(build_app(health.routes(), 2**20), 1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as http:
        yield http
    await runner.cleanup()
    shipping.cancel()
    await asyncio.wait([shipping])
    await spool.close()
    shipper.close()


async def readiness(http: ClientSession) -> dict[str, Any]:
    """Return the body of ``/health/ready``, which must come at once."""
    async with asyncio.timeout(AT_ONCE_SECONDS), http.get("/health/ready") as response:
        body: dict[str, Any] = await response.json()
    return body


async def test_readiness_does_not_wait_for_the_store_s_queries(blocked: BlockedStore, tmp_path: Path) -> None:
    async with health_of(blocked, tmp_path) as http:
        assert (await readiness(http))["store"]["status"] == "ok"


async def test_readiness_does_not_wait_for_threads_that_build_reports(tmp_path: Path) -> None:
    store, finished = DuckDBStore(tmp_path), threading.Event()
    await store.setup()
    async with health_of(store, tmp_path) as http:
        reports = [asyncio.create_task(asyncio.to_thread(finished.wait)) for _ in range(100)]
        try:
            assert (await readiness(http))["status"] == "ok"
        finally:
            finished.set()
            await asyncio.gather(*reports)
    await store.close()


async def test_a_store_that_never_answers_a_ping_is_reported_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metronome.server.health._PING_SECONDS", 0.1)
    store = SilentStore(tmp_path)
    async with health_of(store, tmp_path) as http:
        body = await readiness(http)
    await store.close()
    assert (body["status"], body["store"]["status"]) == ("ok", "away")


async def test_a_store_that_answers_pings_and_has_no_index_for_events_is_reported(tmp_path: Path) -> None:
    store = StoreWithoutIndex(tmp_path)
    async with health_of(store, tmp_path) as http, asyncio.timeout(30):
        while (body := await readiness(http))["store"]["status"] == "ok":  # noqa: ASYNC110  # the state is behind HTTP
            await asyncio.sleep(0.02)
    await store.close()
    assert body["store"]["detail"] == IndexMissing.public_message


async def test_a_ping_of_elasticsearch_does_not_wait_for_its_searches() -> None:
    searching = 0

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "green"}, headers={"X-Elastic-Product": "Elasticsearch"})

    async def search(_: web.Request) -> web.Response:
        nonlocal searching
        searching += 1
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.add_routes([web.get("/_cluster/health", health), web.post("/_msearch", search)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    store = ElasticsearchStore(ElasticsearchConfig(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    queries = [asyncio.create_task(store.query(BY_EVENTS)) for _ in range(QUERIES)]
    while not searching:  # noqa: ASYNC110  # the server runs in the same event loop
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    try:
        await asyncio.wait_for(store.ping(), AT_ONCE_SECONDS)
    except MetronomeError as error:
        pytest.fail(str(error))
    finally:
        for query in queries:
            query.cancel()
        await asyncio.gather(*queries, return_exceptions=True)
        await store.close()
        await runner.cleanup()
