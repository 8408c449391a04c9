"""Links are classified, and have the formats that an import of the same paths gives."""

from typing import Final

import pytest
from playwright.async_api import BrowserContext, Page

from metronome.items import DOWNLOAD_FORMATS, ItemPattern
from tests.browser.chromium import beacon_tag, close_tab, count_events, wait_for_events
from tests.browser.sites import StaticSite
from tests.servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATHS: Final = (
    *(f"/files/a.{form}" for form in DOWNLOAD_FORMATS),
    *("/a.CSV", "/a.Tar.Gz", "/a.csv.gz", "/a.b.csv", "/.csv", "/caf%C3%A9.csv", "/a%2Ecsv", "/a.csv/", "/a.csv/b"),
    *("/a.csvx", "/acsv", "/a.", "/a", "/", "/a.html", "/v1.2", "/john.smith", "/a.tar.zst", "/a.gz.tar", "/a.js"),
    *("/a.csv?b=1", "/a?b=c.csv", "/a#b.csv", "/a.csv#b", "/a.csv;b", "/a.c.s.v"),
)
OTHERS: Final[dict[str, tuple[str, str | None, str | None]]] = {
    "a word of the page's": ("<a href=/x data-format=KML>", "download", "kml"),
    "the page's word before the name": ("<a href=/x.csv data-format=zip>", "download", "zip"),
    "what is to be saved": ("<a href=/x.webp download>", "download", "webp"),
    "what is to be saved under a name": ("<a href=/x download=rivers.tar.gz>", "download", "tar.gz"),
    "what is to be saved and has no format": ("<a href=/x download>", "download", None),
    "what a script has made": ("<a href=data:text/plain,x download=x.csv>", "download", "csv"),
    "a file elsewhere": ("<a href=https://example.org/x.pdf>", "download", "pdf"),
    "a page elsewhere": ("<a href=https://example.org/x>", "outlink", None),
    "a page at a port elsewhere": ("<a href=http://www.example.org:8080/>", "outlink", None),
    "what is in a link": ("<a href=/x.csv><b>", "download", "csv"),
    "an area of a map": ("<map><area href=/x.csv>", "download", "csv"),
    "a letter": ("<a href=mailto:a@example.org>", None, None),
    "a script": ("<a href='javascript:void 0'>", None, None),
    "a letter with a format": ("<a href=mailto:a@example.org data-format=csv>", None, None),
    "no link": ("<a name=x.csv>", None, None),
    "a button": ("<button data-format=csv>", None, None),
    "an empty address": ("<a href>", None, None),
    "a broken address": ("<a href='http://[::x/a.csv'>", None, None),
    "a link in a picture": ("<svg><a href=/x.csv><circle r=9>", None, None),
}
CLICK: Final = """
    for (const each of document.querySelectorAll('[data-case]')) {
        let inner = each;
        while (inner.firstElementChild) inner = inner.firstElementChild;
        inner.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true, composed: true}));
    }
"""


async def clicked(server: Server, site: StaticSite, visitor: BrowserContext, item: str, links: dict[str, str]) -> Page:
    """Open a page with links, click each of them, and close the page."""
    stay = "<script>addEventListener('click', (event) => event.preventDefault())</script>"
    body = stay + "".join(f"<div data-case='{name}'>{link}</div>" for name, link in links.items())
    page = await visitor.new_page()
    head = beacon_tag(server, id=item, off="vitals views", heartbeat="0")
    await page.goto(site.add_page(f"/{item}", body, head))
    # Each link has its case as its item.
    await page.evaluate(
        "for (const each of document.querySelectorAll('[data-case] :is(a, area, button)'))"
        " each.dataset.id = each.closest('[data-case]').dataset.case"
    )
    await page.evaluate(CLICK)
    await close_tab(page)
    return page


@pytest.mark.slow
async def test_formats_match_those_of_imported_logs(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    rule = ItemPattern()
    expected = {path: rule.classify("GET", 200, path.partition("#")[0].partition("?")[0]).format for path in PATHS}
    await clicked(server, site, visitor, item, {f"{item} {path}": f"<a href='{path}'>x</a>" for path in PATHS})
    downloads = {path: form for path, form in expected.items() if form}
    await wait_for_events(server, {"download": len(downloads)}, **{"id^": f"{item} "})
    found = count_events(server, "id,format", **{"id^": f"{item} "})
    assert found == {(f"{item} {path}", form): 1 for path, form in downloads.items()}


@pytest.mark.slow
async def test_links_are_classified_as_download_outlink_or_neither(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    links = {f"{item} {name.replace(chr(39), '')}": link for name, (link, _, _) in OTHERS.items()}
    await clicked(server, site, visitor, item, links)
    wanted = [(name, event, form) for name, (_, event, form) in zip(links, OTHERS.values(), strict=True)]
    kinds = [event for _, event, _ in wanted if event]
    await wait_for_events(server, {kind: kinds.count(kind) for kind in set(kinds)}, **{"id^": f"{item} "})
    assert count_events(server, "id,event", **{"id^": f"{item} "}) == {
        (name, event): 1 for name, event, _ in wanted if event
    }
    assert count_events(server, "id,format", **{"id^": f"{item} "}) == {
        (name, form): 1 for name, _, form in wanted if form
    }


@pytest.mark.slow  # opens pages of a site in the browser
async def test_only_mouse_buttons_that_follow_a_link_count(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    stay = "<script>for (const name of ['click', 'auxclick', 'contextmenu'])"
    stay += " addEventListener(name, (event) => event.preventDefault())</script>"
    link = "<a href=/x.csv>x</a><div id=host></div>"
    page = await visitor.new_page()
    await page.goto(
        site.add_page(f"/{item}", stay + link, beacon_tag(server, id=item, off="vitals views", heartbeat="0"))
    )
    await page.click("a")
    await page.click("a", button="middle")
    await page.click("a", button="right")
    await page.focus("a")
    await page.keyboard.press("Enter")
    # Clicks in a shadow root, or stopped by a handler, count.
    await page.evaluate(
        "document.querySelector('#host').attachShadow({mode: 'open'}).innerHTML = '<a href=/x.kml>in the shadow</a>';"
        "document.querySelector('a').addEventListener('click', (event) => event.stopImmediatePropagation())"
    )
    await page.click("#host a")
    await close_tab(page)
    await wait_for_events(server, {"download": 4}, id=item)
    assert count_events(server, "format", id=item) == {("csv",): 3, ("kml",): 1}
