"""The events that the tests write, and the few steps that they all take."""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final
from uuid import uuid4

import pytest

from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch, Store, WriteResult
from metronome.stores.query import Metric, Query, SortKey
from metronome.stores.sequences import SequenceQuery

NOON: Final = "2015-01-22T12:00:00.000Z"
INGEST_CONTEXT: Final = DocumentContext(received_at=NOON, min_timestamp=None, max_timestamp="9999-12-31T23:59:59.999Z")


class StoreContract:
    """What the tests of one back end are made of."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """Provide an empty store that is set up, and close it after the test."""
        raise NotImplementedError("override this fixture with one that provides the store to test")
        yield  # noqa: PT022  # what comes after it is the back end's


def event_document(timestamp: str = NOON, /, **fields: Any) -> bytes:
    """Return the document of an event at that time; an ``event_id`` of its own is added."""
    return encode_document({"timestamp": timestamp, **fields})


def encode_document(fields: dict[str, Any]) -> bytes:
    """Return the document of an event with fields of any name."""
    return build_document(Event(fields), INGEST_CONTEXT, uuid4().hex)


async def write_documents(store: Store, documents: Iterable[bytes]) -> WriteResult:
    """Write documents and make them visible."""
    verdicts = await store.write(DocumentBatch.from_documents(list(documents)))
    await store.refresh()
    return verdicts


async def write_new_documents(store: Store, *documents: bytes) -> None:
    """Write documents that are all new."""
    assert await write_documents(store, documents) == WriteResult(stored=len(documents))


async def count_events(store: Store) -> Any:
    """Return how many events there are."""
    (answer,) = await store.query(Query())
    return answer.rows[0][0]


async def query_rows(store: Store, query: Query) -> list[tuple[Any, ...]]:
    """Return the rows of the answer to one question, which must be exact."""
    (answer,) = await store.query(query)
    assert answer.exact
    assert answer.columns == query.columns
    return list(answer.rows)


async def read_sequences(store: Store, sequence_query: SequenceQuery) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """Return trails as their keys and steps, each step as its time and texts."""
    return [
        (trail.key, [(step.timestamp_ms, *step.values) for step in trail.events])
        async for trail in store.sequences(sequence_query)
    ]


def parse_metrics(*texts: str) -> tuple[Metric, ...]:
    """Return metrics as they are asked for."""
    return tuple(Metric.parse(text) for text in texts)


def parse_order(*texts: str) -> tuple[SortKey, ...]:
    """Return an order as it is asked for."""
    return tuple(SortKey.parse(text) for text in texts)
