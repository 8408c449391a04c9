"""A report that is requested right after a reply has the acknowledged events, without a wait by the client."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson
import pytest
from aiohttp import ClientSession, TCPConnector, web
from prometheus_client import CollectorRegistry

from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import ClientAddress
from metronome.auth.key_cache import KeyCache
from metronome.page.routes import PageRoutes
from metronome.protocols.micro_analytics import build_query_routes
from metronome.protocols.micro_metrics.routes import build_report_routes
from metronome.protocols.microticks.routes import build_list_routes
from metronome.reports.counter.dataset_report import Platform
from metronome.server.app import build_app, build_runner
from metronome.server.report_routes import badge_routes, counter_routes, query_routes, report_routes
from metronome.server_client import PENDING_HEADER
from metronome.state.sqlite import SQLiteState
from metronome.stores.duckdb import DuckDBStore
from metronome.telemetry import Telemetry
from metronome.visibility import Visibility
from metronome.web.handlers import QueryContext
from metronome.web.limits import QUERY_LIMITS
from tests.servers import Server, delete_indices, running_server, unique_name

RUNS: Final = 48


def tick(server: Server, item: str, **fields: Any) -> None:
    server.post_events(orjson.dumps({"id": item, "ts": "2015-01-22T09:30:00Z", **fields}))


def report(server: Server, path: str) -> Any:
    """Return the first report that does not say that events are missing: on a busy machine, some may."""
    while True:
        with urllib.request.urlopen(server.url + path, timeout=60) as response:  # noqa: S310  # our own server
            if PENDING_HEADER not in response.headers:
                return orjson.loads(response.read())


def test_a_tock_right_after_its_tick_is_right_each_time(either: Server) -> None:
    items = [unique_name("first ") for _ in range(RUNS)]
    views = []
    for item in items:
        tick(either, item)
        views.append(report(either, f"/tock/{quote(item)}.json")["views"])
    assert views == [{"2015-01-22": 1}] * RUNS


@pytest.mark.slow
async def test_a_report_has_the_events_that_another_worker_has_acknowledged(crew: Server) -> None:
    # Each request is a connection of its own, and so any worker's.
    async with ClientSession(crew.url, connector=TCPConnector(force_close=True)) as http:
        item = unique_name("spread-")
        for number in range(1, 17):
            await asyncio.gather(*(http.post("/tick", json={"id": item, "ts": "2015-01-22"}) for _ in range(3)))
            tock = await asyncio.to_thread(report, crew, f"/tock/{item}.json")
            assert tock["views"] == {"2015-01-22": 3 * number}


def test_every_kind_of_report_has_the_events_at_once(server: Server, item: str) -> None:
    filters = f"id={item}"
    paths = (f"/query?{filters}", f"/counter/{item}.json", "/items.json?limit=0", f"/errors/{item}.json")
    found = []
    for path in paths:
        tick(server, item, event="view", session=unique_name(), visitor=unique_name())
        found.append(report(server, path))
    query, _, items, _ = found
    assert query["rows"] == [[1]]
    assert next(row for row in items["items"] if row["id"] == item)["views"] == 3


@pytest.mark.slow
def test_events_of_before_a_crash_are_in_the_first_report_after_it(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        server.start()
        tick(server, "rivers")
        server.kill()
        server.start()
        assert report(server, "/tock/rivers.json")["views"] == {"2015-01-22": 1}
        assert server.stop() == 0


@pytest.mark.elasticsearch
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_reports_from_elasticsearch_are_right_at_once(elasticsearch_url: str, tmp_path: Path, workers: int) -> None:
    prefix = unique_name("first")
    try:
        with running_server(
            tmp_path / "data", store=elasticsearch_url, index_prefix=prefix, workers=workers, read_wait_seconds=10
        ) as server:
            for number in range(1, 9):
                tick(server, "rivers")
                assert report(server, "/tock/rivers.json")["views"] == {"2015-01-22": number}
                if number % 2:
                    server.wait_until_shipped()
                assert report(server, "/query")["rows"] == [[number]]
            assert server.error_lines() == []
    finally:
        delete_indices(elasticsearch_url, prefix)


class ScriptedVisibility(Visibility):
    """Remembers what it is to wait for, and returns how many events are missing."""

    def __init__(self) -> None:
        self.items: list[Collection[str]] = []
        self.pending = 0
        self.may_return = asyncio.Event()
        self.may_return.set()

    @property
    def version(self) -> int:
        """Queries see no more events as time passes."""
        return 0

    def deletions(self) -> int:
        """Nothing is forgotten."""
        return 0

    async def wait_for(self, items: Collection[str] = ()) -> int:
        """Return when that is permitted."""
        self.items.append(items)
        await self.may_return.wait()
        return self.pending


@pytest.fixture
def visibility() -> ScriptedVisibility:
    return ScriptedVisibility()


@pytest.fixture
async def http(visibility: ScriptedVisibility, tmp_path: Path) -> AsyncIterator[ClientSession]:
    """Provide a client of all reports, which are open to this machine."""
    store = DuckDBStore(tmp_path)
    await store.setup()
    state = SQLiteState(tmp_path)
    key_cache = KeyCache(state)
    await key_cache.refresh()
    authorizer = Authorizer(key_cache, frozenset(), lambda: 0.0, on_loopback=True)
    telemetry = Telemetry(CollectorRegistry())
    context = QueryContext(store, authorizer, ClientAddress(()), telemetry, lambda: 1.5e9, visibility=visibility)
    page = PageRoutes(context, state)
    routes = [
        web.get("/", page.overview),
        *page.routes(),
        *report_routes(context),
        *query_routes(context, 2**20),
        *badge_routes(context),
        *counter_routes(context, Platform("", "", "")),
        *build_query_routes("/hit", context),
        *build_report_routes(context),
        *build_list_routes(context, ""),
    ]
    runner = build_runner(build_app(routes, 2**20), 1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()
    await store.close()


async def headers_of(http: ClientSession, path: str, **headers: str) -> tuple[int, dict[str, str]]:
    async with http.get(path, headers=headers) as response:
        return response.status, dict(response.headers)


REPORTS: Final[tuple[tuple[str, Sequence[tuple[str, ...]]], ...]] = (
    *((f"/{name}/a%2Fb%20c.json", [("a/b c",)]) for name in ("tock", "flow", "time", "errors", "recommendations")),
    *((f"/{name}.json", [()]) for name in ("items", "flow", "time", "errors", "recommendations")),
    ("/badge/a%2Fb.svg", [("a/b",)]),
    ("/query", [()]),
    ("/counter/a.json", [("a",)]),
    ("/counter/reports/dsr?dataset_id=a&begin_date=2017-01&end_date=2017-01", [("a",)]),
    ("/counter/reports/dsr?begin_date=2017-01&end_date=2017-01", [()]),
    ("/counter/reports", []),
    ("/counter/status", []),
    ("/hit/a/b?count", [("/a/b",)]),
    ("/hit/a?views", [("/a",)]),
    ("/hit/", [()]),
    ("/api/report", [()]),
    ("/api/report/count.csv", [()]),
    ("/sessions", [()]),
    ("/events", [()]),
    ("/", [()]),
    ("/items/a%2Fb", [("a/b",)]),
    ("/tables/countries", [()]),
    ("/tables/countries.csv", [()]),
    ("/embed/a", [("a",)]),
    ("/live", [()]),
)
"""Paths, and the items for which each waits: none for all events."""


async def test_each_report_waits_for_its_items(http: ClientSession, visibility: ScriptedVisibility) -> None:
    for path, items in REPORTS:
        visibility.items.clear()
        status, headers = await headers_of(http, path)
        assert (path, status, visibility.items) == (path, 200, items)
        assert PENDING_HEADER not in headers


async def test_a_response_says_how_many_events_may_be_missing(
    http: ClientSession, visibility: ScriptedVisibility
) -> None:
    visibility.pending = 3
    for path in ("/tock/a.json", "/query", "/badge/a.svg", "/counter/a.json", "/hit/a?count", "/api/report", "/events"):
        status, headers = await headers_of(http, path)
        assert (status, headers[PENDING_HEADER]) == (200, "3")
        assert PENDING_HEADER in headers["Access-Control-Expose-Headers"].split(", ")
        assert "max-age" not in headers["Cache-Control"]
    _, headers = await headers_of(http, "/query")
    assert headers["Access-Control-Expose-Headers"] == "ETag, Metronome-Total, Metronome-Exact, Metronome-Pending"
    status, headers = await headers_of(http, "/tock/a.json", **{"If-None-Match": "*"})
    assert (status, headers[PENDING_HEADER]) == (304, "3")
    visibility.pending = 0
    _, headers = await headers_of(http, "/badge/a.svg")
    assert headers["Cache-Control"] == "max-age=300"


async def test_a_waiting_report_holds_no_slot_of_expensive_queries(
    http: ClientSession, visibility: ScriptedVisibility
) -> None:
    visibility.may_return.clear()
    waiting = [asyncio.create_task(headers_of(http, "/query")) for _ in range(QUERY_LIMITS.max_concurrent + 1)]
    while len(visibility.items) < len(waiting):  # noqa: ASYNC110  # the requests come through sockets
        await asyncio.sleep(0.005)
    visibility.may_return, others = asyncio.Event(), visibility.may_return
    visibility.may_return.set()
    async with asyncio.timeout(5):
        assert (await headers_of(http, "/query"))[0] == 200
    others.set()
    assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
