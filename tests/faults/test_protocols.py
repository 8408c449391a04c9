"""Whichever protocol it came by: what was acknowledged is in the store, once, however often the server is killed.

All protocols are spoken at once, so that each death is one for all of them.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from metronome.scopes import Scope
from tests.faults.rounds import ROUNDS, SentEvents, ServerFactory, count_marks_in_duckdb, crash_timeout, ship_and_stop
from tests.faults.sender import RetryingClient
from tests.faults.shippers import MAX_EVENTS, BulkClient, BulkClientWithIds, ForwardClient
from tests.faults.trackers import MatomoClient, MicroticksClient, PixelClient
from tests.installations import create_key
from tests.servers import Server, free_port

CLIENTS = 2
"""So many of each protocol."""
ENOUGH = 20
"""So many events of each protocol are acknowledged at the least, or nothing was tried."""

pytestmark = crash_timeout

Killing = Callable[[Server], Awaitable[None]]


async def kill_server(server: Server) -> None:
    """Let it work for a moment, or only begin to, and kill it."""
    if random.random() < 0.7:
        await asyncio.to_thread(server.start)
        await asyncio.sleep(random.uniform(0.05, 1.0))
    else:
        server.launch()
        await asyncio.sleep(random.uniform(0.3, 1.5))
    server.kill()


async def kill_workers(server: Server) -> None:
    """Let them work for a moment, and kill one or both."""
    if not server.is_running:
        await asyncio.to_thread(server.start)
    await asyncio.sleep(random.uniform(0.05, 1.0))
    for pid in server.worker_pids()[: random.randint(1, 2)]:
        server.kill_worker(pid)
    await asyncio.to_thread(server.wait_until_ready)


@pytest.mark.parametrize(("kill", "workers"), [(kill_server, 1), (kill_server, 2), (kill_workers, 2)])
async def test_what_any_protocol_acknowledges_is_there_once_whatever_is_killed(
    new_server: ServerFactory, data: Path, kill: Killing, workers: int
) -> None:
    consumer_key = await asyncio.to_thread(create_key, data, "exhibit", Scope.TICK)
    port = free_port()
    server = new_server(
        data,
        workers=workers,
        forward_port=port,
        public="tick",
        batch_max_events=MAX_EVENTS,
    )
    async with sending(server, port, consumer_key) as sent:
        for _ in range(ROUNDS):
            await kill(server)
        if not server.is_running:
            await asyncio.to_thread(server.start)
        while any(len(one.acknowledged) <= ENOUGH for one in sent.values()):  # noqa: ASYNC110  # many senders, no one event
            await asyncio.sleep(0.02)
    await asyncio.to_thread(ship_and_stop, server)
    check(sent, count_marks_in_duckdb(server))


@asynccontextmanager
async def sending(server: Server, forward_port: int, consumer_key: str) -> AsyncIterator[dict[str, SentEvents]]:
    """Speak all protocols while the block runs; at its end, wait until all that was sent is acknowledged."""
    sent = {
        kind.name: SentEvents()
        for kind in (BulkClient, BulkClientWithIds, MatomoClient, MicroticksClient, ForwardClient, PixelClient)
    }
    over = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(server.url, connector=connector) as http, asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            senders: tuple[RetryingClient, ...] = (
                *(kind(sent[kind.name], http) for kind in (BulkClient, BulkClientWithIds, MatomoClient)),
                MicroticksClient(sent[MicroticksClient.name], http, consumer_key),
                ForwardClient(sent[ForwardClient.name], forward_port),
                PixelClient(sent[PixelClient.name], server.port),
            )
            for sender in senders:
                tasks.create_task(sender.send(over))
        yield sent
        over.set()


def check(sent: dict[str, SentEvents], found: Counter[str]) -> None:
    assert not found.keys() - set[str]().union(*(one.attempted for one in sent.values()))
    for name, one in sent.items():
        one.check(Counter({mark: times for mark, times in found.items() if mark in one.attempted}), at_least=ENOUGH)
        assert name == PixelClient.name or one.acknowledged == one.attempted, name
        print(f"{ROUNDS} rounds: {len(one.acknowledged)} of {len(one.attempted)} by {name} acknowledged")  # noqa: T201  # for those who ask with -s
