"""Trails of the embedded store are cut where they are long."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from metronome.stores.duckdb import DuckDBStore
from metronome.stores.sequences import SequenceQuery
from tests.contracts.store.events import event_document, read_sequences, write_new_documents

EVENTS = (
    *(event_document(f"2015-01-22T10:00:0{second}Z", session="long", id=f"i{second}") for second in (5, 3, 1, 4, 2)),
    *(event_document("2015-01-22T11:00:00Z", session="tied", id=item) for item in ("b", "a", None, "a")),
    event_document("2015-01-22T12:00:00Z", session="short", id="only"),
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBStore]:
    store = DuckDBStore(tmp_path)
    await store.setup()
    await write_new_documents(store, *EVENTS)
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("most", "long", "tied"),
    [
        (None, ["i1", "i2", "i3", "i4", "i5"], [None, "a", "a", "b"]),
        (9, ["i1", "i2", "i3", "i4", "i5"], [None, "a", "a", "b"]),
        (3, ["i1", "i2", "i3"], [None, "a", "a"]),
        (1, ["i1"], [None]),
    ],
)
async def test_of_each_trail_the_first_steps_are_told(
    store: DuckDBStore, most: int | None, long: list[str], tied: list[str | None]
) -> None:
    found = await read_sequences(store, SequenceQuery("session", ("id",), max_events=most))
    assert {key: [item for _, item in steps] for key, steps in found} == {"long": long, "short": ["only"], "tied": tied}
