"""The Elasticsearch state back end meets the state contract and keeps its index apart from the events."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from elasticsearch import AsyncElasticsearch

from metronome.errors import StoreAccessDenied, StoreUnavailable
from metronome.state.base import State
from metronome.state.elasticsearch import ElasticsearchState, state_index_name
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.elasticsearch.connection import create_client
from metronome.stores.query import Query
from tests.contracts.state_contract import StateConcurrencyTests, StateRecordTests


class ElasticsearchFixtures:
    """Give each test its own index on the shared node, and delete the index afterwards."""

    @pytest.fixture
    def prefix(self) -> str:
        return f"test{uuid4().hex[:12]}"

    @pytest.fixture
    async def client(self, elasticsearch_url: str, prefix: str) -> AsyncIterator[AsyncElasticsearch]:
        client = create_client(ElasticsearchConfig(elasticsearch_url))
        yield client
        await client.options(ignore_status=404).indices.delete(index=state_index_name(prefix))
        await client.close()

    @pytest.fixture
    def open_state(self, elasticsearch_url: str, prefix: str, client: AsyncElasticsearch) -> Callable[[], State]:
        del client  # The client fixture deletes the index after the test.
        return lambda: ElasticsearchState(ElasticsearchConfig(elasticsearch_url, prefix=prefix))


@pytest.mark.elasticsearch
class TestRecords(ElasticsearchFixtures, StateRecordTests):
    pass


@pytest.mark.elasticsearch
@pytest.mark.slow
class TestConcurrency(ElasticsearchFixtures, StateConcurrencyTests):
    pass


@pytest.mark.elasticsearch
@pytest.mark.slow
class TestIndex(ElasticsearchFixtures):
    async def test_reads_do_not_create_the_index(
        self, open_state: Callable[[], State], client: AsyncElasticsearch, prefix: str
    ) -> None:
        state = open_state()
        assert (await state.get_all("key"), await state.get("key", "a")) == ({}, None)
        assert not await state.remove("key", "a")
        await state.close()
        assert not await client.indices.exists(index=state_index_name(prefix))

    async def test_event_queries_do_not_read_the_state_index(
        self, open_state: Callable[[], State], elasticsearch_url: str, prefix: str
    ) -> None:
        state = open_state()
        await state.add("key", "a", {"id": "a", "@timestamp": "2015-01-22T12:00:00Z"})
        store = ElasticsearchStore(ElasticsearchConfig(elasticsearch_url, prefix=prefix))
        (result,) = await store.query(Query())
        assert list(result.rows) == [(0,)]
        await store.close()
        await state.close()

    async def test_a_closed_index_raises_instead_of_looking_empty(
        self, open_state: Callable[[], State], client: AsyncElasticsearch, prefix: str
    ) -> None:
        state = open_state()
        await state.add("key", "a", {"n": 1})
        await client.indices.close(index=state_index_name(prefix))
        for call in CALLS:
            with pytest.raises(StoreUnavailable, match="closed"):
                await call(state)
        await state.close()

    async def test_rejects_an_index_with_foreign_mappings(
        self, open_state: Callable[[], State], client: AsyncElasticsearch, prefix: str
    ) -> None:
        await client.indices.create(
            index=state_index_name(prefix),
            mappings={"properties": {"hash": {"type": "text"}, "record": {"type": "long"}}},
        )
        state = open_state()
        with pytest.raises(StoreUnavailable, match="rejects a request for the state"):
            await state.add("key", "a", {"n": 1})
        with pytest.raises(StoreUnavailable, match="rejects a request for the state"):
            await state.get_all("key")
        await state.close()


CALLS: list[Callable[[State], Awaitable[Any]]] = [
    lambda state: state.get("key", "a"),
    lambda state: state.get_all("key"),
    lambda state: state.add("key", "a", {}),
    lambda state: state.compare_and_swap("key", "a", {"n": 1}, {}),
    lambda state: state.remove("key", "a"),
]


@pytest.mark.parametrize("call", [lambda state: state.setup(), *CALLS])
async def test_a_refused_connection_raises_store_unavailable(call: Callable[[State], Awaitable[Any]]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        state = ElasticsearchState(ElasticsearchConfig(f"http://127.0.0.1:{bound.getsockname()[1]}"))
        with pytest.raises(StoreUnavailable):
            await call(state)
        await state.close()
        await state.close()


@contextmanager
def server_responding(status: int, body: bytes) -> Iterator[str]:
    """Run a server that gives every request the same response, and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815  # the base class prescribes these names

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("call", [lambda state: state.setup(), *CALLS])
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b'{"error":"no such page"}', StoreUnavailable),
        (404, b'"no such page"', StoreUnavailable),
        (200, b"{}", StoreUnavailable),
        (401, b'{"error":{"type":"security_exception"}}', StoreAccessDenied),
        (403, b'{"error":{"type":"security_exception"}}', StoreAccessDenied),
        (429, b'{"error":{"type":"circuit_breaking_exception"}}', StoreUnavailable),
        (500, b"", StoreUnavailable),
    ],
)
async def test_an_unexpected_response_raises_instead_of_looking_empty(
    call: Callable[[State], Awaitable[Any]], status: int, body: bytes, error: type[Exception]
) -> None:
    with server_responding(status, body) as url:
        state = ElasticsearchState(ElasticsearchConfig(url))
        with pytest.raises(error):
            await call(state)
        await state.close()
