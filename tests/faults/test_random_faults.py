"""Twenty rounds of random faults under load, with each store: what was acknowledged is stored, once.

``METRONOME_TEST_FAULT_SEED`` repeats the faults of a run, whose seed is in the output.
"""

import asyncio
import contextlib
import os
import random
import resource
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.observations import health, is_ready, wait_until
from tests.faults.rounds import SentEvents, ServerFactory, count_marks_in_duckdb, ship_and_stop
from tests.faults.test_crash import count_marks_in_elasticsearch, load
from tests.proxies import Fault, FaultProxy
from tests.servers import Server, delete_indices, refresh_indices, unique_name

ROUNDS: Final = 20
SEED: Final = os.environ.get("METRONOME_TEST_FAULT_SEED") or unique_name("seed-")

Inject = Callable[[Server, random.Random], Awaitable[None]]

pytestmark = pytest.mark.timeout(600)


async def kill(server: Server, choice: random.Random) -> None:
    """Kill the server, and perhaps again while it starts."""
    server.kill()
    if choice.random() < 0.3:
        server.launch()
        await asyncio.sleep(choice.uniform(0.2, 1.0))
        server.kill()
    await asyncio.to_thread(server.start)


async def pause(server: Server, choice: random.Random) -> None:
    """Stop the process, as a machine that swaps or migrates does."""
    os.kill(server.pid, signal.SIGSTOP)
    await asyncio.sleep(choice.uniform(0.1, 1.0))
    os.kill(server.pid, signal.SIGCONT)


async def restart(server: Server, _: random.Random) -> None:
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start)


async def run_out_of_descriptors(server: Server, choice: random.Random) -> None:
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{server.pid}/fd"))  # noqa: PTH208  # an asynchronous function may not use pathlib
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used, limits[1]))
    await asyncio.sleep(choice.uniform(0.1, 0.5))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)


def move_away(name: str) -> Inject:
    """Move a file of the data folder away for a moment."""

    async def inject(server: Server, choice: random.Random) -> None:
        path = server.data / name
        path.rename(path.with_name("moved"))
        await asyncio.sleep(choice.uniform(0.1, 0.8))
        path.with_name("moved").rename(path)

    inject.__name__ = f"move away {name}"
    return inject


def break_connection(proxy: FaultProxy, fault: Fault) -> Inject:
    """Let a proxy in front of the store break connections for a moment."""

    async def inject(_: Server, choice: random.Random) -> None:
        await asyncio.to_thread(proxy.set_fault, fault)
        await asyncio.sleep(choice.uniform(0.1, 1.0))
        await asyncio.to_thread(proxy.set_fault, Fault.NONE)

    inject.__name__ = fault.name
    return inject


async def run_rounds(server: Server, sent: SentEvents, faults: list[Inject]) -> None:
    choice = random.Random(SEED)
    print(f"METRONOME_TEST_FAULT_SEED={SEED}")  # noqa: T201  # shown by pytest if the test fails
    await asyncio.to_thread(server.start)
    for number in range(ROUNDS):
        inject = choice.choice(faults)
        delay = choice.uniform(0.05, 0.6)
        print(f"round {number}: {inject.__name__}")  # noqa: T201  # likewise
        sending = asyncio.create_task(load(server, sent, delay + 0.5))
        await asyncio.sleep(delay)
        await inject(server, choice)
        await sending
    # Everything heals by itself.
    await asyncio.to_thread(wait_until, lambda: is_ready(server), "events are accepted")
    await load(server, sent, 0.3)
    await asyncio.to_thread(server.wait_until_shipped, 120)
    await asyncio.to_thread(wait_until, lambda: health(server, "store") == "ok", "the store's health is ok")


async def test_random_faults_of_a_server_with_duckdb_lose_and_double_nothing(
    new_server: ServerFactory, data: Path
) -> None:
    server, sent = new_server(data, log_format="json"), SentEvents()
    faults = [
        *(kill, kill, pause, restart, run_out_of_descriptors),
        *map(move_away, ("metronome.duckdb", "spool/0/spool.sqlite", "spool/0/spool.sqlite-wal")),
    ]
    await run_rounds(server, sent, faults)
    await asyncio.to_thread(ship_and_stop, server)
    sent.check(count_marks_in_duckdb(server))


@pytest.fixture
def prefix(elasticsearch_url: str) -> Iterator[str]:
    name = unique_name("random")
    yield name
    delete_indices(elasticsearch_url, name)


@pytest.mark.elasticsearch
async def test_random_faults_of_a_server_with_elasticsearch_lose_and_double_nothing(
    new_server: ServerFactory, data: Path, elasticsearch_url: str, prefix: str
) -> None:
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(elasticsearch_url))
        server, sent = new_server(data, store=proxy.url, index_prefix=prefix), SentEvents()
        breaks = [break_connection(proxy, fault) for fault in Fault if fault is not Fault.NONE]
        faults = [*breaks, *breaks, kill, kill, pause, restart, move_away("spool/0/spool.sqlite")]
        await run_rounds(server, sent, faults)
        await asyncio.to_thread(ship_and_stop, server)
    await asyncio.to_thread(refresh_indices, elasticsearch_url, prefix)
    sent.check(await count_marks_in_elasticsearch(elasticsearch_url, prefix))
    assert not list(server.data.glob("dead/*"))
