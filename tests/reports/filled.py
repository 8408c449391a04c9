"""Stores that hold a few events: an embedded one, and a real Elasticsearch."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from tests.servers import delete_indices, unique_name

Fill = Callable[[Iterable[dict[str, Any]]], Awaitable[Store]]
"""Gives a new store that holds events."""

BACK_ENDS: Final = ["duckdb", pytest.param("elasticsearch", marks=[pytest.mark.elasticsearch, pytest.mark.slow])]
_DOOR: Final = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)


@asynccontextmanager
async def opened(
    back_end: str, request: pytest.FixtureRequest, folders: pytest.TempPathFactory
) -> AsyncIterator[Store]:
    """Have a store of a back end, one of `BACK_ENDS`, that holds nothing."""
    if back_end == "duckdb":
        store: Store = DuckDBStore(folders.mktemp("store"))
    else:
        url, prefix = request.getfixturevalue("elasticsearch_url"), unique_name("test")
        store = ElasticsearchStore(ElasticsearchConfig(url, prefix=prefix))
        request.addfinalizer(lambda: delete_indices(url, prefix))
    await store.setup()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def filled(
    back_end: str, request: pytest.FixtureRequest, folders: pytest.TempPathFactory, events: Iterable[dict[str, Any]]
) -> AsyncIterator[Store]:
    """Have a store of a back end, one of `BACK_ENDS`, hold events."""
    lines = [build_document(Event(fields), _DOOR, str(number)) for number, fields in enumerate(events)]
    async with opened(back_end, request, folders) as store:
        verdicts = await store.write(DocumentBatch.from_documents(lines))
        assert verdicts.stored == len(lines)
        await store.refresh()
        yield store


def told(store: Store, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without its ``exact``, which only Elasticsearch may add.

    It estimates how many distinct values there are; of few, its estimate is right.
    """
    if isinstance(store, DuckDBStore):
        assert "exact" not in answer
    return {name: value for name, value in answer.items() if name != "exact"}
