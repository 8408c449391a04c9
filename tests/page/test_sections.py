"""The sections of pages beyond counts: what is live, whole tables, rising items, and the parts of an item's page."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import pytest_asyncio

from metronome.errors import InvalidQuery, NotFound
from metronome.page.item import build_item_page
from metronome.page.labels import (
    comparison_text,
    country_names,
    filter_text,
    range_text,
    time_text,
    unit_label,
    unit_tick,
)
from metronome.page.live import build_live
from metronome.page.model import Page, Table, Unit, Viewer
from metronome.page.overview import build_overview, build_table_page
from metronome.page.stays import newest_units, read_stays
from metronome.page.tables import ROWS_ON_TABLE_PAGE, TABLES, build_table, table_csv, table_needs_query
from metronome.page.view import Span, View, parse_view, resolve_earlier
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.parse import QueryPart
from metronome.reports.sample import SampleLimits
from metronome.stores.base import Store
from tests.page.stored import NOW, made_up_events, store_of, view_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with store_of(tmp_path_factory.mktemp("store"), made_up_events()) as store:
        yield store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def overview(store: Store, view: View, now: datetime = NOW) -> Page:
    return await build_overview(store, FieldChecker(store), view, Viewer(), now)


async def item_page(store: Store, view: View, min_visitors: int = 2) -> Page:
    return await build_item_page(store, FieldChecker(store), view, Viewer(), NOW, min_visitors=min_visitors)


async def whole_table(store: Store, view: View, limit: int = ROWS_ON_TABLE_PAGE) -> Table:
    return await build_table(store, FieldChecker(store), view, Viewer(), NOW, limit=limit)


def table_of(page: Page, key: str) -> Table:
    return next(table for table in page.tables if table.key == key)


def cells_of(table: Table) -> dict[str, tuple[float | None, ...]]:
    return {row.name: tuple(cell.value for cell in row.cells) for row in table.rows}


def at(minutes_ago: float, **fields: Any) -> dict[str, Any]:
    return {"ts": (NOW - timedelta(minutes=minutes_ago)).isoformat(), "id": "a", "event": "view", **fields}


async def test_live_shows_the_last_minutes_and_the_newest_events(folder: Path) -> None:
    events = [
        at(40, country="DE"),
        at(28.5),
        at(3, event="download", format="csv", country="CH", browser="Firefox"),
        at(2.9, bot="Googlebot"),
        at(0, id="b/c", event="signup"),
        at(0, id="b/c", event="heartbeat"),
        at(0, id="b/c", event="timing"),
        *(at(9999 + number) for number in range(9)),
    ]
    async with store_of(folder, events) as store:
        live = await build_live(store, view_of("?range=last-month"), Viewer(), NOW)
        assert len(live.minutes) == 30
        assert live.total == sum(live.minutes) == 2
        assert live.minutes[-4] == 1
        assert [(event.event, event.item, event.details) for event in live.events[:3]] == [
            ("signup", "b/c", ()),
            ("download", "a", ("csv", "Switzerland", "Firefox")),
            ("view", "a", ()),
        ]
        assert live.events[0].href == "/items/b%2Fc?range=last-month"
        assert len(live.events) == 10
        only_german = await build_live(store, view_of("?country=DE"), Viewer(), NOW)
        assert [event.details for event in only_german.events] == [("Germany",)]


async def test_an_empty_store_has_a_page_that_says_so(folder: Path) -> None:
    async with store_of(folder, []) as store:
        for address in ("", "?range=all", "?range=today&metric=time"):
            page = await overview(store, view_of(address))
            assert not page.stored_events
            assert [headline.value for headline in page.headlines if headline.key != "time"] == [0, 0, 0, 0]
            assert [table.key for table in page.tables] == ["items"]
            assert page.chart.description.endswith(": none.")


async def test_a_range_without_events_offers_a_longer_one(folder: Path) -> None:
    async with store_of(folder, [at(60 * 24 * 200)]) as store:
        page = await overview(store, view_of("?range=7d"))
        assert page.stored_events
        assert page.controls.widen is not None
        assert (await overview(store, view_of(page.controls.widen.href))).headlines[0].value == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_field_that_no_event_has_is_rejected(store: Store) -> None:
    with pytest.raises(InvalidQuery, match="no event has the field 'contry'"):
        await overview(store, view_of("?contry=CH"))


@pytest.mark.asyncio(loop_scope="module")
async def test_whole_tables_have_all_measures_search_and_pages(store: Store) -> None:
    table = await whole_table(store, view_of("?range=all", table="countries"))
    assert table.columns == ("Views", "Downloads", "Visitors")
    assert table.rows[0].text == "United States"
    assert table.more is None
    downloads = await whole_table(store, view_of("?range=all&order=downloads", table="countries"), limit=2)
    assert downloads.columns == ("Downloads", "Views", "Visitors")
    assert (len(downloads.rows), downloads.total) == (2, 3)
    assert [link.text for link in downloads.orders if link.is_current] == ["Downloads"]
    assert {
        name: (values[1], values[0], values[2]) for name, values in cells_of(downloads).items()
    }.items() <= cells_of(table).items()
    searched = await whole_table(store, view_of("?range=all&search=SWITZER", table="countries"))
    assert [(row.name, searched.total) for row in searched.rows] == [("CH", 1)]
    nothing = await whole_table(store, view_of("?range=all&search=xyz", table="countries"))
    assert (nothing.rows, nothing.empty) == ((), "No countries contain “xyz”.")


@pytest.mark.asyncio(loop_scope="module")
async def test_pages_of_a_table_lead_to_each_other(store: Store) -> None:
    view = view_of("?range=all&offset=100", table="days")
    page = await build_table_page(store, FieldChecker(store), view, Viewer(), NOW)
    assert page.first == 101
    assert page.table.total == 90
    assert page.previous is not None
    assert parse_qs(urlsplit(page.previous.href).query) == {"range": ["all"]}
    assert page.following is None
    assert page.back.href == "/?range=all"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_days_of_an_item_are_a_table_without_gaps(store: Store) -> None:
    table = await whole_table(store, view_of("?range=7d&id=rivers", table="days"))
    page = await item_page(store, view_of("?range=7d", item="rivers"))
    assert [row.name for row in table.rows] == [f"2015-03-{day}" for day in range(31, 24, -1)]
    assert [row.cells[0].value for row in reversed(table.rows)] == [bar.value for bar in page.chart.bars]


@pytest.mark.asyncio(loop_scope="module")
async def test_every_table_is_csv(store: Store) -> None:
    for definition in TABLES:
        table = await whole_table(store, view_of("?range=all", table=definition.key), limit=100_000)
        header, *lines = table_csv(table).decode().splitlines()
        assert header.startswith("name,"), definition.key
        assert len(lines) == len(table.rows) == table.total
    countries = table_csv(await whole_table(store, view_of("?range=all", table="countries"))).decode().splitlines()
    assert countries[0] == "name,text,views,downloads,visitors"
    assert countries[1].startswith("US,United States,")


async def test_days_are_searched_by_their_date(store: Store) -> None:
    table = await whole_table(store, view_of("?range=12m&search=03-2&offset=2", table="days"), limit=3)
    assert (table.total, [row.name for row in table.rows]) == (10, ["2015-03-27", "2015-03-26", "2015-03-25"])
    nothing = await whole_table(store, view_of("?range=12m&search=no", table="days"))
    assert nothing.empty == "No days contain “no”."


async def test_a_file_of_days_has_no_links(store: Store) -> None:
    view = view_of("?range=12m", table="days")
    table = await build_table(store, FieldChecker(store), view, Viewer(), NOW, has_links=False)
    assert {link for row in table.rows for link in (row.href, *(cell.href for cell in row.cells))} == {""}


async def test_rising_items_are_searched_and_have_pages(folder: Path) -> None:
    events = [at(60, id=f"item {number}") for number in range(5) for _ in range(9 - number)]
    async with store_of(folder, events) as store:
        paged = await whole_table(store, view_of("?range=7d&order=rising&offset=3", table="items"), limit=1)
        found = await whole_table(store, view_of("?range=7d&order=rising&search=M+4", table="items"))
        missing = await whole_table(store, view_of("?range=7d&order=rising&search=x", table="items"))
    assert [row.name for row in paged.rows] == ["item 3"]
    assert [row.name for row in found.rows] == ["item 4"]
    assert missing.empty == "No items contain “x”."


async def test_rising_items_are_those_used_more_in_the_second_half(folder: Path) -> None:
    day = 60 * 24
    events = [
        *(at(5 * day + number, id="old") for number in range(9)),
        *(at(5 * day + number, id="new") for number in range(2)),
        *(at(1 * day + number, id="new", event="download") for number in range(6)),
        *(at(1 * day + number, id="old") for number in range(4)),
    ]
    async with store_of(folder, events) as store:
        table = (await overview(store, view_of("?range=7d&order=rising"))).tables[0]
        assert table.columns == ("More", "Before", "Views", "Downloads")
        assert cells_of(table) == {"new": (4, 2, 0, 6)}
        assert [link.text for link in table.orders if link.is_current] == ["Rising"]


@pytest.mark.parametrize(
    ("address", "table", "needs_query"),
    [("", "countries", False), ("", "errors", True), ("?country=CH", "countries", True), ("?id=a", "formats", False)],
)
def test_tables_of_errors_need_the_scope_query(address: str, table: str, *, needs_query: bool) -> None:
    assert table_needs_query(view_of(address, table=table)) == needs_query


@pytest.mark.asyncio(loop_scope="module")
async def test_unknown_tables_and_orders_are_rejected(store: Store) -> None:
    with pytest.raises(NotFound, match="unknown table 'x': expected one of items"):
        table_needs_query(view_of("", table="x"))
    with pytest.raises(NotFound, match="the table countries cannot be ordered by 'x'"):
        await whole_table(store, view_of("?order=x", table="countries"))


def steps(session: str, *items: str, minutes_ago: float = 60.0) -> list[dict[str, Any]]:
    """Return the views of a session, one minute apart."""
    return [
        at(
            minutes_ago - number,
            id=item,
            session=session,
            visitor=session,
            title=f"All about {item}",
            LCP=1000 + number,
        )
        for number, item in enumerate(items)
    ]


async def test_an_item_has_flow_time_performance_and_what_is_also_viewed(folder: Path) -> None:
    events = [
        *steps("s1", "home", "rivers", "gauges"),
        *steps("s2", "home", "rivers", "gauges"),
        *steps("s3", "rivers", "trees"),
        *steps("s4", "home", "trees"),
        *(event for number in range(9) for event in steps(f"x{number}", "lakes")),
    ]
    async with store_of(folder, events) as store:
        page = await item_page(store, view_of("?range=7d", item="rivers", base_path="/m"))
    assert page.heading == "All about rivers"
    assert cells_of(table_of(page, "before")) == {"home": (2,)}
    assert cells_of(table_of(page, "after")) == {"gauges": (2,), "trees": (1,)}
    assert table_of(page, "before").note == "1 of 3 sessions begin with this item."
    assert table_of(page, "after").note == "0 of 3 sessions end with this item."
    assert table_of(page, "before").rows[0].page_href == "/m/items/home?range=7d"
    assert cells_of(table_of(page, "also-viewed")) == {"home": (2,), "gauges": (2,)}
    time = next(headline for headline in page.headlines if headline.key == "time")
    assert (time.value, time.exact) == (60_000, True)
    performance = table_of(page, "performance")
    assert performance.columns == ("Median", "75 %", "95 %", "Measured")
    assert performance.rows[0].text == "Largest contentful paint"
    assert performance.rows[0].cells[0].unit is Unit.MILLISECONDS
    assert cells_of(performance)["LCP"] == (1001.0, 1001.0, 1001.0, 3)
    assert [link.href for link in page.links] == [
        "/m/tock/rivers.json?from=2015-03-25&to=2015-03-31",
        "/m/tables/days.csv?range=7d&id=rivers",
        "/m/badge/rivers.svg?metric=downloads",
    ]


async def test_few_shared_visitors_are_not_shown(folder: Path) -> None:
    async with store_of(folder, [*steps("s1", "home", "rivers"), *steps("s2", "home", "rivers")]) as store:
        page = await item_page(store, view_of("?range=7d", item="rivers"), min_visitors=3)
    assert "also-viewed" not in {table.key for table in page.tables}


async def test_time_of_many_sessions_is_estimated_from_the_newest(folder: Path) -> None:
    events = [event for number in range(30) for event in steps(f"s{number}", "a", "b", minutes_ago=60.0 * (1 + number))]
    async with store_of(folder, events) as store:
        view = view_of("?range=7d")
        span = Span(datetime(2015, 3, 25, tzinfo=UTC), datetime(2015, 4, 1, tzinfo=UTC))
        newest = newest_units(view, span, "day", {"2015-03-31": 30, "2015-03-30": 30}, enough=25)
        assert newest == Span(datetime(2015, 3, 31, tzinfo=UTC), span.end)
        assert newest_units(view, span, "day", {"2015-03-31": 30, "2015-03-30": 30}) == span
        stays = await read_stays(store, view, span, newest)
        assert (len(stays.lengths), stays.median, stays.is_complete) == (15, 60_000, False)
        assert stays.note(view).endswith("Estimated from the newest sessions of 31 Mar 2015.")
        few = await read_stays(store, view, span, span, SampleLimits(sequences=4))
        assert (len(few.lengths), few.is_complete) == (4, False)
        whole = await read_stays(store, view, span, span)
        assert (len(whole.lengths), whole.is_complete) == (30, True)
        assert whole.medians_by("day", view) == {"2015-03-31": 60_000, "2015-03-30": 60_000}
        chart = (await overview(store, view_of("?range=7d&metric=time"))).chart
        assert (chart.unit, [bar.value for bar in chart.bars[-3:]]) == (Unit.MILLISECONDS, [None, 60_000, 60_000])


@pytest.mark.asyncio(loop_scope="module")
async def test_robots_are_a_share_of_all_views(store: Store) -> None:
    left_out = await overview(store, view_of("?range=all"))
    included = await overview(store, view_of("?range=all&bots=1"))
    robots = table_of(left_out, "robots")
    views = robots.rows[0].cells[0].value or 0
    assert robots.rows[0].share == views / (included.headlines[0].value or 0)
    assert robots.note.endswith("% of views are by robots, which are left out.")
    assert table_of(included, "robots").note.endswith("which are included.")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_referrer_opens_its_pages_and_formats_come_first_where_downloads_prevail(store: Store) -> None:
    page = await overview(store, view_of("?range=all&referer_group=example.org"))
    assert {row.name for row in table_of(page, "pages").rows} == {f"example.org/a{number}" for number in range(3)}
    assert "pages" not in {table.key for table in (await overview(store, view_of("?range=all"))).tables}
    downloads = await overview(store, view_of("?range=all&event=download"))
    assert [table.key for table in downloads.tables][:2] == ["items", "formats"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_view_of_errors_has_the_items_that_fail(store: Store) -> None:
    items = table_of(await overview(store, view_of("?range=all&metric=errors")), "items")
    assert items.columns == ("Errors",)
    assert items.rows
    assert "Errors" in {order.text for order in items.orders}
    assert "Errors" not in {
        order.text for order in table_of(await overview(store, view_of("?range=all")), "items").orders
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_a_filter_by_one_item_leads_to_its_page(store: Store) -> None:
    name = table_of(await overview(store, view_of("?range=all")), "items").rows[0].name
    page = await overview(store, view_of(f"?range=all&country=CH&id={name}"))
    assert [chip.page_href for chip in page.controls.chips] == [
        "",
        f"/items/{quote(name, safe='')}?range=all&country=CH",
    ]


@pytest.mark.asyncio(loop_scope="module")
async def test_bars_mark_weekends_and_the_part_of_today_that_is_over(store: Store) -> None:
    bars = (await overview(store, view_of("?range=7d"))).chart.bars
    assert [bar.tick for bar in bars if bar.is_weekend] == ["28 Mar", "29 Mar"]
    assert [bar.tick for bar in bars if bar.is_incomplete] == ["31 Mar"]
    assert bars[-1].href == "/?from=2015-03-31&to=2015-03-31"
    assert [bar.label for bar in bars[:2]] == ["25 Mar 2015", "26 Mar 2015"]


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ("2015-03-01", "2015-04-01", "1-31 Mar 2015"),
        ("2015-03-01", "2015-03-02", "1 Mar 2015"),
        ("2015-02-27", "2015-03-02", "27 Feb - 1 Mar 2015"),
        ("2014-12-31", "2015-01-02", "31 Dec 2014 - 1 Jan 2015"),
        ("2015-03-01T10:00", "2015-03-01T11:00", "1 Mar 2015, 10:00-11:00"),
        ("2015-03-01T10:00", "2015-03-02T11:30", "1 Mar 2015, 10:00 - 2 Mar 2015, 11:30"),
    ],
)
def test_ranges_in_words(start: str, end: str, text: str) -> None:
    first, last = (datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in (start, end))
    assert range_text(first, last, view_of("").zone) == text.replace("-", "\N{EN DASH}")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("?range=today", "vs. yesterday"),
        ("?range=last-month", "vs. January"),
        ("?from=2015-01-01&to=2015-01-31", "vs. December 2014"),
        ("?from=2015-01-02&to=2015-01-03", "vs. 31 Dec 2014 - 1 Jan 2015"),
        ("?range=last-month&compare=year", "vs. 1-28 Feb 2014"),
        ("?compare=none", ""),
    ],
)
def test_comparisons_in_words(address: str, text: str) -> None:
    view = view_of(address)
    period = view.period
    assert period.start is not None
    span = Span(period.start, period.end)
    assert comparison_text(view, span, resolve_earlier(view, span)) == text.replace("-", "\N{EN DASH}")


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (QueryPart("country", "=", "CH"), "Country: Switzerland"),
        (QueryPart("country", "!=", "CH"), "Country: not Switzerland"),
        (QueryPart("referer", "^=", "arc"), "Referring page: begins with arc"),
        (QueryPart("LCP", ">=", "5"), "LCP: ≥ 5"),
        (QueryPart("visitor", "=", "*"), "visitor: any"),
        (QueryPart("visitor", "!=", "*"), "visitor: none"),
    ],
)
def test_filters_in_words(part: QueryPart, text: str) -> None:
    assert filter_text(part) == text


def test_time_units_in_words() -> None:
    zone = parse_view("tz=Europe/Zurich", NOW).zone
    assert unit_label("2015-03-01", "day", zone) == "1 Mar 2015"
    assert unit_label("2015-03-02", "week", zone) == "Week of 2 Mar 2015"
    assert unit_label("2015-03", "month", zone) == "March 2015"
    assert unit_label("2015-03-01T09:00:00+01:00", "hour", zone) == "1 Mar 2015, 09:00"
    assert [unit_tick("2015-01", "month"), unit_tick("2015-02", "month")] == ["2015", "Feb"]
    assert unit_tick("2015-03-01T09:00:00+01:00", "hour") == "09:00"
    assert country_names()["CH"] == "Switzerland"
    assert country_names()["GB"] == "United Kingdom"


@pytest.mark.parametrize(
    ("now", "text"),
    [
        ("2015-03-04T22:00:00Z", "22:30:05"),
        ("2015-03-05T08:00:00Z", "4 Mar, 22:30:05"),
        ("2016-03-04T22:00:00Z", "4 Mar 2015, 22:30:05"),
    ],
)
def test_a_time_of_another_day_has_its_date(now: str, text: str) -> None:
    zone = parse_view("tz=Europe/Zurich", NOW).zone
    moment = datetime.fromisoformat("2015-03-04T21:30:05Z")
    assert time_text(moment, datetime.fromisoformat(now), zone) == text
