"""Every number on a page is what ``/query`` answers, and what the page that it links to shows."""

import random
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import unquote

import pytest
import pytest_asyncio

from metronome.page.item import build_item_page
from metronome.page.model import Chart, Headline, Page, Viewer
from metronome.page.overview import build_overview
from metronome.page.tables import TABLES_BY_KEY
from metronome.page.view import Span, View, format_bound, parse_view, resolve_earlier
from metronome.reports.dwell_time import time_report
from metronome.reports.parameters import ReportParameters
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.parse import parse_query_string
from metronome.reports.query.request import parse_query
from metronome.reports.query.run import run_query
from metronome.stores.base import Store
from tests.page.stored import NOW, made_up_events
from tests.reports.filled import BACK_ENDS, filled

VIEWS: Final = (
    "/",
    "/?range=7d&tz=Europe/Zurich&interval=hour",
    "/?range=all&metric=downloads",
    "/?range=month&tz=America/New_York&metric=visitors&compare=year",
    "/?from=2015-02-03&to=2015-03-10&country=US&browser!=Chrome&interval=week",
    "/?range=12m&metric=errors&order=downloads",
    "/?from=2015-03-01T10:30:00Z&to=2015-03-31T09:00:00Z&referer^=exa&bots=1&compare=none",
    "/?range=last-month&bot=Googlebot",
    "/?range=all&order=visitors&referer_group=example.org",
    "/items/rivers",
    "/items/a%2Fb%20c?range=all&metric=visitors&utm_campaign=spring",
    "/items/rivers?range=today&metric=downloads",
)
EVENTS: Final = {
    "views": "&event=view",
    "downloads": "&event=download",
    "errors": "&event=error",
    "visitors": "&event=view&event=download",
}
METRICS: Final = {"visitors": "visitors"}


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, made_up_events()) as store:
        yield store


def view_at(address: str) -> View:
    path, _, query = address.partition("?")
    return parse_view(query, NOW, item=unquote(path.removeprefix("/items/")) if path.startswith("/items/") else None)


async def page_at(store: Store, address: str) -> Page:
    view = view_at(address)
    build = build_overview if view.item is None else build_item_page
    return await build(store, FieldChecker(store), view, Viewer(), NOW)


async def query_rows(store: Store, query: str) -> list[Any]:
    result = await run_query(store, FieldChecker(store), parse_query(parse_query_string(query), NOW), NOW)
    return list(result.rows)


def query_of(view: View, span: Span | None, key: str) -> str:
    """Return what `/query` needs for a number of a view."""
    _, _, address = view.change(table="x").href().partition("?")
    names = {"range", "from", "to", "tz", "interval", "metric", "compare", "bots", "order"}
    kept = [part for part in address.split("&") if part and part.partition("=")[0] not in names]
    if span is not None:
        kept += [
            f"from={format_bound(span.start, view.zone, is_end=False)}",
            f"to={format_bound(span.end, view.zone, is_end=True)}",
        ]
    else:
        kept.append(f"to={format_bound(view.period.end, view.zone, is_end=True)}")
    bots = "&bots=1" if view.bots else ""
    return f"metrics={METRICS.get(key, 'count')}&tz={view.time_zone}{bots}{EVENTS[key]}&{'&'.join(kept)}"


def span_of(view: View) -> Span | None:
    period = view.period
    return None if period.start is None else Span(period.start, period.end)


def headline_of(page: Page, key: str) -> Headline:
    return next(headline for headline in page.headlines if headline.key == key)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("address", VIEWS)
async def test_headlines_are_what_a_query_answers(store: Store, address: str) -> None:
    view, page = view_at(address), await page_at(store, address)
    span = span_of(view)
    for key in EVENTS:
        headline = headline_of(page, key)
        if headline.is_locked:
            continue
        ((value,),) = await query_rows(store, query_of(view, span, key))
        assert headline.value == value, key
        earlier = None if span is None else resolve_earlier(view, span)
        if earlier is None:
            assert headline.previous is None
        else:
            ((previous,),) = await query_rows(store, query_of(view, earlier.elapsed, key))
            assert headline.previous == previous, key
            assert headline.change == (None if not previous else (value - previous) / previous)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("address", VIEWS)
async def test_bars_are_what_a_query_answers(store: Store, address: str) -> None:
    view, page = view_at(address), await page_at(store, address)
    span, unit = span_of(view), unit_of(page.chart)
    rows = await query_rows(store, f"{query_of(view, span, view.metric)}&by={unit}&fill=1&limit=0")
    values = [value for _, value in rows]
    if span is None:
        # The chart starts with the first event of any kind.
        values = [0] * (len(page.chart.bars) - len(values)) + values
    assert [bar.value for bar in page.chart.bars] == values
    earlier = None if span is None else resolve_earlier(view, span)
    if earlier is not None and unit == "day" and view.compare == "previous" and not earlier.is_partial:
        rows = await query_rows(store, f"{query_of(view, earlier.whole, view.metric)}&by={unit}&fill=1&limit=0")
        shown = [bar.previous for bar in page.chart.bars if bar.previous is not None]
        assert shown == [value for _, value in rows][: len(shown)]


def unit_of(chart: Chart) -> str:
    return next(link.text.lower() for link in chart.intervals if link.is_current)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("address", VIEWS)
async def test_tables_are_what_a_query_answers(store: Store, address: str) -> None:
    view, page = view_at(address), await page_at(store, address)
    for table in page.tables:
        definition = TABLES_BY_KEY.get(table.key)
        if definition is None or not table.rows:
            continue
        for at, column in enumerate(table.columns):
            key = column.lower()
            bots = "&bots=1&bot=*" if definition.only_bots and not view.bots else ""
            query = f"{query_of(view, span_of(view), key)}{bots}&by={definition.field}&limit=0"
            expected = dict(await query_rows(store, query))
            assert {row.name: row.cells[at].value for row in table.rows} == {
                row.name: expected.get(row.name, 0) for row in table.rows
            }, (table.key, column)
            if not at:
                assert table.total == len(expected)
                best = sorted(expected.items(), key=lambda entry: (-entry[1], entry[0]))[: len(table.rows)]
                assert [row.name for row in table.rows] == [name for name, _ in best]


@pytest.mark.slow  # it builds many pages
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("address", VIEWS)
async def test_the_page_that_a_number_links_to_shows_the_number(store: Store, address: str) -> None:
    page = await page_at(store, address)
    draw = random.Random(address)
    links: list[tuple[str, float | None]] = [(bar.href, bar.value) for bar in page.chart.bars if bar.value]
    links += [
        (cell.href, cell.value)
        for table in page.tables
        for row in table.rows
        for cell in row.cells
        if cell.href and table.key in TABLES_BY_KEY
    ]
    for href, value in draw.sample(links, min(4, len(links))):
        linked = await page_at(store, href)
        selected = next(headline for headline in linked.headlines if headline.is_selected)
        assert selected.value == value, href


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("item", [None, "rivers"])
async def test_the_median_time_is_that_of_the_report(store: Store, item: str | None) -> None:
    page = await page_at(store, "/?range=all" if item is None else f"/items/{item}?range=all")
    report = await time_report(store, item, ReportParameters())
    headline = headline_of(page, "time")
    assert (headline.value, headline.exact) == (report["on_item"]["p50"], True)


@pytest.mark.asyncio(loop_scope="module")
async def test_viewers_without_the_scope_query_see_no_errors_and_no_events(store: Store) -> None:
    view = view_at("/?range=all")
    page = await build_overview(store, FieldChecker(store), view, Viewer(can_query=False), NOW)
    errors = headline_of(page, "errors")
    assert (errors.is_locked, errors.value, errors.previous) == (True, None, None)
    assert "errors" not in {table.key for table in page.tables}
    assert page.live is not None
    assert page.live.is_locked
    assert page.live.events == ()
