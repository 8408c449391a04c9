"""Recommendations: items that the same visitors viewed or downloaded.

Items are ranked by Dunning's log-likelihood ratio of the two-by-two table of visitors: those who used both items, only
one, only the other, neither (T. Dunning and E. Friedman, "Practical Machine Learning: Innovations in Recommendation",
2014, recommend with it; see `metronome.reports.log_likelihood`). Counts of common visitors would recommend what
everyone uses anyway, and shares of them would rank items of few visitors first. This ratio says how much more often
than by chance two items are used together, and how much evidence there is.

Visitors are identified by the field ``visitor``, which Metronome derives anew each day unless the sender sets it. So
a person may be several visitors, and the minimum of visitors, which protects people, must be reached on a single day.
"""

import asyncio
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import chain, islice
from typing import Any, Final, NamedTuple, TypeVar

from metronome.reports.log_likelihood import association_score
from metronome.reports.parameters import (
    IS_VIEW_OR_DOWNLOAD,
    SHARE_DIGITS,
    ReportParameters,
    exactness_fields,
)
from metronome.reports.sample import DEFAULT_LIMITS, SampleLimits, SequenceSample
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Exists, Filter, Metric, OneOf, Query
from metronome.times import from_milliseconds

PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots"})
MIN_VISITORS: Final = 5
MAX_CANDIDATES: Final = 200
"""With how many other items at most an item is compared: those with the most common visitors."""
MAX_ITEMS_PER_VISITOR: Final = 50
"""How many items of each visitor form pairs: the most recent ones."""
MAX_PAIRS: Final = 10_000

_IS_USE_OF_ITEM: Final = AllOf((IS_VIEW_OR_DOWNLOAD, Exists("id")))
_VISITORS: Final = Metric.parse("visitors")
_DAY_MS: Final = 24 * 60 * 60 * 1000

Key = TypeVar("Key")


class ItemPair(NamedTuple):
    """Two items that the same visitors used.

    Attributes:
        items: their IDs, in alphabetical order.
        score: their `metronome.reports.log_likelihood.association_score`, above 0.
        visitors: how many used both.

    """

    items: tuple[str, str]
    score: float
    visitors: int


def strongest_pairs(
    visits: Sequence[Iterable[str]], min_visitors: int, limit: int, days: Sequence[int] | None = None
) -> list[ItemPair]:
    """Return the pairs of items with the highest scores.

    Args:
        visits: for each visitor, the items that they used, each once.
        min_visitors: minimum number of visitors of one day who used both items.
        limit: maximum number of pairs.
        days: the day of each visitor; None if all are of the same day.

    Returns:
        Pairs, the highest score first; those of equal score in the order of their items.

    """
    visitor_counts = Counter(chain.from_iterable(visits))
    # An item with too few visitors is in no pair with enough of them.
    names = sorted(item for item, visitors in visitor_counts.items() if visitors >= min_visitors)
    numbers = {item: number for number, item in enumerate(names)}
    rows = [
        (sorted(numbers[item] for item in visit if item in numbers), day)
        for visit, day in zip(visits, days or [0] * len(visits), strict=True)
    ]
    pairs = (
        ItemPair((names[first], names[second]), score, common)
        for first, second, common in _count_common_visitors(rows, len(names), min_visitors)
        for score in (
            association_score(common, visitor_counts[names[first]], visitor_counts[names[second]], len(visits)),
        )
        if score > 0
    )
    return nsmallest(limit, pairs, key=lambda pair: (-pair.score, pair.items))


def _count_common_visitors(
    rows: list[tuple[list[int], int]], item_count: int, min_of_a_day: int
) -> Iterator[tuple[int, int, int]]:
    """Yield how many rows two numbers share, if enough of these are of the same day.

    It holds the counts of one number at a time, to save memory.
    """
    rows_by_number: list[list[tuple[list[int], int]]] = [[] for _ in range(item_count)]
    for row in rows:
        for number in row[0]:
            rows_by_number[number].append(row)
    for number, rows_with_number in enumerate(rows_by_number):
        greater = [(row[bisect(row, number) :], day) for row, day in rows_with_number]
        totals = Counter(chain.from_iterable(others for others, _ in greater))
        frequent = {other for other, common in totals.items() if common >= min_of_a_day}
        if frequent:
            by_day = Counter((other, day) for others, day in greater for other in others if other in frequent)
            for other in _reached_on_a_day(by_day, min_of_a_day):
                yield number, other, totals[other]


def _reached_on_a_day(counts: Counter[tuple[Key, int]], minimum: int) -> list[Key]:
    """Return the keys with at least *minimum* on one day, of counts by key and day."""
    return [*dict.fromkeys(key for (key, _), count in counts.items() if count >= minimum)]


async def recommendations_report(
    store: Store,
    item: str | None,
    parameters: ReportParameters,
    min_visitors: int = MIN_VISITORS,
    limits: SampleLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """Return which items the visitors of an item also used; or, for all items, the pairs with the highest scores.

    For an item, it uses the newest visitors (see `metronome.reports.sample`). If there are more, all counts start at
    the time from which the sample has every visitor of the item, so that nothing needs to be scaled. If the limit of
    events truncates even these, the share of another item's visitors who used the item is taken from the sample.

    For all items, it counts pairs among the newest visitors, with the last `MAX_ITEMS_PER_VISITOR` items of each.

    Args:
        store: runs the queries.
        item: the item ID, or None for pairs of all items.
        parameters: the range, and maximum number of items or of pairs; there are at most `MAX_PAIRS` pairs.
        min_visitors: minimum number of visitors of an item, and of shared visitors of one day. This protects visitors:
            what few people did could identify them, and on another day a person is another visitor.
        limits: how many visitors to read.

    Returns:
        For an item ``items``, each with its ``id``, ``score``, and how many ``visitors`` of the item used it; else
        ``pairs``, each with its two ``items``, ``score``, and number of ``visitors`` who used both; highest score
        first. ``exact: false`` is added if the store estimated, and with ``visitors_looked_at`` for an incomplete
        sample.

    """
    if item is None:
        return await _recommend_pairs(store, parameters, min_visitors, limits)
    return await _recommend_items(store, item, parameters, min_visitors, limits)


async def _recommend_items(
    store: Store, item: str, parameters: ReportParameters, min_visitors: int, limits: SampleLimits
) -> dict[str, Any]:
    selecting = AllOf((Equals("id", item), _IS_USE_OF_ITEM))
    sample = SequenceSample(
        store, "visitor", ("id",), parameters, selecting=selecting, included=_IS_USE_OF_ITEM, limits=limits
    )
    # Events are in the order of time: the last use of each item remains.
    visits = [{str(event.values[0]): event.timestamp_ms for event in sequence.events} async for sequence in sample]
    visits = [visit for visit in visits if item in visit]
    if len(visits) < min_visitors:
        return {"items": []}
    start_ms = None if sample.is_complete else min(visit[item] for visit in visits)
    common = Counter(
        other
        for visit in visits
        for other, used_at in visit.items()
        if other != item and (start_ms is None or used_at >= start_ms)
    )
    by_day = Counter((other, visit[item] // _DAY_MS) for visit in visits for other in visit if other in common)
    candidates = sorted(_reached_on_a_day(by_day, min_visitors), key=lambda other: (-common[other], other))
    candidates = candidates[:MAX_CANDIDATES]
    if not candidates:
        return {"items": [], **sample.completeness_fields()}
    start = parameters.start if start_ms is None else from_milliseconds(start_ms)

    def count_visitors(group_by: tuple[str, ...], *filters: Filter) -> Query:
        where = parameters.build_filter(*filters, _IS_USE_OF_ITEM)
        return Query((_VISITORS,), group_by, where, start, parameters.end)

    by_item, all_visitors = await store.query(
        count_visitors(("id",), OneOf("id", (item, *candidates))), count_visitors(())
    )
    visitors = {str(row[0]): int(row[1] or 0) for row in by_item.rows}
    total = int(all_visitors.rows[0][0] or 0)
    scores = {
        other: _candidate_score(common[other], len(visits), visitors.get(other, 0), visitors.get(item, 0), total)
        for other in candidates
    }
    best = sorted((other for other in candidates if scores[other] > 0), key=lambda other: (-scores[other], other))
    items = [
        {"id": other, "score": round(scores[other], SHARE_DIGITS), "visitors": common[other]}
        for other in best[: parameters.limit]
    ]
    return {"items": items} | exactness_fields(by_item, all_visitors) | sample.completeness_fields()


def _candidate_score(common: int, sampled: int, other_visitors: int, item_visitors: int, total: int) -> float:
    """Return the score of another item, which *common* of the *sampled* visitors of the item used."""
    other_only = max(0, other_visitors - round(common * max(1.0, item_visitors / sampled)))
    rest = max(0, total - max(item_visitors, sampled))
    return association_score(common, sampled, common + other_only, sampled + rest)


async def _recommend_pairs(
    store: Store, parameters: ReportParameters, min_visitors: int, limits: SampleLimits
) -> dict[str, Any]:
    sample = SequenceSample(
        store, "visitor", ("id",), parameters, selecting=_IS_USE_OF_ITEM, included=_IS_USE_OF_ITEM, limits=limits
    )
    visits: list[tuple[str, ...]] = []
    days: list[int] = []
    is_truncated = False
    async for sequence in sample:
        newest_first = dict.fromkeys(str(event.values[0]) for event in reversed(sequence.events))
        is_truncated = is_truncated or len(newest_first) > MAX_ITEMS_PER_VISITOR
        visits.append(tuple(islice(newest_first, MAX_ITEMS_PER_VISITOR)))
        days.append(sequence.events[-1].timestamp_ms // _DAY_MS)
    limit = MAX_PAIRS if parameters.limit is None else min(parameters.limit, MAX_PAIRS)
    # In a thread: thousands of visitors of many items take longer than other requests may wait.
    pairs = await asyncio.to_thread(strongest_pairs, visits, min_visitors, limit, days)
    report: dict[str, Any] = {
        "pairs": [
            {"items": list(pair.items), "score": round(pair.score, SHARE_DIGITS), "visitors": pair.visitors}
            for pair in pairs
        ]
    }
    return report | ({"exact": False} if is_truncated else {}) | sample.completeness_fields()
