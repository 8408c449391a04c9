"""The tock: how one item is used."""

from typing import Any, Final

from metronome.reports.parameters import IS_VIEW_OR_DOWNLOAD, ReportParameters, exactness_fields, partial_fields
from metronome.stores.base import Store
from metronome.stores.query import Equals, Filter, Query, SortKey

PARAMETERS: Final = frozenset({"from", "to", "tz", "interval", "limit", "bots"})

_MOST_FIRST: Final = SortKey("count", descending=True)


def is_cheap(parameters: ReportParameters) -> bool:
    """Return whether the report is bound to be short."""
    return parameters.limit is not None and parameters.interval != "minute"


async def tock_report(store: Store, item: str, parameters: ReportParameters) -> dict[str, Any]:
    """Return an item's views over time, downloads by format, and referrers.

    Args:
        store: runs the queries.
        item: the item ID; an unknown item has empty results.
        parameters: the range, time zone, interval, and maximum number of formats and of referrers.

    Returns:
        ``views`` by interval, newest first, without empty ones; ``downloads`` by format; ``referers`` of both views
        and downloads; most frequent first. ``exact: false`` is added if the store estimated, and ``partial`` lists the
        units of ``views`` that the range or the current time cuts.

    """

    def count_by(group: str, event_filter: Filter, sort_key: SortKey, limit: int | None) -> Query:
        return Query(
            group_by=(group,),
            where=parameters.build_filter(Equals("id", item), event_filter),
            start=parameters.start,
            end=parameters.end,
            time_zone=parameters.tz,
            sort_keys=(sort_key,),
            limit=limit,
        )

    newest_first = SortKey(parameters.interval, descending=True)
    results = await store.query(
        count_by(parameters.interval, Equals("event", "view"), newest_first, None),
        count_by("format", Equals("event", "download"), _MOST_FIRST, parameters.limit),
        count_by("referer", IS_VIEW_OR_DOWNLOAD, _MOST_FIRST, parameters.limit),
    )
    views, downloads, referrers = (result.to_dict() for result in results)
    return {
        "views": views,
        "downloads": downloads,
        "referers": referrers,
        **exactness_fields(*results),
        **partial_fields(parameters, parameters.interval, views),
    }
