"""Pages with made-up numbers of a data portal, for tests of the rendering."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Final
from urllib.parse import quote

from metronome.page.model import (
    Bar,
    Cell,
    Chart,
    Chip,
    Choice,
    Controls,
    Embed,
    Headline,
    Link,
    Live,
    LiveEvent,
    Page,
    Row,
    Table,
    TablePage,
    Unit,
    Viewer,
)

NOW: Final = datetime(2015, 1, 30, 14, 2, 20, tzinfo=UTC)
ITEMS: Final = (
    ("rivers", "Water levels of rivers", 3120),
    ("population-2025", "Population by district 2025", 2475),
    ("trees", "Tree register", 1980),
    ("bus-stops", "Bus stops and timetables", 1642),
    ("air", "Air quality, hourly", 1377),
    ("permits", "Building permits", 1108),
    ("budget", "Budget 2015 with the plan of the three years after and all comments of the council", 964),
    ("schools", "School places", 731),
    ("cycles/counts", "Cycle counts", 655),
    ("playgrounds", "playgrounds", 540),
)
SOURCES: Final = (
    ("google.com", "google.com", "search", 4210),
    ("", "Direct or unknown", "", 3950),
    ("portal.example", "portal.example", "referral", 1874),
    ("assistant.example", "assistant.example", "AI assistant", 912),
    ("newsletter", "Newsletter November", "campaign", 640),
    ("encyclopedia.example/wiki/List_of_rivers", "encyclopedia.example/wiki/List_of_rivers", "referral", 431),
)
COUNTRIES: Final = (
    *(("CH", "Switzerland", 11820), ("DE", "Germany", 1904), ("AT", "Austria", 655)),
    *(("FR", "France", 540), ("IT", "Italy", 310), ("US", "United States", 288)),
)
BROWSERS: Final = (("Chrome", 8120), ("Safari", 4310), ("Firefox", 2214), ("Edge", 1405), ("Samsung Internet", 320))
FORMATS: Final = (("csv", 2140), ("geojson", 1033), ("xlsx", 702), ("pdf", 511), ("shp", 268), ("kml", 158))
DEVICES: Final = (("desktop", 11210), ("mobile", 7120), ("tablet", 912))
SYSTEMS: Final = (("Windows", 7402), ("iOS", 4180), ("Android", 3301), ("macOS", 2740), ("Linux", 1619))
ERRORS: Final = (
    ("Failed to fetch module /assets/index-<hash>.js", "Chrome 140", 21),
    ("Timeout after <n> ms", "", 11),
    ("HTTP 404", "", 5),
)
ROBOTS: Final = (("GPTBot", 3102), ("Googlebot", 2911), ("bingbot", 1377), ("python-requests", 610))
VIEWS: Final = 19_242


def made_up_page(days: int = 30, **changes: object) -> Page:
    """Return an overview."""
    page = Page(
        heading="All items",
        item=None,
        controls=made_up_controls(),
        headlines=made_up_headlines(),
        chart=made_up_chart(days),
        tables=made_up_tables(),
        viewer=Viewer(is_signed_in=True),
        computed_at=NOW,
        live=made_up_live(),
    )
    return replace(page, **changes)  # type: ignore[arg-type]  # the caller's fields of a page


def made_up_item_page(**changes: object) -> Page:
    """Return the page of an item."""
    flow = (("population-2025", 212), ("air", 98), ("https://geo.example/viewer", 41))
    page = made_up_page(
        heading="Water levels of rivers",
        item="rivers",
        tables=(
            *made_up_tables()[1:],
            table_of("previous", "Visited before", flow),
            table_of("next", "Visited after", flow),
            Table(
                "performance",
                "Performance",
                ("Median", "75 %", "95 %"),
                (
                    Row("LCP", "Largest paint", "", _milliseconds(812, 1480, 3920)),
                    Row("INP", "Response to input", "", _milliseconds(48, 96, 310)),
                    Row("CLS", "Layout shift", "", tuple(Cell(value, Unit.SCORE) for value in (0.01, 0.04, 0.21))),
                ),
                exact=False,
                note="Percentiles are estimated from all page loads of the range.",
            ),
            table_of("also-viewed", "Also viewed", flow[:2]),
        ),
        links=(Link("Tock", "/tock/rivers.json"), Link("CSV", "/tock/rivers.csv"), Link("Badge", "/badge/rivers.svg")),
    )
    return replace(page, **changes)  # type: ignore[arg-type]  # the caller's fields of a page


def made_up_controls(**changes: object) -> Controls:
    """Return the line at the top of a page."""
    names = ("Today", "7 days", "30 days", "This month", "Last month", "12 months", "All")
    ranges = tuple(Link(name, f"/?range={quote(name)}", is_current=name == "30 days") for name in names)
    controls = Controls(
        ranges=ranges,
        range_text="1\u201330 Jan 2015",
        start="2015-01-01",
        end="2015-01-30",
        compares=(
            Link("Previous 30 days", "/", is_current=True),
            Link("The year before", "/?compare=year"),
            Link("Not compared", "/?compare=none"),
        ),
        compare_text="vs. December",
        time_zone=Choice("tz", "Time zone", (("UTC", "UTC"), ("Europe/Zurich", "Europe/Zurich")), "Europe/Zurich"),
        hidden=(("range", "30d"), ("tz", "Europe/Zurich"), ("host", "data.example.org")),
        chips=(Chip("Host: data.example.org", "/?tz=Europe/Zurich"),),
        bots=Link("Robots left out: 31 %", "/?bots=1"),
        widen=Link("Widen it to the last 12 months.", "/?range=12m"),
    )
    return replace(controls, **changes)  # type: ignore[arg-type]  # the caller's fields of controls


def made_up_headlines() -> tuple[Headline, ...]:
    """Return the five numbers."""
    note = "Visitors are counted per day; over several days they are summed."
    return (
        Headline("views", "Views", VIEWS, 16_842, 0.1425, Unit.COUNT, "/?metric=views", is_selected=True),
        Headline("downloads", "Downloads", 4_812, 4_410, 0.0911, Unit.COUNT, "/?metric=downloads"),
        Headline("visitors", "Visitors", 9_204, 8_290, 0.11, Unit.COUNT, "/?metric=visitors", exact=False, note=note),
        Headline("time", "Median time", 112_000, 117_000, -0.043, Unit.MILLISECONDS, "/?metric=time"),
        Headline("errors", "Errors", 37, 95, -0.61, Unit.COUNT, "/?metric=errors", more_is_better=False),
    )


def made_up_chart(days: int = 30, unit: Unit = Unit.COUNT) -> Chart:
    """Return views by day, with a weekly rhythm and a campaign."""
    first = date(2015, 1, 30) - timedelta(days=days - 1)
    return Chart(
        title="Views by day",
        description=f"Views in each of {days} days: at least 326, at most 1,213.",
        unit=unit,
        bars=tuple(_made_up_bar(first + timedelta(days=number), number, days) for number in range(days)),
        previous_label="December",
        intervals=(
            Link("hour", "/?interval=hour"),
            Link("day", "/", is_current=True),
            Link("week", "/?interval=week"),
        ),
    )


def _made_up_bar(day: date, number: int, days: int) -> Bar:
    is_weekend = day.weekday() > 4
    value = (560 + 9 * number * 30 / days + 60 * math.sin(number)) * (0.58 if is_weekend else 1)
    value *= 1.8 if number == days * 18 // 30 else 1
    return Bar(
        label=f"{day.day} {day:%b %Y}",
        tick=f"{day.day} {day:%b}",
        value=round(value),
        previous=round(value * 0.84 + 12 * math.cos(number)),
        href=f"/?from={day}&to={day}&tz=Europe/Zurich&host=data.example.org",
        is_weekend=is_weekend,
        is_incomplete=number == days - 1,
    )


def table_of(key: str, caption: str, counts: tuple[tuple[str, int], ...], column: str = "Views") -> Table:
    """Return a table of names and counts."""
    total = max(sum(count for _, count in counts) * 1.1, 1)
    rows = tuple(Row(name, name, f"/?{key}={quote(name)}", (Cell(count),), count / total) for name, count in counts)
    return Table(key, caption, (column,), rows, csv_href=f"/tables/{key}.csv")


def made_up_tables() -> tuple[Table, ...]:
    """Return the tables of an overview."""
    items = tuple(
        Row(
            name,
            text,
            f"/?id={quote(name, safe='')}",
            (Cell(count), Cell(count // 4, href=f"/?id={name}&metric=downloads"), Cell(count // 2)),
            count / VIEWS,
            page_href=f"/items/{quote(name)}",
        )
        for name, text, count in ITEMS
    )
    sources = tuple(
        Row(name, text, f"/?referer={quote(name)}", (Cell(count),), count / VIEWS, note)
        for name, text, note, count in SOURCES
    )
    countries = tuple(
        Row(code, name, f"/?country={code}", (Cell(count),), count / VIEWS) for code, name, count in COUNTRIES
    )
    errors = tuple(Row(name, name, "/?event=error", (Cell(count),), count / 37, note) for name, note, count in ERRORS)
    orders = ("Views", "Downloads", "Visitors", "Rising")
    return (
        Table(
            "items",
            "Items",
            ("Views", "Downloads", "Visitors"),
            items,
            total=412,
            more=Link("All 412 items", "/tables/items"),
            csv_href="/tables/items.csv",
            orders=tuple(Link(name, f"/?order={name.lower()}", is_current=name == "Views") for name in orders),
        ),
        Table(
            "referrers",
            "Referrers",
            ("Views",),
            sources,
            96,
            Link("All 96 referrers", "/tables/referrers"),
            "/tables/referrers.csv",
        ),
        table_of("channels", "Channels", (("search", 5104), ("direct", 3950), ("referral", 2411), ("campaign", 640))),
        Table(
            "countries",
            "Countries",
            ("Views",),
            countries,
            61,
            Link("All 61 countries", "/tables/countries"),
            "/tables/countries.csv",
        ),
        table_of("formats", "Formats", FORMATS, "Downloads"),
        table_of("browsers", "Browsers", BROWSERS),
        table_of("devices", "Devices", DEVICES),
        table_of("systems", "Systems", SYSTEMS),
        Table("errors", "Errors", ("Times",), errors, csv_href="/tables/errors.csv"),
        table_of("robots", "Robots", ROBOTS, "Requests"),
    )


def made_up_live() -> Live:
    """Return the last 30 minutes."""
    minutes = tuple((7 * number * number + 3 * number) % 12 for number in range(30))
    events = tuple(
        LiveEvent(
            NOW - timedelta(seconds=17 * number),
            f"{NOW - timedelta(seconds=17 * number):%H:%M:%S}",
            "download" if number % 3 == 1 else "view",
            ITEMS[number][1],
            f"/items/{quote(ITEMS[number][0])}",
            ("Switzerland", "Firefox") if number % 2 else ("Germany",),
        )
        for number in range(10)
    )
    return Live(minutes, sum(minutes), "/live", events)


def made_up_table_page() -> TablePage:
    """Return the page of the whole table of items."""
    table = made_up_tables()[0]
    rows = tuple(replace(row, name=f"{row.name}-{number}") for number in range(10) for row in table.rows)
    return TablePage(
        heading="All items",
        item=None,
        controls=made_up_controls(),
        table=replace(table, rows=rows, more=None),
        back=Link("All items", "/"),
        viewer=Viewer(),
        computed_at=NOW,
        search="r",
        first=101,
        previous=Link("previous 100", "/tables/items"),
        following=Link("next 100", "/tables/items?offset=200"),
    )


def made_up_embed() -> Embed:
    """Return an item's usage for the item's own page."""
    headlines = tuple(replace(headline, href="") for headline in made_up_headlines()[:2])
    chart = made_up_chart(28)
    bars = tuple(replace(bar, href="", previous=None) for bar in chart.bars)
    tables = (table_of("formats", "Downloads by format", FORMATS[:5]), table_of("referers", "Referrers", ()))
    return Embed("rivers", headlines, replace(chart, bars=bars), tables, "/items/rivers")


def _milliseconds(*values: float) -> tuple[Cell, ...]:
    return tuple(Cell(value, Unit.MILLISECONDS) for value in values)
