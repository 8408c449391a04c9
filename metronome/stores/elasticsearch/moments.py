"""Several searches of one and the same moment, whatever is written or deleted meanwhile."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from elasticsearch import AsyncElasticsearch

from metronome.stores.elasticsearch.connection import check_shards, once_there, refusals

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
