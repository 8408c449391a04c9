"""The page of a whole table, with search and paging."""

from dataclasses import replace
from datetime import datetime

from metronome.page.model import Link, TablePage, Viewer
from metronome.page.overview import build_controls, frame_in_store
from metronome.page.tables import ROWS_ON_TABLE_PAGE, build_table
from metronome.page.view import View
from metronome.reports.query.names import FieldChecker
from metronome.stores.base import Store


async def build_table_page(
    store: Store, field_checker: FieldChecker, view: View, viewer: Viewer, now: datetime
) -> TablePage:
    """Build the page of a whole table.

    Args:
        store: runs the queries.
        field_checker: knows the fields of the store.
        view: has the table's key, order, search and offset.
        viewer: who looks at it; whether they may is for the caller to check (see `table_needs_query`).
        now: aware.

    Raises:
        NotFound: there is no such table, or it has no such order.
        InvalidQuery: no event has the field of a filter.

    """
    table = await build_table(store, field_checker, view, viewer, now)
    controls = build_controls(await frame_in_store(store, view))
    heading = "All items" if view.item is None else view.item
    shown = view.offset + len(table.rows)
    earlier = max(0, view.offset - ROWS_ON_TABLE_PAGE)
    return TablePage(
        heading=heading,
        item=view.item,
        controls=controls,
        table=replace(table, more=None),
        back=Link(heading, view.leave_table().href()),
        viewer=viewer,
        computed_at=now,
        search=view.search,
        first=view.offset + 1,
        previous=Link("Previous", view.href(offset=earlier)) if view.offset else None,
        following=Link("Next", view.href(offset=shown)) if table.total is not None and shown < table.total else None,
    )
