"""Rankings of items: by views, downloads or visitors, or by how much their use has risen."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from metronome.errors import InvalidQuery
from metronome.reports.log_likelihood import change_score
from metronome.reports.parameters import (
    CHEAP_MAX_ROWS,
    IS_VIEW_OR_DOWNLOAD,
    ReportParameters,
    exactness_fields,
    parse_choice,
)
from metronome.stores.base import Store
from metronome.stores.query import COUNT, Equals, Exists, Filter, Metric, OneOf, Query, QueryResult, SortKey

PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots", "order"})
ORDERS: Final = ("views", "downloads", "visitors", "rising")

_EVENT_BY_COUNT: Final = {"views": "view", "downloads": "download"}
_VISITORS: Final = Metric.parse("visitors")
_DEFAULT_RISING_RANGE: Final = timedelta(days=14)
_ITEMS_PER_QUERY: Final = 500


def is_cheap(parameters: ReportParameters) -> bool:
    """Return whether the ranking is short and needs only counts that a store may keep."""
    return parameters.order in {"", *_EVENT_BY_COUNT} and 0 < (parameters.limit or 0) <= CHEAP_MAX_ROWS


async def items_report(store: Store, parameters: ReportParameters, now: datetime) -> dict[str, Any]:
    """Return the items that are used most, or whose use rises most.

    Args:
        store: runs the queries.
        parameters: the range, maximum number of items, and ``order``: one of `ORDERS`, ``views`` by default.
        now: aware; the end of the range of rising items.

    Returns:
        ``items`` in that order, each with its ``id``, ``views`` and ``downloads``. In the order of ``visitors``, each
        also has the number of visitors who viewed or downloaded it; items without known visitors are omitted. For
        ``rising`` see `rising_items`. ``exact: false`` is added if the store estimated.

    Raises:
        InvalidQuery: the order is unknown, or the range ends before it starts.

    """
    order = parse_choice("order", parameters.order, ORDERS, "views")
    if order == "rising":
        return await rising_items(store, parameters, now)
    if order == "visitors":
        return await _rank_by_visitors(store, parameters)
    return await _rank_by_event(store, parameters, order)


async def rising_items(store: Store, parameters: ReportParameters, now: datetime) -> dict[str, Any]:
    """Return the items that are used more in the second half of a range than in the first.

    They are ranked by `metronome.reports.log_likelihood.change_score`, not by the ratio: an item that went from one
    view to four would rank above one that thousands have just found.

    Args:
        store: runs the queries.
        parameters: the range, up to *now*; by default the 14 days before its end.
        now: aware.

    Returns:
        ``items``, the most significant rise first: each with its ``id``, its ``views`` and ``downloads`` in the second
        half, the sum of both in the first half as ``before``, and the ``change`` of the sum.

    Raises:
        InvalidQuery: the range ends before it starts.

    """
    end = now if parameters.end is None else min(parameters.end, now)
    # The calendar starts in the year 1: there may be less than two weeks before the end.
    default_start = end - min(_DEFAULT_RISING_RANGE, end - datetime.min.replace(tzinfo=end.tzinfo))
    start = default_start if parameters.start is None else parameters.start
    if start >= end:
        raise InvalidQuery("the range of rising items is empty: choose a from before to and before now")
    middle = start + (end - start) / 2
    first, second = replace(parameters, start=start, end=middle), replace(parameters, start=middle, end=end)
    results = await store.query(
        _ranking_query(first, COUNT, None, IS_VIEW_OR_DOWNLOAD),
        _ranking_query(second, COUNT, None, IS_VIEW_OR_DOWNLOAD),
    )
    before, after = ({str(item): int(count or 0) for item, count in result.rows} for result in results)
    scores = {item: change_score(before.get(item, 0), after.get(item, 0)) for item in before | after}
    ids = sorted(scores, key=lambda item: (-scores[item], item))[: parameters.limit]
    extra_fields = {
        item: {"before": before.get(item, 0), "change": after.get(item, 0) - before.get(item, 0)} for item in ids
    }
    return await _build_report(ids, await _query_counts(store, second, ids), extra_fields, *results)


async def _rank_by_event(store: Store, parameters: ReportParameters, order: str) -> dict[str, Any]:
    other_order = "downloads" if order == "views" else "views"
    ranking, other_ranking = await store.query(
        *(
            _ranking_query(parameters, COUNT, parameters.limit, Equals("event", _EVENT_BY_COUNT[name]))
            for name in (order, other_order)
        )
    )
    # Items that only have events of the other kind follow, if there is room.
    ids = list(dict.fromkeys(str(row[0]) for row in (*ranking.rows, *other_ranking.rows)))[: parameters.limit]
    known = {order: ranking} if parameters.limit is not None else {order: ranking, other_order: other_ranking}
    return await _build_report(ids, await _query_counts(store, parameters, ids, known), {}, ranking, other_ranking)


async def _rank_by_visitors(store: Store, parameters: ReportParameters) -> dict[str, Any]:
    (uses,) = results = await store.query(
        _ranking_query(parameters, COUNT, None, IS_VIEW_OR_DOWNLOAD, Exists("visitor"))
    )
    best: list[tuple[int, str]] = []
    # Counting distinct visitors takes memory for each item. No item has more visitors than uses, so once the list is
    # full, items with fewer uses than the last item has visitors need not be counted.
    for start in range(0, len(uses.rows), _ITEMS_PER_QUERY):
        max_uses = int(uses.rows[start][1] or 0)
        if parameters.limit is not None and len(best) == parameters.limit and max_uses < -best[-1][0]:
            break
        chunk = OneOf("id", tuple(str(row[0]) for row in uses.rows[start : start + _ITEMS_PER_QUERY]))
        (counted,) = await store.query(_ranking_query(parameters, _VISITORS, None, IS_VIEW_OR_DOWNLOAD, chunk))
        results += (counted,)
        best = sorted([*best, *((-int(visitors or 0), str(item)) for item, visitors in counted.rows)])
        best = best[: parameters.limit]
    ids = [item for _, item in best]
    extra_fields = {item: {"visitors": -negated} for negated, item in best}
    return await _build_report(ids, await _query_counts(store, parameters, ids), extra_fields, *results)


async def _query_counts(
    store: Store, parameters: ReportParameters, ids: list[str], known: dict[str, QueryResult] | None = None
) -> dict[str, QueryResult]:
    """Count the views and downloads of items; of all items if the ranking has no limit."""
    only = () if parameters.limit is None else (OneOf("id", tuple(ids)),)
    results = dict(known or {})
    missing = [name for name in _EVENT_BY_COUNT if name not in results]
    if missing:
        queries = (
            _ranking_query(parameters, COUNT, None, Equals("event", _EVENT_BY_COUNT[name]), *only) for name in missing
        )
        results |= zip(missing, await store.query(*queries), strict=True)
    return {name: results[name] for name in _EVENT_BY_COUNT}


def _ranking_query(parameters: ReportParameters, metric: Metric, limit: int | None, *filters: Filter) -> Query:
    return Query(
        metrics=(metric,),
        group_by=("id",),
        where=parameters.build_filter(*filters),
        start=parameters.start,
        end=parameters.end,
        time_zone=parameters.tz,
        sort_keys=(SortKey(metric.name, descending=True),),
        limit=limit,
    )


async def _build_report(
    ids: list[str], counts: dict[str, QueryResult], extra_fields: dict[str, dict[str, Any]], *results: QueryResult
) -> dict[str, Any]:
    if len(ids) > CHEAP_MAX_ROWS:
        # In a thread: it takes a tenth of a second and more.
        items = await asyncio.to_thread(_build_items, ids, counts, extra_fields)
    else:
        items = _build_items(ids, counts, extra_fields)
    return {"items": items} | exactness_fields(*results, *counts.values())


def _build_items(
    ids: list[str], counts: dict[str, QueryResult], extra_fields: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    numbers = {name: result.to_dict() for name, result in counts.items()}
    return [
        {"id": item, **{name: numbers[name].get(item, 0) for name in numbers}, **extra_fields.get(item, {})}
        for item in ids
    ]
