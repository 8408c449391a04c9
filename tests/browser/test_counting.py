"""The beacon counts what visitors do on a page, in a real browser."""

from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit

import pytest
from playwright.async_api import BrowserContext, Page

from tests.browser.chromium import beacon_tag, close_tab, count_events, poll_until, wait_for_events
from tests.browser.sites import SitePage as Served
from tests.browser.sites import StaticSite
from tests.servers import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEAVING: Final = {"timing": 1, "heartbeat": 1}
"""The events that each page sends when it is closed."""


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def tock(server: Server, item: str) -> dict[str, dict[str, int]]:
    server.wait_until_shipped()
    report: dict[str, dict[str, int]] = server.get(f"/tock/{quote(item, safe='')}.json")
    return {name: report[name] for name in ("views", "downloads", "referers")}


async def open_page(visitor: BrowserContext, address: str, **options: str) -> Page:
    """Open a page in a new tab, and wait until the beacon has started."""
    page = await visitor.new_page()
    await page.goto(address, **options)  # type: ignore[arg-type]  # options of goto
    return page


async def click_away(page: Page, selector: str) -> None:
    """Follow a link into a new tab by a click with the control key, and close the tab."""
    async with page.context.expect_page() as opened:
        await page.click(selector, modifiers=["Control"])
    await (await opened.value).close()


async def go_back(page: Page, path: str, steps: int = 1) -> None:
    """Go back in a tab's history to *path*. Playwright's `go_back` waits for a load, which a restored page lacks."""
    await page.evaluate(f"history.go(-{steps})")
    assert await poll_until(lambda: urlsplit(page.url).path, lambda seen: seen == path) == path


async def test_every_event_of_a_visit_is_counted(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    site.pages["/files/rivers.csv"] = Served("a,b\n", "text/plain")
    site.pages["/export"] = Served("a,b\n", "text/plain")
    site.add_page("/elsewhere")
    links = (
        f"<a id=csv href='/files/rivers.csv'>CSV</a> <a id=kml href='/export?what=kml' data-format=KML>KML</a>"
        f"<a id=other href='/files/rivers.csv' data-id='{item}-other'>CSV</a>"
        f"<a id=out href='{site.other_host_url}/elsewhere'>elsewhere</a> <a id=in href='/elsewhere'>here</a>"
    )
    address = site.add_page(f"/{item}", links, beacon_tag(server, id=item), title="Rivers")
    following = f"/{item}/next"
    mine = {"url^": address}
    page = await open_page(visitor, f"{address}?utm_source=letter#part", referer="https://www.example.org/a/?b=1")
    for link in ("#csv", "#csv", "#kml", "#other", "#out", "#in"):
        await click_away(page, link)
    await page.evaluate("metronome.tick({event: 'zoom', value: 3})")
    await page.evaluate(f"history.pushState(null, '', '{following}'); document.title = 'Next'")
    await page.evaluate(f"metronome.tick({{event: 'zoom', id: '{item}', value: 4}})")
    await page.evaluate("setTimeout(() => { throw new TypeError('no map 7') })")
    await page.evaluate("Promise.reject(new Error('no tiles')) && 0")
    await poll_until(lambda: count_events(server, "event", event="error", **mine), bool)
    await close_tab(page)

    expected = {"view": 2, "download": 4, "outlink": 1, "zoom": 2, "error": 2, **LEAVING}
    await wait_for_events(server, expected, **mine)
    views, referers = {today(): 1}, {"example.org/a": 1}
    assert tock(server, item) == {"views": views, "downloads": {"csv": 2, "kml": 1}, "referers": referers}
    assert tock(server, f"{item}-other") == {"views": {}, "downloads": {"csv": 1}, "referers": {}}
    # The second page has no external referrer.
    assert tock(server, following) == {"views": views, "downloads": {}, "referers": {}}
    assert count_events(server, "id,title,url,channel", event="view", **mine) == {
        (item, "Rivers", f"{address}?utm_source=letter", "campaign"): 1,
        (following, "Next", f"{site.url}{following}", "internal"): 1,
    }
    assert count_events(server, "id,download", event="download", **mine) == {
        (item, f"{site.url}/files/rivers.csv"): 2,
        (item, f"{site.url}/export?what=kml"): 1,
        (f"{item}-other", f"{site.url}/files/rivers.csv"): 1,
    }
    assert count_events(server, "id,link", event="outlink", **mine) == {(item, f"{site.other_host_url}/elsewhere"): 1}
    assert count_events(server, "id,value", event="zoom", **mine) == {(item, "3"): 1, (item, "4"): 1}
    assert [each["message"] for each in server.get(f"/errors/{following}.json")["messages"]] == [
        "Error: no tiles",
        "TypeError: no map <n>",
    ]
    assert server.get(f"/errors/{following}.json")["session_share"] == 1.0
    timings = server.get(f"/time/{item}.json")["timings"]
    assert timings.keys() == {"TTFB", "FCP", "LCP", "CLS", "INP"}
    assert all(days[today()]["count"] == 1 for days in timings.values())
    assert server.get(f"/flow/{item}.json")["next"] == {f"{item}-other": 1}
    assert await visitor.cookies() == []
    assert site.cookies == []


@pytest.mark.slow  # waits for events and heartbeats
@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("async", "head"),
        ("defer", "head"),
        ("type=module", "head"),
        ("type=module async crossorigin", "head"),
        (" ", "head"),
        (" ", "end"),
        ("async", "end"),
    ],
)
async def test_a_view_is_counted_wherever_and_however_the_script_is_loaded(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str, how: str, where: str
) -> None:
    written = beacon_tag(server, how, id=item)
    address = site.add_page(
        f"/{item}", "<p>Text</p>" + written * (where == "end"), written * (where == "head"), title=item
    )
    page = await open_page(visitor, address)
    await close_tab(page)
    await wait_for_events(server, {"view": 1, **LEAVING}, id=item)
    assert count_events(server, "title", id=item, event="view") == {(item,): 1}


@pytest.mark.slow
async def test_two_tags_count_once(server: Server, site: StaticSite, visitor: BrowserContext, item: str) -> None:
    page = await open_page(
        visitor, site.add_page(f"/{item}", beacon_tag(server, "async", id=item), beacon_tag(server, id=item))
    )
    await close_tab(page)
    await wait_for_events(server, {"view": 1, **LEAVING}, id=item)


@pytest.mark.slow  # opens pages of a site in the browser
async def test_the_item_is_that_of_the_tag_or_the_meta_tag_or_the_path(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    named = f"<meta name='metronome-id' content='{item}/meta'>"
    for path, head, expected in (
        ("/a", beacon_tag(server, id=f"{item}/tag") + named, f"{item}/tag"),
        # The script tag precedes the meta tag.
        ("/b", beacon_tag(server, "async") + named, f"{item}/meta"),
        (f"/{item}/caf%C3%A9/", beacon_tag(server), f"/{item}/café/"),
        (f"/{item}/100%", beacon_tag(server), f"/{item}/100%"),
    ):
        site.add_page(path, head=head)
        page = await open_page(visitor, f"{site.url}{path}?q=1#here")
        await close_tab(page)
        await wait_for_events(server, {"view": 1, **LEAVING}, id=expected)
        assert tock(server, expected)["views"] == {today(): 1}


@pytest.mark.slow
async def test_navigations_within_a_page_are_views(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    named = f"<meta name='metronome-id' content='{item}-1'>"
    page = await open_page(visitor, site.add_page(f"/{item}/1", head=named + beacon_tag(server)))
    for script in (
        # Sets its item after its URL, as frameworks do.
        f"history.pushState(null, '', '2'); document.querySelector('meta[name=metronome-id]').content = '{item}-2'",
        # Does not set its item: the previous page's must not be used.
        f"history.pushState(null, '', '/{item}/3?a=1')",
        # Changes of query and fragment are not navigations.
        f"history.pushState(null, '', '/{item}/3?a=2'); history.replaceState(null, '', '#top'); location.hash = 'end'",
        f"history.replaceState({{deep: 1}}, '', '/{item}/4')",
    ):
        await page.evaluate(script)
    await go_back(page, f"/{item}/2", 3)
    await go_back(page, f"/{item}/1")
    await close_tab(page)
    paths = {f"{item}-1": 2, f"{item}-2": 2, f"/{item}/3": 1, f"/{item}/4": 1}
    for name, number in paths.items():
        extra = {"timing": 1, "heartbeat": 1} if name == f"{item}-1" else {}
        await wait_for_events(server, {"view": number, **extra}, id=name)


@pytest.mark.slow  # opens pages of a site in the browser
async def test_a_page_restored_by_the_back_button_is_viewed_again(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page = await open_page(visitor, site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item)))
    await page.evaluate("window.same = true")
    await page.goto(site.add_page(f"/{item}/other"))
    await go_back(page, f"/{item}")
    # The page was restored from the cache, not loaded again.
    await page.wait_for_function("window.same === true")
    await page.wait_for_timeout(200)
    await close_tab(page)
    await wait_for_events(server, {"view": 2, "timing": 2, "heartbeat": 2}, id=item)
    assert server.get(f"/query?metrics=min:TTFB,count:LCP&id={item}")["rows"] == [[0, 2]]


@pytest.mark.slow  # waits for events and heartbeats
async def test_heartbeats_measure_the_time_on_a_page(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page = await open_page(visitor, site.add_page(f"/{item}", head=beacon_tag(server, id=item, heartbeat="0.5")))
    await page.wait_for_timeout(1800)
    # The page crashes without its closing events: the events before count.
    beats = await poll_until(
        lambda: count_events(server, "event", id=item, event="heartbeat").get(("heartbeat",), 0), lambda n: n >= 3
    )
    assert beats >= 3
    stay = server.get(f"/time/{item}.json")["on_item"]
    assert (stay["count"], stay["p50"] >= 1400, stay["p50"] < 60_000) == (1, True, True)
    await close_tab(page)
    longer = await poll_until(lambda: server.get(f"/time/{item}.json")["on_item"]["p50"], lambda ms: ms > stay["p50"])
    assert longer > stay["p50"]


@pytest.mark.slow  # waits for events and heartbeats
async def test_heartbeats_stop_while_the_visitor_is_inactive(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    def beats() -> int:
        return count_events(server, "event", id=item, event="heartbeat").get(("heartbeat",), 0)

    page = await visitor.new_page()
    await page.add_init_script("window.later = 0; const now = Date.now; Date.now = () => now() + later")
    await page.goto(site.add_page(f"/{item}", head=beacon_tag(server, id=item, heartbeat="0.2")))
    assert await poll_until(beats, lambda number: number > 0)
    await page.evaluate("later = 5 * 60 * 1000 + 1")
    await page.wait_for_timeout(1500)
    before = beats()
    await page.wait_for_timeout(1500)
    assert beats() == before
    await page.mouse.move(50, 50)
    assert await poll_until(beats, lambda number: number > before) > before


@pytest.mark.slow  # opens pages of a site in the browser
async def test_hosts_with_and_without_www_are_the_same_site(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    with_www, without = f"http://www.site.test:{site.port}", f"http://site.test:{site.port}"
    links = f"<a id=same href='{without}/x'>same</a> <a id=other href='http://other.test/'>other</a>"
    stay = "<script>addEventListener('click', (event) => event.preventDefault())</script>"
    site.add_page(f"/{item}", links + stay, beacon_tag(server, id=item))
    page = await open_page(visitor, f"{with_www}/{item}", referer=f"{without}/before")
    # Over plain HTTP, pages lack many browser features.
    assert not await page.evaluate("isSecureContext")
    await page.click("#same")
    await page.click("#other")
    await close_tab(page)
    await wait_for_events(server, {"view": 1, "outlink": 1, **LEAVING}, id=item)
    assert count_events(server, "link", id=item) == {("http://other.test/",): 1}
    assert count_events(server, "channel", id=item, event="view") == {("internal",): 1}
    assert tock(server, item)["referers"] == {}


@pytest.mark.slow  # opens pages of a site in the browser
async def test_parts_can_be_disabled(server: Server, site: StaticSite, visitor: BrowserContext, item: str) -> None:
    off = "views downloads outlinks vitals errors navigations"
    head = beacon_tag(server, id=item, off=off, heartbeat="0")
    body = f"<a id=csv href='/files/x.csv'>x</a> <a id=out href='{site.other_host_url}/x'>x</a>"
    page = await open_page(visitor, site.add_page(f"/{item}", body, head))
    await click_away(page, "#csv")
    await click_away(page, "#out")
    await page.evaluate("history.pushState(null, '', '/elsewhere')")
    await page.evaluate("setTimeout(() => { throw new TypeError('no map 7') })")
    await page.evaluate("metronome.tick({event: 'zoom'})")
    await close_tab(page)
    await wait_for_events(server, {"zoom": 1}, id=item)


@pytest.mark.slow  # opens pages of a site in the browser
async def test_events_queued_before_the_script_has_loaded_are_counted(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    queue = "metronome = {q: [], tick(event) { this.q.push({ts: Date.now(), ...event}) }}"
    snippet = f"<script>{queue}; metronome.tick({{event: 'early'}})</script>"
    page = await open_page(visitor, site.add_page(f"/{item}", head=snippet + beacon_tag(server, "async", id=item)))
    assert await page.evaluate("metronome.tick({event: 'late', id: undefined, n: 1})") is None
    await close_tab(page)
    await wait_for_events(server, {"view": 1, "early": 1, **LEAVING}, id=item)


@pytest.mark.slow  # opens pages of a site in the browser
async def test_data_url_names_another_server(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    with_script = beacon_tag(server, id=item, url=server.url).replace(f"{server.url}/metronome.js", "/lib/counting.js")
    site.pages["/lib/counting.js"] = Served(
        (await (await visitor.request.get(f"{server.url}/metronome.js")).text()), "text/javascript"
    )
    page = await open_page(visitor, site.add_page(f"/{item}", head=with_script))
    await close_tab(page)
    await wait_for_events(server, {"view": 1, **LEAVING}, id=item)


@pytest.mark.slow  # opens pages of a site in the browser
async def test_events_are_sent_to_the_url_of_the_tag(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    # Behind a proxy, Metronome can be at a path of another server.
    site.pages["/stats/metronome.js"] = Served(
        await (await visitor.request.get(f"{server.url}/metronome.js")).text(), "text/javascript"
    )
    for path, attributes, expected in (
        ("a", "src=/stats/metronome.js defer", f"{site.url}/stats/tick"),
        ("b", "src=../stats/metronome.js?v=2 type=module", f"{site.url}/stats/tick"),
        ("c", "src=/stats/metronome.js defer data-url=/usage", f"{site.url}/usage/tick"),
        ("d", f"src=/stats/metronome.js defer data-url={server.url}/", f"{server.url}/tick"),
        (
            "e",
            f"src=/stats/metronome.js defer data-url={site.other_host_url}/usage/",
            f"{site.other_host_url}/usage/tick",
        ),
    ):
        page = await visitor.new_page()
        address = site.add_page(f"/{item}/{path}", head=f"<script {attributes}></script>")
        async with page.expect_request("**/tick") as sent:
            await page.goto(address)
        assert ((await sent.value).method, (await sent.value).url) == ("POST", expected)
        await page.close()
