"""The reports of micro-metrics on a store: their limits, and their results near the limits."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from metronome.errors import InvalidQuery
from metronome.event import DocumentContext, build_document
from metronome.items import compile_item_pattern
from metronome.protocols.micro_metrics import reports
from metronome.protocols.micro_metrics.documents import build_event, parse_payload
from metronome.protocols.micro_metrics.reports import ALL_TIME, MetricsQuery, parse_metrics_query
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.query import Query, QueryResult

NOW = datetime(2017, 4, 28, 14, 57, 25, 458_000, UTC)
CONTEXT = DocumentContext(
    received_at="2017-04-26T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
ITEM_PATTERN = compile_item_pattern(None)
MAX_DOCUMENTS = 1000
MAX_ROWS = 500
MAX_TAGS = 100
DOCUMENTS_MAX_BYTES = 2**20


@pytest.fixture(autouse=True)
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, as filling a store beyond the real ones takes a minute."""
    monkeypatch.setattr(reports, "MAX_DOCUMENTS", MAX_DOCUMENTS)
    monkeypatch.setattr(reports, "MAX_ROWS", MAX_ROWS)
    monkeypatch.setattr(reports, "MAX_TAGS", MAX_TAGS)
    monkeypatch.setattr(reports, "DOCUMENTS_MAX_BYTES", DOCUMENTS_MAX_BYTES)


class IncompleteStore(DuckDBStore):
    """A store whose results lack groups."""

    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        return tuple(replace(result, exact=False, is_complete=False) for result in await super().query(*queries))


def stored_line(number: int, **event: Any) -> bytes:
    document = parse_payload({"type": "a", "createdOn": "2017-04-26", **event}, CONTEXT.received_at, f"e{number}")
    return build_document(build_event(document, ITEM_PATTERN), CONTEXT, "spare")


async def fill(store: Store, lines: list[bytes]) -> None:
    await store.setup()
    assert (await store.write(DocumentBatch.from_documents(lines))).stored == len(lines)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = DuckDBStore(tmp_path)
    yield store
    await store.close()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a store with more documents than a report reads, each with its own value of a tag."""
    folder = tmp_path_factory.mktemp("micrometrics")
    lines = [stored_line(number, tags={"n": number}, value=2) for number in range(MAX_DOCUMENTS + 1)]

    async def fill_store() -> None:
        store = DuckDBStore(folder)
        await fill(store, lines)
        await store.close()

    asyncio.run(fill_store())
    return folder


@pytest.fixture
async def full_store(full: Path) -> AsyncIterator[Store]:
    store = DuckDBStore(full)
    await store.setup()
    yield store
    await store.close()


def all_time(**query: str) -> MetricsQuery:
    return parse_metrics_query({"last": ALL_TIME, **query}, NOW)


async def test_counts_and_sums_have_no_limit(full_store: Store) -> None:
    assert await reports.count_documents(full_store, all_time()) == MAX_DOCUMENTS + 1
    rows = await reports.aggregate_values(full_store, all_time())
    assert [row["sum"] for row in rows] == [2 * (MAX_DOCUMENTS + 1), 0, 0]
    assert await reports.list_types(full_store, all_time()) == ["a"]


async def test_rejects_a_report_on_too_many_documents(full_store: Store) -> None:
    with pytest.raises(InvalidQuery, match="over 1000 documents: ask for a shorter time"):
        await reports.list_documents(full_store, all_time())
    with pytest.raises(InvalidQuery, match="over 1000 documents"):
        await reports.unique_values(full_store, all_time(), "tags.n")
    assert await reports.unique_values(full_store, all_time(), "tags.other") == []
    assert len(await reports.list_documents(full_store, all_time(tags="n=77"))) == 1


async def test_rejects_a_report_with_too_many_groups(full_store: Store) -> None:
    with pytest.raises(InvalidQuery, match="over 500 rows"):
        await reports.group_values(full_store, all_time(), "n")
    with pytest.raises(InvalidQuery, match="over 500 rows"):
        await reports.list_tag_values(full_store, all_time(), "n")
    with pytest.raises(InvalidQuery, match="over 500 rows"):
        await reports.list_tags(full_store, all_time())


async def test_rejects_a_report_on_too_many_bytes_of_documents(store: Store) -> None:
    size = 90_000
    await fill(store, [stored_line(at, data={"x": "x" * size}) for at in range(DOCUMENTS_MAX_BYTES // size + 1)])
    assert len(await reports.list_documents(store, all_time(tags="unknown"))) == 0
    with pytest.raises(InvalidQuery, match="bytes of documents"):
        await reports.list_documents(store, all_time())


async def test_rejects_a_list_of_too_many_tags(store: Store) -> None:
    def many(at: int) -> dict[str, int]:
        return {f"{at}-{number:0190}": number for number in range(20)}

    await fill(store, [stored_line(at, type=f"t{at}", tags=many(at)) for at in range(MAX_TAGS // 20 + 1)])
    with pytest.raises(InvalidQuery, match="over 100 tags"):
        await reports.list_tags(store, all_time())
    assert await reports.list_tags(store, all_time(type="t3")) == {
        name: [str(value)] for name, value in many(3).items()
    }


async def test_rejects_results_that_are_not_complete(tmp_path: Path) -> None:
    store = IncompleteStore(tmp_path)
    await fill(store, [stored_line(0, tags="n")])
    with pytest.raises(InvalidQuery, match=f"over {MAX_ROWS} rows"):
        await reports.list_types(store, all_time())
    await store.close()


async def test_values_that_are_not_numbers_are_not_measured(store: Store) -> None:
    await fill(
        store,
        [stored_line(0, value="5"), stored_line(1, value=None), stored_line(2, value=True), stored_line(3, value=[1])],
    )
    (row, *_) = await reports.aggregate_values(store, all_time())
    assert row == {"dateString": "2017-04-26T00:00:00.000Z", "date": "1493164800000"} | dict.fromkeys(
        ("sum", "avg", "max", "min"), 0
    )


@pytest.mark.parametrize(
    ("value", "query", "is_found"),
    [
        (5, "5", True),
        (5, "5.0", True),
        (0.1, "0.1", True),
        ("5", "5", True),
        ("05", "5", False),
        (True, "true", True),
        (None, "null", True),
        ({"a": [1]}, '{"a":[1]}', True),
        (5, "6", False),
        ("red", "Red", False),
        (2**64 - 1, "18446744073709551615", True),
    ],
)
async def test_filters_documents_by_value(store: Store, value: Any, query: str, is_found: bool) -> None:  # noqa: FBT001  # a parameter
    await fill(store, [stored_line(0, value=value)])
    assert await reports.count_documents(store, all_time(value=query)) == is_found


async def test_an_aggregate_of_all_time_has_future_documents(store: Store) -> None:
    await fill(
        store, [stored_line(0, createdOn="2017-04-29T01:30:00Z"), stored_line(1, createdOn="2017-04-28T13:00:00Z")]
    )
    rows = await reports.aggregate_values(store, all_time(period="h"))
    assert [(row["dateString"][8:13], row["sum"]) for row in rows if row["sum"]] == [("28T13", 1), ("29T01", 1)]


async def test_lists_the_oldest_documents_first_and_each_value_once(store: Store) -> None:
    days = ("2017-04-27", "2017-04-25", "2017-04-26")
    await fill(store, [stored_line(at, createdOn=day, data={"b": {"c.d": [at % 2]}}) for at, day in enumerate(days)])
    assert [orjson.loads(document)["_id"] for document in await reports.list_documents(store, all_time())] == [
        "e1",
        "e2",
        "e0",
    ]
    assert [(row["_id"], row["count"]) for row in await reports.unique_values(store, all_time(), "data.b.c.d")] == [
        ([1], 1),
        ([0], 2),
    ]
