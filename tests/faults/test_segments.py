"""Kill a process while the embedded store seals, merges, replaces and deletes: each event is stored once, or gone."""

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import orjson
import pytest

from metronome.stores.duckdb.segments import FOLDER_NAME
from tests.faults.rounds import ROUNDS, SentEvents, count_marks_in_duckdb, crash_timeout, ship_and_stop
from tests.faults.test_crash import kill_under_load
from tests.installations import read_stored_documents
from tests.servers import Server, build_environment

pytestmark = crash_timeout

WRITER: Final = Path(__file__).with_name("segment_writer.py")


class SmallSegmentsServer(Server):
    """A server whose embedded store moves events through segments all the time."""

    def launch(self) -> None:
        """Start the server without waiting."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.faults.small_segments", "serve"]
        variables = build_environment(data=self.data, port=self.port, **self.settings)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=variables, stdin=subprocess.DEVNULL, stdout=log.fileno(), stderr=log.fileno()
            )


async def test_a_server_killed_while_it_moves_events_into_segments_loses_and_doubles_none(data: Path) -> None:
    sent = SentEvents()
    with SmallSegmentsServer(data) as server:
        for round_number in range(ROUNDS):
            await kill_under_load(server, sent, random.uniform(0.1, 1.5), batch=(40, 2000)[round_number % 2])
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(ship_and_stop, server)
        stored = count_marks_in_duckdb(server)
    sent.check(stored)
    files = list((data / FOLDER_NAME).rglob("*.parquet"))
    assert files
    print(f"{ROUNDS} rounds: {len(sent.acknowledged)} of {len(sent.attempted)} acknowledged, {len(files)} segments")  # noqa: T201  # shown by pytest -s


@pytest.mark.parametrize("seed", range(2))
def test_a_process_killed_while_it_deletes_and_replaces_loses_and_doubles_none(data: Path, seed: int) -> None:
    """The writer reports what it is about to do, and what is done: an operation that was cut off may have happened."""
    draw = random.Random(f"{seed} {time.time()}")
    written: set[str] = set()
    deleted: set[str] = set()
    uncertain: set[str] = set()
    replaced: dict[str, set[str]] = {}
    for number in range(ROUNDS):
        command = [sys.executable, str(WRITER), str(data), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            time.sleep(draw.uniform(0.05, 2))
            process.kill()
            lines = [orjson.loads(line) for line in process.stdout if line.endswith("\n")]
        for at, (kind, item, count) in enumerate(lines):
            if kind == "done":
                continue
            is_done = at + 1 < len(lines)
            names = {f"{item}-{name}" for name in range(count)}
            uncertain = uncertain - names if is_done else uncertain | names
            if kind == "write" and is_done:
                written |= names
            elif kind == "delete" and is_done:
                deleted |= names
            elif kind == "replace":
                replaced[item] = {"new"} if is_done else {"new", "old"}
    documents = read_stored_documents(data)
    stored = Counter(document["event_id"] for document in documents)
    assert max(stored.values(), default=1) == 1
    assert not (deleted - uncertain) & stored.keys()
    assert not (written - deleted - uncertain) - stored.keys()
    for document in documents:
        assert document["version"] in replaced.get(document["id"], {"old"})
    assert len(stored) > 10
