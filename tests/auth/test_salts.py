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


async def test_creates_one_salt_per_day_and_the_next_one_an_hour_before_midnight(tmp_path: Path) -> None:
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


async def test_deletes_salts_after_two_days_from_memory_and_state(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        clock = Clock()
        salts = VisitorSalts(state, clock)
        for days in range(4):
            clock.now = NOON + days * DAY
            assert await salts.refresh()
        assert sorted(salts.current()) == ["2015-01-24", "2015-01-25"]
        assert list(await state.get_all(SALT_KIND)) == ["2015-01-24", "2015-01-25"]


@pytest.mark.elasticsearch
async def test_nodes_that_share_an_elasticsearch_have_the_same_salts(elasticsearch_url: str) -> None:
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


async def test_a_restarted_process_has_the_same_salts(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        async with opened(tmp_path) as state, (salts := VisitorSalts(state, Clock())).keep_refreshed():
            found.append(salts.current())
    assert found[0] == found[1] != {}


async def test_processes_that_start_at_once_have_the_same_salts(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        states = [await stack.enter_async_context(opened(tmp_path)) for _ in range(8)]
        several = [VisitorSalts(state, Clock()) for state in states]
        assert all(await asyncio.gather(*(salts.refresh() for salts in several)))
        assert len({salts.current()["2015-01-22"] for salts in several}) == 1


async def test_while_the_state_is_unavailable_there_are_no_salts_and_it_is_logged_once(tmp_path: Path) -> None:
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


async def test_known_salts_stay_in_use_for_two_days_while_others_cannot_be_read(
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


async def test_an_invalid_salt_is_rejected_and_not_logged(tmp_path: Path) -> None:
    async with opened(tmp_path) as state:
        await state.add(SALT_KIND, "2015-01-22", {"salt": "not hexadecimal"})
        salts = VisitorSalts(state, Clock())
        with capture_logs() as logged:
            assert not await salts.refresh()
        assert salts.current() == {}
        assert [line["event"] for line in logged] == ["salts_not_read"]
        assert b"not hexadecimal" not in orjson.dumps(logged)


async def test_without_visitors_no_salt_is_created_and_old_ones_are_deleted(
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


async def test_salts_are_available_when_the_block_starts(tmp_path: Path) -> None:
    async with opened(tmp_path) as state, (salts := VisitorSalts(state, Clock())).keep_refreshed():
        assert sorted(salts.current()) == ["2015-01-22"]


@pytest.mark.parametrize("hours", [0, 10.99, 11.01])
async def test_a_refresh_on_the_same_day_does_not_read_the_state(tmp_path: Path, hours: float) -> None:
    clock = Clock()
    clock.now += hours * HOUR
    async with opened(tmp_path) as state:
        salts = VisitorSalts(state, clock)
        assert await salts.refresh()
        for day in await state.get_all(SALT_KIND):
            await state.remove(SALT_KIND, day)
        assert await salts.refresh()
        assert await state.get_all(SALT_KIND) == {}
