"""Questions that take long or have large answers: what is quick never waits for them, and memory has a bound."""

import asyncio
import threading
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry

from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import ClientAddress
from metronome.auth.key_cache import KeyCache
from metronome.event import DocumentContext, Event, build_document
from metronome.server.app import build_app, build_runner
from metronome.server.report_routes import query_routes, report_routes
from metronome.state.sqlite import SQLiteState
from metronome.stores.base import DocumentBatch
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.query import Query, QueryResult
from metronome.telemetry import Telemetry
from metronome.web.handlers import QueryContext
from metronome.web.limits import QUERY_LIMITS

DOOR: Final = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
PATIENCE: Final = 30.0
LARGE: Final = "x" * 2**20


class Slow(DuckDBStore):
    """A store whose threads stay at each question by minutes until they are let go, and whose referers are large."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go = threading.Event()
        self.is_busy = threading.Event()
        self.at_work = 0
        self.most_at_work = 0
        self.begun = 0
        self._lock = threading.Lock()

    def _run_queries(self, cursor: Any, questions: tuple[Query, ...]) -> tuple[QueryResult, ...]:
        if "referer" in questions[0].group_by:
            return (QueryResult(questions[0].columns, ((LARGE, 1),) * 40, 40),)
        if "minute" not in questions[0].group_by:
            return super()._run_queries(cursor, questions)
        with self._lock:
            self.begun += 1
            self.at_work += 1
            self.most_at_work = max(self.at_work, self.most_at_work)
            if self.at_work == QUERY_LIMITS.max_concurrent:
                self.is_busy.set()
        assert self.go.wait(PATIENCE)
        with self._lock:
            self.at_work -= 1
        return super()._run_queries(cursor, questions)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Slow]:
    store = Slow(tmp_path)
    await store.setup()
    await store.write(DocumentBatch.from_documents([build_document(Event({"id": "a"}), DOOR, "1")]))
    yield store
    store.go.set()
    await store.close()


@pytest.fixture
async def http(store: Slow, tmp_path: Path) -> AsyncIterator[ClientSession]:
    """Ask a service over a real port, which knows no keys and so is open to this machine."""
    keyring = KeyCache(SQLiteState(tmp_path))
    await keyring.refresh()
    guard = Authorizer(keyring, frozenset(), lambda: 0.0, on_loopback=True)
    answering = QueryContext(store, guard, ClientAddress(()), Telemetry(CollectorRegistry()), lambda: 1.5e9)
    runner = build_runner(build_app([*report_routes(answering), *query_routes(answering, 2**20)], 2**20), 1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


async def status_of(http: ClientSession, path: str) -> int:
    async with http.get(path) as answer:
        await answer.read()
        return answer.status


SLOW: Final = "/query?by=minute"


async def crowd(http: ClientSession, store: Slow) -> tuple[list[asyncio.Task[int]], set[asyncio.Task[int]]]:
    """Have as many slow questions at work as may be, then as many wait as may; the next one is refused."""
    at_work = [asyncio.create_task(status_of(http, SLOW)) for _ in range(QUERY_LIMITS.max_concurrent)]
    assert await asyncio.to_thread(store.is_busy.wait, PATIENCE)
    others = [asyncio.create_task(status_of(http, SLOW)) for _ in range(QUERY_LIMITS.max_waiting + 1)]
    done, waiting = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [HTTPStatus.SERVICE_UNAVAILABLE]
    return at_work, waiting


async def test_cheap_reports_do_not_wait_for_expensive_queries(http: ClientSession, store: Slow) -> None:
    at_work, waiting = await crowd(http, store)
    async with http.get("/tock/a.json") as answer:
        assert (answer.status, (await answer.json())["views"]) == (HTTPStatus.OK, {"2015-01-22": 1})
    assert not any(task.done() for task in (*at_work, *waiting))
    assert (store.begun, store.at_work) == (QUERY_LIMITS.max_concurrent, QUERY_LIMITS.max_concurrent)
    store.go.set()
    statuses = await asyncio.gather(*at_work, *waiting)
    assert statuses == [HTTPStatus.OK] * (QUERY_LIMITS.max_concurrent + QUERY_LIMITS.max_waiting)
    assert store.most_at_work == QUERY_LIMITS.max_concurrent
    assert await status_of(http, "/query") == HTTPStatus.OK


@pytest.mark.parametrize(
    "path",
    [
        *("/flow/a.json", "/time.json", "/errors/a.json", "/recommendations.json", "/tock/a.json?limit=0"),
        *("/items.json?order=rising", "/items.json?limit=0", "/tock/a.json?interval=minute"),
    ],
)
async def test_expensive_reports_wait_for_a_slot(http: ClientSession, store: Slow, path: str) -> None:
    at_work, waiting = await crowd(http, store)
    assert await status_of(http, path) == HTTPStatus.SERVICE_UNAVAILABLE
    assert await status_of(http, "/items.json") == HTTPStatus.OK
    store.go.set()
    await asyncio.gather(*at_work, *waiting)
    assert await status_of(http, path) == HTTPStatus.OK


async def test_rejects_queries_beyond_the_waiting_limit_with_retry_after(http: ClientSession, store: Slow) -> None:
    at_work, waiting = await crowd(http, store)
    async with http.get("/query") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "5")
        problem = await answer.json(content_type="application/problem+json")
    assert f"{QUERY_LIMITS.max_waiting} other queries are already waiting" in problem["detail"]
    store.go.set()
    await asyncio.gather(*at_work, *waiting)


async def test_queries_of_disconnected_clients_do_not_run(http: ClientSession, store: Slow) -> None:
    at_work, waiting = await crowd(http, store)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    # By then the service has seen that these lines are closed: it hears of all in one loop.
    for _ in range(2):
        assert await status_of(http, "/tock/a.json") == HTTPStatus.OK
    store.go.set()
    assert await asyncio.gather(*at_work) == [HTTPStatus.OK] * QUERY_LIMITS.max_concurrent
    assert await status_of(http, "/query") == HTTPStatus.OK
    assert store.begun == QUERY_LIMITS.max_concurrent


async def test_rejects_a_very_large_result(http: ClientSession) -> None:
    async with http.get("/query?by=referer") as answer:
        assert answer.status == HTTPStatus.BAD_REQUEST
        assert "the result is over 32 MiB" in (await answer.json(content_type=None))["detail"]
