"""The reports of micro-metrics hold only so much, and say so; what they hold is right however much there is."""

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
from metronome.protocols.micro_metrics import reports as found
from metronome.protocols.micro_metrics import reports as measures
from metronome.protocols.micro_metrics import reports as names
from metronome.protocols.micro_metrics.documents import build_event
from metronome.protocols.micro_metrics.payloads import TAGS_MAX, parse_payload
from metronome.protocols.micro_metrics.reports import (
    ALL_TIME,
    DOCUMENTS_MAX_BYTES,
    MAX_DOCUMENTS,
    MAX_ROWS,
    MetricsQuery,
    parse_metrics_query,
)
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.query import Query, QueryResult

NOW = datetime(2017, 4, 28, 14, 57, 25, 458_000, UTC)
DOOR = DocumentContext(
    received_at="2017-04-26T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
RULE = compile_item_pattern(None)


class Estimating(DuckDBStore):
    """A store that does not vouch for its answers."""

    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        return tuple(replace(answer, exact=False) for answer in await super().query(*queries))


def line(at: int, **event: Any) -> bytes:
    tracked = parse_payload({"type": "a", "createdOn": "2017-04-26", **event}, DOOR.received_at, f"e{at}")
    return build_document(build_event(tracked, RULE), DOOR, "spare")


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
    """Return the folder of a store with more documents than a report goes through, each with a tag of its own value."""
    folder = tmp_path_factory.mktemp("micrometrics")
    first = line(0, tags={"n": "~"}, value=2)
    # Their text is put together here: making so many events takes longer than all else.
    lines = [first.replace(b'"e0"', b'"e%d"' % at).replace(b"~", b"%d" % at) for at in range(MAX_DOCUMENTS + 1)]

    async def work() -> None:
        store = DuckDBStore(folder)
        await fill(store, lines)
        await store.close()

    asyncio.run(work())
    return folder


@pytest.fixture
async def full_store(full: Path) -> AsyncIterator[Store]:
    store = DuckDBStore(full)
    await store.setup()
    yield store
    await store.close()


def everything(**query: str) -> MetricsQuery:
    return parse_metrics_query({"last": ALL_TIME, **query}, NOW)


async def test_counts_and_sums_have_no_limit(full_store: Store) -> None:
    assert await found.count_documents(full_store, everything()) == MAX_DOCUMENTS + 1
    rows = await measures.aggregate_values(full_store, everything())
    assert [row["sum"] for row in rows] == [2 * (MAX_DOCUMENTS + 1), 0, 0]
    assert await names.list_types(full_store, everything()) == ["a"]


async def test_a_report_of_too_many_documents_is_refused(full_store: Store) -> None:
    with pytest.raises(InvalidQuery, match="over 100000 documents: ask for a shorter time"):
        await found.list_documents(full_store, everything())
    with pytest.raises(InvalidQuery, match="over 100000 documents"):
        await found.unique_values(full_store, everything(), "tags.n")
    assert await found.unique_values(full_store, everything(), "tags.other") == []
    assert len(await found.list_documents(full_store, everything(tags="n=77"))) == 1


async def test_a_report_of_too_many_groups_is_refused(full_store: Store) -> None:
    with pytest.raises(InvalidQuery, match="over 50000 rows"):
        await measures.group_values(full_store, everything(), "n")
    with pytest.raises(InvalidQuery, match="over 50000 rows"):
        await names.list_tag_values(full_store, everything(), "n")
    with pytest.raises(InvalidQuery, match="over 50000 rows"):
        await names.list_tags(full_store, everything())


async def test_a_report_of_documents_that_are_too_large_together_is_refused(store: Store) -> None:
    size = 900_000
    await fill(store, [line(at, data={"x": "x" * size}) for at in range(DOCUMENTS_MAX_BYTES // size + 1)])
    assert len(await found.list_documents(store, everything(tags="unheard"))) == 0
    with pytest.raises(InvalidQuery, match="bytes of documents"):
        await found.list_documents(store, everything())


async def test_more_tags_than_can_be_listed_are_refused(store: Store) -> None:
    def many(at: int) -> dict[str, int]:
        return {f"{at}-{number:0190}": number for number in range(TAGS_MAX)}

    await fill(store, [line(at, type=f"t{at}", tags=many(at)) for at in range(names.MAX_TAGS // TAGS_MAX + 1)])
    with pytest.raises(InvalidQuery, match="over 1000 tags"):
        await names.list_tags(store, everything())
    assert await names.list_tags(store, everything(type="t3")) == {
        name: [str(value)] for name, value in many(3).items()
    }


async def test_what_a_store_only_estimates_is_refused(tmp_path: Path) -> None:
    store = Estimating(tmp_path)
    await fill(store, [line(0, tags="n")])
    with pytest.raises(InvalidQuery, match=f"over {MAX_ROWS} rows"):
        await names.list_types(store, everything())
    await store.close()


async def test_values_that_are_no_numbers_measure_nothing(store: Store) -> None:
    await fill(store, [line(0, value="5"), line(1, value=None), line(2, value=True), line(3, value=[1])])
    (row, *_) = await measures.aggregate_values(store, everything())
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
async def test_documents_are_found_by_their_value(store: Store, value: Any, query: str, is_found: bool) -> None:  # noqa: FBT001  # a table's
    await fill(store, [line(0, value=value)])
    assert await found.count_documents(store, everything(value=query)) == is_found


async def test_documents_of_the_future_are_part_of_everything(store: Store) -> None:
    await fill(store, [line(0, createdOn="2017-04-29T01:30:00Z"), line(1, createdOn="2017-04-28T13:00:00Z")])
    rows = await measures.aggregate_values(store, everything(period="h"))
    assert [(row["dateString"][8:13], row["sum"]) for row in rows if row["sum"]] == [("28T13", 1), ("29T01", 1)]


async def test_the_oldest_documents_come_first_and_the_same_values_are_one(store: Store) -> None:
    days = ("2017-04-27", "2017-04-25", "2017-04-26")
    await fill(store, [line(at, createdOn=day, data={"b": {"c.d": [at % 2]}}) for at, day in enumerate(days)])
    assert [orjson.loads(one)["_id"] for one in await found.list_documents(store, everything())] == ["e1", "e2", "e0"]
    assert [(row["_id"], row["count"]) for row in await found.unique_values(store, everything(), "data.b.c.d")] == [
        ([1], 1),
        ([0], 2),
    ]
