"""Tock: how one item is used."""

from typing import Any, Final

from metronome.reports.parameters import Parameters
from metronome.stores.base import Store
from metronome.stores.query import Equals, OneOf, Order, Question

NAME: Final = "tock"
PARAMETERS: Final = frozenset({"from", "to", "tz", "interval", "limit", "bots"})


def is_quick(asked: Parameters) -> bool:
    """Tell whether the answer cannot be very long."""
    return asked.limit is not None and asked.interval != "minute"


async def tock(store: Store, item: str, asked: Parameters) -> dict[str, Any]:
    """Answer how often an item was viewed by time, downloaded by format, and where people came from.

    Args:
        store: what is asked.
        item: the item's id; one that was never seen has three empty answers.
        asked: the range, zone, interval, and how many formats and referers at most.

    Returns:
        ``views`` by interval, newest first, without empty ones; ``downloads`` by format and ``referers`` of
        views and downloads alike, most first. ``exact: false`` is added where a store could only estimate.

    """
    views, downloads, referers = await store.ask(
        _question(asked, item, "view", asked.interval, Order(asked.interval, descending=True), None),
        _question(asked, item, "download", "format", _MOST, asked.limit),
        Question(
            by=("referer",),
            where=asked.only(Equals("id", item), OneOf("event", ("view", "download"))),
            start=asked.start,
            end=asked.end,
            tz=asked.tz,
            order=(_MOST,),
            limit=asked.limit,
        ),
    )
    answer: dict[str, Any] = {
        "views": views.mapping(),
        "downloads": downloads.mapping(),
        "referers": referers.mapping(),
    }
    if not (views.exact and downloads.exact and referers.exact):
        answer["exact"] = False
    return answer


_MOST: Final = Order("count", descending=True)


def _question(asked: Parameters, item: str, event: str, by: str, order: Order, limit: int | None) -> Question:
    return Question(
        by=(by,),
        where=asked.only(Equals("id", item), Equals("event", event)),
        start=asked.start,
        end=asked.end,
        tz=asked.tz,
        order=(order,),
        limit=limit,
    )
