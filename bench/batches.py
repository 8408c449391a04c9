"""NDJSON batches, from the request to the embedded store, beside what DuckDB takes from ready-made batches."""

import asyncio
import time
from itertools import count
from pathlib import Path
from typing import Final

import orjson

from bench.events import events, lines
from bench.figures import Row, post, scratch
from metronome.event import Door, Event, document
from metronome.stores.base import Batch, Store
from metronome.stores.duckdb import DuckDBStore
from tests.servers import serving

EACH: Final = 1000
SECONDS: Final = 20
READY_EVENTS: Final = 2_000_000
_DOOR: Final = Door("2026-01-22T09:30:00.000Z", None, "2027-01-01T00:00:00.000Z")


def measure() -> list[Row]:
    """Measure both, one behind the other."""
    ready = ready_made_rate()
    with scratch() as folder, serving(folder / "data") as server:
        began = time.monotonic()
        load = post(f"{server.url}/tick", lines(20 * EACH, EACH), "application/x-ndjson", 4, SECONDS)
        server.wait_until_shipped(600, 0.2)
        whole = load.requests * EACH / (time.monotonic() - began)
    return [
        Row(
            f"NDJSON, {EACH:,} events a request, end to end into DuckDB",
            f"{whole:,.0f} events/s",
            f"{ready:,.0f} (DuckDB, ready-made batches)",
            f"{whole / ready:.2f}",
            "≥ 100,000 and ≥ 0.5",
        )
    ]


def ready_made_rate() -> float:
    """Return how many events a second DuckDB takes as it takes them from the shipper, with nothing else to do."""
    with scratch() as folder:
        return asyncio.run(_write_ready_made(folder))


async def _write_ready_made(folder: Path) -> float:
    store = DuckDBStore(folder)
    await store.setup()
    made = ready_made(READY_EVENTS, store)
    began = time.monotonic()
    for batch in made:
        await store.write(batch)
    rate = READY_EVENTS / (time.monotonic() - began)
    await store.close()
    return rate


def ready_made(events_count: int, store: Store) -> list[Batch]:
    """Make the batches that a shipper would take from the spool."""
    parsed = [orjson.loads(text) for text in events(20_000)]
    size = 0
    batches: list[Batch] = []
    gathered: list[bytes] = []
    for number in count():
        if number == events_count:
            break
        line = document(Event(parsed[number % len(parsed)]), _DOOR, f"{number:032x}")
        if size + len(line) > store.batch_bytes:
            batches.append(Batch.of(gathered))
            gathered, size = [], 0
        gathered.append(line)
        size += len(line) + 1
    return [*batches, Batch.of(gathered)]
