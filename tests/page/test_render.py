"""What the rendered pages contain."""

import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import Final

import pytest

from metronome.page.model import Live, Row, Viewer
from metronome.page.render import (
    ASSETS,
    Site,
    largest_share,
    render_embed,
    render_error,
    render_live,
    render_page,
    render_sign_in,
    render_table_page,
    split_into_columns,
)
from tests.page.made_up import (
    NOW,
    made_up_chart,
    made_up_embed,
    made_up_item_page,
    made_up_live,
    made_up_page,
    made_up_table_page,
    made_up_tables,
)

SITE: Final = Site("/stats", "https://example.org/stats", may_load_demo=True)
BUDGET_BYTES: Final = 60_000
VISITOR: Final = Viewer(can_query=False, sign_in_href="/stats/sign-in?next=%2F")


def made_up_locked_page() -> str:
    page = made_up_page(viewer=VISITOR, live=Live((0,) * 30, 0, "/live", is_locked=True))
    headlines = tuple(replace(headline, is_locked=headline.key == "errors") for headline in page.headlines)
    return render_page(replace(page, headlines=headlines), SITE, NOW)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "overview": lambda: render_page(made_up_page(), SITE, NOW),
    "item": lambda: render_page(made_up_item_page(), SITE, NOW),
    "locked": made_up_locked_page,
    "stale": lambda: render_page(made_up_page(stale_since=NOW - timedelta(minutes=3)), SITE, NOW),
    "empty": lambda: render_page(made_up_page(stored_events=False), SITE, NOW),
    "no tables": lambda: render_page(made_up_page(tables=(), live=None, headlines=()), SITE, NOW),
    "table": lambda: render_table_page(made_up_table_page(), SITE, NOW),
    "live": lambda: render_live(made_up_live(), SITE),
    "sign-in": lambda: render_sign_in(SITE, "/stats/?country=CH", "The key is unknown."),
    "error": lambda: render_error(SITE, 403, "This key is not enough", "It lacks query.", "Ask.", VISITOR),
    "embed": lambda: render_embed(made_up_embed(), SITE, "dark"),
}


class Tags(HTMLParser):
    """Collects a page's tags and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", PAGES)
def test_a_page_keeps_to_the_content_security_policy(name: str) -> None:
    tags = Tags(PAGES[name]())
    for tag, attributes in tags.tags:
        assert tag not in {"style", "base", "object"}
        assert tag != "script" or attributes["src"]
        assert not [attribute for attribute in attributes if attribute == "style" or attribute.startswith("on")]
        for attribute in ("src", "href", "action"):
            assert (attributes.get(attribute) or "/").startswith(("/", "#")), (tag, attributes)


@pytest.mark.parametrize("name", PAGES)
def test_ids_are_unique(name: str) -> None:
    ids = [attributes["id"] for _, attributes in Tags(PAGES[name]()).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_text_in_a_page_is_escaped() -> None:
    text = '<script>alert("1")</script>'
    row = Row(text, text, "/?id=1", (), note=text, page_href="/items/1")
    tables = (replace(made_up_tables()[1], caption=text, rows=(row,), note=text),)
    page = made_up_page(heading=text, chart=replace(made_up_chart(), title=text), tables=tables, notices=(text,))
    html = render_page(page, SITE, NOW)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in html


def test_a_full_overview_is_small() -> None:
    html = render_page(made_up_page(days=120), SITE, NOW)
    loaded = [name for name in ASSETS if f"/stats/assets/{name}" in html]
    assert len(loaded) == 3
    sizes = [len(gzip.compress(html.encode())), *(len(ASSETS[name].gzipped) for name in loaded)]
    assert sum(sizes) < BUDGET_BYTES / 2, sizes


def test_assets_are_named_by_their_content() -> None:
    assert all(re.fullmatch(r"[a-z]+\.[0-9a-f]{12}\.(css|js|svg)", name) for name in ASSETS)
    assert all(gzip.decompress(asset.gzipped) == asset.body for asset in ASSETS.values())


def test_numbers_of_an_unavailable_store_have_an_age() -> None:
    text = Tags(PAGES["stale"]()).text
    assert "The store is unavailable. These numbers are from 30 Jan 2015, 13:59 UTC (3 minutes ago)." in text


def test_an_empty_store_says_what_to_do_next() -> None:
    text = Tags(PAGES["empty"]()).text
    assert '<script src="https://example.org/stats/metronome.js" data-id="rivers" defer></script>' in text
    assert """curl https://example.org/stats/tick -d '{"id": "rivers", "event": "view"}'""" in text
    assert "metronome import access.log --url https://example.org/stats" in text
    assert "Load the demo" in text
    page = made_up_page(stored_events=False)
    assert "Load the demo" not in render_page(page, replace(SITE, may_load_demo=False), NOW)


def test_a_range_without_events_offers_a_longer_one() -> None:
    chart = made_up_chart()
    bars = tuple(replace(bar, value=0, previous=None) for bar in chart.bars)
    html = render_page(made_up_page(chart=replace(chart, bars=bars)), SITE, NOW)
    assert "No matching events in this range. Widen it to the last 12 months." in Tags(html).text


def test_what_needs_a_key_leads_to_the_sign_in() -> None:
    html = PAGES["locked"]()
    assert html.count('href="/stats/sign-in?next=%2F"') == 2
    assert "needs a key" in html


def test_each_form_keeps_the_parameters_that_it_does_not_set() -> None:
    range_form, zone_form = re.findall(r'<form class="panel".*?</form>', PAGES["overview"](), re.DOTALL)

    def hidden(form: str) -> dict[str, str]:
        return dict(re.findall(r'<input type="hidden" name="(.*?)" value="(.*?)">', form))

    assert hidden(range_form) == {"tz": "Europe/Zurich", "host": "data.example.org"}
    assert hidden(zone_form) == {"range": "30d", "host": "data.example.org"}


def test_a_change_is_said_to_screen_readers() -> None:
    text = Tags(PAGES["overview"]()).text.replace("\u00a0", " ")
    assert ", 14 % more than December (16,842)" in text
    assert ", 4 % less than December (1 m 57 s)" in text


def test_columns_keep_the_order_of_tables_and_have_similar_heights() -> None:
    tables = made_up_tables()
    columns = split_into_columns(tables)
    assert columns.lead == tables[0]
    assert (columns.lead, *columns.first, *columns.second, *columns.third) == tables
    assert min(map(len, (columns.first, columns.second, columns.third))) >= 2
    single = split_into_columns(tables[1:])
    assert single.lead is None
    assert (*single.first, *single.second, *single.third) == tables[1:]
    assert largest_share([]) == 0


def test_bars_of_a_column_share_one_scale() -> None:
    tables = made_up_tables()[1:4]
    html = render_page(made_up_page(tables=tables), SITE, NOW)
    widths = [float(width) for width in re.findall(r'class="fill" width="([\d.]+)%"', html)]
    assert len(widths) == sum(len(table.rows) for table in tables)
    assert all(0 < width <= 100 for width in widths)
