"""Every document that a query lets through, oldest first, page by page."""

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

from elasticsearch import AsyncElasticsearch

from metronome.errors import StoreAway
from metronome.stores.elasticsearch.connection import once_there, reason_of, refusals
from metronome.stores.elasticsearch.filters import Query

PAGE_DOCUMENTS: Final = 2_000
KEEP_ALIVE: Final = "10m"
"""How long Elasticsearch remembers the moment between two pages: whoever reads may be slow."""


async def pages_of_hits(
    client: AsyncElasticsearch, pattern: str, query: Query, *, source: bool
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the hits of a query as they are at the first page, whatever is written or deleted meanwhile.

    Args:
        client: the connection.
        pattern: which indices to search.
        query: which documents.
        source: whether hits come with their documents, or just with where they lie.

    """
    moment = await once_there(partial(_open, client, pattern))
    after = None
    try:
        while True:
            with refusals():
                response = await client.search(
                    size=PAGE_DOCUMENTS,
                    query=query,
                    source=source,
                    sort=[{"@timestamp": "asc"}, {"_shard_doc": "asc"}],
                    search_after=after,
                    pit={"id": moment, "keep_alive": KEEP_ALIVE},
                    track_total_hits=False,
                )
            check_shards(response.body)
            moment, hits = response["pit_id"], response["hits"]["hits"]
            if hits:
                yield hits
            if len(hits) < PAGE_DOCUMENTS:
                return
            after = hits[-1]["sort"]
    finally:
        # Elasticsearch forgets it by itself; a failure here must not hide what was read.
        with suppress(Exception):
            await client.close_point_in_time(id=moment)


async def _open(client: AsyncElasticsearch, pattern: str) -> str:
    with refusals():
        opened = await client.open_point_in_time(
            index=pattern, keep_alive=KEEP_ALIVE, ignore_unavailable=True, allow_partial_search_results=False
        )
    return str(opened["id"])


def check_shards(response: dict[str, Any]) -> None:
    """Raise if an answer does not hold what all shards know.

    Raises:
        StoreAway: a shard failed, or did not answer in time.

    """
    shards = response.get("_shards", {})
    if response.get("timed_out") or shards.get("failed"):
        failures = shards.get("failures", ())
        why = reason_of(failures[0].get("reason")) if failures else "not all shards answered"
        raise StoreAway(f"Elasticsearch answered in part only: {why}")
