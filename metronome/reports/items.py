"""Items: which are used most."""

from typing import Any, Final

from metronome.errors import Unaskable
from metronome.question import Equals, Filter, OneOf, Order, Question
from metronome.reports.parameters import Parameters
from metronome.stores.store import Store

PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots", "order"})
_EVENT_OF: Final = {"views": "view", "downloads": "download"}


async def items(store: Store, asked: Parameters) -> dict[str, Any]:
    """Answer which items were viewed, or downloaded, most.

    Args:
        store: what is asked.
        asked: the range, how many items at most, and ``order``: ``views``, the default, or ``downloads``.

    Returns:
        ``items``, most used first, each with its ``id``, ``views`` and ``downloads``. ``exact: false`` is
        added where a store could only estimate.

    Raises:
        Unaskable: the order is another.

    """
    order = asked.order or "views"
    if order not in _EVENT_OF:
        raise Unaskable(f"order={order[:60]} is not known: choose one of {', '.join(_EVENT_OF)}")
    other = "downloads" if order == "views" else "views"
    most, others = await store.ask(_counts(asked, order, asked.limit), _counts(asked, other, asked.limit))
    # Items that were only used otherwise follow, where there is room.
    ids = list(dict.fromkeys(str(row[0]) for row in (*most.rows, *others.rows)))[: asked.limit]
    rest = others
    if asked.limit is not None:
        (rest,) = await store.ask(_counts(asked, other, None, OneOf("id", tuple(ids))))
    counts = {order: most.mapping(), other: rest.mapping()}
    answer: dict[str, Any] = {
        "items": [
            {"id": item, "views": counts["views"].get(item, 0), "downloads": counts["downloads"].get(item, 0)}
            for item in ids
        ]
    }
    if not (most.exact and others.exact and rest.exact):
        answer["exact"] = False
    return answer


def _counts(asked: Parameters, order: str, limit: int | None, *filters: Filter) -> Question:
    return Question(
        by=("id",),
        where=asked.only(Equals("event", _EVENT_OF[order]), *filters),
        start=asked.start,
        end=asked.end,
        tz=asked.tz,
        order=(Order("count", descending=True),),
        limit=limit,
    )
