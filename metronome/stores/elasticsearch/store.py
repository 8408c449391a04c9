"""The store in Elasticsearch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Final

import orjson

from metronome.errors import Misconfigured, Unaskable
from metronome.event import is_plain
from metronome.stores.base import Batch, Refusal, Store, Verdicts
from metronome.stores.elasticsearch.bulk import (
    FOUND_ONLY,
    Head,
    bulk_body,
    delete_body,
    first_of_each,
    halves,
    indices_before,
    look_up,
    merge,
    named_at_once,
    read_deletions,
    read_heads,
    read_known,
    read_replaced,
    read_verdicts,
    replace_body,
    split,
    split_headless,
)
from metronome.stores.elasticsearch.connection import (
    BodyTooLarge,
    ElasticsearchConfig,
    NotUnderstood,
    connect,
    in_time,
    once_there,
    refusals,
)
from metronome.stores.elasticsearch.queries import (
    EVERYTHING,
    Query,
    days_body,
    newest_body,
    query_of,
    read_newest,
    search_body,
    starts,
)
from metronome.stores.elasticsearch.responses import Reading
from metronome.stores.elasticsearch.searches import check_outcome, has_too_many_groups, pages_of_hits
from metronome.stores.elasticsearch.sequences import read_trails
from metronome.stores.elasticsearch.template import VERSION, index_pattern, index_template
from metronome.stores.query import Answer, Equals, Filter, Question
from metronome.stores.sequences import Trail, Trails

BATCH_BYTES: Final = 4_200_000
BULK_BYTES: Final = 4_300_000
"""How large a request is at the most, about; a larger batch is sent in parts."""
BULKS_AT_ONCE: Final = 2
"""While Elasticsearch works on one request, the next is on its way."""
PING_SECONDS: Final = 5.0
BULK_SECONDS: Final = 120.0
ASK_SECONDS: Final = 10.0

_NOT_FOUND = 404
_ITEMS_ONLY = "errors,items.*.status,items.*.error"
_PARTS_READ = ("aggregations", "hits.hits.sort", "error", "status", "_shards", "timed_out")
_SEARCHES_ONLY = ",".join(f"responses.{key}" for key in _PARTS_READ)


class ElasticsearchStore(Store):
    """Events in Elasticsearch, one index a UTC day, each event under its own ``event_id``.

    Args:
        config: where it is.
        ask_seconds: how long the answers to one call may take.

    """

    batch_bytes: ClassVar[int] = BATCH_BYTES

    def __init__(self, config: ElasticsearchConfig, ask_seconds: float = ASK_SECONDS) -> None:
        self._client = connect(config)
        # A client has ten connections, which slow searches may all hold.
        self._ping_client = connect(config)
        self._ask_seconds = ask_seconds
        self._prefix = config.prefix
        self._pattern = index_pattern(config.prefix)
        self._bulks = asyncio.Semaphore(BULKS_AT_ONCE)

    async def setup(self) -> None:
        """Put the index template, unless a newer one is there."""
        try:
            with refusals():
                if await self._template_version() < VERSION:
                    await self._client.indices.put_index_template(
                        name=self._prefix, **_keywords(index_template(self._prefix))
                    )
        except NotUnderstood as error:
            raise Misconfigured(f"Elasticsearch does not take the index template {self._prefix}: {error}") from error

    async def write(self, batch: Batch) -> Verdicts:
        """Write documents, large batches in parts of which two are under way at once."""
        parts = list(split(batch, BULK_BYTES))
        heads = [read_heads(part.body) for part in parts]
        if len(parts) > 1 and not _are_distinct(heads):
            # The first of two with the same identity stays, so the second may not overtake it.
            return merge([await self._write(part, head) for part, head in zip(parts, heads, strict=True)])
        return merge(await _all_of([self._write(part, head) for part, head in zip(parts, heads, strict=True)]))

    async def ask(self, *questions: Question) -> tuple[Answer, ...]:
        """Answer questions: all in one request, and what needs more searches again together."""
        readings = [Reading(question) for question in questions]
        async with in_time(self._ask_seconds, self.ping):
            while open_ones := [(reading, reading.step) for reading in readings if reading.step is not None]:
                bodies = [search_body(reading.question, step) for reading, step in open_ones]
                responses = await once_there(partial(self._search, bodies))
                for (reading, _), response in zip(open_ones, responses, strict=True):
                    if has_too_many_groups(response):
                        reading.widen()
                    else:
                        reading.take(response)
        return tuple(reading.answer() for reading in readings)

    async def newest(
        self,
        field: str,
        limit: int,
        where: Filter | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[str, ...]:
        """Return values by their newest events, which are looked for from the newest day on backwards."""
        found: tuple[str, ...] = ()
        async with in_time(self._ask_seconds, self.ping):
            (days,) = await once_there(partial(self._search, [days_body(field, where, start, end)]))
            for from_then in starts(days, limit, start):
                body = newest_body(field, limit, where, from_then, end)
                (response,) = await once_there(partial(self._search, [body]))
                found = read_newest(response)
                if len(found) >= limit:
                    break
        return found

    async def trails(self, asked: Trails) -> AsyncIterator[Trail]:
        """Yield trails as they were at the moment of the call."""
        # Closed as soon as nobody reads on: Elasticsearch keeps the moment for it.
        async with aclosing(read_trails(self._client, self._pattern, asked)) as found:
            async for trail in found:
                yield trail

    async def fields(self) -> frozenset[str]:
        """Return the names that some document has (see `Store.fields`)."""
        with refusals():
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
            if is_plain(name) and any(kind["aggregatable"] for kind in kinds.values())
        )

    async def replace(self, batch: Batch) -> int:
        """Replace documents; those that are changed meanwhile are looked up again."""
        replaced = 0
        for part in split(first_of_each(batch), BULK_BYTES):
            waiting = part
            while waiting.count:
                done, waiting = await self._replace(waiting)
                replaced += done
        return replaced

    async def documents(
        self, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[bytes]:
        """Yield documents as they were at the moment of the call."""
        query = query_of(where, start, end)
        async for hits in pages_of_hits(self._client, self._pattern, query, source=True):
            for hit in hits:
                yield orjson.dumps(hit["_source"])

    async def forget(
        self, *, before: datetime | None = None, item: str | None = None, visitor: str | None = None
    ) -> int:
        """Delete events: whole days at once, others one by one."""
        await self.refresh()
        if before is not None:
            forgotten = await self._delete_indices(before) + await self._delete_hits(query_of(None, end=before))
        elif item is not None:
            forgotten = await self._delete_hits(query_of(Equals("id", item)))
        elif visitor is not None:
            forgotten = await self._delete_hits(query_of(Equals("visitor", visitor)))
        else:
            raise ValueError("say what to forget: before, item or visitor")
        await self.refresh()
        return forgotten

    async def refresh(self) -> None:
        """Refresh all indices at once, instead of every few seconds."""
        with refusals():
            await self._client.indices.refresh(index=self._pattern, ignore_unavailable=True, allow_no_indices=True)

    async def ping(self) -> None:
        """Return if the cluster has a master."""
        with refusals():
            await self._ping_client.options(request_timeout=PING_SECONDS).cluster.health(filter_path="status")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
        await self._ping_client.close()

    async def _template_version(self) -> int:
        found = await self._client.options(ignore_status=_NOT_FOUND).indices.get_index_template(name=self._prefix)
        for template in found.body.get("index_templates", ()):
            return int(template["index_template"].get("version", 0))
        return 0

    async def _write(self, part: Batch, heads: list[Head]) -> Verdicts:
        if len(heads) == part.count:
            return await self._write_whole(part, heads)
        whole, refused = split_headless(part)
        verdicts = await self._write_whole(whole, read_heads(whole.body)) if whole.count else Verdicts(0)
        return merge([verdicts, Verdicts(0, refused=refused)])

    async def _write_whole(self, part: Batch, heads: list[Head]) -> Verdicts:
        try:
            async with self._bulks:
                response = await self._bulk(bulk_body(part.body, self._prefix, heads))
        except (NotUnderstood, BodyTooLarge) as error:
            # A single line that cannot be read makes Elasticsearch refuse all: close in on it.
            if part.count == 1:
                return Verdicts(0, refused=(Refusal(part.body.removesuffix(b"\n"), str(error)),))
            return merge([await self._write_whole(half, read_heads(half.body)) for half in halves(part)])
        return read_verdicts(part, response)

    async def _bulk(self, body: bytes) -> dict[str, Any]:
        # The client's type leaves out that it sends bytes as they are.
        ready_made: Any = body
        with refusals():
            response = await self._client.options(request_timeout=BULK_SECONDS).bulk(
                operations=ready_made, filter_path=_ITEMS_ONLY
            )
        return dict(response.body)

    async def _replace(self, part: Batch) -> tuple[int, Batch]:
        with refusals():
            found = await self._client.mget(docs=look_up(part, self._prefix), source=False, filter_path=FOUND_ONLY)
        known = read_known(part, dict(found.body))
        if not known:
            return 0, Batch.of([])
        try:
            async with self._bulks:
                response = await self._bulk(replace_body(known, self._prefix))
        except (NotUnderstood, BodyTooLarge):
            # As for `write`, and what cannot be read is not replaced.
            if part.count == 1:
                return 0, Batch.of([])
            outcomes = [await self._replace(half) for half in halves(part)]
            again = Batch(b"".join(again.body for _, again in outcomes), sum(again.count for _, again in outcomes))
            return sum(done for done, _ in outcomes), again
        return read_replaced(known, response)

    async def _search(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        head = {
            "index": self._pattern,
            "ignore_unavailable": True,
            "allow_no_indices": True,
            "allow_partial_search_results": False,
            "request_cache": True,
        }
        # Always the same: answers are kept by their whole search, this too.
        timeout = f"{max(1, round(self._ask_seconds * 1000))}ms"
        searches = list(chain.from_iterable((head, {**body, "timeout": timeout}) for body in bodies))
        client = self._client.options(request_timeout=self._ask_seconds + PING_SECONDS)
        try:
            with refusals():
                response = await client.msearch(searches=searches, pre_filter_shard_size=1, filter_path=_SEARCHES_ONLY)
        except NotUnderstood as error:
            raise Unaskable(f"Elasticsearch cannot answer this: {error}") from error
        found: list[dict[str, Any]] = response["responses"]
        for each in found:
            if not has_too_many_groups(each):
                check_outcome(each, self._ask_seconds)
        return found

    async def _delete_indices(self, before: datetime) -> int:
        with refusals():
            settings = await self._client.indices.get_settings(
                index=self._pattern, name="index.creation_date", ignore_unavailable=True, allow_no_indices=True
            )
            forgotten = 0
            for names in named_at_once(indices_before(settings.body, self._prefix, before)):
                counted = await self._client.count(index=names, query=EVERYTHING, ignore_unavailable=True)
                await self._client.indices.delete(index=names, ignore_unavailable=True)
                forgotten += counted["count"]
        return forgotten

    async def _delete_hits(self, query: Query) -> int:
        forgotten = 0
        async for hits in pages_of_hits(self._client, self._pattern, query, source=False):
            forgotten += read_deletions(await self._bulk(delete_body(hits)))
        return forgotten


async def _all_of(writes: list[Any]) -> list[Verdicts]:
    """Wait for all, even where one fails: none may go on unseen after the call has ended."""
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, Verdicts)]


def _are_distinct(heads: list[list[Head]]) -> bool:
    return len(set(chain.from_iterable(heads))) == sum(map(len, heads))


def _keywords(template: dict[str, Any]) -> dict[str, Any]:
    """Return a template's body as the client wants it: its `_meta` is called ``meta`` there."""
    return {key.removeprefix("_"): value for key, value in template.items()}
