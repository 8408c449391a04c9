"""The events that the tests write, and the few steps that they all take."""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final
from uuid import uuid4

import pytest

from metronome.event import Door, Event, document
from metronome.stores.base import Batch, Store, Verdicts
from metronome.stores.query import Metric, Order, Question
from metronome.stores.sequences import Trails

NOON: Final = "2015-01-22T12:00:00.000Z"
DOOR: Final = Door(arrival=NOON, earliest=None, latest="9999-12-31T23:59:59.999Z")


class StoreTests:
    """What the tests of one back end are made of."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """Provide an empty store that is set up, and close it after the test."""
        raise NotImplementedError("override this fixture with one that provides the store to test")
        yield  # noqa: PT022  # what comes after it is the back end's


def event(at: str = NOON, /, **fields: Any) -> bytes:
    """Return the document of an event at that time; an ``event_id`` of its own is added."""
    return encode({"timestamp": at, **fields})


def encode(fields: dict[str, Any]) -> bytes:
    """Return the document of an event with fields of any name."""
    return document(Event(fields), DOOR, uuid4().hex)


async def write(store: Store, documents: Iterable[bytes]) -> Verdicts:
    """Write documents and make them visible."""
    verdicts = await store.write(Batch.of(list(documents)))
    await store.refresh()
    return verdicts


async def fill(store: Store, *documents: bytes) -> None:
    """Write documents that are all new."""
    assert await write(store, documents) == Verdicts(stored=len(documents))


async def count(store: Store) -> Any:
    """Return how many events there are."""
    (answer,) = await store.ask(Question())
    return answer.rows[0][0]


async def rows(store: Store, question: Question) -> list[tuple[Any, ...]]:
    """Return the rows of the answer to one question, which must be exact."""
    (answer,) = await store.ask(question)
    assert answer.exact
    assert answer.columns == question.columns
    return list(answer.rows)


async def trails(store: Store, asked: Trails) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """Return trails as their keys and steps, each step as its time and texts."""
    return [(trail.key, [(step.at, *step.texts) for step in trail.steps]) async for trail in store.trails(asked)]


def metrics(*texts: str) -> tuple[Metric, ...]:
    """Return metrics as they are asked for."""
    return tuple(Metric.parse(text) for text in texts)


def order(*texts: str) -> tuple[Order, ...]:
    """Return an order as it is asked for."""
    return tuple(Order.parse(text) for text in texts)
