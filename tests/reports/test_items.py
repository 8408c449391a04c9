"""Items: the most viewed, or the most downloaded."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from metronome.errors import Unaskable
from metronome.event import Door, Event, document
from metronome.reports.items import items
from metronome.reports.parameters import Parameters
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.store import Batch, Store

DOOR = Door(arrival="2015-01-22T12:00:00.000Z", earliest=None, latest="2030-01-01T00:00:00.000Z")
USES = {"a": (3, 0), "b": (2, 5), "c": (0, 7), "d": (2, 1), "e": (0, 0)}


def item(name: str, views: int, downloads: int) -> dict[str, object]:
    return {"id": name, "views": views, "downloads": downloads}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = DuckDBStore(tmp_path)
    await store.setup()
    events: list[dict[str, object]] = [{}, {"format": "csv"}, {"id": "e", "event": "error"}, {"id": "a", "bot": "x"}]
    for name, (views, downloads) in USES.items():
        events += [{"id": name} for _ in range(views)]
        events += [{"id": name, "format": "csv"} for _ in range(downloads)]
    lines = [document(Event(fields), DOOR, str(number)) for number, fields in enumerate(events)]
    await store.write(Batch.of(lines))
    yield store
    await store.close()


async def test_the_most_viewed_come_first_and_those_only_downloaded_follow(store: Store) -> None:
    found = await items(store, Parameters())
    assert found == {"items": [item("a", 3, 0), item("b", 2, 5), item("d", 2, 1), item("c", 0, 7)]}


async def test_the_most_downloaded_come_first_where_that_is_asked_for(store: Store) -> None:
    found = await items(store, Parameters(order="downloads"))
    assert found == {"items": [item("c", 0, 7), item("b", 2, 5), item("d", 2, 1), item("a", 3, 0)]}


@pytest.mark.parametrize(("order", "names"), [("views", ["a", "b"]), ("downloads", ["c", "b"])])
async def test_a_limit_keeps_the_first_with_both_their_counts(store: Store, order: str, names: list[str]) -> None:
    found = await items(store, Parameters(order=order, limit=2))
    assert found == {"items": [item(name, *USES[name]) for name in names]}


async def test_no_limit_is_all_items(store: Store) -> None:
    assert await items(store, Parameters(limit=None)) == await items(store, Parameters())


async def test_bots_count_where_they_are_asked_for(store: Store) -> None:
    assert (await items(store, Parameters(bots=True)))["items"][0] == item("a", 4, 0)


async def test_another_order_is_refused_by_name(store: Store) -> None:
    with pytest.raises(Unaskable, match="order=rising is not known: choose one of views, downloads"):
        await items(store, Parameters(order="rising"))
