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

from metronome.errors import Unaskable
from metronome.event import is_plain
from metronome.stores.elasticsearch.queries import Query, group_name, query_of
from metronome.stores.elasticsearch.searches import Moment, frozen
from metronome.stores.sequences import Step, Trail, Trails

PAGE_STEPS: Final = 60_000
"""How many different steps a page may have: Elasticsearch answers with up to 65,536 groups."""
RANGE_EVENTS: Final = 40_000
"""How many events a range of keys should have, so that its steps are surely one page."""
STEPS_AT_ONCE: Final = 5_000
SAMPLED_KEYS: Final = 50
"""How many keys of the sample fall into a range, about: fewer, and the ranges would differ too much."""
SAMPLE_MAX_KEYS: Final = 50_000

_LAST_MILLISECOND: Final = 253_402_300_799_999
"""Of the year 9999: no event is newer."""
_STEPS: Final = "steps"
_EVENTS: Final = "events"
_KEYS: Final = "keys"

Bucket = dict[str, Any]


async def read_trails(
    client: AsyncElasticsearch,
    pattern: str,
    asked: Trails,
    page_steps: int = PAGE_STEPS,
    range_events: int = RANGE_EVENTS,
) -> AsyncGenerator[Trail, None]:
    """Yield trails as they are at the moment of the first search (see `Store.trails`).

    Args:
        client: the connection.
        pattern: which indices to search.
        asked: which trails.
        page_steps: see `PAGE_STEPS`.
        range_events: see `RANGE_EVENTS`.

    Raises:
        Unaskable: the key or a field is none that stands at a document's top level.

    """
    for name in (asked.key, *asked.fields):
        if not is_plain(name):
            raise Unaskable(f"{name[:60]!r} does not stand at the top level of documents: trails are told of what does")
    gathering = Gathering(asked.most_steps)
    async with frozen(client, pattern) as moment:
        async for buckets in _pages(moment, asked, page_steps, range_events):
            for at in range(0, len(buckets), STEPS_AT_ONCE):
                for trail in gathering.take(buckets[at : at + STEPS_AT_ONCE]):
                    yield trail
                # A page is large, and whatever else goes on in this loop should not wait for all of it.
                await asyncio.sleep(0)
    for trail in gathering.take([]):
        yield trail


class Gathering:
    """Trails made of the groups of equal steps that come in pieces.

    Args:
        most_steps: as in `Trails`.

    """

    def __init__(self, most_steps: int | None = None) -> None:
        self._most = sys.maxsize if most_steps is None else most_steps
        self._key: str | None = None
        self._steps: list[Step] = []

    def take(self, buckets: list[Bucket]) -> Iterator[Trail]:
        """Yield the trails that are complete with these groups; without any, the last trail."""
        for key, members in groupby(buckets, key=_key_of):
            if key != self._key:
                yield from self._rest()
                self._key = key
            for bucket in members:
                _, at, *texts = bucket["key"].values()
                self._steps += [Step(at, tuple(texts))] * min(bucket["doc_count"], self._most - len(self._steps))
        if not buckets:
            yield from self._rest()

    def _rest(self) -> Iterator[Trail]:
        if self._key is not None:
            yield Trail(self._key, tuple(self._steps))
        self._key, self._steps = None, []


def cuts_of(sample: list[Bucket], each: int, range_events: int) -> list[str]:
    """Return where to cut the keys into ranges of about *range_events* events.

    Args:
        sample: keys in their order, with how many events each has.
        each: how many keys one of the sample stands for.
        range_events: see `RANGE_EVENTS`.

    """
    cuts, events = [], 0
    for bucket in sample:
        events += bucket["doc_count"] * each
        if events >= range_events:
            cuts.append(bucket["key"])
            events = 0
    return cuts


async def _pages(moment: Moment, asked: Trails, page_steps: int, range_events: int) -> AsyncIterator[list[Bucket]]:
    query = query_of(asked.where, asked.start, asked.end)
    count = {_EVENTS: {"value_count": {"field": group_name(asked.key)}}}
    found = await _page(moment, asked, query, page_steps, None, count)
    buckets = found[_STEPS]["buckets"]
    yield buckets
    if len(buckets) < page_steps:
        return
    after = _after(found[_STEPS], asked)
    told = sum(bucket["doc_count"] for bucket in buckets)
    keys_each = len({_key_of(bucket) for bucket in buckets}) / told
    cuts = await _cuts(moment, asked, query, after, found[_EVENTS]["value"] - told, keys_each, range_events)
    for cut in (*cuts, None):
        while True:
            within = _within(query, asked, after, cut)
            found = (await _page(moment, asked, within, page_steps, after, {}))[_STEPS]
            if found["buckets"]:
                yield found["buckets"]
                after = _after(found, asked)
            if len(found["buckets"]) < page_steps:
                break


async def _page(
    moment: Moment, asked: Trails, query: Query, size: int, after: dict[str, Any] | None, beside: dict[str, Any]
) -> dict[str, Any]:
    sources: list[dict[str, Any]] = [
        {"key": {"terms": {"field": group_name(asked.key)}}},
        {"at": {"terms": {"field": "@timestamp"}}},
    ]
    for at, name in enumerate(asked.fields):
        sources.append({str(at): {"terms": {"field": group_name(name), "missing_bucket": True}}})
    steps = {"size": size, "sources": sources, **({} if after is None else {"after": after})}
    response = await moment.search(size=0, query=query, aggs={_STEPS: {"composite": steps}, **beside})
    found: dict[str, Any] = response.get("aggregations", _NOTHING)
    return found


_NOTHING: Final[dict[str, Any]] = {_STEPS: {"buckets": []}, _EVENTS: {"value": 0}}
"""What Elasticsearch leaves out where there is no index."""


async def _cuts(
    moment: Moment, asked: Trails, query: Query, after: dict[str, Any], events: int, keys_each: float, range_events: int
) -> list[str]:
    ranges = events // range_events
    if ranges < 2:  # noqa: PLR2004  # one range needs no cut
        return []
    each = max(1, int(events * keys_each) // (ranges * SAMPLED_KEYS))
    keys = {
        "field": group_name(asked.key),
        "size": SAMPLE_MAX_KEYS,
        "shard_size": SAMPLE_MAX_KEYS,
        "order": {"_key": "asc"},
        "include": {"partition": 0, "num_partitions": each},
    }
    response = await moment.search(size=0, query=_within(query, asked, after, None), aggs={_KEYS: {"terms": keys}})
    return cuts_of(response["aggregations"][_KEYS]["buckets"], each, range_events)


def _after(steps: dict[str, Any], asked: Trails) -> dict[str, Any]:
    """Return after what the next page begins: after the whole last trail, if it is told as far as is asked for."""
    after: dict[str, Any] = steps["after_key"]
    last = takewhile(lambda bucket: _key_of(bucket) == after["key"], reversed(steps["buckets"]))
    if asked.most_steps is not None and sum(bucket["doc_count"] for bucket in last) >= asked.most_steps:
        return {**after, "at": _LAST_MILLISECOND}
    return after


def _within(query: Query, asked: Trails, after: dict[str, Any], cut: str | None) -> Query:
    bounds = {"gte": after["key"], **({} if cut is None else {"lt": cut})}
    return {"bool": {"filter": [query, {"range": {group_name(asked.key): bounds}}]}}


def _key_of(bucket: Bucket) -> str:
    key: str = bucket["key"]["key"]
    return key
