"""State in a real Elasticsearch keeps what every state promises, beside the events and apart from them."""

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

on_a_node = pytest.mark.elasticsearch


class OnElasticsearch:
    """Gives each test an index of its own on the node that all share, and deletes it afterwards."""

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
        del client  # It deletes the index after the test.
        return lambda: ElasticsearchState(ElasticsearchConfig(elasticsearch_url, prefix=prefix))


@on_a_node
class TestKeeping(OnElasticsearch, StateRecordTests):
    pass


@on_a_node
class TestSharing(OnElasticsearch, StateConcurrencyTests):
    pass


@on_a_node
class TestIndex(OnElasticsearch):
    async def test_reading_makes_no_index(
        self, open_state: Callable[[], State], client: AsyncElasticsearch, prefix: str
    ) -> None:
        state = open_state()
        assert (await state.get_all("key"), await state.get("key", "a")) == ({}, None)
        assert not await state.remove("key", "a")
        await state.close()
        assert not await client.indices.exists(index=state_index_name(prefix))

    async def test_its_index_is_none_of_the_events(
        self, open_state: Callable[[], State], elasticsearch_url: str, prefix: str
    ) -> None:
        state = open_state()
        await state.add("key", "a", {"id": "a", "@timestamp": "2015-01-22T12:00:00Z"})
        store = ElasticsearchStore(ElasticsearchConfig(elasticsearch_url, prefix=prefix))
        (answer,) = await store.query(Query())
        assert list(answer.rows) == [(0,)]
        await store.close()
        await state.close()

    async def test_a_closed_index_is_a_state_that_is_away_and_no_empty_one(
        self, open_state: Callable[[], State], client: AsyncElasticsearch, prefix: str
    ) -> None:
        state = open_state()
        await state.add("key", "a", {"n": 1})
        await client.indices.close(index=state_index_name(prefix))
        for call in CALLS:
            with pytest.raises(StoreUnavailable, match="closed"):
                await call(state)
        await state.close()

    async def test_an_index_that_somebody_else_made_is_a_state_that_is_away(
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
async def test_where_nothing_listens_the_state_is_away(call: Callable[[State], Awaitable[Any]]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        state = ElasticsearchState(ElasticsearchConfig(f"http://127.0.0.1:{bound.getsockname()[1]}"))
        with pytest.raises(StoreUnavailable):
            await call(state)
        await state.close()
        await state.close()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Have a server that is no Elasticsearch answer everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  # as the base class wants them called

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
async def test_what_does_not_answer_as_elasticsearch_is_no_empty_state(
    call: Callable[[State], Awaitable[Any]], status: int, body: bytes, error: type[Exception]
) -> None:
    with answering(status, body) as url:
        state = ElasticsearchState(ElasticsearchConfig(url))
        with pytest.raises(error):
            await call(state)
        await state.close()
