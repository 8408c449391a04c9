"""Event sequences, as groups of equal events that Elasticsearch pages through in the order of sequences.

On each index a page costs as many groups as the page may have, wherever in the order of keys they are. So, where one
page does not suffice, each further page is restricted to a range of keys with about one page of events. A sample of
the keys gives the ranges' boundaries; badly chosen ones only lead to smaller or more pages.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from itertools import takewhile
from typing import Any, Final

from elasticsearch import AsyncElasticsearch

from metronome.stores.elasticsearch.dialects import ElasticsearchDialect
from metronome.stores.elasticsearch.queries import QueryClause, build_query, keyword_path
from metronome.stores.elasticsearch.searches import PointInTime, open_point_in_time
from metronome.stores.sequences import EventSequence, SequenceBuilder, SequenceQuery

PAGE_BUCKETS: Final = 60_000
"""The number of different events on a page: Elasticsearch returns at most 65,536 groups."""
KEY_RANGE_EVENTS: Final = 40_000
"""The intended number of events in a range of keys, so that they fit on one page."""
BUCKETS_PER_TURN: Final = 5_000
SAMPLED_KEYS_PER_RANGE: Final = 50
"""The intended number of sampled keys in a range; with fewer, the ranges would differ too much."""
SAMPLE_MAX_BUCKETS: Final = 50_000

_MAX_TIMESTAMP_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""
_BUCKETS_AGGREGATION: Final = "steps"
_COUNT_AGGREGATION: Final = "events"
_KEYS_AGGREGATION: Final = "keys"

Bucket = dict[str, Any]


async def iterate_sequences(
    client: AsyncElasticsearch,
    pattern: str,
    sequence_query: SequenceQuery,
    dialect: ElasticsearchDialect,
    page_buckets: int = PAGE_BUCKETS,
    key_range_events: int = KEY_RANGE_EVENTS,
) -> AsyncGenerator[EventSequence, None]:
    """Yield sequences from a snapshot (see `Store.sequences`).

    Args:
        client: the connection.
        pattern: which indices to search.
        sequence_query: which sequences.
        dialect: that of the product.
        page_buckets: see `PAGE_BUCKETS`.
        key_range_events: see `KEY_RANGE_EVENTS`.

    """
    builder = SequenceBuilder(sequence_query.max_events)
    async with open_point_in_time(client, pattern, dialect) as point_in_time:
        async for buckets in _iterate_pages(point_in_time, sequence_query, page_buckets, key_range_events):
            for start in range(0, len(buckets), BUCKETS_PER_TURN):
                for sequence in builder.add(bucket_rows(buckets[start : start + BUCKETS_PER_TURN])):
                    yield sequence
                # A page is large, and must not block the event loop.
                await asyncio.sleep(0)
    for sequence in builder.flush():
        yield sequence


def bucket_rows(buckets: list[Bucket]) -> Iterator[tuple[str, int, tuple[str | None, ...], int]]:
    """Yield the key, time and values of each group of equal events, and their number."""
    for bucket in buckets:
        key, timestamp_ms, *values = bucket["key"].values()
        yield key, timestamp_ms, tuple(values), bucket["doc_count"]


def split_key_ranges(sample: list[Bucket], keys_per_sample: int, key_range_events: int) -> list[str]:
    """Return the boundaries of ranges of keys with about *key_range_events* events each.

    Args:
        sample: sorted keys, and the number of events of each.
        keys_per_sample: how many keys each one in the sample represents.
        key_range_events: see `KEY_RANGE_EVENTS`.

    """
    boundaries, events = [], 0
    for bucket in sample:
        events += bucket["doc_count"] * keys_per_sample
        if events >= key_range_events:
            boundaries.append(bucket["key"])
            events = 0
    return boundaries


async def _iterate_pages(
    point_in_time: PointInTime, sequence_query: SequenceQuery, page_buckets: int, key_range_events: int
) -> AsyncIterator[list[Bucket]]:
    query = build_query(sequence_query.where, sequence_query.start, sequence_query.end)
    count = {_COUNT_AGGREGATION: {"value_count": {"field": keyword_path(sequence_query.key_field)}}}
    first_page = await _fetch_page(point_in_time, sequence_query, query, page_buckets, None, count)
    buckets = first_page[_BUCKETS_AGGREGATION]["buckets"]
    yield buckets
    if len(buckets) < page_buckets:
        return
    after = _next_after_key(first_page[_BUCKETS_AGGREGATION], sequence_query)
    events = sum(bucket["doc_count"] for bucket in buckets)
    keys_per_event = len({_sequence_key(bucket) for bucket in buckets}) / events
    remaining_events = first_page[_COUNT_AGGREGATION]["value"] - events
    boundaries = await _key_range_boundaries(
        point_in_time, sequence_query, query, after, remaining_events, keys_per_event, key_range_events
    )
    for boundary in (*boundaries, None):
        while True:
            range_query = _restrict_to_key_range(query, sequence_query, after, boundary)
            response = await _fetch_page(point_in_time, sequence_query, range_query, page_buckets, after, {})
            page = response[_BUCKETS_AGGREGATION]
            if page["buckets"]:
                yield page["buckets"]
                after = _next_after_key(page, sequence_query)
            if len(page["buckets"]) < page_buckets:
                break


async def _fetch_page(
    point_in_time: PointInTime,
    sequence_query: SequenceQuery,
    query: QueryClause,
    size: int,
    after: dict[str, Any] | None,
    extra_aggregations: dict[str, Any],
) -> dict[str, Any]:
    sources: list[dict[str, Any]] = [
        {"key": {"terms": {"field": keyword_path(sequence_query.key_field)}}},
        {"at": {"terms": {"field": "@timestamp"}}},
    ]
    for index, name in enumerate(sequence_query.fields):
        sources.append({str(index): {"terms": {"field": keyword_path(name), "missing_bucket": True}}})
    composite = {"size": size, "sources": sources, **({} if after is None else {"after": after})}
    response = await point_in_time.search(
        size=0, query=query, aggs={_BUCKETS_AGGREGATION: {"composite": composite}, **extra_aggregations}
    )
    aggregations: dict[str, Any] = response.get("aggregations", _NO_AGGREGATIONS)
    return aggregations


_NO_AGGREGATIONS: Final[dict[str, Any]] = {_BUCKETS_AGGREGATION: {"buckets": []}, _COUNT_AGGREGATION: {"value": 0}}
"""Elasticsearch omits the aggregations if there is no index."""


async def _key_range_boundaries(
    point_in_time: PointInTime,
    sequence_query: SequenceQuery,
    query: QueryClause,
    after: dict[str, Any],
    events: int,
    keys_per_event: float,
    key_range_events: int,
) -> list[str]:
    ranges = events // key_range_events
    if ranges < 2:  # noqa: PLR2004  # a single range has no boundary
        return []
    keys_per_sample = max(1, int(events * keys_per_event) // (ranges * SAMPLED_KEYS_PER_RANGE))
    terms = {
        "field": keyword_path(sequence_query.key_field),
        "size": SAMPLE_MAX_BUCKETS,
        "shard_size": SAMPLE_MAX_BUCKETS,
        "order": {"_key": "asc"},
        "include": {"partition": 0, "num_partitions": keys_per_sample},
    }
    response = await point_in_time.search(
        size=0,
        query=_restrict_to_key_range(query, sequence_query, after, None),
        aggs={_KEYS_AGGREGATION: {"terms": terms}},
    )
    return split_key_ranges(response["aggregations"][_KEYS_AGGREGATION]["buckets"], keys_per_sample, key_range_events)


def _next_after_key(composite: dict[str, Any], sequence_query: SequenceQuery) -> dict[str, Any]:
    """Return the key after which the next page starts: skip the rest of a sequence that has all requested events."""
    after: dict[str, Any] = composite["after_key"]
    if sequence_query.max_events is None:
        return after
    last_sequence = takewhile(lambda bucket: _sequence_key(bucket) == after["key"], reversed(composite["buckets"]))
    if sum(bucket["doc_count"] for bucket in last_sequence) >= sequence_query.max_events:
        return {**after, "at": _MAX_TIMESTAMP_MS}
    return after


def _restrict_to_key_range(
    query: QueryClause, sequence_query: SequenceQuery, after: dict[str, Any], before_key: str | None
) -> QueryClause:
    bounds = {"gte": after["key"], **({} if before_key is None else {"lt": before_key})}
    return {"bool": {"filter": [query, {"range": {keyword_path(sequence_query.key_field): bounds}}]}}


def _sequence_key(bucket: Bucket) -> str:
    key: str = bucket["key"]["key"]
    return key
