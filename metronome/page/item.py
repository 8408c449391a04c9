"""The page of an item: how it is used, by whom, from where, and what else its visitors view."""

from datetime import datetime
from urllib.parse import quote

from metronome.page.live import build_live
from metronome.page.model import Link, Page, Viewer
from metronome.page.overview import (
    build_chart,
    build_controls,
    build_headlines,
    build_tables,
    chart_queries,
    frame_in_store,
    has_events,
    headline_queries,
    run_named,
    table_queries,
)
from metronome.page.view import View
from metronome.reports.query.names import FieldChecker
from metronome.stores.base import Store


async def build_item_page(store: Store, field_checker: FieldChecker, view: View, viewer: Viewer, now: datetime) -> Page:
    """Build the page of an item.

    Args:
        store: runs the queries.
        field_checker: knows the fields of the store.
        view: what to show; it has the item.
        viewer: who looks at it; whether they may is for the caller to check (see `View.needs_query`).
        now: aware.

    Raises:
        InvalidQuery: no event has the field of a filter.

    """
    await field_checker.check(view.parse_filters())
    frame = await frame_in_store(store, view)
    queries = headline_queries(frame, viewer) | chart_queries(frame) | table_queries(frame, viewer)
    results = await run_named(store, queries)
    headlines = build_headlines(frame, viewer, results)
    return Page(
        heading=view.item or "",
        item=view.item,
        controls=build_controls(frame),
        headlines=headlines,
        chart=build_chart(frame, now, results),
        tables=tuple(build_tables(frame, results, headlines)),
        viewer=viewer,
        computed_at=now,
        live=await build_live(store, view, viewer, now),
        links=item_links(view),
        stored_events=await has_events(store, headlines),
    )


def item_links(view: View) -> tuple[Link, ...]:
    """Return links to other forms of an item's page."""
    name = quote(view.item or "", safe="")
    return (
        Link("Tock (JSON)", view.api_href(f"/tock/{name}.json")),
        Link("Badge", f"{view.base_path}/badge/{name}.svg?metric=downloads"),
    )
