"""The reports of true-micro-analytics on each store."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from metronome.event import DocumentContext, Event, build_document
from metronome.protocols.micro_analytics import PathViews, count_views, list_views
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from tests.servers import delete_indices

CONTEXT = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
EVENTS: list[dict[str, Any]] = [
    {"id": "/a", "ts": "2015-01-22T00:00:00.001Z"},
    {"id": "/a", "ts": "2015-01-20T23:59:59.999Z"},
    {"id": "/a", "ts": "2015-01-22T09:30:00Z", "bot": "Googlebot"},
    {"id": "/a", "ts": "2014-12-31T09:30:00Z"},
    {"id": "/a", "ts": "2015-01-21T10:00:00Z", "format": "csv"},
    {"id": "/a", "ts": "2015-01-21T10:00:00Z", "event": "error"},
    {"id": "/a/", "ts": "2015-01-21T10:00:00Z"},
    {"id": "/", "ts": "2015-01-20T10:00:00Z"},
    {"id": "a", "ts": "2015-01-22T10:00:00Z"},
    {"ts": "2015-01-22T10:00:00Z"},
]
TIMES = ("2014-12-31T09:30:00Z", "2015-01-20T23:59:59.999Z", "2015-01-22T00:00:00.001Z", "2015-01-22T09:30:00Z")


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)


async def filled_store(store: Store) -> Store:
    await store.setup()
    lines = [build_document(Event(fields), CONTEXT, str(number)) for number, fields in enumerate(EVENTS)]
    await store.write(DocumentBatch.from_documents(lines))
    await store.refresh()
    return store


@pytest.fixture(params=["duckdb", pytest.param("elasticsearch", marks=[pytest.mark.elasticsearch, pytest.mark.slow])])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "duckdb":
        local = await filled_store(DuckDBStore(tmp_path))
        yield local
        await local.close()
        return
    node, prefix = request.getfixturevalue("elasticsearch_url"), f"test{uuid4().hex[:12]}"
    remote = await filled_store(ElasticsearchStore(ElasticsearchConfig(node, prefix=prefix)))
    yield remote
    await remote.close()
    delete_indices(node, prefix)


async def test_counts_only_the_views_of_a_path(store: Store) -> None:
    assert [await count_views(store, path) for path in ("/a", "/a/", "/", "/never", "")] == [4, 1, 1, 0, 0]


async def test_lists_the_views_of_a_path_oldest_first(store: Store) -> None:
    assert await list_views(store, "/a") == PathViews({"/a": [ms(time) for time in TIMES]})
    assert await list_views(store, "/never") == PathViews({})


@pytest.mark.parametrize(("limit", "omitted"), [(1, 3), (2, 2), (3, 1), (4, 0), (5, 0)])
async def test_lists_the_newest_views_and_counts_the_omitted_ones(store: Store, limit: int, omitted: int) -> None:
    views = await list_views(store, "/a", limit)
    assert views.timestamps["/a"] == [ms(time) for time in TIMES[omitted:]]
    assert views.omitted == omitted


async def test_lists_all_items_that_begin_with_a_slash(store: Store) -> None:
    assert (await list_views(store, None)).timestamps == {
        "/a": [ms(time) for time in TIMES],
        "/": [ms("2015-01-20T10:00:00Z")],
        "/a/": [ms("2015-01-21T10:00:00Z")],
    }


async def test_an_empty_store_has_no_paths(tmp_path: Path) -> None:
    empty = DuckDBStore(tmp_path)
    await empty.setup()
    assert await list_views(empty, None) == PathViews({})
    assert await count_views(empty, "/a") == 0
    await empty.close()
