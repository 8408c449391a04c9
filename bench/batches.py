"""NDJSON batches from request to store, compared with what the store itself accepts from prepared batches."""

import asyncio
import time
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Final, cast

import orjson
from elasticsearch import AsyncElasticsearch

from bench.harness import BenchmarkRow, build_events, build_ndjson_bodies, run_load, sized, spread, temporary_folder
from bench.peers import measure_chdb
from bench.realistic import draw_events
from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.elasticsearch.bulk import IndexNames, build_create_body
from tests.elasticsearch_node import elasticsearch_node
from tests.servers import delete_indices, running_server, unique_name

EVENTS_PER_REQUEST: Final = 1000
LOAD_SECONDS: Final = sized(10, 1)
ROUNDS: Final = sized(3, 1)
REALISTIC_EVENTS: Final = sized(500_000, 20_000)
PREBUILT_EVENTS: Final = sized(2_000_000, 50_000)
ELASTICSEARCH_EVENTS: Final = sized(600_000, 60_000)
ELASTICSEARCH_ROUNDS: Final = sized(3, 1)
IN_FLIGHT: Final = 2
_INGEST_CONFIG: Final = DocumentContext("2026-01-22T09:30:00.000Z", None, "2027-01-01T00:00:00.000Z")


def measure_duckdb() -> list[BenchmarkRow]:
    """Measure Metronome with DuckDB: realistic events beside chDB, light ones beside DuckDB with prepared batches."""
    events = list(draw_events(20 * EVENTS_PER_REQUEST))
    bodies = [b"\n".join(events[start : start + EVENTS_PER_REQUEST]) for start in range(0, len(events), 1000)]
    realistic = [_ndjson_rate(bodies) for _ in range(ROUNDS)]
    chdb = measure_chdb(REALISTIC_EVENTS)
    light = [_ndjson_rate(build_ndjson_bodies(20 * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST)) for _ in range(ROUNDS)]
    prepared = duckdb_write_rate()
    return [
        BenchmarkRow(
            f"NDJSON of realistic events, {EVENTS_PER_REQUEST:,} a request, end to end into DuckDB",
            f"{spread(realistic)} events/s",
            f"{chdb.rate:,.0f} (chDB inserts the same documents)",
            f"{median(realistic) / chdb.rate:.2f}",
            "≥ 1",
        ),
        BenchmarkRow(
            f"NDJSON of light events, {EVENTS_PER_REQUEST:,} a request, end to end into DuckDB",
            f"{spread(light)} events/s",
            f"{prepared:,.0f} (DuckDB, prepared batches)",
            f"{median(light) / prepared:.2f}",
            "≥ 0.5",
        ),
    ]


def _ndjson_rate(bodies: list[bytes]) -> float:
    with temporary_folder() as folder, running_server(folder / "data") as server:
        started = time.monotonic()
        load = run_load(f"{server.url}/tick", bodies, "application/x-ndjson", 4, LOAD_SECONDS)
        server.wait_until_shipped(600, 0.2)
        return load.requests * EVENTS_PER_REQUEST / (time.monotonic() - started)


def duckdb_write_rate() -> float:
    """Return how many events per second DuckDB accepts from batches as the shipper writes them."""
    with temporary_folder() as folder:
        return asyncio.run(_write_prebuilt(folder))


async def _write_prebuilt(folder: Path) -> float:
    store = DuckDBStore(folder)
    await store.setup()
    batches = build_batches(PREBUILT_EVENTS, store)
    started = time.monotonic()
    for batch in batches:
        await store.write(batch)
    rate = PREBUILT_EVENTS / (time.monotonic() - started)
    await store.close()
    return rate


def build_batches(events_count: int, store: Store) -> list[DocumentBatch]:
    """Return batches as the shipper reads them from the spool."""
    parsed = [orjson.loads(text) for text in build_events(20_000)]
    size = 0
    batches: list[DocumentBatch] = []
    documents: list[bytes] = []
    for number in count():
        if number == events_count:
            break
        line = build_document(Event(parsed[number % len(parsed)]), _INGEST_CONFIG, f"{number:032x}")
        if size + len(line) > store.preferred_batch_bytes:
            batches.append(DocumentBatch.from_documents(documents))
            documents, size = [], 0
        documents.append(line)
        size += len(line) + 1
    return [*batches, DocumentBatch.from_documents(documents)]


def measure_elasticsearch() -> list[BenchmarkRow]:
    """Alternate between prepared ``_bulk`` bodies and Metronome on one warm node, and compare the medians."""
    prepared: list[float] = []
    end_to_end: list[float] = []
    with elasticsearch_node("1g") as url:
        asyncio.run(_bulk_write_rate(url))
        for _ in range(ELASTICSEARCH_ROUNDS):
            prepared.append(asyncio.run(_bulk_write_rate(url)))
            end_to_end.append(_end_to_end_rate(url))
    return [
        BenchmarkRow(
            f"NDJSON, {EVENTS_PER_REQUEST:,} events a request, end to end into Elasticsearch",
            f"{median(end_to_end):,.0f} events/s",
            f"{median(prepared):,.0f} (prepared `_bulk` bodies)",
            f"{median(end_to_end) / median(prepared):.2f}",
            "≥ 0.8",
        )
    ]


async def _bulk_write_rate(url: str) -> float:
    prefix = unique_name("prepared")
    store = ElasticsearchStore(ElasticsearchConfig(url, prefix=prefix))
    await store.setup()
    bodies = [build_create_body(batch.body, IndexNames(prefix)) for batch in build_batches(ELASTICSEARCH_EVENTS, store)]
    await store.close()
    client = AsyncElasticsearch(url, max_retries=0, request_timeout=120)
    started = time.monotonic()
    pending = iter(bodies)

    async def send() -> None:
        for body in pending:
            await client.bulk(operations=cast("Any", body), filter_path="errors,items.*.status,items.*.error")

    await asyncio.gather(*(send() for _ in range(IN_FLIGHT)))
    rate = ELASTICSEARCH_EVENTS / (time.monotonic() - started)
    await client.close()
    delete_indices(url, prefix)
    return rate


def _end_to_end_rate(url: str) -> float:
    prefix = unique_name("end_to_end")
    with temporary_folder() as folder, running_server(folder / "data", store=url, index_prefix=prefix) as server:
        bodies = build_ndjson_bodies(20 * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST)
        started = time.monotonic()
        load = run_load(f"{server.url}/tick", bodies, "application/x-ndjson", 2, max(ELASTICSEARCH_EVENTS // 60_000, 1))
        server.wait_until_shipped(600, 0.2)
        rate = load.requests * EVENTS_PER_REQUEST / (time.monotonic() - started)
    delete_indices(url, prefix)
    return rate
