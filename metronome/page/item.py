"""The page of an item: how it is used, by whom, from where, and what else its visitors view."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final
from urllib.parse import quote

from metronome.fields import FIELDS_BY_NAME, TIMING_FIELDS
from metronome.fields import Unit as FieldUnit
from metronome.page.labels import range_text
from metronome.page.live import build_live
from metronome.page.model import Cell, Link, Page, Row, Table, Unit, Viewer
from metronome.page.overview import (
    Frame,
    build_chart,
    build_controls,
    build_headlines,
    build_tables,
    frame_in_store,
    has_events,
    newest_span,
    page_queries,
    read_earlier_stays,
    read_frame_stays,
    run_named,
)
from metronome.page.stays import Stays
from metronome.page.tables import ROWS_ON_PAGE, as_number
from metronome.page.titles import read_title
from metronome.page.view import View
from metronome.reports.flow import top_counts
from metronome.reports.query.names import FieldChecker
from metronome.reports.recommendations import MIN_VISITORS, recommendations_report
from metronome.reports.sample import SampleLimits
from metronome.stores.base import Store
from metronome.stores.query import AnyOf, Exists, Metric, Query, QueryResult

_ALSO_VIEWED_LIMITS: Final = SampleLimits(sequences=500)
"""A tenth of the report's: it shows only the clearest items, and the rest of the page waits for it."""
_PERCENTS: Final = (50, 75, 95)
_TIMING_COLUMNS: Final = ("Median", "75 %", "95 %", "Measured")


async def build_item_page(
    store: Store,
    field_checker: FieldChecker,
    view: View,
    viewer: Viewer,
    now: datetime,
    *,
    min_visitors: int = MIN_VISITORS,
) -> Page:
    """Build the page of an item.

    Args:
        store: runs the queries.
        field_checker: knows the fields of the store.
        view: what to show; it has the item.
        viewer: who looks at it; whether they may is for the caller to check (see `View.needs_query`).
        now: aware.
        min_visitors: minimum number of shared visitors of an item that is also viewed.

    Raises:
        InvalidQuery: no event has the field of a filter.

    """
    await field_checker.check(view.parse_filters())
    frame = await frame_in_store(store, view)
    timings = await stored_timings(store)
    queries = page_queries(frame, viewer)
    if timings:
        queries["timings"] = timings_query(frame, timings)
    results, live, title = await asyncio.gather(
        run_named(store, queries), build_live(store, view, viewer, now), read_title(store, view.item or "", now)
    )
    stays, earlier_stays, also_viewed = await asyncio.gather(
        read_frame_stays(store, frame, results),
        read_earlier_stays(store, frame, results),
        build_also_viewed(store, frame, results, min_visitors),
    )
    headlines = build_headlines(frame, viewer, results, stays, earlier_stays)
    sections = (*flow_tables(view, stays), also_viewed, timings_table(results.get("timings"), timings))
    return Page(
        heading=title or view.item or "",
        item=view.item,
        controls=build_controls(frame),
        headlines=headlines,
        chart=build_chart(frame, now, results, stays, earlier_stays),
        tables=(*build_tables(frame, results, headlines), *(table for table in sections if table is not None)),
        viewer=viewer,
        computed_at=now,
        live=live,
        links=item_links(view),
        stored_events=await has_events(store, headlines),
    )


def item_links(view: View) -> tuple[Link, ...]:
    """Return links to other forms of an item's page."""
    name = quote(view.item or "", safe="")
    return (
        Link("Tock (JSON)", view.api_href(f"/tock/{name}.json")),
        Link("Days (CSV)", view.csv_href("days")),
        Link("Badge (SVG)", f"{view.base_path}/badge/{name}.svg?metric=downloads"),
    )


def flow_tables(view: View, stays: Stays) -> tuple[Table | None, Table | None]:
    """Return what sessions use right before and after an item; None where there is nothing."""
    flow = stays.flow
    if flow is None or not flow.sessions:
        return None, None
    rest = "" if stays.is_complete else f" Of the newest sessions of {_range(view, stays)}."
    before = f"{flow.entries:,} of {flow.sessions:,} sessions begin with this item.{rest}"
    after = f"{flow.exits:,} of {flow.sessions:,} sessions end with this item.{rest}"
    return (
        _flow_table(view, flow.before[0], Table("before", "Before", ("Times",), (), exact=not rest, note=before)),
        _flow_table(view, flow.after[0], Table("after", "After", ("Times",), (), exact=not rest, note=after)),
    )


def _flow_table(view: View, counts: Counter[str], empty: Table) -> Table | None:
    total = counts.total()
    rows = tuple(
        Row(
            name=item,
            text=item,
            href=view.open_item(item).href(),
            cells=(Cell(count),),
            share=count / total,
            page_href=view.open_item(item).href(),
        )
        for item, count in top_counts(counts, ROWS_ON_PAGE).items()
    )
    return replace(empty, rows=rows, total=len(counts)) if rows else None


def _range(view: View, stays: Stays) -> str:
    return range_text(stays.span.start, stays.span.end, view.zone)


async def build_also_viewed(
    store: Store, frame: Frame, results: Mapping[str, QueryResult], min_visitors: int
) -> Table | None:
    """Return what the visitors of an item also use; None if nothing stands out."""
    view = frame.view
    newest = newest_span(frame, frame.span, results["units"])
    parameters = view.parameters(newest.start, newest.end, ROWS_ON_PAGE)
    report = await recommendations_report(store, view.item, parameters, min_visitors, _ALSO_VIEWED_LIMITS)
    rows = tuple(
        Row(
            name=entry["id"],
            text=entry["id"],
            href=view.open_item(entry["id"]).href(),
            cells=(Cell(entry["visitors"]),),
            page_href=view.open_item(entry["id"]).href(),
        )
        for entry in report["items"]
    )
    if not rows:
        return None
    exact = newest == frame.span and report.get("exact", True)
    rest = "" if exact else f" Of the newest visitors of {range_text(newest.start, newest.end, view.zone)}."
    return Table(
        key="also-viewed",
        caption="Also viewed",
        columns=("Visitors",),
        rows=rows,
        exact=exact,
        note=f"Items that visitors of this one use more often than by chance, the clearest first.{rest}",
    )


async def stored_timings(store: Store) -> tuple[str, ...]:
    """Return the fields with timings that any event may have."""
    stored = await store.list_fields()
    return tuple(name for name in TIMING_FIELDS if name in stored)


def timings_query(frame: Frame, timings: tuple[str, ...]) -> Query:
    """Return the query for the percentiles of timings."""
    view, span = frame.view, frame.span
    has_timing = AnyOf(tuple(Exists(name) for name in timings))
    return Query(
        metrics=tuple(
            Metric.parse(text)
            for name in timings
            for text in (*(f"p{each}:{name}" for each in _PERCENTS), f"count:{name}")
        ),
        where=view.parameters(span.start, span.end).build_filter(*view.item_filters, has_timing),
        start=span.start,
        end=span.end,
    )


def timings_table(result: QueryResult | None, timings: tuple[str, ...]) -> Table | None:
    """Return the percentiles of timings; None if no event has one."""
    if result is None:
        return None
    width = len(_TIMING_COLUMNS)
    rows = []
    for at, name in enumerate(timings):
        *percentiles, count = result.rows[0][at * width : (at + 1) * width]
        if count:
            known = FIELDS_BY_NAME[name]
            unit = Unit.SCORE if known.unit is FieldUnit.SCORE else Unit.MILLISECONDS
            cells = (*(Cell(as_number(value), unit) for value in percentiles), Cell(as_number(count)))
            rows.append(Row(name, known.label or name.capitalize(), "", cells))
    if not rows:
        return None
    return Table(
        key="performance",
        caption="Performance",
        columns=_TIMING_COLUMNS,
        rows=tuple(rows),
        exact=result.exact,
        note="Percentiles of all measurements: 75 % of them are at most the number in that column.",
    )
