"""Several searches of one and the same moment, whatever is written or deleted meanwhile.

Every document that a query lets through, oldest first, page by page.

What a single search of many came to.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from elasticsearch import AsyncElasticsearch

from metronome.errors import TooCostly, Unaskable
from metronome.stores.elasticsearch.connection import (
    NotUnderstood,
    check_shards,
    error_of,
    is_caused_by,
    once_there,
    refusals,
)
from metronome.stores.elasticsearch.queries import Query

KEEP_ALIVE: Final = "10m"
"""How long Elasticsearch remembers the moment between two searches: whoever reads may be slow."""


class Moment:
    """The events as they were at one time.

    Args:
        client: the connection.
        name: how Elasticsearch calls the point in time; it may change with each search.

    """

    def __init__(self, client: AsyncElasticsearch, name: str) -> None:
        self._client = client
        self.name = name

    async def search(self, **body: Any) -> dict[str, Any]:
        """Search these events, those of all shards.

        Raises:
            StoreAway: some of them cannot be searched now.

        """
        with refusals():
            response = await self._client.search(
                pit={"id": self.name, "keep_alive": KEEP_ALIVE}, track_total_hits=False, **body
            )
        check_shards(response.body)
        self.name = response["pit_id"]
        return dict(response.body)


@asynccontextmanager
async def frozen(client: AsyncElasticsearch, pattern: str) -> AsyncIterator[Moment]:
    """Keep the events of these indices as they are now, to be searched while the block runs."""
    moment = Moment(client, await once_there(partial(_open, client, pattern)))
    try:
        yield moment
    finally:
        # Elasticsearch forgets it by itself; a failure here must not hide what was read.
        with suppress(Exception):
            await client.close_point_in_time(id=moment.name)


async def _open(client: AsyncElasticsearch, pattern: str) -> str:
    with refusals():
        opened = await client.open_point_in_time(
            index=pattern, keep_alive=KEEP_ALIVE, ignore_unavailable=True, allow_partial_search_results=False
        )
    return str(opened["id"])


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


_TOO_MANY_GROUPS: Final = "too_many_buckets_exception"
_TOO_LONG: Final = "search_timeout_exception"
_TOO_LARGE: Final = "circuit_breaking_exception"


def has_too_many_groups(response: dict[str, Any]) -> bool:
    """Return whether a search failed since it has more groups than Elasticsearch answers with at once."""
    return is_caused_by(response.get("error"), _TOO_MANY_GROUPS)


def check_outcome(response: dict[str, Any], seconds: float) -> None:
    """Raise if a search did not succeed on all shards.

    Args:
        response: that of the single search.
        seconds: how long it might take.

    Raises:
        Unaskable: Elasticsearch does not understand the search, such as one that is nested too deeply.
        TooCostly: it took too long, or more memory than Elasticsearch has for it.
        StoreAway: a shard cannot be searched now.
        StoreDenied: searching is not allowed.

    """
    error = response.get("error")
    if response.get("timed_out") or is_caused_by(error, _TOO_LONG):
        raise TooCostly(f"the answer takes over {seconds:g} s")
    if is_caused_by(error, _TOO_LARGE):
        raise TooCostly("the answer takes more memory than Elasticsearch has for it")
    if error is not None:
        raised = error_of(response.get("status", 500), response)
        if isinstance(raised, NotUnderstood):
            raise Unaskable(f"Elasticsearch cannot answer this: {raised}")
        raise raised
    check_shards(response)
