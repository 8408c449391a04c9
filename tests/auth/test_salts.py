"""Salts: one a day for all processes, known before it is needed, and gone after two days."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from metronome.auth.salts import SALT_KIND, VisitorSalts
from metronome.state.base import State
from metronome.state.elasticsearch import ElasticsearchState, state_index_name
from metronome.state.sqlite import SQLiteState
from metronome.stores.elasticsearch import ElasticsearchConfig
from metronome.stores.elasticsearch.connection import create_client
from tests.servers import unique_name

NOON = datetime(2015, 1, 22, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now.timestamp()


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[State]:
    state = SQLiteState(folder)
    try:
        yield state
    finally:
        await state.close()


async def test_there_is_one_a_day_and_the_next_is_made_an_hour_before_midnight(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        clock = Clock()
        salts = VisitorSalts(state, clock)
        assert salts.current() == {}
        assert await salts.refresh()
        (today,) = salts.current().items()
        assert (today[0], len(today[1])) == ("2015-01-22", 32)
        clock.now = NOON + 11 * HOUR
        assert await salts.refresh()
        assert sorted(salts.current()) == ["2015-01-22", "2015-01-23"]
        tomorrow = salts.current()["2015-01-23"]
        assert tomorrow != today[1]
        clock.now = NOON + DAY
        assert await salts.refresh()
        assert salts.current() == dict([today, ("2015-01-23", tomorrow)])


async def test_after_two_days_they_are_gone_from_the_memory_and_from_the_state(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        clock = Clock()
        salts = VisitorSalts(state, clock)
        for days in range(4):
            clock.now = NOON + days * DAY
            assert await salts.refresh()
        assert sorted(salts.current()) == ["2015-01-24", "2015-01-25"]
        assert list(await state.get_all(SALT_KIND)) == ["2015-01-24", "2015-01-25"]


@pytest.mark.elasticsearch
async def test_nodes_that_share_an_elasticsearch_have_the_same_for_two_days(elasticsearch_url: str) -> None:
    prefix, clock = unique_name("test"), Clock()
    config = ElasticsearchConfig(elasticsearch_url, prefix=prefix)
    states = [ElasticsearchState(config) for _ in range(3)]
    nodes = [VisitorSalts(state, clock) for state in states]
    try:
        for days in range(3):
            clock.now = NOON + days * DAY
            assert all(await asyncio.gather(*(node.refresh() for node in nodes)))
            assert nodes[0].current() == nodes[1].current() == nodes[2].current() != {}
        assert list(await states[0].get_all(SALT_KIND)) == ["2015-01-23", "2015-01-24"]
    finally:
        for state in states:
            await state.close()
        client = create_client(config)
        await client.indices.delete(index=state_index_name(prefix))
        await client.close()


async def test_who_starts_again_finds_the_same(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        async with opened(tmp_path) as state, (salts := VisitorSalts(state, Clock())).keep_refreshed():
            found.append(salts.current())
    assert found[0] == found[1] != {}


async def test_of_many_processes_that_start_at_once_all_have_the_same(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        states = [await stack.enter_async_context(opened(tmp_path)) for _ in range(8)]
        several = [VisitorSalts(state, Clock()) for state in states]
        assert all(await asyncio.gather(*(salts.refresh() for salts in several)))
        assert len({salts.current()["2015-01-22"] for salts in several}) == 1


async def test_while_the_state_is_away_there_are_none_and_one_line_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.write_text("no folder")
    async with opened(folder) as state:
        salts = VisitorSalts(state, Clock())
        with capture_logs() as logged:
            assert [await salts.refresh(), await salts.refresh()] == [False, False]
        assert [(line["event"], line["no_visitors_on"]) for line in logged] == [("salts_not_read", ["2015-01-22"])]
        assert salts.current() == {}
        folder.unlink()
        assert await salts.refresh()
        assert sorted(salts.current()) == ["2015-01-22"]


async def test_what_is_known_is_of_use_while_others_cannot_be_read_but_not_for_longer_than_two_days(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as state:
        clock = Clock()
        salts = VisitorSalts(state, clock)
        await salts.refresh()
        await state.add(SALT_KIND, "2015-01-23", {"salt": "not hexadecimal"})
        clock.now = NOON + DAY
        assert not await salts.refresh()
        assert sorted(salts.current()) == ["2015-01-22"]
        clock.now = NOON + 2 * DAY
        assert not await salts.refresh()
        assert sorted(salts.current()) == ["2015-01-24"]


async def test_a_salt_that_somebody_else_wrote_is_none_and_is_not_logged(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        await state.add(SALT_KIND, "2015-01-22", {"salt": "not hexadecimal"})
        salts = VisitorSalts(state, Clock())
        with capture_logs() as logged:
            assert not await salts.refresh()
        assert salts.current() == {}
        assert [line["event"] for line in logged] == ["salts_not_read"]
        assert b"not hexadecimal" not in orjson.dumps(logged)


async def test_where_nobody_is_to_be_named_none_is_made_and_old_ones_are_destroyed_all_the_same(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as state:
        await VisitorSalts(state, Clock()).refresh()
        clock = Clock()
        clock.now = NOON + 2 * DAY
        salts = VisitorSalts(state, clock, create_missing=False)
        assert await salts.refresh()
        assert salts.current() == {}
        assert await state.get_all(SALT_KIND) == {}


async def test_they_are_there_as_soon_as_the_block_begins(tmp_path: Path) -> None:
    async with opened(tmp_path) as state, (salts := VisitorSalts(state, Clock())).keep_refreshed():
        assert sorted(salts.current()) == ["2015-01-22"]


@pytest.mark.parametrize("hours", [0, 10.99, 11.01])
async def test_reading_again_on_the_same_day_asks_nobody(tmp_path: Path, hours: float) -> None:
    clock = Clock()
    clock.now += hours * HOUR
    async with opened(tmp_path) as state:
        salts = VisitorSalts(state, clock)
        assert await salts.refresh()
        for day in await state.get_all(SALT_KIND):
            await state.remove(SALT_KIND, day)
        assert await salts.refresh()
        assert await state.get_all(SALT_KIND) == {}
