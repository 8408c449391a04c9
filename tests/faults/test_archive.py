"""After crashes at random times, the archive has every acknowledged event exactly once."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import orjson

from metronome.archive.inventory import list_objects, read_object
from metronome.archive.objects import open_archive
from tests.faults.rounds import ROUNDS, SentEvents, ServerFactory, count_marks_in_duckdb, crash_timeout, ship_and_stop
from tests.faults.test_crash import kill_under_load
from tests.servers import run_metronome

pytestmark = crash_timeout


async def count_marks_in_archive(url: str) -> Counter[str]:
    """Count the events in an archive by mark."""
    archive = open_archive(url)
    inventory = await list_objects(archive)
    assert inventory.errors == []
    assert all(archived.manifest_entry is not None for archived in inventory.objects), "an object is in no manifest"
    bodies = [await read_object(archive, archived) for archived in inventory.objects]
    return Counter(orjson.loads(line)["mark"] for body in bodies for line in body.splitlines())


async def test_a_killed_server_archives_each_event_once(new_server: ServerFactory, data: Path) -> None:
    for workers, roll_bytes in ((1, 30_000), (2, 300_000)):
        folder = data / str(workers)
        archive = f"file://{folder}/archive"
        server = new_server(
            folder / "data", workers=workers, archive=archive, archive_roll_bytes=roll_bytes, archive_roll_age="1s"
        )
        sent = SentEvents()
        for _ in range(ROUNDS):
            await kill_under_load(server, sent, random.uniform(0.1, 1.5))
            # Kill it again while it ships and archives its spool after the start.
            server.launch()
            await asyncio.sleep(random.uniform(0.5, 1.5))
            server.kill()
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(ship_and_stop, server)
        stored, archived = count_marks_in_duckdb(server), await count_marks_in_archive(archive)
        sent.check(stored)
        sent.check(archived)
        assert stored == archived
        print(f"{ROUNDS} rounds, {workers} workers: {len(sent.acknowledged)} acknowledged and archived")  # noqa: T201  # shown by pytest -s


async def test_a_replay_interrupted_by_crashes_is_completed_by_the_next(new_server: ServerFactory, data: Path) -> None:
    archive = f"file://{data}/archive"
    first, sent = new_server(data / "first", archive=archive, archive_roll_bytes=20_000), SentEvents()
    await kill_under_load(first, sent, 2.0, batch=400)
    await asyncio.to_thread(first.start)
    await asyncio.to_thread(ship_and_stop, first)
    expected = await count_marks_in_archive(archive)
    second = new_server(data / "second")
    options = (f"--url={second.url}", f"--checkpoint={data / 'progress'}")
    for _ in range(ROUNDS):
        await asyncio.to_thread(second.start)
        replaying = asyncio.create_task(
            asyncio.to_thread(run_metronome, "replay", archive, *options, "--retry-timeout=0")
        )
        await asyncio.sleep(random.uniform(0.8, 1.6))
        second.kill()
        assert (await replaying).exit_code in {0, 1}
    await asyncio.to_thread(second.start)
    result = await asyncio.to_thread(run_metronome, "replay", archive, *options)
    assert result.exit_code == 0, result
    assert (await asyncio.to_thread(run_metronome, "verify", archive, options[0])).exit_code == 0
    await asyncio.to_thread(ship_and_stop, second)
    assert count_marks_in_duckdb(second) == expected
