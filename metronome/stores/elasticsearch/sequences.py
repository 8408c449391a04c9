"""Trails, read as groups of equal steps, which Elasticsearch pages through in the order that trails have.

A page costs each index as many groups as the page may have, wherever in the order of keys they lie. So, where one page
is not enough, each of the others is asked for within a range of keys that holds about a page of events; where
to cut is seen from a sample of the keys. Cuts that were wrong only make pages smaller, or more of them.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from itertools import groupby, takewhile
from typing import Any, Final

from elasticsearch import AsyncElasticsearch

from metronome.errors import InvalidQuery
from metronome.fields import is_top_level_name
from metronome.stores.elasticsearch.queries import QueryClause, build_query, keyword_path
from metronome.stores.elasticsearch.searches import PointInTime, open_point_in_time
from metronome.stores.sequences import EventSequence, SequenceEvent, SequenceQuery

PAGE_BUCKETS: Final = 60_000
"""How many different steps a page may have: Elasticsearch answers with up to 65,536 groups."""
KEY_RANGE_EVENTS: Final = 40_000
"""How many events a range of keys should have, so that its steps are surely one page."""
BUCKETS_PER_TURN: Final = 5_000
SAMPLED_KEYS_PER_RANGE: Final = 50
"""How many keys of the sample fall into a range, about: fewer, and the ranges would differ too much."""
SAMPLE_MAX_BUCKETS: Final = 50_000

_LAST_MILLISECOND: Final = 253_402_300_799_999
"""Of the year 9999: no event is newer."""
_BUCKETS_AGGREGATION: Final = "steps"
_COUNT_AGGREGATION: Final = "events"
_KEYS_AGGREGATION: Final = "keys"

Bucket = dict[str, Any]


async def iterate_sequences(
    client: AsyncElasticsearch,
    pattern: str,
    sequence_query: SequenceQuery,
    page_buckets: int = PAGE_BUCKETS,
    key_range_events: int = KEY_RANGE_EVENTS,
) -> AsyncGenerator[EventSequence, None]:
    """Yield trails as they are at the moment of the first search (see `Store.trails`).

    Args:
        client: the connection.
        pattern: which indices to search.
        sequence_query: which trails.
        page_buckets: see `PAGE_BUCKETS`.
        key_range_events: see `KEY_RANGE_EVENTS`.

    Raises:
        InvalidQuery: the key or a field is none that stands at a document's top level.

    """
    for name in (sequence_query.key_field, *sequence_query.fields):
        if not is_top_level_name(name):
            raise InvalidQuery(
                f"{name[:60]!r} does not stand at the top level of documents: trails are told of what does"
            )
    gathering = BucketSequenceBuilder(sequence_query.max_events)
    async with open_point_in_time(client, pattern) as moment:
        async for buckets in _iterate_pages(moment, sequence_query, page_buckets, key_range_events):
            for at in range(0, len(buckets), BUCKETS_PER_TURN):
                for trail in gathering.add(buckets[at : at + BUCKETS_PER_TURN]):
                    yield trail
                # A page is large, and whatever else goes on in this loop should not wait for all of it.
                await asyncio.sleep(0)
    for trail in gathering.add([]):
        yield trail


class BucketSequenceBuilder:
    """Trails made of the groups of equal steps that come in pieces.

    Args:
        max_events: as in `SequenceQuery`.

    """

    def __init__(self, max_events: int | None = None) -> None:
        self._max_events = sys.maxsize if max_events is None else max_events
        self._key: str | None = None
        self._events: list[SequenceEvent] = []

    def add(self, buckets: list[Bucket]) -> Iterator[EventSequence]:
        """Yield the trails that are complete with these groups; without any, the last trail."""
        for key, members in groupby(buckets, key=_sequence_key):
            if key != self._key:
                yield from self._flush()
                self._key = key
            for bucket in members:
                _, at, *texts = bucket["key"].values()
                self._events += [SequenceEvent(at, tuple(texts))] * min(
                    bucket["doc_count"], self._max_events - len(self._events)
                )
        if not buckets:
            yield from self._flush()

    def _flush(self) -> Iterator[EventSequence]:
        if self._key is not None:
            yield EventSequence(self._key, tuple(self._events))
        self._key, self._events = None, []


def split_key_ranges(sample: list[Bucket], keys_per_sample: int, key_range_events: int) -> list[str]:
    """Return where to cut the keys into ranges of about *key_range_events* events.

    Args:
        sample: keys in their order, with how many events each has.
        keys_per_sample: how many keys one of the sample stands for.
        key_range_events: see `KEY_RANGE_EVENTS`.

    """
    cuts, events = [], 0
    for bucket in sample:
        events += bucket["doc_count"] * keys_per_sample
        if events >= key_range_events:
            cuts.append(bucket["key"])
            events = 0
    return cuts


async def _iterate_pages(
    point_in_time: PointInTime, sequence_query: SequenceQuery, page_buckets: int, key_range_events: int
) -> AsyncIterator[list[Bucket]]:
    query = build_query(sequence_query.where, sequence_query.start, sequence_query.end)
    count = {_COUNT_AGGREGATION: {"value_count": {"field": keyword_path(sequence_query.key_field)}}}
    found = await _fetch_page(point_in_time, sequence_query, query, page_buckets, None, count)
    buckets = found[_BUCKETS_AGGREGATION]["buckets"]
    yield buckets
    if len(buckets) < page_buckets:
        return
    after = _next_after_key(found[_BUCKETS_AGGREGATION], sequence_query)
    told = sum(bucket["doc_count"] for bucket in buckets)
    keys_each = len({_sequence_key(bucket) for bucket in buckets}) / told
    cuts = await _key_range_boundaries(
        point_in_time,
        sequence_query,
        query,
        after,
        found[_COUNT_AGGREGATION]["value"] - told,
        keys_each,
        key_range_events,
    )
    for cut in (*cuts, None):
        while True:
            within = _restrict_to_key_range(query, sequence_query, after, cut)
            found = (await _fetch_page(point_in_time, sequence_query, within, page_buckets, after, {}))[
                _BUCKETS_AGGREGATION
            ]
            if found["buckets"]:
                yield found["buckets"]
                after = _next_after_key(found, sequence_query)
            if len(found["buckets"]) < page_buckets:
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
    for at, name in enumerate(sequence_query.fields):
        sources.append({str(at): {"terms": {"field": keyword_path(name), "missing_bucket": True}}})
    steps = {"size": size, "sources": sources, **({} if after is None else {"after": after})}
    response = await point_in_time.search(
        size=0, query=query, aggs={_BUCKETS_AGGREGATION: {"composite": steps}, **extra_aggregations}
    )
    found: dict[str, Any] = response.get("aggregations", _NO_AGGREGATIONS)
    return found


_NO_AGGREGATIONS: Final[dict[str, Any]] = {_BUCKETS_AGGREGATION: {"buckets": []}, _COUNT_AGGREGATION: {"value": 0}}
"""What Elasticsearch leaves out where there is no index."""


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
    if ranges < 2:  # noqa: PLR2004  # one range needs no cut
        return []
    each = max(1, int(events * keys_per_event) // (ranges * SAMPLED_KEYS_PER_RANGE))
    keys = {
        "field": keyword_path(sequence_query.key_field),
        "size": SAMPLE_MAX_BUCKETS,
        "shard_size": SAMPLE_MAX_BUCKETS,
        "order": {"_key": "asc"},
        "include": {"partition": 0, "num_partitions": each},
    }
    response = await point_in_time.search(
        size=0,
        query=_restrict_to_key_range(query, sequence_query, after, None),
        aggs={_KEYS_AGGREGATION: {"terms": keys}},
    )
    return split_key_ranges(response["aggregations"][_KEYS_AGGREGATION]["buckets"], each, key_range_events)


def _next_after_key(composite: dict[str, Any], sequence_query: SequenceQuery) -> dict[str, Any]:
    """Return after what the next page begins: after the whole last trail, if it is told as far as is asked for."""
    after: dict[str, Any] = composite["after_key"]
    last = takewhile(lambda bucket: _sequence_key(bucket) == after["key"], reversed(composite["buckets"]))
    if (
        sequence_query.max_events is not None
        and sum(bucket["doc_count"] for bucket in last) >= sequence_query.max_events
    ):
        return {**after, "at": _LAST_MILLISECOND}
    return after


def _restrict_to_key_range(
    query: QueryClause, sequence_query: SequenceQuery, after: dict[str, Any], before_key: str | None
) -> QueryClause:
    bounds = {"gte": after["key"], **({} if before_key is None else {"lt": before_key})}
    return {"bool": {"filter": [query, {"range": {keyword_path(sequence_query.key_field): bounds}}]}}


def _sequence_key(bucket: Bucket) -> str:
    key: str = bucket["key"]["key"]
    return key
