"""The tock: how one item is used, or several."""

import asyncio
from collections import defaultdict
from typing import Any, Final

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.reports.parameters import (
    CHEAP_MAX_ROWS,
    IS_VIEW_OR_DOWNLOAD,
    ReportParameters,
    exactness_fields,
    excerpt,
    partial_fields,
)
from metronome.stores.base import Store
from metronome.stores.query import AnyOf, Equals, Filter, OneOf, Prefix, Query, QueryResult, SortKey

PARAMETERS: Final = frozenset({"from", "to", "tz", "interval", "limit", "bots"})
SEVERAL_PARAMETERS: Final = PARAMETERS | {"id", "prefix"}
MAX_ITEMS: Final = 1000
"""Maximum number of items in the report about several."""

_MOST_FIRST: Final = SortKey("count", descending=True)
_PREFIX_MAX_BYTES: Final = 500


def is_cheap(parameters: ReportParameters) -> bool:
    """Return whether the report is bound to be short."""
    return parameters.limit is not None and parameters.limit <= CHEAP_MAX_ROWS and parameters.interval != "minute"


async def tock_report(store: Store, item: str, parameters: ReportParameters) -> dict[str, Any]:
    """Return an item's views over time, downloads by format, and referrers.

    Args:
        store: runs the queries.
        item: the item ID; an unknown item has empty results.
        parameters: the range, time zone, interval, and maximum number of formats and of referrers.

    Returns:
        ``views`` by interval, newest first, without empty ones; ``downloads`` by format; ``referers`` of both views
        and downloads; most frequent first. ``totals`` has the number of all ``views`` and ``downloads``, also of those
        without a format. ``exact: false`` is added if the store estimated, and ``partial`` lists the units of ``views``
        that the range or the current time cuts.

    """

    def count_by(group: str, event_filter: Filter, sort_key: SortKey, limit: int | None, tz: str) -> Query:
        return Query(
            group_by=(group,),
            where=parameters.build_filter(Equals("id", item), event_filter),
            start=parameters.start,
            end=parameters.end,
            time_zone=tz,
            sort_keys=(sort_key,),
            limit=limit,
        )

    tz, limit = parameters.tz, parameters.limit
    newest_first = SortKey(parameters.interval, descending=True)
    results = await store.query(
        count_by(parameters.interval, Equals("event", "view"), newest_first, None, tz),
        count_by("format", Equals("event", "download"), _MOST_FIRST, limit, tz),
        count_by("referer", IS_VIEW_OR_DOWNLOAD, _MOST_FIRST, limit, tz),
        # In the same way as the formats, so that a store can count both at once.
        count_by("event", Equals("event", "download"), _MOST_FIRST, None, tz),
    )
    if sum(len(result.rows) for result in results) > CHEAP_MAX_ROWS:
        counts = await asyncio.to_thread(lambda: [result.to_dict() for result in results])
    else:
        counts = [result.to_dict() for result in results]
    views, downloads, referrers, events = counts
    totals = {"views": sum(count or 0 for count in views.values()), "downloads": events.get("download", 0)}
    return {
        "views": views,
        "downloads": downloads,
        "referers": referrers,
        "totals": totals,
        **exactness_fields(*results),
        **partial_fields(parameters, parameters.interval, views),
    }


async def several_tocks_report(
    store: Store, items: tuple[str, ...], prefix: str, parameters: ReportParameters
) -> dict[str, Any]:
    """Return how several items are used.

    Args:
        store: runs the queries.
        items: item IDs; one that is unknown has empty results.
        prefix: also all used items whose IDs begin with this text; empty for none.
        parameters: as of `tock_report`; the limit is that of each item.

    Returns:
        ``items``: for each ID what `tock_report` returns about it, in the order of *items*, then of their IDs; and
        ``totals``, the sum of all. ``exact: false`` and ``partial`` are added as in `tock_report`.

    Raises:
        InvalidQuery: no item is given, too many are, or the prefix is too long.
        QueryTooExpensive: too many items begin with the prefix, or they have too many groups.

    """
    ids = tuple(dict.fromkeys(items))
    if not ids and not prefix:
        raise InvalidQuery("which items? add id=…, which can be repeated, or prefix=… for all IDs that begin alike")
    if len(ids) > MAX_ITEMS:
        raise InvalidQuery(f"{len(ids):,} items are over the maximum of {MAX_ITEMS:,}: send several requests")
    if len(prefix.encode(errors="replace")) > _PREFIX_MAX_BYTES:
        raise InvalidQuery(f"the prefix {excerpt(prefix)}… is over {_PREFIX_MAX_BYTES} bytes: shorten it")
    chosen: list[Filter] = [*((OneOf("id", ids),) if ids else ()), *((Prefix("id", prefix),) if prefix else ())]
    selected = chosen[0] if len(chosen) == 1 else AnyOf(tuple(chosen))

    def count_by(group: str, event_filter: Filter) -> Query:
        return Query(
            group_by=("id", group),
            where=parameters.build_filter(selected, event_filter),
            start=parameters.start,
            end=parameters.end,
            time_zone=parameters.tz,
        )

    results = await store.query(
        count_by(parameters.interval, Equals("event", "view")),
        count_by("format", Equals("event", "download")),
        count_by("referer", IS_VIEW_OR_DOWNLOAD),
        count_by("event", IS_VIEW_OR_DOWNLOAD),
    )
    if not all(result.is_complete for result in results):
        raise QueryTooExpensive("these items have too many days, formats or referrers: use fewer items, or a range")
    views, downloads, referrers, events = map(_counts_by_item, results)
    found = sorted(events.keys() - {*ids})
    if len(ids) + len(found) > MAX_ITEMS:
        raise QueryTooExpensive(
            f"{len(found):,} items begin with {excerpt(prefix)!r}, over the maximum of {MAX_ITEMS:,}: use a longer "
            "prefix, or a shorter range"
        )
    reports = {
        item: {
            # Units are in order; the newest are first.
            "views": dict(reversed(views[item].items())),
            "downloads": _most_frequent(downloads[item], parameters.limit),
            "referers": _most_frequent(referrers[item], parameters.limit),
            "totals": {"views": events[item].get("view", 0), "downloads": events[item].get("download", 0)},
        }
        for item in (*ids, *found)
    }
    units = {unit for report in reports.values() for unit in report["views"]}
    return {
        "items": reports,
        "totals": {name: sum(report["totals"][name] for report in reports.values()) for name in ("views", "downloads")},
        **exactness_fields(*results),
        **partial_fields(parameters, parameters.interval, units),
    }


def _counts_by_item(result: QueryResult) -> defaultdict[str, dict[str, int]]:
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for item, label, count in result.rows:
        counts[str(item)][str(label)] = int(count or 0)
    return counts


def _most_frequent(counts: dict[str, int], limit: int | None) -> dict[str, int]:
    # In the order of labels before: sorting keeps it among equal counts.
    return dict(sorted(counts.items(), key=lambda entry: -entry[1])[:limit])
