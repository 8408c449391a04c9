"""The last half hour."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from metronome.page.labels import time_text, value_text
from metronome.page.model import Live, LiveEvent, Viewer
from metronome.page.view import View
from metronome.reports.parameters import IS_VIEW_OR_DOWNLOAD
from metronome.reports.query.series import list_time_units
from metronome.stores.base import Store
from metronome.stores.query import Not, OneOf, Query, QueryResult

MINUTES: Final = 30
EVENTS: Final = 10
_NOT_BACKGROUND: Final = Not(OneOf("event", ("heartbeat", "timing")))
"""The newest events are those of people, not what their browsers send in between."""


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
    if viewer.can_query:
        where = view.parameters(None, now).build_filter(*view.item_filters, _NOT_BACKGROUND)
        documents = await store.newest_documents(EVENTS, where)
        events = tuple(read_event(orjson.loads(document), view) for document in documents)
    return Live(minutes, sum(minutes), view.live_href(), events, is_locked=not viewer.can_query)


def read_event(document: Mapping[str, Any], view: View) -> LiveEvent:
    """Return what the page says about an event."""
    item = _text(document, "id")
    details = (
        _text(document, "format"),
        value_text("country", country) if (country := _text(document, "country")) else "",
        _text(document, "referer_group") or _text(document, "referer"),
        _text(document, "browser"),
        _text(document, "bot"),
        _text(document, "error_group"),
    )
    moment = datetime.fromisoformat(str(document["@timestamp"])).astimezone(view.zone)
    return LiveEvent(
        time=moment,
        time_text=time_text(moment, view.now, view.zone),
        event=_text(document, "event"),
        item=item,
        href=view.open_item(item).href() if item else "",
        details=tuple(detail for detail in details if detail),
    )


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else "" if value is None else str(value)
