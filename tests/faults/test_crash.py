"""After crashes at random times, the store has every acknowledged event exactly once."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest

from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from tests.faults.rounds import ROUNDS, SentEvents, ServerFactory, count_marks_in_duckdb, crash_timeout, ship_and_stop
from tests.servers import Server, delete_indices, refresh_indices, unique_name

CONNECTIONS: Final = 6
TIMEOUT: Final = aiohttp.ClientTimeout(total=30)

pytestmark = crash_timeout


async def load(server: Server, sent: SentEvents, seconds: float, batch: int = 40) -> None:
    """Send over several connections until the server dies or the time is over."""
    deadline = asyncio.get_running_loop().time() + seconds

    async def send(http: aiohttp.ClientSession, number: int) -> None:
        choice = random.Random(f"{number} {unique_name()}")
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            while asyncio.get_running_loop().time() < deadline:
                marks = [unique_name() for _ in range(choice.choice((1, 1, 1, batch)))]
                # Half of the events have an event ID; the others get one on ingest.
                events = [{"id": "crash", "mark": mark, **({"event_id": mark} if number % 2 else {})} for mark in marks]
                body = orjson.dumps(events[0] if len(events) == 1 else events)
                sent.attempted.update(marks)
                async with http.post("/tick", data=body) as response:
                    content = await response.read()
                if response.status == 200:
                    assert orjson.loads(content) == {"accepted": len(marks), "rejected": []}
                elif response.status != 204:
                    continue
                sent.acknowledged.update(marks)

    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(server.url, timeout=TIMEOUT, connector=connector) as http:
        await asyncio.gather(*(send(http, number) for number in range(CONNECTIONS)))


async def kill_under_load(server: Server, sent: SentEvents, delay: float, batch: int = 40) -> None:
    """Start a server, send events to it, and kill it after a delay."""
    await asyncio.to_thread(server.start)
    sending = asyncio.create_task(load(server, sent, delay + 5, batch))
    await asyncio.sleep(delay)
    server.kill()
    await sending


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_server_killed_under_load_loses_no_acknowledged_events(
    new_server: ServerFactory, data: Path, workers: int
) -> None:
    server, sent = new_server(data, workers=workers), SentEvents()
    for _ in range(ROUNDS):
        await kill_under_load(server, sent, random.uniform(0.05, 1.2))
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(ship_and_stop, server)
    sent.check(count_marks_in_duckdb(server))
    print(f"{ROUNDS} rounds, {workers} workers: {len(sent.acknowledged)} of {len(sent.attempted)} acknowledged")  # noqa: T201  # shown by pytest -s


async def test_a_server_killed_while_shipping_ships_nothing_twice(new_server: ServerFactory, data: Path) -> None:
    server, sent = new_server(data), SentEvents()
    for _ in range(ROUNDS):
        # Large batches lead to chunks of megabytes, so most kills happen while one is shipped.
        await kill_under_load(server, sent, random.uniform(0.1, 0.8), batch=2000)
        # Kill it again while it ships its spool after the start.
        server.launch()
        await asyncio.sleep(random.uniform(0.5, 1.0))
        server.kill()
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(ship_and_stop, server)
    sent.check(count_marks_in_duckdb(server))
    print(f"{ROUNDS} rounds: {len(sent.acknowledged)} of {len(sent.attempted)} acknowledged")  # noqa: T201  # shown by pytest -s


async def test_killed_workers_lose_no_acknowledged_events(new_server: ServerFactory, data: Path) -> None:
    server, sent = new_server(data, workers=2), SentEvents()
    await asyncio.to_thread(server.start)
    for _ in range(ROUNDS):
        sending = asyncio.create_task(load(server, sent, random.uniform(0.5, 1.5)))
        await asyncio.sleep(random.uniform(0.05, 0.5))
        for pid in server.worker_pids()[: random.randint(1, 2)]:
            server.kill_worker(pid)
        await sending
        await asyncio.to_thread(server.wait_until_ready)
        if random.random() < 0.5:
            # The next worker to be killed leaves an empty spool.
            await asyncio.to_thread(server.wait_until_shipped)
    await asyncio.to_thread(ship_and_stop, server)
    sent.check(count_marks_in_duckdb(server))
    print(f"{ROUNDS} rounds: {len(sent.acknowledged)} of {len(sent.attempted)} acknowledged")  # noqa: T201  # shown by pytest -s


async def test_a_batch_resent_after_a_crash_is_stored_once(new_server: ServerFactory, data: Path) -> None:
    server, marks = new_server(data), [unique_name() for _ in range(3000)]
    batches = [marks[at : at + 100] for at in range(0, len(marks), 100)]
    for _ in range(min(ROUNDS, 10)):
        await asyncio.to_thread(server.start)
        sending = asyncio.create_task(asyncio.to_thread(send_batches, server, batches))
        await asyncio.sleep(random.uniform(0.0, 0.2))
        server.kill()
        await sending
    await asyncio.to_thread(server.start)
    assert await asyncio.to_thread(send_batches, server, batches) == len(batches)
    await asyncio.to_thread(ship_and_stop, server)
    assert count_marks_in_duckdb(server) == Counter(marks)


def send_batches(server: Server, batches: list[list[str]]) -> int:
    """Send batches, each with its own idempotency key, and return how many were acknowledged before the server died."""
    for number, marks in enumerate(batches):
        # With a fixed time, since an event is identified by its ID and its day.
        events = [{"id": "crash", "mark": mark, "ts": "2024-01-01"} for mark in marks]
        try:
            server.post_events(orjson.dumps(events), **{"Idempotency-Key": f"batch {number}"})
        except OSError:
            return number
    return len(batches)


@pytest.fixture
def prefix(elasticsearch_url: str) -> Iterator[str]:
    name = unique_name("crash")
    yield name
    delete_indices(elasticsearch_url, name)


@pytest.mark.elasticsearch
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_server_with_elasticsearch_killed_under_load_loses_no_acknowledged_events(
    new_server: ServerFactory, data: Path, elasticsearch_url: str, prefix: str, workers: int
) -> None:
    server, sent = new_server(data, store=elasticsearch_url, index_prefix=prefix, workers=workers), SentEvents()
    for _ in range(max(2, ROUNDS // 3)):
        await kill_under_load(server, sent, random.uniform(0.1, 1.5), batch=400)
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(ship_and_stop, server)
    await asyncio.to_thread(refresh_indices, elasticsearch_url, prefix)
    sent.check(await count_marks_in_elasticsearch(elasticsearch_url, prefix))
    print(f"{workers} workers: {len(sent.acknowledged)} of {len(sent.attempted)} acknowledged")  # noqa: T201  # shown by pytest -s


async def count_marks_in_elasticsearch(url: str, prefix: str) -> Counter[str]:
    store = ElasticsearchStore(ElasticsearchConfig(url, None, None, prefix))
    try:
        documents: list[dict[str, Any]] = [orjson.loads(document) async for document in store.iterate_documents()]
    finally:
        await store.close()
    return Counter(document["mark"] for document in documents)
