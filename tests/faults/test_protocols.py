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
from tests.faults.rounds import ROUNDS, NewServer, Sent, finish, found_in_duckdb, in_good_time
from tests.faults.sender import Sender
from tests.faults.shippers import MAX_EVENTS, Bulk, Forward, NamedBulk
from tests.faults.trackers import Matomo, Microticks, Pixel
from tests.installations import give_key
from tests.servers import Server, free_port

CLIENTS = 2
"""So many of each protocol."""
ENOUGH = 20
"""So many events of each protocol are acknowledged at the least, or nothing was tried."""

pytestmark = in_good_time

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
    await asyncio.to_thread(server.wait_until_live)


@pytest.mark.parametrize(("kill", "workers"), [(kill_server, 1), (kill_server, 2), (kill_workers, 2)])
async def test_what_any_protocol_acknowledges_is_there_once_whatever_is_killed(
    new_server: NewServer, data: Path, kill: Killing, workers: int
) -> None:
    consumer_key = await asyncio.to_thread(give_key, data, "exhibit", Scope.TICK)
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
    await asyncio.to_thread(finish, server)
    check(sent, found_in_duckdb(server))


@asynccontextmanager
async def sending(server: Server, forward_port: int, consumer_key: str) -> AsyncIterator[dict[str, Sent]]:
    """Speak all protocols while the block runs; at its end, wait until all that was sent is acknowledged."""
    sent = {kind.name: Sent() for kind in (Bulk, NamedBulk, Matomo, Microticks, Forward, Pixel)}
    over = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(server.url, connector=connector) as http, asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            senders: tuple[Sender, ...] = (
                *(kind(sent[kind.name], http) for kind in (Bulk, NamedBulk, Matomo)),
                Microticks(sent[Microticks.name], http, consumer_key),
                Forward(sent[Forward.name], forward_port),
                Pixel(sent[Pixel.name], server.port),
            )
            for sender in senders:
                tasks.create_task(sender.send(over))
        yield sent
        over.set()


def check(sent: dict[str, Sent], found: Counter[str]) -> None:
    assert not found.keys() - set[str]().union(*(one.tried for one in sent.values()))
    for name, one in sent.items():
        one.check(Counter({mark: times for mark, times in found.items() if mark in one.tried}), at_least=ENOUGH)
        assert name == Pixel.name or one.acknowledged == one.tried, name
        print(f"{ROUNDS} rounds: {len(one.acknowledged)} of {len(one.tried)} by {name} acknowledged")  # noqa: T201  # for those who ask with -s
