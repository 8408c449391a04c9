"""Running searches: points in time, paging through hits, deadlines, and errors of single searches."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from elasticsearch import AsyncElasticsearch

from metronome.errors import InvalidQuery, QueryTooExpensive, StoreUnavailable
from metronome.stores.elasticsearch.connection import (
    RequestRejected,
    build_error,
    check_shards,
    is_caused_by,
    product_name,
    read_key,
    retry_missing_shards,
    translate_errors,
)
from metronome.stores.elasticsearch.dialects import ElasticsearchDialect
from metronome.stores.elasticsearch.queries import QueryClause

KEEP_ALIVE: Final = "10m"
"""How long Elasticsearch keeps a point in time between two searches: the reader may be slow."""
PAGE_DOCUMENTS: Final = 2_000
_PING_FRACTION: Final = 0.5
"""When to test whether the store is reachable, as a part of a query's time."""
_PING_SECONDS: Final = 0.5
"""How long such a test may take at least, after which the store counts as unreachable."""


class PointInTime:
    """A snapshot of events to search.

    Args:
        client: the connection.
        dialect: that of the product.
        pit_id: the product's ID of the point in time, which may change with each search; empty if there is no index.

    """

    def __init__(self, client: AsyncElasticsearch, dialect: ElasticsearchDialect, pit_id: str) -> None:
        self._client = client
        self._dialect = dialect
        self.id = pit_id

    async def search(self, **body: Any) -> dict[str, Any]:
        """Search the snapshot on all shards.

        Raises:
            StoreUnavailable: a shard cannot be searched now.

        """
        if not self.id:
            return {"hits": {"hits": []}}
        with translate_errors():
            response = await self._client.search(
                pit={"id": self.id, "keep_alive": KEEP_ALIVE},
                track_total_hits=False,
                **self._dialect.translate_search(body),
            )
        check_shards(response.body)
        self.id = read_key(response.body, "pit_id", str)
        return self._dialect.translate_response(body, dict(response.body))


@asynccontextmanager
async def open_point_in_time(
    client: AsyncElasticsearch, pattern: str, dialect: ElasticsearchDialect
) -> AsyncIterator[PointInTime]:
    """Keep a snapshot of the indices that match a pattern while the block runs."""
    pit_id = await retry_missing_shards(partial(dialect.open_point_in_time, client, pattern, KEEP_ALIVE))
    point_in_time = PointInTime(client, dialect, pit_id)
    try:
        yield point_in_time
    finally:
        # Elasticsearch drops it by itself; a failure here must not hide what was read.
        with suppress(Exception):
            await dialect.close_point_in_time(client, point_in_time.id)


async def iterate_hit_pages(
    client: AsyncElasticsearch, pattern: str, query: QueryClause, dialect: ElasticsearchDialect, *, with_source: bool
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the hits of a query, oldest first, from a snapshot.

    Args:
        client: the connection.
        pattern: which indices to search.
        query: which documents.
        dialect: that of the product.
        with_source: whether hits contain their documents, or just index and ID.

    """
    after = None
    async with open_point_in_time(client, pattern, dialect) as point_in_time:
        while True:
            response = await point_in_time.search(
                size=PAGE_DOCUMENTS,
                query=query,
                source=with_source,
                sort=[{"@timestamp": "asc"}, {"_shard_doc": "asc"}],
                search_after=after,
            )
            hits: list[dict[str, Any]] = read_key(read_key(response, "hits", dict), "hits", list)
            if hits:
                yield hits
            if len(hits) < PAGE_DOCUMENTS:
                return
            after = hits[-1]["sort"]


@asynccontextmanager
async def query_deadline(timeout_seconds: float, ping: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Cancel the block once it takes too long; Elasticsearch cancels a search when its connection is closed.

    Args:
        timeout_seconds: how long the block may take.
        ping: raises an error if the store is unreachable; that error is then raised instead. It is called before the
            time is over, so that clients of a store that does not respond need not wait for longer.

    Raises:
        QueryTooExpensive: the block took too long, and the store is reachable.
        StoreUnavailable: the store does not respond.

    """
    loop = asyncio.get_running_loop()
    pings: list[asyncio.Task[None]] = []
    timer = loop.call_later(timeout_seconds * _PING_FRACTION, lambda: pings.append(loop.create_task(_await(ping()))))
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except TimeoutError:
        began = timeout_seconds * (1 - _PING_FRACTION)
        if pings and began < _PING_SECONDS:
            await asyncio.wait(pings, timeout=_PING_SECONDS - began)
        if not all(task.done() for task in pings):
            raise StoreUnavailable(f"{product_name()} did not respond within {timeout_seconds:g} s") from None
        for task in pings:
            task.result()
        raise _query_timeout_error(timeout_seconds) from None
    finally:
        timer.cancel()
        for task in pings:
            task.cancel()
        await asyncio.gather(*pings, return_exceptions=True)


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable


def has_too_many_buckets(response: dict[str, Any]) -> bool:
    """Return whether a search failed because it has more groups than Elasticsearch returns at once."""
    return is_caused_by(response.get("error"), "too_many_buckets_exception")


def check_search_response(response: dict[str, Any], timeout_seconds: float) -> None:
    """Raise an error if a search did not succeed on all shards.

    Args:
        response: that of a single search in ``_msearch``.
        timeout_seconds: the time limit of the search.

    Raises:
        InvalidQuery: Elasticsearch rejects the search, for example because it is nested too deeply.
        QueryTooExpensive: it exceeds the time limit or Elasticsearch's memory limit.
        StoreUnavailable: a shard cannot be searched now.
        StoreAccessDenied: searching is not allowed.

    """
    error = response.get("error")
    if response.get("timed_out") or is_caused_by(error, "search_timeout_exception"):
        raise _query_timeout_error(timeout_seconds)
    if is_caused_by(error, "circuit_breaking_exception"):
        raise QueryTooExpensive(f"the query takes more memory than {product_name()} allows")
    if error is not None:
        search_error = build_error(response.get("status", 500), response)
        if isinstance(search_error, RequestRejected):
            raise InvalidQuery(f"{product_name()} cannot run this query: {search_error}")
        raise search_error
    check_shards(response)


def _query_timeout_error(timeout_seconds: float) -> QueryTooExpensive:
    return QueryTooExpensive(f"the query takes over {timeout_seconds:g} s")
