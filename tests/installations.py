"""The data folders of servers that do not run: keys put into them, and documents read out of them."""

import asyncio
from pathlib import Path
from typing import Any

import orjson

from metronome.auth.keys import KEY_KIND, build_key, generate_token
from metronome.scopes import Scope
from metronome.state.sqlite import SQLiteState
from metronome.stores.duckdb import DuckDBStore


def create_key(data: Path, name: str, *scopes: Scope) -> str:
    """Put a key into a data folder, and return its secret."""
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


def read_stored_documents(data: Path) -> list[dict[str, Any]]:
    """Return the documents in the embedded store of a data folder, oldest first."""

    async def read() -> list[dict[str, Any]]:
        store = DuckDBStore(data)
        await store.setup()
        found = [orjson.loads(line) async for line in store.iterate_documents()]
        await store.close()
        return found

    return asyncio.run(read())
