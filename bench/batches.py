"""NDJSON batches, from the request to the embedded store, beside what DuckDB takes from ready-made batches."""

import asyncio
import time
from itertools import count
from pathlib import Path
from typing import Final

import orjson

from bench.events import build_events, build_ndjson_bodies
from bench.figures import BenchmarkRow, run_load, temporary_folder
from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from tests.servers import running_server

EVENTS_PER_REQUEST: Final = 1000
LOAD_SECONDS: Final = 20
PREBUILT_EVENTS: Final = 2_000_000
_INGEST_CONFIG: Final = DocumentContext("2026-01-22T09:30:00.000Z", None, "2027-01-01T00:00:00.000Z")


def measure() -> list[BenchmarkRow]:
    """Measure both, one behind the other."""
    ready = duckdb_write_rate()
    with temporary_folder() as folder, running_server(folder / "data") as server:
        began = time.monotonic()
        load = run_load(
            f"{server.url}/tick",
            build_ndjson_bodies(20 * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST),
            "application/x-ndjson",
            4,
            LOAD_SECONDS,
        )
        server.wait_until_shipped(600, 0.2)
        whole = load.requests * EVENTS_PER_REQUEST / (time.monotonic() - began)
    return [
        BenchmarkRow(
            f"NDJSON, {EVENTS_PER_REQUEST:,} events a request, end to end into DuckDB",
            f"{whole:,.0f} events/s",
            f"{ready:,.0f} (DuckDB, ready-made batches)",
            f"{whole / ready:.2f}",
            "≥ 100,000 and ≥ 0.5",
        )
    ]


def duckdb_write_rate() -> float:
    """Return how many events a second DuckDB takes as it takes them from the shipper, with nothing else to do."""
    with temporary_folder() as folder:
        return asyncio.run(_write_prebuilt(folder))


async def _write_prebuilt(folder: Path) -> float:
    store = DuckDBStore(folder)
    await store.setup()
    made = build_batches(PREBUILT_EVENTS, store)
    began = time.monotonic()
    for batch in made:
        await store.write(batch)
    rate = PREBUILT_EVENTS / (time.monotonic() - began)
    await store.close()
    return rate


def build_batches(events_count: int, store: Store) -> list[DocumentBatch]:
    """Make the batches that a shipper would take from the spool."""
    parsed = [orjson.loads(text) for text in build_events(20_000)]
    size = 0
    batches: list[DocumentBatch] = []
    gathered: list[bytes] = []
    for number in count():
        if number == events_count:
            break
        line = build_document(Event(parsed[number % len(parsed)]), _INGEST_CONFIG, f"{number:032x}")
        if size + len(line) > store.preferred_batch_bytes:
            batches.append(DocumentBatch.from_documents(gathered))
            gathered, size = [], 0
        gathered.append(line)
        size += len(line) + 1
    return [*batches, DocumentBatch.from_documents(gathered)]
