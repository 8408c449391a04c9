"""The embed: an item's views and downloads, for the item's own page."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from metronome.page.labels import is_weekend, unit_label, unit_tick
from metronome.page.model import Bar, Cell, Chart, Embed, Headline, Row, Table, Unit
from metronome.page.view import View
from metronome.reports.parameters import IS_VIEW_OR_DOWNLOAD, ReportParameters
from metronome.reports.query.series import list_time_units
from metronome.stores.base import Store
from metronome.stores.query import Equals, Filter, Query, QueryResult, SortKey

DAYS: Final = 28
ROWS: Final = 5

_MOST_FIRST: Final = (SortKey("count", descending=True),)


async def build_embed(store: Store, view: View, now: datetime) -> Embed:
    """Build what an item's own page shows: totals of all time, and views on each of the last days.

    Args:
        store: runs the queries.
        view: has the item and the time zone. Its range is ignored: the address of an embed stays the same for years.
        now: aware; the last day is that of this time.

    """
    item, zone = view.item or "", view.zone
    today = now.astimezone(zone).date()
    start, end = (
        datetime.combine(today + timedelta(days=days), time(), zone).astimezone(UTC) for days in (1 - DAYS, 1)
    )
    parameters = ReportParameters()

    def where(events: Filter) -> Filter:
        return parameters.build_filter(Equals("id", item), events)

    counts, days, formats, referrers = await store.query(
        Query(group_by=("event",), where=where(IS_VIEW_OR_DOWNLOAD)),
        Query(group_by=("day",), where=where(Equals("event", "view")), start=start, end=end, time_zone=view.time_zone),
        Query(group_by=("format",), where=where(Equals("event", "download")), sort_keys=_MOST_FIRST, limit=ROWS),
        Query(group_by=("referer",), where=where(IS_VIEW_OR_DOWNLOAD), sort_keys=_MOST_FIRST, limit=ROWS),
    )
    totals = counts.to_dict()
    return Embed(
        item=item,
        headlines=(
            _headline("views", "Views", totals.get("view")),
            _headline("downloads", "Downloads", totals.get("download")),
        ),
        chart=_chart(days, start, end, zone),
        tables=(
            _table("formats", "Downloads by format", formats, "None yet"),
            _table("referrers", "Where people come from", referrers, "No other site yet"),
        ),
        href=replace(view, filters=()).href(),
    )


def _headline(key: str, label: str, count: float | None) -> Headline:
    return Headline(key, label, count or 0, None, None, Unit.COUNT, "")


def _chart(days: QueryResult, start: datetime, end: datetime, zone: ZoneInfo) -> Chart:
    counts = days.to_dict()
    labels = list_time_units("day", start, end, zone)
    bars = tuple(
        Bar(
            label=unit_label(label, "day", zone),
            tick=unit_tick(label, "day"),
            value=counts.get(label, 0),
            previous=None,
            href="",
            is_weekend=is_weekend(label, "day"),
            is_incomplete=label == labels[-1],
        )
        for label in labels
    )
    most = max(bar.value or 0 for bar in bars)
    description = f"Views on each of the last {DAYS} days; at most {most:,}."
    return Chart("Views by day", description, Unit.COUNT, bars)


def _table(key: str, caption: str, result: QueryResult, empty: str) -> Table:
    rows = tuple(Row(name, name, "", (Cell(count),)) for name, count in result.to_dict().items())
    return Table(key, caption, ("Number",), rows, exact=result.exact, empty=empty)
