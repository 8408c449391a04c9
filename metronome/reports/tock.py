"""Tock: how one item is used."""

from typing import Any, Final

from metronome.reports.parameters import ReportParameters
from metronome.stores.base import Store
from metronome.stores.query import Equals, OneOf, Query, SortKey

NAME: Final = "tock"
PARAMETERS: Final = frozenset({"from", "to", "tz", "interval", "limit", "bots"})


def is_cheap(parameters: ReportParameters) -> bool:
    """Tell whether the answer cannot be very long."""
    return parameters.limit is not None and parameters.interval != "minute"


async def tock_report(store: Store, item: str, parameters: ReportParameters) -> dict[str, Any]:
    """Answer how often an item was viewed by time, downloaded by format, and where people came from.

    Args:
        store: what is asked.
        item: the item's id; one that was never seen has three empty answers.
        parameters: the range, zone, interval, and how many formats and referers at most.

    Returns:
        ``views`` by interval, newest first, without empty ones; ``downloads`` by format and ``referers`` of
        views and downloads alike, most first. ``exact: false`` is added where a store could only estimate.

    """
    views, downloads, referers = await store.query(
        _item_query(parameters, item, "view", parameters.interval, SortKey(parameters.interval, descending=True), None),
        _item_query(parameters, item, "download", "format", _MOST_FIRST, parameters.limit),
        Query(
            group_by=("referer",),
            where=parameters.build_filter(Equals("id", item), OneOf("event", ("view", "download"))),
            start=parameters.start,
            end=parameters.end,
            time_zone=parameters.tz,
            sort_keys=(_MOST_FIRST,),
            limit=parameters.limit,
        ),
    )
    answer: dict[str, Any] = {
        "views": views.to_dict(),
        "downloads": downloads.to_dict(),
        "referers": referers.to_dict(),
    }
    if not (views.exact and downloads.exact and referers.exact):
        answer["exact"] = False
    return answer


_MOST_FIRST: Final = SortKey("count", descending=True)


def _item_query(
    parameters: ReportParameters, item: str, event: str, by: str, order: SortKey, limit: int | None
) -> Query:
    return Query(
        group_by=(by,),
        where=parameters.build_filter(Equals("id", item), Equals("event", event)),
        start=parameters.start,
        end=parameters.end,
        time_zone=parameters.tz,
        sort_keys=(order,),
        limit=limit,
    )
