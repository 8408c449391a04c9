"""Recommendations: items that the same visitors saw.

Items are ranked by Dunning's log-likelihood ratio of the two-by-two table of visitors: those who saw both items, only
the one, only the other, neither (T. Dunning, "Accurate Methods for the Statistics of Surprise and Coincidence",
Computational Linguistics 19(1), 1993; T. Dunning and E. Friedman, "Practical Machine Learning: Innovations in
Recommendation", 2014, recommend with it). Counts of common visitors alone would recommend to everybody what
everybody sees anyway; shares of them would put first what a few people saw who happened to see both. This
ratio asks how much more often two items are seen together than chance would have it, and how much evidence
there is: what everyone sees has a score of 0, and a coincidence a low one. Only what is seen together more
often than by chance counts.

Visitors are people, told apart by the field ``visitor``, which Metronome makes anew each day; a sender's own
lasts as long as the sender keeps it. Views and downloads both count as seeing.

Pairs: which items the same visitors saw, of all items at once.
"""

import asyncio
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from heapq import nsmallest
from itertools import chain, islice
from typing import Any, Final, NamedTuple

from metronome.reports.log_likelihood import association_score
from metronome.reports.parameters import ReportParameters
from metronome.reports.sample import SequenceSample
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Exists, Filter, Metric, OneOf, Query


class ItemPair(NamedTuple):
    """Two items that the same visitors saw.

    Attributes:
        items: their ids, the smaller text first.
        score: how surely they go together (see `metronome.reports.log_likelihood.association`), above 0.
        visitors: how many saw both.

    """

    items: tuple[str, str]
    score: float
    visitors: int


def strongest_pairs(visits: Sequence[Iterable[str]], min_visitors: int, limit: int) -> list[ItemPair]:
    """Return the pairs of items that go together most surely.

    Args:
        visits: for each visitor, the items that they saw, each once.
        min_visitors: how many visitors must have seen both at the least.
        limit: how many pairs at the most.

    Returns:
        Pairs, the highest score first; of equal ones in the order of their items.

    """
    seen = Counter(chain.from_iterable(visits))
    # An item that fewer saw is in no pair that enough saw.
    names = sorted(item for item, visitors in seen.items() if visitors >= min_visitors)
    numbers = {item: number for number, item in enumerate(names)}
    rows = [sorted(numbers[item] for item in visit if item in numbers) for visit in visits]
    found = (
        ItemPair((names[one], names[other]), score, common)
        for one, other, common in _count_common_visitors(rows, len(names))
        if common >= min_visitors
        for score in (association_score(common, seen[names[one]], seen[names[other]], len(visits)),)
        if score > 0
    )
    return nsmallest(limit, found, key=lambda pair: (-pair.score, pair.items))


def _count_common_visitors(rows: list[list[int]], items: int) -> Iterator[tuple[int, int, int]]:
    """Yield how many rows two numbers have in common, one number after the other: memory is that of one."""
    rows_of: list[list[list[int]]] = [[] for _ in range(items)]
    for row in rows:
        for number in row:
            rows_of[number].append(row)
    for number, those in enumerate(rows_of):
        greater = Counter(chain.from_iterable(row[bisect(row, number) :] for row in those))
        for other, common in greater.items():
            yield number, other, common


PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots"})
MIN_VISITORS: Final = 5
MAX_CANDIDATES: Final = 200
"""So many of the items that an item's visitors saw are compared with it: those that most of them saw."""
MAX_ITEMS_PER_VISITOR: Final = 50
"""So many items of each visitor make pairs: those seen last."""
MAX_PAIRS: Final = 10_000

_ITEM_USE: Final = AllOf((OneOf("event", ("view", "download")), Exists("id")))
_VISITORS: Final = Metric.parse("visitors")
_SCORE_DIGITS: Final = 4
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def recommendations_report(
    store: Store, item: str | None, parameters: ReportParameters, min_visitors: int = MIN_VISITORS
) -> dict[str, Any]:
    """Answer which items the visitors of an item saw, too; or, of all items, which go together most.

    Of an item, the newest visitors are looked at (see `metronome.reports.sample`). Where there are more, all is
    counted from the time on at which these came, so that the table is that of a shorter time, in which they are
    all the item's visitors, and nothing is scaled. Should the bound on events have cut even these, those who saw
    the item are counted among those looked at, and those who did not among all; the part of another item's
    visitors who did is taken to be as large as it is among those looked at.

    Of all items, pairs are counted among the newest visitors, with the last `MAX_ITEMS_PER_VISITOR` items of each.

    Args:
        store: what is asked.
        item: the item's id, or None for pairs of all items.
        parameters: the range, and how many items, or pairs, at most; of pairs there are no more than `MAX_PAIRS`.
        min_visitors: how many visitors an item must have, and two must have in common, for anything to be told: what
            few people did is theirs.

    Returns:
        For an item ``items``, each with its ``id``, ``score``, and how many ``visitors`` of the item saw it; without
        one ``pairs``, each with its two ``items``, ``score`` and ``visitors`` who saw both; highest score first.
        Where not all visitors were looked at, or the store could only estimate, ``exact: false`` is added, and
        in the first case how many were, as ``visitors_looked_at``.

    """
    if item is None:
        return await _recommend_pairs(store, parameters, min_visitors)
    return await _recommend_items(store, item, parameters, min_visitors)


async def _recommend_items(store: Store, item: str, parameters: ReportParameters, min_visitors: int) -> dict[str, Any]:
    touching = AllOf((Equals("id", item), _ITEM_USE))
    sample = SequenceSample(store, "visitor", ("id",), parameters, selecting=touching, included=_ITEM_USE)
    # The steps of a trail come in the order of time: what stays is when each item was seen last.
    visits = [{str(step.values[0]): step.timestamp_ms for step in trail.events} async for trail in sample]
    visits = [visit for visit in visits if item in visit]
    if len(visits) < min_visitors:
        return {"items": []}
    begin = None if sample.is_complete else min(visit[item] for visit in visits)
    common = Counter(
        other for visit in visits for other, at in visit.items() if other != item and (begin is None or at >= begin)
    )
    candidates = sorted(
        (other for other, visitors in common.items() if visitors >= min_visitors),
        key=lambda other: (-common[other], other),
    )[:MAX_CANDIDATES]
    if not candidates:
        return {"items": [], **sample.completeness_fields()}
    start = parameters.start if begin is None else _EPOCH + timedelta(milliseconds=begin)

    def ask(by: tuple[str, ...], *filters: Filter) -> Query:
        return Query((_VISITORS,), by, parameters.build_filter(*filters, _ITEM_USE), start, parameters.end)

    by_item, every = await store.query(ask(("id",), OneOf("id", (item, *candidates))), ask(()))
    visitors = {str(row[0]): int(row[1] or 0) for row in by_item.rows}
    total = int(every.rows[0][0] or 0)
    scores = {
        other: _candidate_score(common[other], len(visits), visitors.get(other, 0), visitors.get(item, 0), total)
        for other in candidates
    }
    best = sorted((other for other in candidates if scores[other] > 0), key=lambda other: (-scores[other], other))
    answer: dict[str, Any] = {
        "items": [
            {"id": other, "score": round(scores[other], _SCORE_DIGITS), "visitors": common[other]}
            for other in best[: parameters.limit]
        ]
    }
    if not (by_item.exact and every.exact):
        answer["exact"] = False
    return answer | sample.completeness_fields()


def _candidate_score(common: int, sampled: int, other: int, visitors: int, total: int) -> float:
    """Return the score of an item of which *common* of the *sampled* visitors of all its *visitors* saw another."""
    other_only = max(0, other - round(common * max(1.0, visitors / sampled)))
    rest = max(0, total - max(visitors, sampled))
    return association_score(common, sampled, common + other_only, sampled + rest)


async def _recommend_pairs(store: Store, parameters: ReportParameters, min_visitors: int) -> dict[str, Any]:
    sample = SequenceSample(store, "visitor", ("id",), parameters, selecting=_ITEM_USE, included=_ITEM_USE)
    visits: list[tuple[str, ...]] = []
    is_cut = False
    async for trail in sample:
        seen = dict.fromkeys(str(step.values[0]) for step in reversed(trail.events))
        is_cut = is_cut or len(seen) > MAX_ITEMS_PER_VISITOR
        visits.append(tuple(islice(seen, MAX_ITEMS_PER_VISITOR)))
    limit = MAX_PAIRS if parameters.limit is None else min(parameters.limit, MAX_PAIRS)
    # Thousands of visitors of many items take longer than others may wait.
    found = await asyncio.to_thread(strongest_pairs, visits, min_visitors, limit)
    answer: dict[str, Any] = {
        "pairs": [
            {"items": list(pair.items), "score": round(pair.score, _SCORE_DIGITS), "visitors": pair.visitors}
            for pair in found
        ]
    }
    if is_cut:
        answer["exact"] = False
    return answer | sample.completeness_fields()
