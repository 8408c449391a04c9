"""A real server whose Elasticsearch goes away and comes back: ticks are taken all the while, and none is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from tests.servers import Server, delete_indices, refresh_indices, running_server, unique_name

SECONDS: Final = aiohttp.ClientTimeout(total=60)

pytestmark = [pytest.mark.elasticsearch, pytest.mark.slow]


class Proxy:
    """A line to a server that can be cut and restored; what it listens on stays the same."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def restore(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break all connections, and refuse others."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection(*self._target)
            self._writers |= {writer, back}
            if self._server is None:
                # It was cut before this connection was complete.
                writer.transport.abort()
                back.transport.abort()
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
            self._writers -= {writer, back}
        except OSError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(65536):
                writer.write(part)
                await writer.drain()
        writer.transport.abort()


NewServer = Callable[..., Server]


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    """Make servers as `Server` does; those that still run at the test's end are killed."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(Server(*arguments, **settings))


@pytest.fixture
def prefix(elasticsearch_url: str) -> Iterator[str]:
    name = unique_name("away")
    yield name
    delete_indices(elasticsearch_url, name)


@pytest.fixture
async def proxy(elasticsearch_url: str) -> AsyncIterator[Proxy]:
    address = urlsplit(elasticsearch_url)
    proxy = Proxy(str(address.hostname), int(address.port or 9200))
    await proxy.restore()
    yield proxy
    await proxy.cut()


async def started(server: Server) -> Server:
    """Start a server, while the proxy, which lives in this loop, goes on."""
    await asyncio.to_thread(server.start)
    return server


@pytest.fixture
async def server(new_server: NewServer, proxy: Proxy, prefix: str, tmp_path: Path) -> AsyncIterator[Server]:
    server = await started(
        new_server(tmp_path / "data", store=proxy.url, index_prefix=prefix, spool_max_bytes=1_000_000)
    )
    yield server
    assert await asyncio.to_thread(server.stop) == 0
    assert server.error_lines() == []


async def stored(url: str, prefix: str) -> list[str]:
    """Return the identities of all events that are in Elasticsearch."""
    await asyncio.to_thread(refresh_indices, url, prefix)
    store = ElasticsearchStore(ElasticsearchConfig(url, None, None, prefix))
    try:
        return sorted([orjson.loads(document)["event_id"] async for document in store.iterate_documents()])
    finally:
        await store.close()


async def tick(http: aiohttp.ClientSession, count: int, text: str = "") -> list[str]:
    """Send events one by one, and return the identities of those taken, up to the first that is not."""
    taken = []
    for _ in range(count):
        one = unique_name()
        async with http.post("/tick", json={"id": "x", "event_id": one, "text": text}) as answer:
            if answer.status != 204:
                break
        taken.append(one)
    return taken


async def status_of(http: aiohttp.ClientSession, path: str) -> int:
    async with http.get(path) as answer:
        return answer.status


async def test_ticks_are_taken_while_the_store_is_away_and_arrive_once(
    server: Server, proxy: Proxy, elasticsearch_url: str, prefix: str
) -> None:
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
        taken = await tick(http, 50)
        await asyncio.to_thread(server.wait_until_shipped)
        # Cut amid what is on its way.
        taken += await tick(http, 50)
        await proxy.cut()
        known = await asyncio.to_thread(server.spooled_events)
        taken += await tick(http, 2000)
        assert len(taken) == 2100
        assert await asyncio.to_thread(server.spooled_events) >= max(known, 2000)
        assert await status_of(http, "/health/ready") == 200
        assert await status_of(http, "/health/ready/spool") == 200
        assert await status_of(http, "/health/ready/store") == 503
        assert await status_of(http, "/health/live") == 200
        async with http.get("/tock/x.json") as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert (await answer.json(content_type="application/problem+json"))["title"] == "StoreUnavailable"
        await proxy.restore()
        await asyncio.to_thread(server.wait_until_shipped)
        assert await status_of(http, "/health/ready/store") == 200
        async with http.get("/metrics") as answer:
            text = await answer.text()
    assert 'metronome_shipment_failures_total{reason="StoreUnavailable"}' in text
    assert await stored(elasticsearch_url, prefix) == sorted(taken)


async def test_a_store_that_goes_and_comes_often_gets_each_event_once(
    server: Server, proxy: Proxy, elasticsearch_url: str, prefix: str
) -> None:
    taken: list[str] = []
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
        for _ in range(5):
            taken += await tick(http, 100)
            await proxy.cut()
            taken += await tick(http, 20)
            await proxy.restore()
            await asyncio.sleep(0.3)
    await asyncio.to_thread(server.wait_until_shipped)
    assert len(taken) == 600
    assert await stored(elasticsearch_url, prefix) == sorted(taken)


async def test_a_full_spool_refuses_and_loses_nothing_and_takes_again(
    server: Server, proxy: Proxy, elasticsearch_url: str, prefix: str
) -> None:
    await proxy.cut()
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
        taken = await tick(http, 5000, "x" * 1000)
        assert 500 < len(taken) < 1000
        async with http.post("/tick", json=[{"id": "x", "text": "x" * 1000}] * 3) as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            problem = await answer.json(content_type="application/problem+json")
        assert problem["title"] == "SpoolFull"
        assert "spool_max_bytes" in problem["detail"]
        assert await status_of(http, "/health/ready") == 503
        assert await asyncio.to_thread(server.spooled_events) == len(taken)
        await proxy.restore()
        await asyncio.to_thread(server.wait_until_shipped)
        assert await status_of(http, "/health/ready") == 200
        taken += await until_taken(http)
        taken += await tick(http, 100, "x" * 1000)
        await asyncio.to_thread(server.wait_until_shipped)
    assert await stored(elasticsearch_url, prefix) == sorted(taken)


async def until_taken(http: aiohttp.ClientSession) -> list[str]:
    """Send an event again and again, as a caller does who is told to, until it is taken."""
    for _ in range(300):
        if taken := await tick(http, 1, "x" * 1000):
            return taken
        await asyncio.sleep(0.1)
    raise AssertionError("a spool that is empty takes no event")


async def test_a_full_spool_of_one_worker_takes_again(
    new_server: NewServer, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    server = new_server(tmp_path / "data", store=proxy.url, index_prefix=prefix, spool_max_bytes=200_000, workers=2)
    await started(server)
    await proxy.cut()
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(server.url, timeout=SECONDS, connector=connector) as http:
        refused = 0
        while refused < 20:
            refused += not await tick(http, 1, "x" * 1000)
        await proxy.restore()
        await asyncio.to_thread(server.wait_until_shipped)
        await asyncio.sleep(0.2)
        for _ in range(10):
            await until_taken(http)
    assert await asyncio.to_thread(server.stop) == 0
    assert server.error_lines() == []


async def test_a_server_may_be_started_while_the_store_is_away(
    new_server: NewServer, proxy: Proxy, elasticsearch_url: str, prefix: str, tmp_path: Path
) -> None:
    await proxy.cut()
    server = await started(new_server(tmp_path / "data", store=proxy.url, index_prefix=prefix))
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
        taken = await tick(http, 100)
        assert len(taken) == 100
        assert await status_of(http, "/health/ready") == 200
        assert await status_of(http, "/health/ready/store") == 503
        await proxy.restore()
        await asyncio.to_thread(server.wait_until_shipped)
        assert await status_of(http, "/health/ready/store") == 200
    assert await asyncio.to_thread(server.stop) == 0
    assert server.error_lines() == []
    assert await stored(elasticsearch_url, prefix) == sorted(taken)


async def test_what_a_server_left_that_was_stopped_meanwhile_arrives_after_the_next_start(
    new_server: NewServer, proxy: Proxy, elasticsearch_url: str, prefix: str, tmp_path: Path
) -> None:
    await proxy.cut()
    server = await started(new_server(tmp_path / "data", store=proxy.url, index_prefix=prefix, stop_seconds=1))
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
        taken = await tick(http, 100)
    assert await asyncio.to_thread(server.stop) == 0
    await proxy.restore()
    with running_server(server.data, store=elasticsearch_url, index_prefix=prefix) as other:
        await asyncio.to_thread(other.wait_until_shipped)
    assert await stored(elasticsearch_url, prefix) == sorted(taken)
