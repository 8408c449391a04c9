"""Items: which are used most, by most people, or more than before."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from metronome.errors import Unaskable
from metronome.reports.log_likelihood import change
from metronome.reports.parameters import Parameters
from metronome.stores.base import Store
from metronome.stores.query import COUNT, Answer, Equals, Exists, Filter, Metric, OneOf, Order, Question

NAME: Final = "items"
PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots", "order"})
ORDERS: Final = ("views", "downloads", "visitors", "rising")

_EVENT_OF: Final = {"views": "view", "downloads": "download"}
_USE: Final = OneOf("event", tuple(_EVENT_OF.values()))
_VISITORS: Final = Metric.parse("visitors")
_RISING_RANGE: Final = timedelta(days=14)
_AT_ONCE: Final = 500


async def items(store: Store, asked: Parameters, now: datetime) -> dict[str, Any]:
    """Answer which items are used most, or rise most.

    Args:
        store: what is asked.
        asked: the range, how many items at most, and ``order``: one of `ORDERS`, by default ``views``.
        now: the time, aware; up to then items rise.

    Returns:
        ``items``, the first in that order, each with its ``id``, ``views`` and ``downloads``. By ``visitors`` each
        also has those, of views and downloads alike, and items are left out of whose visitors nothing is known. By
        ``rising`` see `rising`. ``exact: false`` is added where a store could only estimate.

    Raises:
        Unaskable: the order is another, or the range ends before it begins.

    """
    order = asked.order or ORDERS[0]
    if order not in ORDERS:
        raise Unaskable(f"order={order[:60]} is not known: choose one of {', '.join(ORDERS)}")
    if order == "rising":
        return await rising(store, asked, now)
    return await (_by_visitors(store, asked) if order == "visitors" else _by_event(store, asked, order))


def is_quick(asked: Parameters) -> bool:
    """Tell whether items can be ranked by what a store may have counted already, and not too many are listed."""
    return asked.order in {"", *_EVENT_OF} and asked.limit is not None


async def rising(store: Store, asked: Parameters, now: datetime) -> dict[str, Any]:
    """Answer which items are used more in the second half of a range than in its first half.

    They are ranked by `log_likelihood.change`: by how surely the use has risen, not by its ratio, which
    would put each item that went from one view to four before the one that thousands have just found.

    Args:
        store: what is asked.
        asked: the range, which never reaches beyond now; by default it is the last 14 days up to its end.
        now: the time, aware.

    Returns:
        ``items``, that which rose most surely first, those that fell last: each with its ``id``, its ``views`` and
        ``downloads`` in the second half, how many both were ``before``, and the ``change`` since.

    Raises:
        Unaskable: the range ends before it begins.

    """
    end = now if asked.end is None else min(asked.end, now)
    # Before the first two weeks of the calendar there is nothing to compare with.
    earliest = end - min(_RISING_RANGE, end - datetime.min.replace(tzinfo=end.tzinfo))
    start = earliest if asked.start is None else asked.start
    if start >= end:
        raise Unaskable("the range of what rises ends before it begins: choose from and to so that it has two halves")
    middle = start + (end - start) / 2
    first, second = replace(asked, start=start, end=middle), replace(asked, start=middle, end=end)
    earlier, later = await store.ask(_ranking(first, COUNT, None, _USE), _ranking(second, COUNT, None, _USE))
    before, after = ({str(item): int(count or 0) for item, count in answer.rows} for answer in (earlier, later))
    rises = {item: change(before.get(item, 0), after.get(item, 0)) for item in before | after}
    ids = sorted(rises, key=lambda item: (-rises[item], item))[: asked.limit]
    counts = await _counts(store, second, ids)
    more = {item: {"before": before.get(item, 0), "change": after.get(item, 0) - before.get(item, 0)} for item in ids}
    return _listed(ids, counts, more, earlier, later)


async def _by_event(store: Store, asked: Parameters, order: str) -> dict[str, Any]:
    other = "downloads" if order == "views" else "views"
    most, others = await store.ask(
        *(_ranking(asked, COUNT, asked.limit, Equals("event", _EVENT_OF[each])) for each in (order, other))
    )
    # Items that were only used otherwise follow, where there is room.
    ids = list(dict.fromkeys(str(row[0]) for row in (*most.rows, *others.rows)))[: asked.limit]
    known = {order: most, other: others} if asked.limit is None else {order: most}
    return _listed(ids, await _counts(store, asked, ids, known), {}, most, others)


async def _by_visitors(store: Store, asked: Parameters) -> dict[str, Any]:
    (used,) = answers = await store.ask(_ranking(asked, COUNT, None, _USE, Exists("visitor")))
    best: list[tuple[int, str]] = []
    # To count distinct visitors takes memory for each item. No item has more of them than uses: once the list is full,
    # those that were used less often than its last item has visitors can be left out.
    for at in range(0, len(used.rows), _AT_ONCE):
        most_uses = int(used.rows[at][1] or 0)
        if asked.limit is not None and len(best) == asked.limit and most_uses < -best[-1][0]:
            break
        some = OneOf("id", tuple(str(row[0]) for row in used.rows[at : at + _AT_ONCE]))
        (found,) = await store.ask(_ranking(asked, _VISITORS, None, _USE, some))
        answers += (found,)
        best = sorted([*best, *((-int(visitors or 0), str(item)) for item, visitors in found.rows)])[: asked.limit]
    ids = [item for _, item in best]
    return _listed(ids, await _counts(store, asked, ids), {item: {"visitors": -less} for less, item in best}, *answers)


async def _counts(
    store: Store, asked: Parameters, ids: list[str], known: dict[str, Answer] | None = None
) -> dict[str, Answer]:
    """Count views and downloads of some items, or, where their number has no limit, of all."""
    some = () if asked.limit is None else (OneOf("id", tuple(ids)),)
    missing = [name for name in _EVENT_OF if name not in (known or {})]
    questions = [_ranking(asked, COUNT, None, Equals("event", _EVENT_OF[name]), *some) for name in missing]
    found = dict(zip(missing, await store.ask(*questions) if questions else (), strict=True)) | (known or {})
    return {name: found[name] for name in _EVENT_OF}


def _ranking(asked: Parameters, metric: Metric, limit: int | None, *filters: Filter) -> Question:
    order = (Order(metric.name, descending=True),)
    return Question((metric,), ("id",), asked.only(*filters), asked.start, asked.end, asked.tz, order, limit)


def _listed(
    ids: list[str], counts: dict[str, Answer], more: dict[str, dict[str, Any]], *answers: Answer
) -> dict[str, Any]:
    numbers = {name: answer.mapping() for name, answer in counts.items()}
    answer: dict[str, Any] = {
        "items": [
            {"id": item, **{name: numbers[name].get(item, 0) for name in numbers}, **more.get(item, {})} for item in ids
        ]
    }
    if not all(each.exact for each in (*answers, *counts.values())):
        answer["exact"] = False
    return answer
