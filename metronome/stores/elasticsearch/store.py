"""The store in Elasticsearch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Final

import orjson

from metronome.errors import ConfigurationError, InvalidQuery
from metronome.fields import is_top_level_name
from metronome.stores.base import DocumentBatch, RejectedDocument, Store, WriteResult
from metronome.stores.elasticsearch.bulk import (
    LOOKUP_FILTER_PATH,
    DocumentHead,
    build_create_body,
    build_delete_body,
    build_lookup,
    build_replace_body,
    chunk_index_names,
    deduplicate_batch,
    indices_before,
    merge_write_results,
    read_delete_count,
    read_heads,
    read_replace_result,
    read_stored_documents,
    read_write_result,
    split_batch,
    split_headless_documents,
    split_in_half,
)
from metronome.stores.elasticsearch.connection import (
    ElasticsearchConfig,
    RequestRejected,
    RequestTooLarge,
    create_client,
    query_deadline,
    retry_missing_shards,
    translate_errors,
)
from metronome.stores.elasticsearch.queries import (
    MATCH_ALL,
    QueryClause,
    build_day_counts_search,
    build_newest_search,
    build_query,
    build_search,
    read_newest_values,
    window_starts,
)
from metronome.stores.elasticsearch.responses import QueryExecution
from metronome.stores.elasticsearch.searches import check_search_response, has_too_many_buckets, iterate_hit_pages
from metronome.stores.elasticsearch.sequences import iterate_sequences
from metronome.stores.elasticsearch.template import TEMPLATE_VERSION, index_pattern, index_template
from metronome.stores.query import Equals, Filter, Query, QueryResult
from metronome.stores.sequences import EventSequence, SequenceQuery

PREFERRED_BATCH_BYTES: Final = 4_200_000
BULK_MAX_BYTES: Final = 4_300_000
"""How large a request is at the most, about; a larger batch is sent in parts."""
MAX_CONCURRENT_BULKS: Final = 2
"""While Elasticsearch works on one request, the next is on its way."""
PING_TIMEOUT_SECONDS: Final = 5.0
BULK_TIMEOUT_SECONDS: Final = 120.0
QUERY_TIMEOUT_SECONDS: Final = 10.0

_NOT_FOUND_STATUS = 404
_BULK_FILTER_PATH = "errors,items.*.status,items.*.error"
_RESPONSE_KEYS = ("aggregations", "hits.hits.sort", "error", "status", "_shards", "timed_out")
_SEARCH_FILTER_PATH = ",".join(f"responses.{key}" for key in _RESPONSE_KEYS)


class ElasticsearchStore(Store):
    """Events in Elasticsearch, one index a UTC day, each event under its own ``event_id``.

    Args:
        config: where it is.
        query_timeout: how long the answers to one call may take.

    """

    preferred_batch_bytes: ClassVar[int] = PREFERRED_BATCH_BYTES

    def __init__(self, config: ElasticsearchConfig, query_timeout: float = QUERY_TIMEOUT_SECONDS) -> None:
        self._client = create_client(config)
        # A client has ten connections, which slow searches may all hold.
        self._ping_client = create_client(config)
        self._query_timeout = query_timeout
        self._prefix = config.prefix
        self._pattern = index_pattern(config.prefix)
        self._bulk_slots = asyncio.Semaphore(MAX_CONCURRENT_BULKS)

    async def setup(self) -> None:
        """Put the index template, unless a newer one is there."""
        try:
            with translate_errors():
                if await self._template_version() < TEMPLATE_VERSION:
                    await self._client.indices.put_index_template(
                        name=self._prefix, **_client_arguments(index_template(self._prefix))
                    )
        except RequestRejected as error:
            raise ConfigurationError(
                f"Elasticsearch does not take the index template {self._prefix}: {error}"
            ) from error

    async def write(self, batch: DocumentBatch) -> WriteResult:
        """Write documents, large batches in parts of which two are under way at once."""
        parts = list(split_batch(batch, BULK_MAX_BYTES))
        heads = [read_heads(part.body) for part in parts]
        if len(parts) > 1 and not _have_distinct_ids(heads):
            # The first of two with the same identity stays, so the second may not overtake it.
            return merge_write_results(
                [await self._write_part(part, head) for part, head in zip(parts, heads, strict=True)]
            )
        return merge_write_results(
            await _gather_all([self._write_part(part, head) for part, head in zip(parts, heads, strict=True)])
        )

    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        """Answer questions: all in one request, and what needs more searches again together."""
        readings = [QueryExecution(question) for question in queries]
        async with query_deadline(self._query_timeout, self.ping):
            while open_ones := [(reading, reading.plan) for reading in readings if reading.plan is not None]:
                bodies = [build_search(reading.query, step) for reading, step in open_ones]
                responses = await retry_missing_shards(partial(self._run_searches, bodies))
                for (reading, _), response in zip(open_ones, responses, strict=True):
                    if has_too_many_buckets(response):
                        reading.use_smaller_plan()
                    else:
                        reading.add_response(response)
        return tuple(reading.result() for reading in readings)

    async def newest_values(
        self,
        field: str,
        limit: int,
        where: Filter | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[str, ...]:
        """Return values by their newest events, which are looked for from the newest day on backwards."""
        found: tuple[str, ...] = ()
        async with query_deadline(self._query_timeout, self.ping):
            (days,) = await retry_missing_shards(
                partial(self._run_searches, [build_day_counts_search(field, where, start, end)])
            )
            for from_then in window_starts(days, limit, start):
                body = build_newest_search(field, limit, where, from_then, end)
                (response,) = await retry_missing_shards(partial(self._run_searches, [body]))
                found = read_newest_values(response)
                if len(found) >= limit:
                    break
        return found

    async def sequences(self, sequence_query: SequenceQuery) -> AsyncIterator[EventSequence]:
        """Yield trails as they were at the moment of the call."""
        # Closed as soon as nobody reads on: Elasticsearch keeps the moment for it.
        async with aclosing(iterate_sequences(self._client, self._pattern, sequence_query)) as found:
            async for trail in found:
                yield trail

    async def list_fields(self) -> frozenset[str]:
        """Return the names that some document has (see `Store.fields`)."""
        with translate_errors():
            found = await self._client.field_caps(
                index=self._pattern,
                fields="*",
                include_empty_fields=False,
                ignore_unavailable=True,
                allow_no_indices=True,
                filter_path="fields.*.*.aggregatable",
            )
        return frozenset(
            name
            for name, kinds in found.body.get("fields", {}).items()
            if is_top_level_name(name) and any(kind["aggregatable"] for kind in kinds.values())
        )

    async def replace(self, batch: DocumentBatch) -> int:
        """Replace documents; those that are changed meanwhile are looked up again."""
        replaced = 0
        for part in split_batch(deduplicate_batch(batch), BULK_MAX_BYTES):
            waiting = part
            while waiting.count:
                done, waiting = await self._replace_part(waiting)
                replaced += done
        return replaced

    async def iterate_documents(
        self, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[bytes]:
        """Yield documents as they were at the moment of the call."""
        query = build_query(where, start, end)
        async for hits in iterate_hit_pages(self._client, self._pattern, query, with_source=True):
            for hit in hits:
                yield orjson.dumps(hit["_source"])

    async def delete_events(
        self, *, before: datetime | None = None, item: str | None = None, visitor: str | None = None
    ) -> int:
        """Delete events: whole days at once, others one by one."""
        await self.refresh()
        if before is not None:
            forgotten = await self._delete_indices(before) + await self._delete_matching(build_query(None, end=before))
        elif item is not None:
            forgotten = await self._delete_matching(build_query(Equals("id", item)))
        elif visitor is not None:
            forgotten = await self._delete_matching(build_query(Equals("visitor", visitor)))
        else:
            raise ValueError("say what to forget: before, item or visitor")
        await self.refresh()
        return forgotten

    async def refresh(self) -> None:
        """Refresh all indices at once, instead of every few seconds."""
        with translate_errors():
            await self._client.indices.refresh(index=self._pattern, ignore_unavailable=True, allow_no_indices=True)

    async def ping(self) -> None:
        """Return if the cluster has a master."""
        with translate_errors():
            await self._ping_client.options(request_timeout=PING_TIMEOUT_SECONDS).cluster.health(filter_path="status")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
        await self._ping_client.close()

    async def _template_version(self) -> int:
        found = await self._client.options(ignore_status=_NOT_FOUND_STATUS).indices.get_index_template(
            name=self._prefix
        )
        for template in found.body.get("index_templates", ()):
            return int(template["index_template"].get("version", 0))
        return 0

    async def _write_part(self, part: DocumentBatch, heads: list[DocumentHead]) -> WriteResult:
        if len(heads) == part.count:
            return await self._write_complete_documents(part, heads)
        whole, refused = split_headless_documents(part)
        verdicts = (
            await self._write_complete_documents(whole, read_heads(whole.body)) if whole.count else WriteResult(0)
        )
        return merge_write_results([verdicts, WriteResult(0, rejected=refused)])

    async def _write_complete_documents(self, part: DocumentBatch, heads: list[DocumentHead]) -> WriteResult:
        try:
            async with self._bulk_slots:
                response = await self._send_bulk(build_create_body(part.body, self._prefix, heads))
        except (RequestRejected, RequestTooLarge) as error:
            # A single line that cannot be read makes Elasticsearch refuse all: close in on it.
            if part.count == 1:
                return WriteResult(0, rejected=(RejectedDocument(part.body.removesuffix(b"\n"), str(error)),))
            return merge_write_results(
                [await self._write_complete_documents(half, read_heads(half.body)) for half in split_in_half(part)]
            )
        return read_write_result(part, response)

    async def _send_bulk(self, body: bytes) -> dict[str, Any]:
        # The client's type leaves out that it sends bytes as they are.
        ready_made: Any = body
        with translate_errors():
            response = await self._client.options(request_timeout=BULK_TIMEOUT_SECONDS).bulk(
                operations=ready_made, filter_path=_BULK_FILTER_PATH
            )
        return dict(response.body)

    async def _replace_part(self, part: DocumentBatch) -> tuple[int, DocumentBatch]:
        with translate_errors():
            found = await self._client.mget(
                docs=build_lookup(part, self._prefix), source=False, filter_path=LOOKUP_FILTER_PATH
            )
        known = read_stored_documents(part, dict(found.body))
        if not known:
            return 0, DocumentBatch.from_documents([])
        try:
            async with self._bulk_slots:
                response = await self._send_bulk(build_replace_body(known, self._prefix))
        except (RequestRejected, RequestTooLarge):
            # As for `write`, and what cannot be read is not replaced.
            if part.count == 1:
                return 0, DocumentBatch.from_documents([])
            outcomes = [await self._replace_part(half) for half in split_in_half(part)]
            again = DocumentBatch(
                b"".join(again.body for _, again in outcomes), sum(again.count for _, again in outcomes)
            )
            return sum(done for done, _ in outcomes), again
        return read_replace_result(known, response)

    async def _run_searches(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        head = {
            "index": self._pattern,
            "ignore_unavailable": True,
            "allow_no_indices": True,
            "allow_partial_search_results": False,
            "request_cache": True,
        }
        # Always the same: answers are kept by their whole search, this too.
        timeout = f"{max(1, round(self._query_timeout * 1000))}ms"
        searches = list(chain.from_iterable((head, {**body, "timeout": timeout}) for body in bodies))
        client = self._client.options(request_timeout=self._query_timeout + PING_TIMEOUT_SECONDS)
        try:
            with translate_errors():
                response = await client.msearch(
                    searches=searches, pre_filter_shard_size=1, filter_path=_SEARCH_FILTER_PATH
                )
        except RequestRejected as error:
            raise InvalidQuery(f"Elasticsearch cannot answer this: {error}") from error
        found: list[dict[str, Any]] = response["responses"]
        for each in found:
            if not has_too_many_buckets(each):
                check_search_response(each, self._query_timeout)
        return found

    async def _delete_indices(self, before: datetime) -> int:
        with translate_errors():
            settings = await self._client.indices.get_settings(
                index=self._pattern, name="index.creation_date", ignore_unavailable=True, allow_no_indices=True
            )
            forgotten = 0
            for names in chunk_index_names(indices_before(settings.body, self._prefix, before)):
                counted = await self._client.count(index=names, query=MATCH_ALL, ignore_unavailable=True)
                await self._client.indices.delete(index=names, ignore_unavailable=True)
                forgotten += counted["count"]
        return forgotten

    async def _delete_matching(self, query: QueryClause) -> int:
        forgotten = 0
        async for hits in iterate_hit_pages(self._client, self._pattern, query, with_source=False):
            forgotten += read_delete_count(await self._send_bulk(build_delete_body(hits)))
        return forgotten


async def _gather_all(writes: list[Any]) -> list[WriteResult]:
    """Wait for all, even where one fails: none may go on unseen after the call has ended."""
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, WriteResult)]


def _have_distinct_ids(heads: list[list[DocumentHead]]) -> bool:
    return len(set(chain.from_iterable(heads))) == sum(map(len, heads))


def _client_arguments(template: dict[str, Any]) -> dict[str, Any]:
    """Return a template's body as the client wants it: its `_meta` is called ``meta`` there."""
    return {key.removeprefix("_"): value for key, value in template.items()}
