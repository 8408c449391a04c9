"""Write keys and salts to the data of stopped servers, and read documents from it."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
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
from metronome.stores.query import Query


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
    """Return the documents in the DuckDB store of a data folder, oldest first.

    Checks that the store's counts are those of the documents.
    """

    async def read() -> list[dict[str, Any]]:
        store = DuckDBStore(data)
        await store.setup()
        documents = [orjson.loads(line) async for line in store.iterate_documents()]
        by_day, by_month = await store.query(Query(group_by=("day",)), Query())
        await store.close()
        assert sum(int(count or 0) for count in by_day.to_dict().values()) == len(documents)
        assert by_month.rows == ((len(documents),),)
        return documents

    # In a thread of its own, since the caller may be in an event loop.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(lambda: asyncio.run(read())).result()
