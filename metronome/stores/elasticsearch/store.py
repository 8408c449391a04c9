"""The store in Elasticsearch or OpenSearch."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Final

from metronome.errors import InvalidQuery, MetronomeError, QueryTooExpensive, StoreAccessDenied
from metronome.stores.base import DocumentBatch, RejectedDocument, Store, WriteResult
from metronome.stores.elasticsearch.bulk import (
    INDICES_PER_REQUEST,
    LOOKUP_FILTER_PATH,
    DocumentHead,
    IndexNames,
    build_create_body,
    build_delete_body,
    build_lookup,
    build_replace_body,
    chunk_index_names,
    deduplicate_batch,
    indices_before,
    read_delete_count,
    read_heads,
    read_replace_result,
    read_stored_documents,
    read_write_result,
    split_batch,
    split_by_index,
    split_headless_documents,
)
from metronome.stores.elasticsearch.connection import (
    BAD_REQUEST_STATUS,
    NOT_FOUND_STATUS,
    ElasticsearchConfig,
    IndexMappingWrong,
    RequestRejected,
    RequestTooLarge,
    TemplateRejected,
    UnexpectedResponse,
    create_client,
    product_name,
    read_key,
    retry_missing_shards,
    translate_errors,
)
from metronome.stores.elasticsearch.dialects import (
    FIELD_LIMIT_REASON,
    ElasticsearchDialect,
    detect_dialect,
    list_full_indices,
    request_field_caps,
    stop_mapping,
)
from metronome.stores.elasticsearch.queries import (
    MATCH_ALL,
    SearchPlan,
    build_day_counts_search,
    build_newest_documents_search,
    build_newest_search,
    build_query,
    build_search,
    groups_by_params,
    merge_searches,
    next_composite_plan,
    read_newest_values,
    window_starts,
)
from metronome.stores.elasticsearch.responses import QueryExecution
from metronome.stores.elasticsearch.searches import (
    check_search_response,
    has_too_many_buckets,
    iterate_hit_pages,
    query_deadline,
)
from metronome.stores.elasticsearch.sequences import iterate_sequences
from metronome.stores.elasticsearch.template import (
    ESSENTIAL_TYPES,
    TEMPLATE_PRIORITY,
    TEMPLATE_VERSION,
    custom_name,
    defaults_name,
    defaults_template,
    index_pattern,
    index_template,
    overlaps_prefix,
)
from metronome.stores.elasticsearch.time_zones import TimeZoneCheck, build_probe_search, list_probes
from metronome.stores.elasticsearch.unindexed import (
    NO_FIELDS,
    STORED_ONLY_SEARCH,
    FieldUse,
    build_ignored_search,
    find_gaps,
    find_untyped_fields,
    list_capability_fields,
    read_from_documents,
    read_ignored,
    read_stored_only,
)
from metronome.stores.query import Filter, Query, QueryResult
from metronome.stores.sequences import EventSequence, SequenceQuery

PREFERRED_BATCH_BYTES: Final = 4_200_000
BULK_MAX_BYTES: Final = 4_300_000
"""The approximate maximum size of a request; larger batches are sent in parts."""
MAX_CONCURRENT_BULKS: Final = 2
"""While Elasticsearch works on one request, the next one is sent."""
PING_TIMEOUT_SECONDS: Final = 5.0
VISIBLE_AFTER_SECONDS: Final = 10.0
"""Twice the interval of automatic refreshes in the index template: a refresh takes time."""
BULK_TIMEOUT_SECONDS: Final = 120.0
QUERY_TIMEOUT_SECONDS: Final = 10.0
TEMPLATE_CHECK_SECONDS: Final = 60.0
"""How often to check, while events are written, that the index template is still there."""

_MIN_DETECTION_SECONDS = 0.5
_BULK_FILTER_PATH = "errors,items.*.status,items.*.error"
_RESPONSE_KEYS = ("aggregations", "hits.hits.sort", "hits.hits._source", "error", "status", "_shards", "timed_out")
_SEARCH_FILTER_PATH = ",".join(f"responses.{key}" for key in _RESPONSE_KEYS)


class ElasticsearchStore(Store):
    """Events in Elasticsearch or OpenSearch: one index per UTC month, each event with its ``event_id`` as ID.

    Args:
        config: the address of the cluster.
        query_timeout: how long the queries of one call may take, in seconds.

    """

    preferred_batch_bytes: ClassVar[int] = PREFERRED_BATCH_BYTES
    refresh_seconds: ClassVar[float] = VISIBLE_AFTER_SECONDS

    def __init__(self, config: ElasticsearchConfig, query_timeout: float = QUERY_TIMEOUT_SECONDS) -> None:
        self._client = create_client(config)
        # A client has ten connections, which slow searches may all occupy.
        self._ping_client = create_client(config)
        self._query_timeout = query_timeout
        self._prefix = config.prefix
        self._pattern = index_pattern(config.prefix)
        self._bulk_slots = asyncio.Semaphore(MAX_CONCURRENT_BULKS)
        self._unrefreshed: set[str] = set()
        self._checked_indices: set[str] = set()
        self._names: IndexNames | None = None
        self._template_checked_at = float("-inf")
        self._time_zones = TimeZoneCheck()
        self._detected_dialect: ElasticsearchDialect | None = None

    async def setup(self) -> None:
        """Put the index template and its components, unless newer ones are there.

        What operators added to the index template, and their own component template, stay.

        Raises:
            TemplateRejected: another installation's indices have names that this one's match, or the reverse; or
                Elasticsearch rejects the template for another reason.

        """
        try:
            with translate_errors():
                stored = await self._read_index_template()
                if int(stored.get("version", 0)) < TEMPLATE_VERSION:
                    await self._put_templates(stored.get("composed_of", ()))
        except RequestRejected as error:
            raise await self._describe_rejected_template(error) from error
        self._template_checked_at = asyncio.get_running_loop().time()

    async def write(self, batch: DocumentBatch) -> WriteResult:
        """Write documents; large batches in concurrent parts."""
        parts = list(split_batch(batch, BULK_MAX_BYTES))
        heads = [read_heads(part.body) for part in parts]
        if len(parts) > 1 and not _have_distinct_ids(heads):
            # The first of two documents with the same ID must be kept, so their order matters.
            results = [await self._write_part(part, head) for part, head in zip(parts, heads, strict=True)]
        else:
            results = await _gather_all([self._write_part(part, head) for part, head in zip(parts, heads, strict=True)])
        return sum(results, WriteResult(0))

    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        """Run all queries in one request, and those that need further searches again together."""
        uses = [find_untyped_fields(query) for query in queries]
        zones = self._time_zones.unchecked(queries)
        async with query_deadline(self._query_timeout, self.ping):
            if not zones and not any(use.names for use in uses):
                results, gaps = await self._execute(queries), [NO_FIELDS] * len(queries)
            else:
                results, gaps, _ = await asyncio.gather(
                    self._execute(queries), self._find_gaps(queries, uses), self._check_time_zones(zones)
                )
        if any(gap.names for gap in gaps):
            results = await self._fill_gaps(queries, uses, gaps, results)
        return tuple(
            result if self._time_zones.is_right(query) else replace(result, exact=False)
            for query, result in zip(queries, results, strict=True)
        )

    async def query_pages(self, query: Query) -> AsyncGenerator[QueryResult]:
        """Yield the groups that are too many for one result as Elasticsearch pages through them, in their order."""
        (result,) = await self.query(query)
        is_sorted_otherwise = query.sort_keys or "all" in query.group_by or groups_by_params(query)
        if result.is_complete or is_sorted_otherwise or find_untyped_fields(query).names:
            yield result
            return
        pages = replace(query, limit=None, offset=0)
        plan: SearchPlan | None = next_composite_plan(pages, None, 0)
        total, end = 0, math.inf if query.limit is None else query.offset + query.limit
        while plan is not None:
            execution = QueryExecution(pages, plan)
            async with query_deadline(self._query_timeout, self.ping):
                (response,) = await self._search(build_search(pages, plan))
            execution.add_response(response)
            plan, page = execution.plan, execution.result()
            rows = tuple(row for at, row in enumerate(page.rows, total) if query.offset <= at < end)
            total += len(page.rows)
            exact = page.exact and self._time_zones.is_right(query)
            yield replace(page, rows=rows, total=total, exact=exact)

    async def _fill_gaps(
        self, queries: Sequence[Query], uses: Sequence[FieldUse], gaps: Sequence[FieldUse], results: list[QueryResult]
    ) -> list[QueryResult]:
        """Return the results of queries whose fields some indices lack: read from the documents, or not exact."""
        # A field has one type in a search.
        readable = [
            at for at, gap in enumerate(gaps) if gap.names and not gap.names & uses[at].texts & uses[at].numbers
        ]
        filled = [
            replace(result, exact=False) if gap.names else result for result, gap in zip(results, gaps, strict=True)
        ]
        if not readable or not (await self._dialect()).reads_from_documents:
            return filled
        try:
            async with query_deadline(self._query_timeout, self.ping):
                read = await self._execute([queries[at] for at in readable], [gaps[at] for at in readable])
        except QueryTooExpensive:
            return filled
        for at, result in zip(readable, read, strict=True):
            # Texts of over 1,024 characters count here.
            filled[at] = replace(result, exact=result.exact and not gaps[at].texts)
        return filled

    async def _check_time_zones(self, zones: Sequence[str]) -> None:
        if zones:
            probes = list_probes(datetime.now(UTC))
            responses = await self._search(*(build_probe_search(zone, probes) for zone in zones))
            for zone, response in zip(zones, responses, strict=True):
                self._time_zones.add_response(zone, probes, response)

    async def _execute(self, queries: Sequence[Query], gaps: Sequence[FieldUse] | None = None) -> list[QueryResult]:
        """Run queries; read the fields in *gaps*, one for each query, from the documents."""
        executions = [QueryExecution(query) for query in queries]
        pairs = list(zip(executions, gaps or [NO_FIELDS] * len(queries), strict=True))
        while pending := [(execution, execution.plan, gap) for execution, gap in pairs if execution.plan is not None]:
            searches = [
                read_from_documents(search, gap) if gap.names else search
                for search, gap in ((build_search(execution.query, plan), gap) for execution, plan, gap in pending)
            ]
            merged, places = merge_searches(searches)
            responses = await self._search(*merged)
            for (execution, _, _), (at, name) in zip(pending, places, strict=True):
                if has_too_many_buckets(responses[at]):
                    execution.use_smaller_plan()
                else:
                    execution.add_response(responses[at], name)
        return [execution.result() for execution in executions]

    async def _find_gaps(self, queries: Sequence[Query], uses: Sequence[FieldUse]) -> list[FieldUse]:
        """Return the fields of each query that the mappings of some indices lack."""
        if not any(use.names for use in uses):
            return [NO_FIELDS] * len(uses)
        texts, numbers = (
            frozenset[str]().union(*(getattr(use, kind) for use in uses)) for kind in ("texts", "numbers")
        )
        use = FieldUse(texts, numbers)
        dialect = await self._dialect()
        if dialect.leaves_fields_unmapped:
            (response,) = await self._search(build_ignored_search(use.names, queries))
            ignored = read_ignored(response)
        else:
            full_indices = await list_full_indices(self._client, self._pattern)
            ignored = dict.fromkeys(use.names, full_indices) if full_indices else {}
        if not ignored and not numbers:
            return [NO_FIELDS] * len(uses)
        with translate_errors():
            capabilities = await request_field_caps(
                self._client, self._pattern, fields=",".join(list_capability_fields(use)), include_unmapped=True
            )
        gaps = find_gaps(use, ignored, capabilities.body)
        return [FieldUse(each.texts & gaps.texts, each.numbers & gaps.numbers) for each in uses]

    async def newest_values(
        self,
        field: str,
        limit: int,
        where: Filter | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[str, ...]:
        """Search the newest days for values, and more days while these do not have enough."""
        values: tuple[str, ...] = ()
        async with query_deadline(self._query_timeout, self.ping):
            (day_counts,) = await self._search(build_day_counts_search(field, where, start, end))
            for window_start in window_starts(day_counts, limit, start):
                (response,) = await self._search(build_newest_search(field, limit, where, window_start, end))
                values = read_newest_values(response)
                if len(values) >= limit:
                    break
        return values

    async def newest_documents(
        self, limit: int, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> tuple[bytes, ...]:
        """Run one search; Elasticsearch skips the days that cannot have the newest events."""
        async with query_deadline(self._query_timeout, self.ping):
            (response,) = await self._search(build_newest_documents_search(limit, where, start, end))
        dialect = await self._dialect()
        return tuple(dialect.decode_document(hit["_source"]) for hit in response.get("hits", {}).get("hits", ()))

    async def sequences(self, sequence_query: SequenceQuery) -> AsyncIterator[EventSequence]:
        """Yield sequences from a point in time."""
        dialect = await self._dialect()
        # Closed as soon as the caller stops reading: until then Elasticsearch keeps the point in time.
        client = self._client.options(request_timeout=self._query_timeout)
        async with aclosing(iterate_sequences(client, self._pattern, sequence_query, dialect)) as sequences:
            async for sequence in sequences:
                yield sequence

    async def list_fields(self) -> frozenset[str]:
        """Return the mapped fields that a document has, and those that are only stored."""
        async with query_deadline(self._query_timeout, self.ping):
            dialect = await self._dialect()
            mapped, stored_only = await asyncio.gather(
                dialect.list_fields(self._client, self._pattern), self._list_stored_only_fields()
            )
        return mapped | stored_only

    async def _list_stored_only_fields(self) -> frozenset[str]:
        if not (await self._dialect()).leaves_fields_unmapped:
            return frozenset()
        try:
            (response,) = await self._search(STORED_ONLY_SEARCH)
        except InvalidQuery:
            # Indices that were created before Elasticsearch 8.15 cannot list them.
            return frozenset()
        return read_stored_only(response)

    async def replace(self, batch: DocumentBatch) -> int:
        """Replace documents; look those up again that change meanwhile."""
        replaced = 0
        for part in split_batch(deduplicate_batch(batch), BULK_MAX_BYTES):
            remaining = part
            while remaining.count:
                count, remaining = await self._replace_part(remaining)
                replaced += count
        return replaced

    async def iterate_documents(
        self, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[bytes]:
        """Yield documents from a point in time."""
        query = build_query(where, start, end)
        dialect = await self._dialect()
        async for hits in iterate_hit_pages(self._client, self._pattern, query, dialect, with_source=True):
            for hit in hits:
                yield dialect.decode_document(hit["_source"])

    async def refresh(self) -> None:
        """Refresh all indices; Elasticsearch does so every few seconds."""
        await self._refresh([self._pattern])

    async def refresh_written(self) -> None:
        """Refresh the indices that were written to since the last call."""
        names, self._unrefreshed = self._unrefreshed, set()
        try:
            # Many days are those of an import.
            await self._refresh(sorted(names) if len(names) <= INDICES_PER_REQUEST else [self._pattern])
        except MetronomeError:
            self._unrefreshed |= names
            raise

    async def ping(self) -> None:
        """Return if the cluster has a master."""
        with translate_errors():
            client = self._ping_client.options(request_timeout=PING_TIMEOUT_SECONDS)
            read_key((await client.cluster.health(filter_path="status")).body, "status", str)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
        await self._ping_client.close()

    async def _refresh(self, names: list[str]) -> None:
        if not names:
            return
        with translate_errors():
            await self._client.indices.refresh(index=names, ignore_unavailable=True, allow_no_indices=True)

    async def _dialect(self) -> ElasticsearchDialect:
        if self._detected_dialect is None:
            seconds = min(PING_TIMEOUT_SECONDS, max(self._query_timeout, _MIN_DETECTION_SECONDS))
            self._detected_dialect = await detect_dialect(self._ping_client.options(request_timeout=seconds))
        return self._detected_dialect

    async def _index_names(self) -> IndexNames:
        """Return the names of indices, with those of single days, which only earlier versions created."""
        if self._names is None:
            try:
                with translate_errors():
                    response = await self._client.indices.resolve_index(name=self._pattern)
                # The response of something else must not look like that of an empty cluster.
                existing = [index["name"] for index in read_key(response.body, "indices", list)]
            except StoreAccessDenied:
                # Credentials that may only write.
                existing = []
            self._names = IndexNames(self._prefix, existing)
        return self._names

    async def _read_index_template(self) -> dict[str, Any]:
        response = await self._client.options(ignore_status=NOT_FOUND_STATUS).indices.get_index_template(
            name=self._prefix
        )
        for template in response.body.get("index_templates", ()):
            found: dict[str, Any] = template["index_template"]
            return found
        return {}

    async def _put_templates(self, composed_of: Iterable[str]) -> None:
        dialect, cluster = await self._dialect(), self._client.cluster
        defaults, template = dialect.adapt_template(defaults_template()), index_template(self._prefix, composed_of)
        await cluster.put_component_template(name=defaults_name(self._prefix), **_client_arguments(defaults))
        if dialect.needs_every_component:
            del template["ignore_missing_component_templates"]
            # One that exists is the operator's.
            await self._client.options(ignore_status=BAD_REQUEST_STATUS).cluster.put_component_template(
                name=custom_name(self._prefix), template={}, create=True
            )
        response = await self._client.indices.put_index_template(name=self._prefix, **_client_arguments(template))
        read_key(response.body, "acknowledged", bool)

    async def _write_part(self, part: DocumentBatch, heads: list[DocumentHead]) -> WriteResult:
        if len(heads) == part.count:
            return await self._write_complete_documents(part, heads)
        complete, rejected = split_headless_documents(part)
        result = WriteResult(0, rejected=rejected)
        if complete.count:
            result += await self._write_complete_documents(complete, read_heads(complete.body))
        return result

    async def _describe_rejected_template(self, error: RequestRejected) -> TemplateRejected:
        with translate_errors():
            response = await self._client.indices.get_index_template()
        names = [
            template["name"]
            for template in response.body.get("index_templates", ())
            if template["index_template"].get("priority") == TEMPLATE_PRIORITY
            and overlaps_prefix(self._prefix, template["index_template"].get("index_patterns", ()))
        ]
        if names:
            return TemplateRejected(
                f"the index prefix {self._prefix!r} overlaps the index template {names[0]!r} of another installation, "
                "which would count this one's events, or the reverse: set METRONOME_INDEX_PREFIX to a prefix such that "
                "none begins with the other and '-'"
            )
        return TemplateRejected(f"{product_name()} rejects the index template {self._prefix}: {error}")

    async def _check_indices(self, names: set[str]) -> dict[str, IndexMappingWrong]:
        """Return the errors of existing indices without Metronome's mapping; put the index template for new ones.

        Without the template, Elasticsearch would guess the mapping of each new index.
        """
        unchecked = names - self._checked_indices
        if unchecked or asyncio.get_running_loop().time() > self._template_checked_at + TEMPLATE_CHECK_SECONDS:
            await self.setup()
        if not unchecked:
            return {}
        wrong: dict[str, IndexMappingWrong] = {}
        for chunk in chunk_index_names(sorted(unchecked)):
            wrong |= await self._find_wrong_mappings(chunk)
        self._checked_indices |= unchecked - wrong.keys()
        return wrong

    async def _find_wrong_mappings(self, names: list[str]) -> dict[str, IndexMappingWrong]:
        """Return the errors of those indices that map an essential field in another way than the index template."""
        try:
            with translate_errors():
                response = await request_field_caps(
                    self._client,
                    ",".join(names),
                    fields=",".join(ESSENTIAL_TYPES),
                    include_unmapped=True,
                    filter_path="indices,fields.*.*.indices,fields.*.*.type",
                )
        except StoreAccessDenied:
            # Credentials that may only write.
            return {}
        existing = response.body.get("indices", ())
        fields = response.body.get("fields", {})
        unmapped = {"unmapped": {"indices": existing}}
        return {
            name: IndexMappingWrong(f"the index {name} maps the field {field!r} as {kind}, not as {expected}")
            for field, expected in ESSENTIAL_TYPES.items()
            for kind, capabilities in fields.get(field, unmapped).items()
            if kind != expected
            for name in capabilities.get("indices", existing)
        }

    async def _write_complete_documents(self, part: DocumentBatch, heads: list[DocumentHead]) -> WriteResult:
        names = await self._index_names()
        wrong = await self._check_indices(names.names(heads))
        if not wrong:
            return await self._create_documents(part, heads)
        usable, waiting = split_by_index(part, heads, names, wrong)
        result = WriteResult(0, waiting=waiting, failure=next(iter(wrong.values())))
        return result + await self._create_documents(usable, read_heads(usable.body)) if usable.count else result

    async def _create_documents(self, part: DocumentBatch, heads: list[DocumentHead]) -> WriteResult:
        names = await self._index_names()
        dialect = await self._dialect()
        try:
            async with self._bulk_slots:
                body = build_create_body(dialect.encode_documents(part.body), names, heads)
                response = await self._send_bulk(body)
        except (RequestRejected, RequestTooLarge) as error:
            # Elasticsearch rejects the whole request for a single line that it cannot parse: bisect.
            if part.count == 1:
                return WriteResult(0, rejected=(RejectedDocument(part.body.removesuffix(b"\n"), str(error)),))
            first, second = part.split_in_half()
            result = await self._create_documents(first, read_heads(first.body))
            return result + await self._create_documents(second, read_heads(second.body))
        self._unrefreshed |= names.names(heads)
        result = read_write_result(part, response)
        return result if dialect.leaves_fields_unmapped else await self._write_with_new_fields(result)

    async def _write_with_new_fields(self, result: WriteResult) -> WriteResult:
        """Write documents whose index rejects new fields because it has too many, without mapping the new ones."""
        documents = [rejected for rejected in result.rejected if FIELD_LIMIT_REASON in rejected.reason]
        if not documents:
            return result
        batch = DocumentBatch.from_documents([rejected.document for rejected in documents])
        heads = read_heads(batch.body)
        await stop_mapping(self._client, (await self._index_names()).names(heads))
        others = tuple(rejected for rejected in result.rejected if rejected not in documents)
        return replace(result, rejected=others) + await self._write_complete_documents(batch, heads)

    async def _send_bulk(self, body: bytes) -> dict[str, Any]:
        # The client sends bytes as they are, which its type omits.
        operations: Any = body
        with translate_errors():
            response = await self._client.options(request_timeout=BULK_TIMEOUT_SECONDS).bulk(
                operations=operations, filter_path=_BULK_FILTER_PATH
            )
        return dict(response.body)

    async def _replace_part(self, part: DocumentBatch) -> tuple[int, DocumentBatch]:
        with translate_errors():
            lookup = await self._client.mget(
                docs=build_lookup(part, await self._index_names()),
                source_includes="@timestamp",
                filter_path=LOOKUP_FILTER_PATH,
            )
        stored = read_stored_documents(part, dict(lookup.body))
        if not stored:
            return 0, DocumentBatch.from_documents([])
        dialect = await self._dialect()
        try:
            async with self._bulk_slots:
                encoded = [
                    document._replace(document=dialect.encode_documents(document.document)) for document in stored
                ]
                response = await self._send_bulk(build_replace_body(encoded, await self._index_names()))
        except (RequestRejected, RequestTooLarge):
            # As in `write`: bisect. A document that Elasticsearch cannot parse replaces nothing.
            if part.count == 1:
                return 0, DocumentBatch.from_documents([])
            results = [await self._replace_part(half) for half in part.split_in_half()]
            return sum(count for count, _ in results), DocumentBatch.concatenate(changed for _, changed in results)
        return read_replace_result(stored, response)

    async def _search(self, *searches: dict[str, Any]) -> list[dict[str, Any]]:
        return await retry_missing_shards(partial(self._send_searches, searches))

    async def _send_searches(self, searches: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
        header = {
            "index": self._pattern,
            "ignore_unavailable": True,
            "allow_no_indices": True,
            "allow_partial_search_results": False,
            "request_cache": True,
        }
        # The same in every call: Elasticsearch caches responses by the whole body of the search.
        timeout = f"{max(1, round(self._query_timeout * 1000))}ms"
        dialect = await self._dialect()
        translated = [{**dialect.translate_search(search), "timeout": timeout} for search in searches]
        lines = list(chain.from_iterable((header, search) for search in translated))
        client = self._client.options(request_timeout=self._query_timeout + PING_TIMEOUT_SECONDS)
        try:
            with translate_errors():
                response = await client.msearch(
                    searches=lines, pre_filter_shard_size=1, filter_path=_SEARCH_FILTER_PATH
                )
        except RequestRejected as error:
            raise InvalidQuery(f"{product_name()} cannot run this query: {error}") from error
        responses: list[dict[str, Any]] = read_key(response.body, "responses", list)
        if len(responses) != len(searches):
            raise UnexpectedResponse(f"{product_name()} returned {len(responses)} results for {len(searches)} searches")
        for search_response in responses:
            if not has_too_many_buckets(search_response):
                try:
                    check_search_response(search_response, self._query_timeout)
                except InvalidQuery:
                    # Queries of Metronome's own that an index rejects are not the client's fault.
                    for wrong in (await self._find_wrong_mappings([self._pattern])).values():
                        raise wrong from None
                    raise
        return [
            dialect.translate_response(search, response) for search, response in zip(searches, responses, strict=True)
        ]

    async def _delete_matching(self, where: Filter | None, before: datetime | None) -> int:
        """Delete whole months as indices, and other events one by one."""
        await self.refresh()
        deleted = await self._delete_indices(before) if before is not None and where is None else 0
        query = build_query(where, end=before)
        pages = iterate_hit_pages(self._client, self._pattern, query, await self._dialect(), with_source=False)
        async for hits in pages:
            deleted += read_delete_count(await self._send_bulk(build_delete_body(hits)))
        await self.refresh()
        return deleted

    async def _delete_indices(self, before: datetime) -> int:
        with translate_errors():
            settings = await self._client.indices.get_settings(
                index=self._pattern, name="index.creation_date", ignore_unavailable=True, allow_no_indices=True
            )
            deleted = 0
            for names in chunk_index_names(indices_before(settings.body, self._prefix, before)):
                response = await self._client.count(index=names, query=MATCH_ALL, ignore_unavailable=True)
                await self._client.indices.delete(index=names, ignore_unavailable=True)
                deleted += read_key(response.body, "count", int)
        # Those of days are gone.
        self._names = None
        return deleted


async def _gather_all(writes: list[Coroutine[Any, Any, WriteResult]]) -> list[WriteResult]:
    """Wait for all writes, even if one fails: none may continue after the call has ended."""
    results = await asyncio.gather(*writes, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, WriteResult)]


def _have_distinct_ids(heads: list[list[DocumentHead]]) -> bool:
    identities = {(year, month, event_id) for year, month, _, event_id in chain.from_iterable(heads)}
    return len(identities) == sum(map(len, heads))


def _client_arguments(template: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a template as the client's arguments, where `_meta` is called ``meta``."""
    return {key.removeprefix("_"): value for key, value in template.items()}
