"""With every protocol, the store has each acknowledged event once, however often the server is killed.

Clients of all protocols send at the same time, so each crash affects all of them.
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
"""Number of clients per protocol."""
MIN_ACKNOWLEDGED = 20
"""Minimum number of acknowledged events per protocol."""

pytestmark = crash_timeout

Kill = Callable[[Server], Awaitable[None]]


async def kill_server(server: Server) -> None:
    """Kill the server during work or start-up."""
    if random.random() < 0.7:
        await asyncio.to_thread(server.start)
        await asyncio.sleep(random.uniform(0.05, 1.0))
    else:
        server.launch()
        await asyncio.sleep(random.uniform(0.3, 1.5))
    server.kill()


async def kill_workers(server: Server) -> None:
    """Kill one or both workers during work."""
    if not server.is_running:
        await asyncio.to_thread(server.start)
    await asyncio.sleep(random.uniform(0.05, 1.0))
    for pid in server.worker_pids()[: random.randint(1, 2)]:
        server.kill_worker(pid)
    await asyncio.to_thread(server.wait_until_ready)


@pytest.mark.parametrize(("kill", "workers"), [(kill_server, 1), (kill_server, 2), (kill_workers, 2)])
async def test_acknowledged_events_of_every_protocol_are_stored_once_after_crashes(
    new_server: ServerFactory, data: Path, kill: Kill, workers: int
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
        while any(len(events.acknowledged) <= MIN_ACKNOWLEDGED for events in sent.values()):  # noqa: ASYNC110  # many senders, no one event
            await asyncio.sleep(0.02)
    await asyncio.to_thread(ship_and_stop, server)
    check(sent, count_marks_in_duckdb(server))


@asynccontextmanager
async def sending(server: Server, forward_port: int, consumer_key: str) -> AsyncIterator[dict[str, SentEvents]]:
    """Send with all protocols during the block; then wait until all sent events are acknowledged."""
    sent = {
        kind.name: SentEvents()
        for kind in (BulkClient, BulkClientWithIds, MatomoClient, MicroticksClient, ForwardClient, PixelClient)
    }
    stop = asyncio.Event()
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
                tasks.create_task(sender.send(stop))
        yield sent
        stop.set()


def check(sent: dict[str, SentEvents], stored: Counter[str]) -> None:
    assert not stored.keys() - set[str]().union(*(events.attempted for events in sent.values()))
    for name, events in sent.items():
        events.check(
            Counter({mark: times for mark, times in stored.items() if mark in events.attempted}),
            at_least=MIN_ACKNOWLEDGED,
        )
        assert name == PixelClient.name or events.acknowledged == events.attempted, name
        print(f"{ROUNDS} rounds: {len(events.acknowledged)} of {len(events.attempted)} by {name} acknowledged")  # noqa: T201  # shown by pytest -s
