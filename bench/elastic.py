"""NDJSON batches into Elasticsearch, beside what the same node takes from ready-made ``_bulk`` bodies."""

import asyncio
import time
from statistics import median
from typing import Any, Final, cast

from elasticsearch import AsyncElasticsearch

from bench.batches import EACH, ready_made
from bench.events import lines
from bench.figures import Row, post, scratch
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.elasticsearch.bulk import bulk_body
from tests.elasticsearch_node import elasticsearch_node
from tests.servers import delete_indices, serving, unique_name

EVENTS: Final = 600_000
ROUNDS: Final = 3
IN_FLIGHT: Final = 2


def measure() -> list[Row]:
    """Alternate between the two on one warm node, and compare the medians."""
    ready: list[float] = []
    whole: list[float] = []
    with elasticsearch_node("1g") as url:
        asyncio.run(_ready_made_rate(url))
        for _ in range(ROUNDS):
            ready.append(asyncio.run(_ready_made_rate(url)))
            whole.append(_whole_rate(url))
    return [
        Row(
            f"NDJSON, {EACH:,} events a request, end to end into Elasticsearch",
            f"{median(whole):,.0f} events/s",
            f"{median(ready):,.0f} (ready-made `_bulk` bodies)",
            f"{median(whole) / median(ready):.2f}",
            "≥ 0.8",
        )
    ]


async def _ready_made_rate(url: str) -> float:
    prefix = unique_name("ready")
    store = ElasticsearchStore(ElasticsearchConfig(url, prefix=prefix))
    await store.setup()
    bodies = [bulk_body(batch.body, prefix) for batch in ready_made(EVENTS, store)]
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


def _whole_rate(url: str) -> float:
    prefix = unique_name("whole")
    with scratch() as folder, serving(folder / "data", store=url, index_prefix=prefix) as server:
        bodies = lines(20 * EACH, EACH)
        began = time.monotonic()
        load = post(f"{server.url}/tick", bodies, "application/x-ndjson", 2, EVENTS // 60_000)
        server.wait_until_shipped(600, 0.2)
        rate = load.requests * EACH / (time.monotonic() - began)
    delete_indices(url, prefix)
    return rate
