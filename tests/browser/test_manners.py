"""The beacon sets no cookies, leaves no traces and raises no errors, under any policy and next to any script."""

import re
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from playwright.async_api import Browser, BrowserContext, Page, Request

from tests.browser.chromium import beacon_tag, close_tab, count_events, poll_until, wait_for_events
from tests.browser.sites import StaticSite
from tests.docs.pages import section
from tests.servers import Server, running_server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]  # loads pages and waits for events

LEAVING: Final = {"timing": 1, "heartbeat": 1}
SIGNALS: Final = {
    "Sec-GPC": "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})",
    "DNT": "Object.defineProperty(Navigator.prototype, 'doNotTrack', {get: () => '1'})",
}
"""How browsers expose these signals to pages, in addition to the headers."""


async def watched(visitor: BrowserContext) -> tuple[Page, list[str]]:
    """Return a new tab and a list of its errors and console messages."""
    page, troubles = await visitor.new_page(), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "console",
        # Browsers request a favicon, which the site does not have.
        lambda said: (
            troubles.append(said.text)
            if said.type in {"error", "warning"} and "favicon" not in said.location["url"]
            else None
        ),
    )
    return page, troubles


@pytest.mark.parametrize("signal", SIGNALS)
async def test_a_visitor_with_a_privacy_signal_is_counted_without_storage_and_heartbeats(
    server: Server, site: StaticSite, browser: Browser, item: str, signal: str
) -> None:
    context = await browser.new_context(extra_http_headers={signal: "1"})
    await context.add_init_script(SIGNALS[signal])
    page = await context.new_page()
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item, heartbeat="0.2")))
    await page.wait_for_timeout(700)
    await context.set_offline(offline=True)
    await page.evaluate("metronome.tick({event: 'away'})")
    await page.wait_for_timeout(1300)
    assert await page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    await context.set_offline(offline=False)
    await wait_for_events(server, {"view": 1, "away": 1}, id=item)
    await close_tab(page)
    await wait_for_events(server, {"view": 1, "away": 1, "timing": 1}, id=item)
    assert server.get(f"/query?metrics=count,visitors,sessions&id={item}")["rows"] == [[3, 0, 0]]
    await context.close()


async def test_nothing_is_stored_and_no_cookie_is_set_or_sent(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    # A cookie of the page's site is not sent to Metronome.
    await visitor.add_cookies([{"name": "a", "value": "b", "url": server.url}])
    sent: list[dict[str, str]] = []
    page = await visitor.new_page()
    page.on("request", lambda request: sent.append(request.headers) if request.url.endswith("/tick") else None)
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item)))
    await wait_for_events(server, {"view": 1}, id=item)
    state: dict[str, Any] = dict(await visitor.storage_state(indexed_db=True))
    assert ([each["name"] for each in state["cookies"]], state["origins"]) == (["a"], [])
    assert [each["content-type"] for each in sent] == ["text/plain;charset=UTF-8"]
    assert all("cookie" not in each for each in sent)
    assert await page.evaluate("Object.keys(window).filter((name) => /metronome/i.test(name))") == ["metronome"]
    assert await page.evaluate("Object.keys(metronome)") == ["tick"]


async def test_events_have_the_documented_fields(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    described: dict[str, set[str]] = {}
    for row in section("docs/beacon.md", "What it counts").splitlines():
        cells = [re.findall(r"`([\w]+)`", cell) for cell in row.split("|")[2:4]]
        if len(cells) == 2 and len(cells[0]) == 1 and cells[0] != ["event"]:
            described.setdefault(cells[0][0], {"event_id", "ts", "id", "url", "event"}).update(cells[1])
    sent: dict[str, set[str]] = {}

    def note(request: Request) -> None:
        for event in orjson.loads(request.post_data or "[]") if request.url.endswith("/tick") else ():
            sent.setdefault(event["event"], set()).update(event)

    page = await visitor.new_page()
    page.on("request", note)
    links = "<a id=csv href='/x.csv'>csv</a> <a id=out href='https://example.org/'>elsewhere</a><button>b</button>"
    stay = "<script>addEventListener('click', (event) => event.preventDefault())</script>"
    address = site.add_page(f"/{item}", f"<p>Text</p>{links}{stay}", beacon_tag(server, id=item, heartbeat="0.4"))
    await page.goto(address, referer="https://www.example.org/")
    for link in ("#csv", "#out", "button"):
        await page.click(link)
    await page.evaluate("setTimeout(() => { throw new Error('no') }); new Promise((done) => setTimeout(done, 100))")
    await page.evaluate("history.pushState(null, '', '/elsewhere')")
    await poll_until(sent.keys, lambda events: events == described.keys())
    assert sent == described


@pytest.mark.parametrize("trusted", [False, True])
async def test_it_works_under_a_strict_content_security_policy(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str, *, trusted: bool
) -> None:
    policy = f"default-src 'none'; script-src {server.url}; connect-src {server.url}"
    policy += "; require-trusted-types-for 'script'; trusted-types 'none'" * trusted
    isolated = {"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Opener-Policy": "same-origin"}
    page, troubles = await watched(visitor)
    site.add_page(
        f"/{item}",
        f"<p>Text</p><a href='{site.other_host_url}/x.pdf'>PDF</a>",
        beacon_tag(server, id=item),
        Content_Security_Policy=policy,
        Referrer_Policy="no-referrer",
        **isolated,
    )
    await page.goto(f"{site.url}/{item}")
    async with visitor.expect_page() as opened:
        await page.click("a", modifiers=["Control"])
    await (await opened.value).close()
    await wait_for_events(server, {"view": 1, "download": 1}, id=item)
    await close_tab(page)
    await wait_for_events(server, {"view": 1, "download": 1, **LEAVING}, id=item)
    assert troubles == []
    # The server recognizes a browser, whatever Origin it sends.
    assert server.get(f"/query?metrics=visitors&id={item}")["rows"] == [[1]]


async def test_a_policy_that_blocks_sending_causes_no_errors(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page, troubles = await watched(visitor)
    policy = f"script-src {server.url} 'unsafe-inline'; connect-src 'none'"
    site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item), Content_Security_Policy=policy)
    await page.goto(f"{site.url}/{item}")
    await page.wait_for_timeout(1300)
    assert await page.evaluate("metronome.tick({event: 'unheard'})") is None
    await close_tab(page)
    assert troubles
    # The browser reports the violation; the page has no error.
    assert all("Content Security Policy" in each for each in troubles)
    assert count_events(server, "event", id=item) == {}


HOSTILE: Final = {
    "arrays become text in their own way": "Array.prototype.toJSON = function () { return 'mine' }",
    "all objects have more": "Object.prototype.extra = 1; Object.prototype.more = () => 2; Array.prototype.each = 3",
    "there is no crypto": "Object.defineProperty(window, 'crypto', {value: undefined})",
    "history cannot be changed": "Object.freeze(History.prototype); Object.freeze(history)",
    "beacons are refused": "Navigator.prototype.sendBeacon = () => false",
    "beacons throw": "Navigator.prototype.sendBeacon = () => { throw new Error('no') }",
    "fetch throws": "window.fetch = () => { throw new Error('no') }",
    "fetch never answers": "window.fetch = () => new Promise(() => {})",
    "nothing observes": "delete window.PerformanceObserver",
    "JSON is broken": "JSON.stringify = () => { throw new Error('no') }",
    "its name is taken": "window.metronome = {q: null, tick: 5}",
    "an element has its name": "document.write('<p id=metronome>')",
    "elements hide what documents have": "document.write('<img name=currentScript><form name=querySelector></form>')",
    "nobody may listen": "EventTarget.prototype.addEventListener = () => { throw new Error('no') }",
    "nothing is found": "Document.prototype.querySelector = () => { throw new Error('no') }",
}
STILL_COUNTED: Final = frozenset(HOSTILE) - {
    "there is no crypto",
    "its name is taken",
    "JSON is broken",
    "beacons throw",
    "fetch throws",
    "fetch never answers",
    "nobody may listen",
    "nothing is found",
    "elements hide what documents have",
    "history cannot be changed",
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_it_raises_no_errors_next_to_scripts_that_break_built_ins(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str, how: str
) -> None:
    page, troubles = await watched(visitor)
    body = "<p>Text</p><a href='#there'>there</a><svg><a href='#x'><text y=20>x</text></a></svg>"
    await page.goto(site.add_page(f"/{item}", f"<script>{HOSTILE[how]}</script>{body}", beacon_tag(server, id=item)))
    await page.click("a[href='#there']")
    await page.evaluate(
        "document.links[0].nextSibling.firstChild.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    await page.evaluate("history.pushState({a: 1}, '', '#end')")
    await page.wait_for_timeout(1200)
    assert await page.evaluate("[history.state.a, location.hash]") == [1, "#end"]
    await close_tab(page)
    assert troubles == []
    if how in STILL_COUNTED:
        found = await poll_until(lambda: count_events(server, "event", id=item, event="view"), bool)
        assert found == {("view",): 1}


async def test_invalid_arguments_of_tick_are_harmless(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page, troubles = await watched(visitor)
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item)))
    await page.evaluate(
        """
        const round = {event: 'round'};
        round.self = round;
        for (const odd of [undefined, null, 7, 'text', round, {event: 'big', n: 7n}, {get event() { throw 1 }}, [1]]) {
            metronome.tick(odd);
        }
        metronome.tick();
        metronome.tick({event: 'good', id: null});
        const {tick} = metronome;
        tick({event: 'good'});
        """
    )
    await close_tab(page)
    await wait_for_events(server, {"good": 1, "view": 7, **LEAVING}, id=item)
    assert [each for each in troubles if "Metronome: " not in each] == []


async def test_the_number_of_errors_is_limited_per_message_and_per_page(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    address = site.add_page(f"/{item}", "<p>Text</p><img src=/none.png>", beacon_tag(server, id=item))
    page = await visitor.new_page()
    await page.goto(address)
    # An image that fails to load is not a script error.
    await page.evaluate("new Promise((done) => document.images[0].onerror = done, document.images[0].src = '/no.png')")
    throwing = "setTimeout(() => {{ throw new RangeError('{0}') }})"
    await page.evaluate(";".join(throwing.format("again") for _ in range(9)))
    await page.evaluate(
        "Promise.reject('a text') && Promise.reject({code: 1, toString: () => { throw 1 }}) && Promise.reject() && 0"
    )
    await page.evaluate(";".join(throwing.format(f"number {'x' * n}") for n in range(30)))
    await page.evaluate("new Promise((done) => setTimeout(done, 50))")
    await close_tab(page)
    await wait_for_events(server, {"view": 1, "error": 20, **LEAVING}, id=item)
    found = count_events(server, "message", id=item, event="error")
    assert {found["RangeError: again",], found["a text",], found["undefined",]} == {3, 1}
    (line,) = {line for (_, line) in count_events(server, "message,error_line", id=item, event="error")}
    assert int(line or 0) > 0
    stacks = [stack or "" for (stack,) in count_events(server, "error_stack", id=item, message="RangeError: again")]
    assert stacks
    assert all(stack.startswith("RangeError: again\n") for stack in stacks)


async def test_a_page_in_the_background_is_not_a_view(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    hidden = """
        let state = 'hidden';
        Object.defineProperty(Document.prototype, 'visibilityState', {get: () => state});
        window.show = () => { state = 'visible'; document.dispatchEvent(new Event('visibilitychange')) };
    """
    pages = []
    for path in ("seen", "unseen"):
        page = await visitor.new_page()
        await page.add_init_script(hidden)
        await page.goto(site.add_page(f"/{item}/{path}", "<p>Text</p>", beacon_tag(server, id=f"{item}-{path}")))
        pages.append(page)
    await pages[0].wait_for_timeout(1200)
    assert count_events(server, "event", id=f"{item}-seen") == {}
    await pages[0].evaluate("show()")
    for page in pages:
        await close_tab(page)
    # Paint times of a hidden page are not web vitals.
    await wait_for_events(server, {"view": 1, **LEAVING}, id=f"{item}-seen")
    answer = server.get(f"/query?metrics=count:FCP,count:TTFB&id={item}-seen")
    assert count_events(server, "event", id=f"{item}-unseen") == {}
    assert answer["rows"] == [[0, 1]]


async def test_a_headless_browser_counts_as_a_robot(
    server: Server, site: StaticSite, browser: Browser, item: str
) -> None:
    context = await browser.new_context(user_agent="Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/141.0.0.0")
    page = await context.new_page()
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item)))
    found = await poll_until(lambda: count_events(server, "bot", id=item, event="view"), bool)
    assert found == {("HeadlessChrome",): 1}
    assert server.get(f"/tock/{item}.json")["views"] == {}
    await context.close()


async def test_sends_to_the_path_below_which_a_proxy_serves_the_script(
    tmp_path: Path, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    with running_server(tmp_path / "data", base_path="/web/stats") as server:
        script = f'<script src="{server.url}/web/stats/metronome.js" data-id="{item}"></script>'
        page = await visitor.new_page()
        async with page.expect_request("**/tick") as sent:
            await page.goto(site.add_page(f"/{item}", head=script))
        assert (await sent.value).url == f"{server.url}/web/stats/tick"
        await close_tab(page)
        await wait_for_events(server, {"view": 1, **LEAVING}, id=item)


async def test_a_page_of_another_origin_may_send_events_with_credentials(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page, troubles = await watched(visitor)
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>"))
    statuses = await page.evaluate(
        """async ([server, id]) => {
            const json = (fields) => new Blob([JSON.stringify(fields)], {type: 'application/json'});
            const form = (fields) => {
                const data = new FormData();
                Object.entries(fields).forEach((pair) => data.append(...pair));
                return data;
            };
            navigator.sendBeacon(server + '/tick', json({id, event: 'json beacon'}));
            navigator.sendBeacon(server + '/tick', form({id, event: 'form beacon'}));
            navigator.sendBeacon(server + '/api/track', json({type: 'track beacon', tags: {id}}));
            navigator.sendBeacon(server + '/api/track', form({type: 'track form', tags: `id:${id}`}));
            const tracing = {traceparent: '00-1-2-01', baggage: 'a=b', 'X-Requested-With': 'x'};
            const options = (fields) => ({
                method: 'POST',
                credentials: 'include',
                headers: {'Content-Type': 'application/json', ...tracing},
                body: JSON.stringify(fields),
            });
            const replies = [
                await fetch(server + '/tick', options({id, event: 'fetch'})),
                await fetch(server + '/api/track', options({type: 'track fetch', tags: {id}})),
            ];
            return replies.map((reply) => reply.status);
        }""",
        [server.url, item],
    )
    assert statuses == [204, 200]
    sent = ("json beacon", "form beacon", "track beacon", "track form", "fetch", "track fetch")
    await wait_for_events(server, dict.fromkeys(sent, 1), id=item)
    assert not troubles
