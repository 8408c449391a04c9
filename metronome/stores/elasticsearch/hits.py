"""Every document that a query lets through, oldest first, page by page."""

from collections.abc import AsyncIterator
from typing import Any, Final

from elasticsearch import AsyncElasticsearch

from metronome.stores.elasticsearch.filters import Query
from metronome.stores.elasticsearch.moments import frozen

PAGE_DOCUMENTS: Final = 2_000


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
    after = None
    async with frozen(client, pattern) as moment:
        while True:
            response = await moment.search(
                size=PAGE_DOCUMENTS,
                query=query,
                source=source,
                sort=[{"@timestamp": "asc"}, {"_shard_doc": "asc"}],
                search_after=after,
            )
            hits = response["hits"]["hits"]
            if hits:
                yield hits
            if len(hits) < PAGE_DOCUMENTS:
                return
            after = hits[-1]["sort"]
