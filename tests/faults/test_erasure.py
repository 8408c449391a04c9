"""Kill a server while it forgets: afterwards the events are gone everywhere, and each other event is there once."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.faults.rounds import ROUNDS, SentEvents, count_marks_in_duckdb, crash_timeout, ship_and_stop
from tests.faults.test_archive import count_marks_in_archive
from tests.faults.test_crash import TIMEOUT, load
from tests.faults.test_segments import SmallSegmentsServer
from tests.servers import Server, unique_name

pytestmark = crash_timeout


async def test_a_server_killed_while_it_forgets_continues_after_its_restart(data: Path) -> None:
    archive, sent, gone = f"file://{data}/archive", SentEvents(), set[str]()
    settings = {"archive": archive, "archive_roll_bytes": 20_000, "archive_roll_age": "1s"}
    with SmallSegmentsServer(data / "data", **settings) as server:
        for number in range(ROUNDS):
            await asyncio.to_thread(server.start)
            loading = asyncio.create_task(load(server, sent, 20))
            async with aiohttp.ClientSession(server.url, timeout=TIMEOUT) as http:
                item = f"gone-{number}"
                for count in (1, 300):
                    gone |= await send(http, item, count)
                    await asyncio.sleep(random.uniform(0, 0.5))
                async with http.post("/forget", data=orjson.dumps({"item": item})) as response:
                    assert response.status == 202
            await asyncio.sleep(random.uniform(0, 1.5))
            server.kill()
            await loading
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(wait_until_forgotten, server, ROUNDS)
        async with aiohttp.ClientSession(server.url, timeout=TIMEOUT) as http:
            back = await send(http, "gone-0", 10)
        sent.attempted |= back
        sent.acknowledged |= back
        await asyncio.to_thread(ship_and_stop, server)
        stored, archived = count_marks_in_duckdb(server), await count_marks_in_archive(archive)
    for place in (stored, archived):
        assert not gone & place.keys()
        sent.check(place)
    assert stored == archived
    print(f"{ROUNDS} rounds: {len(gone)} events forgotten, {len(sent.acknowledged)} others there once")  # noqa: T201  # shown by pytest -s


async def send(http: aiohttp.ClientSession, item: str, count: int) -> set[str]:
    """Send events of an item, and return their marks once they are acknowledged."""
    marks = {unique_name() for _ in range(count)}
    body = orjson.dumps([{"id": item, "mark": mark} for mark in marks])
    async with http.post("/tick", data=body) as response:
        assert response.status == 200
    return marks


def wait_until_forgotten(server: Server, count: int) -> list[dict[str, Any]]:
    """Wait until all requests to forget events are done."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            requests: list[dict[str, Any]] = server.get("/forget.json")["requests"]
            if Counter(request["state"] for request in requests) == {"done": count}:
                return requests
        assert time.monotonic() < deadline, requests
        time.sleep(0.05)
