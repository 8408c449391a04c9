"""Write keys and salts to the data of stopped servers, and read documents from it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson

from metronome.auth.keys import KEY_KIND, build_key, generate_token
from metronome.auth.salts import VisitorSalts
from metronome.scopes import Scope
from metronome.state.elasticsearch import ElasticsearchState
from metronome.state.sqlite import SQLiteState
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.elasticsearch import ElasticsearchConfig


def create_key(data: Path, name: str, *scopes: Scope) -> str:
    """Add a key to a data folder, and return its token."""
    token = generate_token()
    data.mkdir(parents=True, exist_ok=True)

    async def add() -> None:
        state = SQLiteState(data)
        await state.setup()
        key = build_key(name, scopes, token, "2015-01-22T09:30:00.000Z")
        assert await state.add(KEY_KIND, name, key.to_record())
        await state.close()

    asyncio.run(add())
    return token


def create_salts(elasticsearch: str, prefix: str) -> None:
    """Create today's salts, so that a server identifies visitors from its first event.

    A starting server waits two seconds for its salts, and then accepts events without visitors. A busy node may take
    longer to create the index.
    """

    async def create() -> None:
        state = ElasticsearchState(ElasticsearchConfig(elasticsearch, prefix=prefix))
        await state.setup()
        assert await VisitorSalts(state, time.time).refresh()
        await state.close()

    asyncio.run(create())


def read_stored_documents(data: Path) -> list[dict[str, Any]]:
    """Return the documents in the DuckDB store of a data folder, oldest first."""

    async def read() -> list[dict[str, Any]]:
        store = DuckDBStore(data)
        await store.setup()
        documents = [orjson.loads(line) async for line in store.iterate_documents()]
        await store.close()
        return documents

    return asyncio.run(read())
