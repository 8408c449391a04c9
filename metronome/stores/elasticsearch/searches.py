"""Several searches of one and the same moment, whatever is written or deleted meanwhile.

Every document that a query lets through, oldest first, page by page.

What a single search of many came to.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from elasticsearch import AsyncElasticsearch

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.stores.elasticsearch.connection import (
    RequestRejected,
    build_error,
    check_shards,
    is_caused_by,
    retry_missing_shards,
    translate_errors,
)
from metronome.stores.elasticsearch.queries import QueryClause

KEEP_ALIVE: Final = "10m"
"""How long Elasticsearch remembers the moment between two searches: whoever reads may be slow."""


class PointInTime:
    """The events as they were at one time.

    Args:
        client: the connection.
        pit_id: how Elasticsearch calls the point in time; it may change with each search.

    """

    def __init__(self, client: AsyncElasticsearch, pit_id: str) -> None:
        self._client = client
        self.id = pit_id

    async def search(self, **body: Any) -> dict[str, Any]:
        """Search these events, those of all shards.

        Raises:
            StoreUnavailable: some of them cannot be searched now.

        """
        with translate_errors():
            response = await self._client.search(
                pit={"id": self.id, "keep_alive": KEEP_ALIVE}, track_total_hits=False, **body
            )
        check_shards(response.body)
        self.id = response["pit_id"]
        return dict(response.body)


@asynccontextmanager
async def open_point_in_time(client: AsyncElasticsearch, pattern: str) -> AsyncIterator[PointInTime]:
    """Keep the events of these indices as they are now, to be searched while the block runs."""
    moment = PointInTime(client, await retry_missing_shards(partial(_request_point_in_time, client, pattern)))
    try:
        yield moment
    finally:
        # Elasticsearch forgets it by itself; a failure here must not hide what was read.
        with suppress(Exception):
            await client.close_point_in_time(id=moment.id)


async def _request_point_in_time(client: AsyncElasticsearch, pattern: str) -> str:
    with translate_errors():
        opened = await client.open_point_in_time(
            index=pattern, keep_alive=KEEP_ALIVE, ignore_unavailable=True, allow_partial_search_results=False
        )
    return str(opened["id"])


PAGE_DOCUMENTS: Final = 2_000


async def iterate_hit_pages(
    client: AsyncElasticsearch, pattern: str, query: QueryClause, *, with_source: bool
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the hits of a query as they are at the first page, whatever is written or deleted meanwhile.

    Args:
        client: the connection.
        pattern: which indices to search.
        query: which documents.
        with_source: whether hits come with their documents, or just with where they lie.

    """
    after = None
    async with open_point_in_time(client, pattern) as moment:
        while True:
            response = await moment.search(
                size=PAGE_DOCUMENTS,
                query=query,
                source=with_source,
                sort=[{"@timestamp": "asc"}, {"_shard_doc": "asc"}],
                search_after=after,
            )
            hits = response["hits"]["hits"]
            if hits:
                yield hits
            if len(hits) < PAGE_DOCUMENTS:
                return
            after = hits[-1]["sort"]


_TOO_MANY_BUCKETS_TYPE: Final = "too_many_buckets_exception"
_SEARCH_TIMEOUT_TYPE: Final = "search_timeout_exception"
_CIRCUIT_BREAKING_TYPE: Final = "circuit_breaking_exception"


def has_too_many_buckets(response: dict[str, Any]) -> bool:
    """Return whether a search failed since it has more groups than Elasticsearch answers with at once."""
    return is_caused_by(response.get("error"), _TOO_MANY_BUCKETS_TYPE)


def check_search_response(response: dict[str, Any], timeout_seconds: float) -> None:
    """Raise if a search did not succeed on all shards.

    Args:
        response: that of the single search.
        timeout_seconds: how long it might take.

    Raises:
        InvalidQuery: Elasticsearch does not understand the search, such as one that is nested too deeply.
        QueryTooExpensive: it took too long, or more memory than Elasticsearch has for it.
        StoreUnavailable: a shard cannot be searched now.
        StoreAccessDenied: searching is not allowed.

    """
    error = response.get("error")
    if response.get("timed_out") or is_caused_by(error, _SEARCH_TIMEOUT_TYPE):
        raise QueryTooExpensive(f"the answer takes over {timeout_seconds:g} s")
    if is_caused_by(error, _CIRCUIT_BREAKING_TYPE):
        raise QueryTooExpensive("the answer takes more memory than Elasticsearch has for it")
    if error is not None:
        raised = build_error(response.get("status", 500), response)
        if isinstance(raised, RequestRejected):
            raise InvalidQuery(f"Elasticsearch cannot answer this: {raised}")
        raise raised
    check_shards(response)
