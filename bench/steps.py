"""What one realistic event costs at each step of its way, in processor time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from bench.harness import BenchmarkRow, sized, temporary_folder
from bench.realistic import draw_documents, draw_events
from metronome.enrich.countries import open_countries
from metronome.enrich.enrichment import Enrichment
from metronome.event import DocumentContext, Event, IngestConfig, build_document
from metronome.stores.base import DocumentBatch
from metronome.stores.duckdb import DuckDBStore

EVENTS: Final = sized(20_000, 1_000)
STORED: Final = sized(300_000, 10_000)
PART: Final = 1_000
ROUNDS: Final = sized(6, 1)
BATCH_BYTES: Final = 16 << 20


def measure() -> list[BenchmarkRow]:
    """Measure the steps of one process, each alone."""
    texts = list(draw_events(EVENTS))
    events = [Event(orjson.loads(text)) for text in texts]
    day = "2026-01-22"
    plain = DocumentContext(f"{day}T09:30:00.000Z", None, "9999-01-01T00:00:00.000Z")
    config = IngestConfig(enrichment=Enrichment(open_countries("built-in")))
    enriching = replace(plain, config=config, salts={day: b"s" * 32})
    steps = [
        ("parse its JSON", _least(orjson.loads, texts), "2 µs"),
        (
            "build its document, without enrichment",
            _least(lambda event: build_document(event, plain, "id"), events),
            "",
        ),
        ("build its document", _least(lambda event: build_document(event, enriching, "id"), events), "10 µs"),
        ("write it to DuckDB, in batches of 16 MiB", asyncio.run(_write()), ""),
    ]
    return [
        BenchmarkRow(f"one realistic event: {name}", f"{microseconds:.1f} µs", "", "", target and f"≤ {target}")
        for name, microseconds, target in steps
    ]


def _least(step: Callable[[Any], object], values: Sequence[object]) -> float:
    """Return the processor time of a step in microseconds, of the fastest thousand."""
    least = float("inf")
    for _ in range(ROUNDS):
        for at in range(0, len(values), PART):
            part = values[at : at + PART]
            started = time.process_time()
            for value in part:
                step(value)
            least = min(least, (time.process_time() - started) / len(part))
    return least * 1e6


async def _write() -> float:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    batches, lines, size = list[DocumentBatch](), list[bytes](), 0
    for document in draw_documents(STORED, start, timedelta(days=30)):
        lines.append(document)
        size += len(document)
        if size > BATCH_BYTES:
            batches.append(DocumentBatch.from_documents(lines))
            lines, size = [], 0
    batches.append(DocumentBatch.from_documents(lines))
    with temporary_folder() as folder:
        store = DuckDBStore(folder)
        await store.setup()
        started = time.process_time()
        for batch in batches:
            await store.write(batch)
        seconds = time.process_time() - started
        await store.close()
    return seconds / STORED * 1e6
