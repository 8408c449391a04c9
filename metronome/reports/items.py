"""Items: which are used most, by most people, or more than before."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from metronome.errors import InvalidQuery
from metronome.reports.log_likelihood import change_score
from metronome.reports.parameters import ReportParameters
from metronome.stores.base import Store
from metronome.stores.query import COUNT, Equals, Exists, Filter, Metric, OneOf, Query, QueryResult, SortKey

NAME: Final = "items"
PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots", "order"})
ORDERS: Final = ("views", "downloads", "visitors", "rising")

_EVENT_BY_COUNT: Final = {"views": "view", "downloads": "download"}
_ITEM_USE: Final = OneOf("event", tuple(_EVENT_BY_COUNT.values()))
_VISITORS: Final = Metric.parse("visitors")
_DEFAULT_RISING_RANGE: Final = timedelta(days=14)
_ITEMS_PER_QUERY: Final = 500


async def items_report(store: Store, parameters: ReportParameters, now: datetime) -> dict[str, Any]:
    """Answer which items are used most, or rise most.

    Args:
        store: what is asked.
        parameters: the range, how many items at most, and ``order``: one of `ORDERS`, by default ``views``.
        now: the time, aware; up to then items rise.

    Returns:
        ``items_report``, the first in that order, each with its ``id``, ``views`` and ``downloads``. By ``visitors``
        each
        also has those, of views and downloads alike, and items are left out of whose visitors nothing is known. By
        ``rising_items`` see `rising_items`. ``exact: false`` is added where a store could only estimate.

    Raises:
        InvalidQuery: the order is another, or the range ends before it begins.

    """
    order = parameters.order or ORDERS[0]
    if order not in ORDERS:
        raise InvalidQuery(f"order={order[:60]} is not known: choose one of {', '.join(ORDERS)}")
    if order == "rising":
        return await rising_items(store, parameters, now)
    return await (
        _rank_by_visitors(store, parameters) if order == "visitors" else _rank_by_event(store, parameters, order)
    )


def is_cheap(parameters: ReportParameters) -> bool:
    """Tell whether items can be ranked by what a store may have counted already, and not too many are listed."""
    return parameters.order in {"", *_EVENT_BY_COUNT} and parameters.limit is not None


async def rising_items(store: Store, parameters: ReportParameters, now: datetime) -> dict[str, Any]:
    """Answer which items are used more in the second half of a range than in its first half.

    They are ranked by `log_likelihood.change`: by how surely the use has risen, not by its ratio, which
    would put each item that went from one view to four before the one that thousands have just found.

    Args:
        store: what is asked.
        parameters: the range, which never reaches beyond now; by default it is the last 14 days up to its end.
        now: the time, aware.

    Returns:
        ``items_report``, that which rose most surely first, those that fell last: each with its ``id``, its
        ``views`` and
        ``downloads`` in the second half, how many both were ``before``, and the ``change_score`` since.

    Raises:
        InvalidQuery: the range ends before it begins.

    """
    end = now if parameters.end is None else min(parameters.end, now)
    # Before the first two weeks of the calendar there is nothing to compare with.
    earliest = end - min(_DEFAULT_RISING_RANGE, end - datetime.min.replace(tzinfo=end.tzinfo))
    start = earliest if parameters.start is None else parameters.start
    if start >= end:
        raise InvalidQuery(
            "the range of what rises ends before it begins: choose from and to so that it has two halves"
        )
    middle = start + (end - start) / 2
    first, second = replace(parameters, start=start, end=middle), replace(parameters, start=middle, end=end)
    earlier, later = await store.query(
        _ranking_query(first, COUNT, None, _ITEM_USE), _ranking_query(second, COUNT, None, _ITEM_USE)
    )
    before, after = ({str(item): int(count or 0) for item, count in answer.rows} for answer in (earlier, later))
    rises = {item: change_score(before.get(item, 0), after.get(item, 0)) for item in before | after}
    ids = sorted(rises, key=lambda item: (-rises[item], item))[: parameters.limit]
    counts = await _query_counts(store, second, ids)
    more = {item: {"before": before.get(item, 0), "change": after.get(item, 0) - before.get(item, 0)} for item in ids}
    return _build_report(ids, counts, more, earlier, later)


async def _rank_by_event(store: Store, parameters: ReportParameters, order: str) -> dict[str, Any]:
    other = "downloads" if order == "views" else "views"
    most, others = await store.query(
        *(
            _ranking_query(parameters, COUNT, parameters.limit, Equals("event", _EVENT_BY_COUNT[each]))
            for each in (order, other)
        )
    )
    # Items that were only used otherwise follow, where there is room.
    ids = list(dict.fromkeys(str(row[0]) for row in (*most.rows, *others.rows)))[: parameters.limit]
    known = {order: most, other: others} if parameters.limit is None else {order: most}
    return _build_report(ids, await _query_counts(store, parameters, ids, known), {}, most, others)


async def _rank_by_visitors(store: Store, parameters: ReportParameters) -> dict[str, Any]:
    (used,) = answers = await store.query(_ranking_query(parameters, COUNT, None, _ITEM_USE, Exists("visitor")))
    best: list[tuple[int, str]] = []
    # To count distinct visitors takes memory for each item. No item has more of them than uses: once the list is full,
    # those that were used less often than its last item has visitors can be left out.
    for at in range(0, len(used.rows), _ITEMS_PER_QUERY):
        most_uses = int(used.rows[at][1] or 0)
        if parameters.limit is not None and len(best) == parameters.limit and most_uses < -best[-1][0]:
            break
        some = OneOf("id", tuple(str(row[0]) for row in used.rows[at : at + _ITEMS_PER_QUERY]))
        (found,) = await store.query(_ranking_query(parameters, _VISITORS, None, _ITEM_USE, some))
        answers += (found,)
        best = sorted([*best, *((-int(visitors or 0), str(item)) for item, visitors in found.rows)])[: parameters.limit]
    ids = [item for _, item in best]
    return _build_report(
        ids, await _query_counts(store, parameters, ids), {item: {"visitors": -less} for less, item in best}, *answers
    )


async def _query_counts(
    store: Store, parameters: ReportParameters, ids: list[str], known: dict[str, QueryResult] | None = None
) -> dict[str, QueryResult]:
    """Count views and downloads of some items, or, where their number has no limit, of all."""
    some = () if parameters.limit is None else (OneOf("id", tuple(ids)),)
    missing = [name for name in _EVENT_BY_COUNT if name not in (known or {})]
    questions = [
        _ranking_query(parameters, COUNT, None, Equals("event", _EVENT_BY_COUNT[name]), *some) for name in missing
    ]
    found = dict(zip(missing, await store.query(*questions) if questions else (), strict=True)) | (known or {})
    return {name: found[name] for name in _EVENT_BY_COUNT}


def _ranking_query(parameters: ReportParameters, metric: Metric, limit: int | None, *filters: Filter) -> Query:
    order = (SortKey(metric.name, descending=True),)
    return Query(
        (metric,),
        ("id",),
        parameters.build_filter(*filters),
        parameters.start,
        parameters.end,
        parameters.tz,
        order,
        limit,
    )


def _build_report(
    ids: list[str], counts: dict[str, QueryResult], extra_fields: dict[str, dict[str, Any]], *results: QueryResult
) -> dict[str, Any]:
    numbers = {name: answer.to_dict() for name, answer in counts.items()}
    answer: dict[str, Any] = {
        "items": [
            {"id": item, **{name: numbers[name].get(item, 0) for name in numbers}, **extra_fields.get(item, {})}
            for item in ids
        ]
    }
    if not all(each.exact for each in (*results, *counts.values())):
        answer["exact"] = False
    return answer
