"""An item's usage for a frame on the item's own page."""

from dataclasses import replace
from datetime import datetime

from metronome.page.model import Embed, Viewer
from metronome.page.overview import (
    build_chart,
    build_headlines,
    build_tables,
    chart_queries,
    frame_in_store,
    headline_queries,
    run_named,
    table_queries,
)
from metronome.page.view import View
from metronome.stores.base import Store

_HEADLINES = frozenset({"views", "downloads"})
_TABLES = frozenset({"formats", "referrers"})
_VIEWER = Viewer(can_query=False)


async def build_embed(store: Store, view: View, now: datetime) -> Embed:
    """Build an item's views and downloads, with what the scope ``tock`` allows.

    Args:
        store: runs the queries.
        view: has the item and the range.
        now: aware.

    """
    frame = await frame_in_store(store, replace(view, compare="none"))
    tables = {name: query for name, query in table_queries(frame, _VIEWER).items() if name.partition(":")[2] in _TABLES}
    results = await run_named(store, headline_queries(frame, _VIEWER) | chart_queries(frame) | tables)
    headlines = build_headlines(frame, _VIEWER, results)
    return Embed(
        item=view.item or "",
        headlines=tuple(headline for headline in headlines if headline.key in _HEADLINES),
        chart=build_chart(frame, now, results),
        tables=tuple(build_tables(frame, results, headlines)),
        href=view.href(),
    )
