"""Events are neither lost nor counted twice while offline, during outages, in several tabs, and with full storage."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson
import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.browser.chromium import (
    beacon_tag,
    close_tab,
    count_events,
    launch_with_profile,
    poll_until,
    require_chromium,
    wait_for_events,
)
from tests.browser.sites import SitePage as Served
from tests.browser.sites import StaticSite
from tests.servers import Server, running_server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]  # loads pages and waits for events

LEAVING: Final = {"timing": 1, "heartbeat": 1}
WAITING: Final = "Object.keys(localStorage).filter((key) => key.startsWith('metronome '))"
WEEK_MS: Final = 7 * 24 * 3600 * 1000

TROUBLES: Final = {
    "full": """
        for (let text = 'x'.repeat(2 ** 20); text.length;) {
            try { localStorage.setItem(Math.random(), text) } catch { text = text.slice(text.length / 2 + 1) }
        }
    """,
    "forbidden": """
        Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})
    """,
    "gone": "Object.defineProperty(window, 'localStorage', {value: null})",
}
"""Scripts that break a page's storage."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """Return a server that the test may kill."""
    with running_server(tmp_path / "data") as running:
        yield running


async def waiting(page: Page) -> list[str]:
    found: list[str] = await page.evaluate(WAITING)
    return found


async def wait_for(page: Page, batches: int) -> None:
    await page.wait_for_function(f"{WAITING}.length === {batches}")


async def test_events_while_offline_are_sent_later_with_their_timestamps(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    address = site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item))
    page = await visitor.new_page()
    await page.goto(address)
    await wait_for_events(server, {"view": 1}, id=item)
    await visitor.set_offline(offline=True)
    await page.evaluate("metronome.tick({event: 'away', n: 1})")
    at = time.time() * 1000
    await wait_for(page, 1)
    await page.wait_for_timeout(1500)
    await page.evaluate("metronome.tick({event: 'away', n: 2})")
    await wait_for(page, 2)
    await visitor.set_offline(offline=False)
    await wait_for(page, 0)
    await wait_for_events(server, {"view": 1, "away": 2}, id=item)
    first, second = (server.get(f"/query?metrics=first&id={item}&n={n}")["rows"][0][0] for n in (1, 2))
    times = [await page.evaluate("(stamp) => Date.parse(stamp)", stamp) for stamp in (first, second)]
    assert abs(times[0] - at) < 5000
    assert times[1] - times[0] > 1400
    await close_tab(page)
    await wait_for_events(server, {"view": 1, "away": 2, **LEAVING}, id=item)


async def test_events_unsent_when_a_page_closes_are_sent_by_the_next_page(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    address = site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item))
    page, other = await visitor.new_page(), await visitor.new_page()
    await page.goto(address)
    await other.goto(site.add_page(f"/{item}/without"))
    await wait_for_events(server, {"view": 1}, id=item)
    await visitor.set_offline(offline=True)
    await page.evaluate("metronome.tick({event: 'away'})")
    await close_tab(page)
    await wait_for(other, 1)
    await visitor.set_offline(offline=False)
    await other.goto(site.add_page(f"/{item}/next", head=beacon_tag(server, id=f"{item}-next", off="vitals")))
    await wait_for(other, 0)
    await wait_for_events(server, {"view": 1, "away": 1, **LEAVING}, id=item)


async def test_a_server_that_is_killed_and_restarted_receives_every_event_once(
    own: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page = await visitor.new_page()
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(own, id=item)))
    await wait_for_events(own, {"view": 1}, id=item)
    own.kill()
    for n in (1, 2):
        await page.evaluate(f"metronome.tick({{event: 'away', n: {n}}})")
        await wait_for(page, n)
    own.start()
    # The page gets no signal: it retries by itself.
    await wait_for(page, 0)
    await wait_for_events(own, {"view": 1, "away": 2}, id=item)
    own.kill()
    await page.evaluate("metronome.tick({event: 'away', n: 3})")
    await wait_for(page, 1)
    # The page knows that the server is down and does not use sendBeacon, whose result is unknown.
    await close_tab(page)
    again = await visitor.new_page()
    own.start()
    await again.goto(site.add_page(f"/{item}/next", head=beacon_tag(own, id=f"{item}-next")))
    await wait_for(again, 0)
    await wait_for_events(own, {"view": 1, "away": 3, **LEAVING}, id=item)


async def test_unsent_events_survive_a_restart_of_the_browser(
    own: Server, site: StaticSite, item: str, tmp_path: Path
) -> None:
    address = site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(own, id=item, off="vitals", heartbeat="0"))
    async with launch_with_profile(require_chromium(), tmp_path / "profile") as before:
        page = await before.new_page()
        await page.goto(address)
        await wait_for_events(own, {"view": 1}, id=item)
        own.kill()
        await page.evaluate("metronome.tick({event: 'away'})")
        await wait_for(page, 1)
    own.start()
    async with launch_with_profile(require_chromium(), tmp_path / "profile") as after:
        page = await after.new_page()
        await page.goto(address)
        await wait_for(page, 0)
        await wait_for_events(own, {"view": 2, "away": 1}, id=item)


async def test_unsent_events_are_kept_while_requests_fail(
    own: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    script = await (await visitor.request.get(f"{own.url}/metronome.js")).text()
    site.pages["/counting.js"] = Served(script, "text/javascript")
    head = f"<script src=/counting.js data-url={own.url} data-id={item} data-heartbeat=0 data-off=vitals></script>"
    address = site.add_page(f"/{item}", "<p>Text</p>", head)
    own.kill()
    first = await visitor.new_page()
    await first.goto(address)
    await wait_for(first, 1)
    await close_tab(first)
    # The next page retries stored events and, when that fails, stores its own.
    second = await visitor.new_page()
    async with second.expect_event("requestfailed"):
        await second.goto(address)
    await second.evaluate("new Promise((done) => setTimeout(done, 100))")
    await close_tab(second)
    own.start()
    third = await visitor.new_page()
    await third.goto(address)
    await wait_for(third, 0)
    await wait_for_events(own, {"view": 3}, id=item)


async def test_events_wait_while_the_spool_of_the_server_is_full(
    tmp_path: Path, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    require_chromium()
    with Server(tmp_path / "data", spool_max_bytes=1) as full:
        full.start()
        page = await visitor.new_page()
        await page.goto(site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(full, id=item)))
        await wait_for(page, 1)
        full.stop()
        full.settings["spool_max_bytes"] = 10_000_000
        full.start()
        await wait_for(page, 0)
        await close_tab(page)
        await wait_for_events(full, {"view": 1, **LEAVING}, id=item)


async def test_offline_tabs_neither_lose_nor_duplicate_events(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    address = site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item))
    # Events at the same time in several tabs are stored separately.
    await visitor.add_init_script(f"Date.now = () => {time.time() * 1000:.0f}")
    pages = [await visitor.new_page() for _ in range(3)]
    for page in pages:
        await page.goto(address)
    await wait_for_events(server, {"view": 3}, id=item)
    await visitor.set_offline(offline=True)
    for turn in range(2):
        for n, page in enumerate(pages):
            await page.evaluate(f"metronome.tick({{event: 'away', n: {10 * turn + n}}})")
        await wait_for(pages[0], 3 * (turn + 1))
    await close_tab(pages.pop())
    await wait_for(pages[0], 7)
    # Both tabs send all stored events at the same time.
    await visitor.set_offline(offline=False)
    await wait_for(pages[0], 0)
    await wait_for_events(server, {"view": 3, "away": 6, **LEAVING}, id=item)
    for page in pages:
        await close_tab(page)
    await wait_for_events(server, {"view": 3, "away": 6, "timing": 3, "heartbeat": 3}, id=item)


async def test_unsent_events_older_than_a_week_are_dropped(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page = await visitor.new_page()
    await page.goto(site.add_page(f"/{item}/without"))
    now = time.time() * 1000
    for age, name in ((WEEK_MS + 60_000, "old"), (WEEK_MS - 3600_000, "young")):
        key = f"metronome {server.url}/tick {now - age:.0f} x"
        batch = orjson.dumps([{"event": name, "event_id": f"{item}-{name}", "ts": round(now - age), "id": item}])
        await page.evaluate("([key, text]) => localStorage.setItem(key, text)", [key, batch.decode()])
    await page.evaluate("localStorage.setItem('metronome', 'the page\\'s own')")
    await page.goto(site.add_page(f"/{item}", head=beacon_tag(server, id=item, off="views vitals", heartbeat="0")))
    await wait_for(page, 0)
    await wait_for_events(server, {"young": 1}, id=item)
    assert await page.evaluate("({...localStorage})") == {"metronome": "the page's own"}


async def test_unsent_events_are_limited_and_the_oldest_dropped_first(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page = await visitor.new_page()
    await page.goto(site.add_page(f"/{item}", head=beacon_tag(server, id=item, off="views vitals", heartbeat="0")))
    await visitor.set_offline(offline=True)
    now = time.time() * 1000
    for n in range(20):
        key = f"metronome {server.url}/tick {now - 60_000 + n:.0f} x"
        batch = orjson.dumps([{"event": "away", "event_id": f"{item}-{n}", "id": item, "n": n, "text": "x" * 20_000}])
        await page.evaluate("([key, text]) => localStorage.setItem(key, text)", [key, batch.decode()])
    await page.evaluate("metronome.tick({event: 'away', n: 20})")
    await wait_for(page, 13)
    sizes = await page.evaluate(f"{WAITING}.map((key) => localStorage.getItem(key).length)")
    assert 200_000 < sum(sizes) <= 250_000
    await visitor.set_offline(offline=False)
    await wait_for(page, 0)
    await wait_for_events(server, {"away": 13}, id=item)
    assert sorted(int(n or 0) for (n,) in count_events(server, "n", id=item)) == list(range(8, 21))


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_without_storage_unsent_events_are_kept_in_memory(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str, trouble: str
) -> None:
    breaking = TROUBLES[trouble]
    page = await visitor.new_page()
    await page.goto(
        site.add_page(f"/{item}", "<p>Text</p>", f"<script>{breaking}</script>{beacon_tag(server, id=item)}")
    )
    await wait_for_events(server, {"view": 1}, id=item)
    await visitor.set_offline(offline=True)
    await page.evaluate("metronome.tick({event: 'away'})")
    await page.wait_for_timeout(1300)
    await visitor.set_offline(offline=False)
    await wait_for_events(server, {"view": 1, "away": 1}, id=item)
    await close_tab(page)
    await wait_for_events(server, {"view": 1, "away": 1, **LEAVING}, id=item)


async def test_events_that_cannot_be_stored_are_sent_when_the_page_closes(
    own: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page = await visitor.new_page()
    broken = f"<script>{TROUBLES['forbidden']}</script>"
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>", broken + beacon_tag(own, id=item)))
    await wait_for_events(own, {"view": 1}, id=item)
    own.kill()
    async with page.expect_event("requestfailed"):
        await page.evaluate("metronome.tick({event: 'away'})")
    own.start()
    await close_tab(page)
    await wait_for_events(own, {"view": 1, "away": 1, **LEAVING}, id=item)


async def test_more_events_than_a_browser_sends_at_once_arrive(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page = await visitor.new_page()
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item)))
    await page.evaluate(
        "for (let n = 0; n < 300; n++) metronome.tick({event: 'many', n, text: '語'.repeat(300)});"
        "metronome.tick({event: 'huge', text: '語'.repeat(100_000)})"
    )
    await close_tab(page)
    # The browser sends as much as it allows when the page closes.
    assert await poll_until(lambda: count_events(server, "event", id=item, event="many"), bool)
    other = await visitor.new_page()
    await other.goto(site.add_page(f"/{item}/next", head=beacon_tag(server, id=f"{item}-next")))
    await wait_for(other, 0)
    await wait_for_events(server, {"view": 1, "many": 300, "huge": 1, **LEAVING}, id=item)


async def test_a_rejected_event_is_logged_in_the_console_and_not_sent_again(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str
) -> None:
    page = await visitor.new_page()
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(server, id=item)))
    async with page.expect_console_message(lambda message: message.type == "warning") as told:
        await page.evaluate("metronome.tick({event: 'odd', ts: 'noon'}); metronome.tick({event: 'even'})")
    assert "invalid timestamp 'noon'" in (await told.value).text
    assert await waiting(page) == []
    await close_tab(page)
    await wait_for_events(server, {"view": 1, "even": 1, **LEAVING}, id=item)


async def test_unsent_events_are_sent_only_to_their_own_server(
    own: Server, server: Server, site: StaticSite, browser: Browser, item: str
) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(site.add_page(f"/{item}", "<p>Text</p>", beacon_tag(own, id=item)))
    await wait_for_events(own, {"view": 1}, id=item)
    own.kill()
    await page.evaluate("metronome.tick({event: 'away'})")
    await wait_for(page, 1)
    await page.goto(site.add_page(f"/{item}/other", "<p>Text</p>", beacon_tag(server, id=item)))
    await close_tab(page)
    await wait_for_events(server, {"view": 1, **LEAVING}, id=item)
    await context.close()
