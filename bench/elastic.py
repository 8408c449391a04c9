"""NDJSON batches into Elasticsearch, beside what the same node takes from ready-made ``_bulk`` bodies."""

import asyncio
import time
from statistics import median
from typing import Any, Final, cast

from elasticsearch import AsyncElasticsearch

from bench.batches import EVENTS_PER_REQUEST, build_batches
from bench.events import build_ndjson_bodies
from bench.figures import BenchmarkRow, run_load, temporary_folder
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.elasticsearch.bulk import build_create_body
from tests.elasticsearch_node import elasticsearch_node
from tests.servers import delete_indices, running_server, unique_name

EVENTS: Final = 600_000
ROUNDS: Final = 3
IN_FLIGHT: Final = 2


def measure() -> list[BenchmarkRow]:
    """Alternate between the two on one warm node, and compare the medians."""
    ready: list[float] = []
    whole: list[float] = []
    with elasticsearch_node("1g") as url:
        asyncio.run(_bulk_write_rate(url))
        for _ in range(ROUNDS):
            ready.append(asyncio.run(_bulk_write_rate(url)))
            whole.append(_end_to_end_rate(url))
    return [
        BenchmarkRow(
            f"NDJSON, {EVENTS_PER_REQUEST:,} events a request, end to end into Elasticsearch",
            f"{median(whole):,.0f} events/s",
            f"{median(ready):,.0f} (ready-made `_bulk` bodies)",
            f"{median(whole) / median(ready):.2f}",
            "≥ 0.8",
        )
    ]


async def _bulk_write_rate(url: str) -> float:
    prefix = unique_name("ready")
    store = ElasticsearchStore(ElasticsearchConfig(url, prefix=prefix))
    await store.setup()
    bodies = [build_create_body(batch.body, prefix) for batch in build_batches(EVENTS, store)]
    await store.close()
    client = AsyncElasticsearch(url, max_retries=0, request_timeout=120)
    began = time.monotonic()
    waiting = iter(bodies)

    async def send() -> None:
        for body in waiting:
            await client.bulk(operations=cast("Any", body), filter_path="errors,items.*.status,items.*.error")

    await asyncio.gather(*(send() for _ in range(IN_FLIGHT)))
    rate = EVENTS / (time.monotonic() - began)
    await client.close()
    delete_indices(url, prefix)
    return rate


def _end_to_end_rate(url: str) -> float:
    prefix = unique_name("whole")
    with temporary_folder() as folder, running_server(folder / "data", store=url, index_prefix=prefix) as server:
        bodies = build_ndjson_bodies(20 * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST)
        began = time.monotonic()
        load = run_load(f"{server.url}/tick", bodies, "application/x-ndjson", 2, EVENTS // 60_000)
        server.wait_until_shipped(600, 0.2)
        rate = load.requests * EVENTS_PER_REQUEST / (time.monotonic() - began)
    delete_indices(url, prefix)
    return rate
