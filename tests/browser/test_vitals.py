"""Web vitals match those of the npm package ``web-vitals`` on the same page in the same browser."""

import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import orjson
import pytest
from playwright.async_api import BrowserContext, Page

from tests.browser.chromium import beacon_tag, close_tab, count_events, poll_until
from tests.browser.sites import SitePage as Served
from tests.browser.sites import StaticSite
from tests.servers import Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]  # loads pages and waits for events

MAJOR: Final = "6"
FOLDER: Final = Path(__file__).parents[2] / ".cache" / f"web-vitals-{MAJOR}"
INSTALL_SECONDS: Final = 300
MEASURES: Final = ("TTFB", "FCP", "LCP", "CLS", "INP")
LOADED: Final = "navigate"
RESTORED: Final = "back-forward-cache"
ROUNDING: Final = {"CLS": 0.0001}
"""Maximum differences; for other metrics 1 ms, because the beacon rounds to milliseconds."""


@pytest.fixture(scope="session")
def library() -> str:
    """Return the source of the npm library, installed once into ``.cache``."""
    script = FOLDER / "node_modules/web-vitals/dist/web-vitals.iife.js"
    if not script.exists():
        try:
            _install()
        except (OSError, subprocess.SubprocessError) as error:
            message = f"npm could not install web-vitals {MAJOR}: {error}"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)
    version = orjson.loads((script.parents[1] / "package.json").read_bytes())["version"]
    assert version.partition(".")[0] == MAJOR
    return script.read_text()


def _install() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = ["--no-audit", "--no-fund", f"web-vitals@{MAJOR}"]
    command = [shutil.which("npm") or "npm", "install", "--prefix", str(FOLDER), *wanted]
    subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)


TELLING: Final = """
    for (const name of ['TTFB', 'FCP', 'LCP', 'CLS', 'INP']) {
        webVitals[`on${name}`](({name, value, navigationType}) =>
            metronome.tick({event: 'theirs', measure: name, value, navigation: navigationType}));
    }
"""
"""Sends the library's metrics to Metronome, in addition to the beacon's."""

BUSY: Final = "const busy = (ms) => { const end = performance.now() + ms; while (performance.now() < end); };"
SHIFTING: Final = """
    const grow = (px, at) => setTimeout(() => {
        const block = document.createElement('div');
        block.style.height = `${px}px`;
        document.body.prepend(block);
    }, at);
"""


async def nothing(page: Page) -> None:
    await page.wait_for_timeout(300)


async def jumping(page: Page) -> None:
    """Shift the layout in two bursts, and in one that is longer than a session window."""
    await page.evaluate(
        f"{SHIFTING}; grow(40, 50); grow(80, 500); grow(30, 1800);"
        "for (let n = 0; n < 8; n++) grow(20 + n, 3000 + 800 * n)"
    )
    await page.wait_for_timeout(9200)


async def jumping_when_clicked(page: Page) -> None:
    """Shift the layout after a click, which does not count, and once without one."""
    await page.evaluate(f"{SHIFTING}; document.querySelector('button').onclick = () => grow(90, 20)")
    await page.click("button")
    await page.wait_for_timeout(700)
    await page.evaluate(f"{SHIFTING}; grow(15, 0)")
    await page.wait_for_timeout(300)


async def growing(page: Page) -> None:
    """Show a larger element later."""
    await page.evaluate(
        "setTimeout(() => document.body.insertAdjacentHTML('beforeend', `<h1>${'Large text '.repeat(60)}</h1>`), 400)"
    )
    await page.wait_for_timeout(800)


async def clicking(page: Page) -> None:
    """Click and type, slowly and fast."""
    await page.evaluate(
        f"{BUSY}; let n = 0; document.querySelector('button').onclick = () => busy([20, 170, 90][n++]);"
        "document.querySelector('input').onkeydown = () => busy(60)"
    )
    for _ in range(3):
        await page.click("button")
    await page.type("input", "ab")
    await page.wait_for_timeout(400)


async def clicking_often(page: Page) -> None:
    """Click so often that the slowest click is ignored as an outlier."""
    await page.evaluate(
        f"{BUSY}; let n = 0; const slow = {{7: 500, 20: 120, 40: 80}};"
        "document.querySelector('button').onclick = () => busy(slow[n++] || 0)"
    )
    box = await page.locator("button").bounding_box()
    assert box is not None
    for _ in range(60):
        await page.mouse.click(box["x"] + 5, box["y"] + 5)
        # The next click must not wait for this one.
        await page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert await page.evaluate("performance.interactionCount") == 60
    await page.wait_for_timeout(400)


DOING: Final[dict[str, Callable[[Page], Awaitable[None]]]] = {
    each.__name__: each for each in (nothing, jumping, jumping_when_clicked, growing, clicking, clicking_often)
}
SAID: Final = {
    "nothing": set(MEASURES) - {"INP"},
    "jumping": set(MEASURES) - {"INP"},
    "growing": set(MEASURES) - {"INP"},
}
"""The metrics of cases that have not all of them."""


def served(server: Server, site: StaticSite, item: str, library: str, **more: float) -> str:
    site.pages["/web-vitals.js"] = Served(library, "text/javascript")
    head = f"{beacon_tag(server, ' ', id=item)}<script src=/web-vitals.js></script><script>{TELLING}</script>"
    body = "<h2>A page</h2><p>with a <button>button</button> and an <input></p>" + "<p>Some text.</p>" * 20
    address = site.add_page(f"/{item}", body, head)
    if more:
        site.pages[f"/{item}"] = Served(site.pages[f"/{item}"].body, **more)  # type: ignore[arg-type]  # a delay
    return address


def theirs(server: Server, item: str, navigation: str) -> dict[str, float]:
    asked = f"/query?by=measure&metrics=avg:value,count&id={item}&event=theirs&navigation={navigation}"
    rows = server.get(asked).get("rows", ())
    assert all(count == 1 for _, _, count in rows)
    return {name: value for name, value, _ in rows}


def ours(server: Server, item: str, *, restored: bool) -> dict[str, float]:
    """Return the beacon's metrics; a restored page has a TTFB of 0."""
    where = "TTFB<0.5" if restored else "TTFB>=0.5"
    metrics = ",".join(f"avg:{name},count:{name}" for name in MEASURES)
    (row,) = server.get(f"/query?metrics={metrics}&id={item}&event=timing&{where}")["rows"]
    found = dict(zip(MEASURES, zip(row[::2], row[1::2], strict=True), strict=True))
    assert {count for _, count in found.values()} <= {0, 1}
    return {name: value for name, (value, count) in found.items() if count}


def assert_alike(one: dict[str, float], other: dict[str, float]) -> None:
    assert one.keys() == other.keys()
    apart = {name: (value, other[name]) for name, value in one.items()}
    assert {name: pair for name, pair in apart.items() if abs(pair[0] - pair[1]) > ROUNDING.get(name, 1.0)} == {}


@pytest.mark.parametrize("what", DOING)
async def test_web_vitals_match_those_of_the_library(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str, library: str, what: str
) -> None:
    page = await visitor.new_page()
    await page.goto(served(server, site, item, library, delay=0.15))
    await DOING[what](page)
    await close_tab(page)
    names = SAID.get(what, set(MEASURES))
    found = await poll_until(lambda: _told(server, item, LOADED), lambda told: told.keys() >= names)
    assert found.keys() == names
    assert found["TTFB"] >= 150
    measured = ours(server, item, restored=False)
    assert_alike(measured, found)
    # Make sure that there is something to compare.
    assert (measured["CLS"] > 0) == what.startswith("jumping")
    assert measured.get("INP", 0) >= {"clicking": 170, "clicking_often": 120}.get(what, 0)
    assert measured.get("INP", 0) < {"clicking_often": 500}.get(what, 5000)


async def test_a_restored_page_is_measured_again(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str, library: str
) -> None:
    page = await visitor.new_page()
    address = served(server, site, item, library, delay=0.05)
    await page.goto(address)
    await clicking(page)
    await jumping_when_clicked(page)
    await page.goto(site.add_page(f"/{item}/other"))
    await page.evaluate("history.back()")
    assert await poll_until(lambda: page.url, lambda seen: seen == address) == address
    await page.wait_for_timeout(300)
    await page.evaluate(f"{SHIFTING}; grow(33, 0)")
    await page.wait_for_timeout(300)
    await close_tab(page)
    found = await poll_until(lambda: _told(server, item, RESTORED), lambda told: len(told) >= 4)
    assert found.keys() == set(MEASURES) - {"INP"}
    assert_alike(ours(server, item, restored=True), found)
    assert found["CLS"] > 0
    assert_alike(ours(server, item, restored=False), theirs(server, item, LOADED))


def _told(server: Server, item: str, navigation: str) -> dict[str, float]:
    server.wait_until_shipped()
    # The server has no result for fields that no event has had yet.
    return theirs(server, item, navigation) if count_events(server, "event", id=item, event="theirs") else {}
