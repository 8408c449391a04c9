"""The last half hour."""

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from metronome.page.model import Live, LiveEvent, Viewer
from metronome.page.view import View
from metronome.reports.parameters import IS_VIEW_OR_DOWNLOAD
from metronome.reports.query.series import list_time_units
from metronome.stores.base import Store
from metronome.stores.query import Query, QueryResult

MINUTES: Final = 30
EVENTS: Final = 10


def live_query(view: View, now: datetime) -> Query:
    """Return the query for the views and downloads by minute."""
    start, end = live_range(now)
    item = view.item_filters
    where = view.parameters(start, end).build_filter(IS_VIEW_OR_DOWNLOAD, *item)
    return Query(group_by=("minute",), where=where, start=start, end=end)


def live_range(now: datetime) -> tuple[datetime, datetime]:
    """Return the last `MINUTES` minutes, the current one included."""
    end = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return end - timedelta(minutes=MINUTES), end


def build_minutes(result: QueryResult, now: datetime) -> tuple[int, ...]:
    """Return the number of views and downloads in each minute, oldest first."""
    counts = result.to_dict()
    return tuple(int(counts.get(label) or 0) for label in list_time_units("minute", *live_range(now), ZoneInfo("UTC")))


async def build_live(store: Store, view: View, viewer: Viewer, now: datetime) -> Live:
    """Build the last half hour of a view, whatever its range.

    Args:
        store: runs the queries.
        view: its filters apply.
        viewer: events are only for those who can query.
        now: aware.

    """
    (result,) = await store.query(live_query(view, now))
    minutes = build_minutes(result, now)
    events: tuple[LiveEvent, ...] = ()
    return Live(minutes, sum(minutes), view.live_href(), events, is_locked=not viewer.can_query)
