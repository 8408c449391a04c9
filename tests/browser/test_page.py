"""The page in a real browser: with and without scripts, by keyboard, on a phone, light and dark."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from metronome.demo import generate_day
from metronome.scopes import Scope
from tests.browser.chromium import require_chromium
from tests.browser.sites import StaticSite
from tests.installations import create_key
from tests.servers import Server, running_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE_MAJOR: Final = "4"
AXE_FOLDER: Final = Path(__file__).parents[2] / ".cache" / f"axe-core-{AXE_MAJOR}"
INSTALL_SECONDS: Final = 300
DAYS: Final = 3
WIDE: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 320, "height": 640}
PATHS: Final = (
    "/?range=7d",
    "/items/air-quality-hourly",
    "/tables/items",
    "/?country=NOWHERE",
    "/?contry=CH",
    "/embed/air-quality-hourly?theme=light",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Provide a server with some days of the demo."""
    require_chromium()
    now = datetime.now(UTC)
    events = [event for days in range(DAYS) for event in generate_day(now.date() - timedelta(days=days), now)]
    with running_server(tmp_path_factory.mktemp("page") / "data") as running:
        running.post_events(orjson.dumps(events))
        running.wait_until_shipped()
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def page(visitor: BrowserContext) -> AsyncIterator[Page]:
    """Provide a tab whose errors and console messages fail the test."""
    tab = await visitor.new_page()
    troubles: list[str] = []
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda said: troubles.append(said.text) if said.type in {"error", "warning"} else None)
    await tab.set_viewport_size(WIDE)  # type: ignore[arg-type]  # a size
    yield tab
    assert troubles == []


def number(text: str) -> int:
    return int(text.replace(",", "").removeprefix("≈"))


async def headline(page: Page, label: str) -> int:
    """Return one of the numbers at the top."""
    return number(await page.locator(".headlines li", has_text=label).locator(".value").inner_text())


def first_link(page: Page, table: str) -> Any:
    return page.locator(f"#{table} tbody th .name a").first


async def test_a_click_on_a_row_filters_and_the_address_is_the_view(server: Server, page: Page) -> None:
    week = datetime.now(UTC).date() - timedelta(days=6)
    await page.goto(f"{server.url}/?range=7d")
    assert await headline(page, "Views") == server.get(f"/query?by=event&event=view&from={week}")["rows"][0][-1]
    await page.evaluate("window.isSame = true")
    row = page.locator("#countries tbody tr").first
    count = number(await row.locator("td").first.inner_text())
    await row.locator("a").first.click()
    await expect(page.locator(".chips")).to_contain_text("Country:")
    assert "country=" in page.url
    assert await headline(page, "Views") == count
    assert await page.evaluate("window.isSame")
    copy = await page.context.new_page()
    await copy.goto(page.url)
    assert await headline(copy, "Views") == count
    await page.go_back()
    await expect(page.locator(".chips")).to_have_count(0)
    assert await headline(page, "Views") > count


@pytest.mark.slow
async def test_all_works_without_scripts(server: Server, browser: Browser) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{server.url}/?range=7d")
    views = await headline(page, "Views")
    await first_link(page, "countries").click()
    assert 0 < await headline(page, "Views") < views
    await page.locator(".chips a").first.click()
    assert await headline(page, "Views") == views
    await page.locator(".headlines a", has_text="Downloads").click()
    await expect(page.locator(".key").first).to_have_text("Downloads by day")
    day = datetime.now(UTC).date() - timedelta(days=1)
    await page.locator("summary").first.click()
    for name in ("from", "to"):
        await page.locator(f"input[name={name}]").fill(day.isoformat())
    await page.locator("text=Show this range").click()
    assert f"from={day}" in page.url
    assert "metric=downloads" in page.url
    await page.locator("summary", has_text="UTC").click()
    await page.locator(".panel select").select_option("Asia/Tokyo")
    await page.locator("text=Use this time zone").click()
    assert f"from={day}" in page.url
    assert "tz=Asia%2FTokyo" in page.url
    await page.locator("#items .open").first.focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/items/**")
    await page.locator(".crumb a").click()
    await page.locator("#items .foot a", has_text="All").click()
    await page.locator("input[type=search]").fill("air")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**search=air*")
    assert await page.locator("#items tbody tr").count() >= 1
    await context.close()


@pytest.mark.slow
async def test_the_chart_is_read_by_pointer_and_keyboard_without_a_jump(server: Server, page: Page) -> None:
    await page.goto(f"{server.url}/?range=7d")
    readout, chart = page.locator("#readout"), page.locator(".chart")
    place = await chart.bounding_box()
    bars = page.locator(".chart > a")
    assert await bars.count() == 7
    await bars.nth(5).hover()
    await expect(readout).to_contain_text("views")
    assert await chart.bounding_box() == place
    await page.mouse.move(5, 5)
    await expect(readout).to_have_text("")
    await bars.nth(6).focus()
    last = await readout.inner_text()
    assert "so far" in last
    await page.keyboard.press("ArrowLeft")
    assert await readout.inner_text() not in {"", last}
    await page.keyboard.press("Enter")
    await page.wait_for_url("**from=*")
    assert await chart.bounding_box() == place


@pytest.mark.slow
async def test_tabs_follow_the_order_of_reading(server: Server, page: Page) -> None:
    await page.goto(f"{server.url}/?range=7d")
    tops: list[str] = []
    for _ in range(60):
        await page.keyboard.press("Tab")
        groups = "'.skip, .masthead, .controls, .ranges, .headlines, .intervals, .chart, section[id], .live, footer'"
        group = await page.evaluate(f"(e => e?.id || e?.classList[0])(document.activeElement.closest({groups}))")
        if group and (not tops or tops[-1] != group):
            tops.append(group)
    assert tops[:8] == ["skip", "masthead", "controls", "ranges", "headlines", "intervals", "chart", "items"]
    assert await page.locator(":focus-visible").count() == 1


@pytest.mark.slow
async def test_the_focus_stays_where_a_link_was_followed(server: Server, page: Page) -> None:
    await page.goto(f"{server.url}/?range=7d")
    await page.locator(".headlines a", has_text="Visitors").focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**metric=visitors*")
    await expect(page.locator(".headlines a[aria-current]")).to_be_focused()
    await page.locator("summary").first.press("Enter")
    await expect(page.locator("input[name=from]")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("input[name=from]")).to_be_hidden()
    await expect(page.locator("summary").first).to_be_focused()


@pytest.mark.slow
async def test_a_click_with_ctrl_opens_the_item(server: Server, page: Page) -> None:
    await page.goto(f"{server.url}/?range=7d")
    address = await first_link(page, "items").get_attribute("data-page")
    async with page.context.expect_page() as opened:
        await first_link(page, "items").click(modifiers=["Control"])
    item = await opened.value
    await item.wait_for_url(f"**{address}")
    assert "/items/" in item.url


@pytest.mark.slow
async def test_the_theme_follows_the_system_until_it_is_chosen(server: Server, page: Page) -> None:
    async def ground() -> str:
        return str(await page.evaluate("getComputedStyle(document.body).backgroundColor"))

    await page.emulate_media(color_scheme="dark")
    await page.goto(server.url)
    dark = await ground()
    await page.emulate_media(color_scheme="light")
    light = await ground()
    assert light != dark
    await page.locator("#theme").select_option("dark")
    assert await ground() == dark
    await page.reload()
    assert await ground() == dark
    await page.locator("#theme").select_option("")
    assert await ground() == light


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 400, 700, 1000, 1920])
async def test_nothing_is_wider_than_the_screen(server: Server, page: Page, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 800})
    for path in (*PATHS, "/?range=12m&compare=year"):
        if path.startswith("/?contry"):
            continue  # the browser reports its status as an error
        await page.goto(server.url + path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
    if width == PHONE["width"]:
        await page.goto(f"{server.url}/?range=7d")
        assert await page.locator("#live").is_hidden()
        assert await page.evaluate("getComputedStyle(document.querySelector('.chart text')).fontSize") == "13px"
        await page.locator(".livelink").click()
        assert await page.locator("#live").is_visible()


@pytest.mark.slow
async def test_pages_request_only_their_own_files(server: Server, page: Page) -> None:
    requests: list[tuple[str, int]] = []

    async def note(response: Any) -> None:
        sizes = await response.request.sizes()
        requests.append((response.url, sizes["responseBodySize"]))

    page.on("response", note)
    address = f"{server.url}/?range=7d"
    await page.goto(address)
    await page.wait_for_timeout(300)
    assert all(url.startswith(server.url) for url, _ in requests)
    assert {url.rpartition(".")[2] for url, _ in requests if url != address} <= {"css", "js", "svg"}
    assert sum(size for _, size in requests) < 60_000


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """Provide a server below a path, and a key that may query."""
    key = create_key(tmp_path / "data", "reader", Scope.QUERY)
    with running_server(tmp_path / "data", base_path="/stats") as running:
        running.post_events(b'[{"id":"rivers"},{"id":"rivers","event":"error","message":"no tile 12"}]')
        running.wait_until_shipped()
        yield running, key


@pytest.mark.slow
async def test_a_key_shows_the_rest_until_signing_out(keyed: tuple[Server, str], page: Page) -> None:
    running, key = keyed
    await page.goto(f"{running.url}/stats/?range=7d")
    await expect(page.locator("#errors")).to_have_count(0)
    await page.locator(".locked").click()
    await page.wait_for_url("**/stats/sign-in?**")
    await page.locator("#key").fill(key)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/stats/?range=7d*")
    await expect(page.locator("#errors")).to_contain_text("no tile")
    await page.locator("text=Sign out").click()
    await expect(page.locator("text=Sign in").first).to_be_visible()
    await expect(page.locator("#errors")).to_have_count(0)


@pytest.mark.slow
async def test_the_live_part_is_read_anew(server: Server, page: Page) -> None:
    await page.clock.install()
    await page.goto(f"{server.url}/?id=live-item")
    await expect(page.locator(".pulse b")).to_have_text("0")
    server.post_events(b'[{"id":"live-item"},{"id":"live-item","event":"download"}]')
    server.wait_until_shipped()
    await page.clock.fast_forward(10_000)
    await expect(page.locator(".pulse b")).to_have_text("2")
    await expect(page.locator("#live li").first).to_contain_text("live-item")


@pytest.mark.slow
@pytest.mark.parametrize(("schemes", "theme"), [("", "light"), ("light dark", ""), ("dark", "dark")])
async def test_an_embed_follows_the_page_that_shows_it(
    server: Server, site: StaticSite, page: Page, schemes: str, theme: str
) -> None:
    tag = f'<script src="{server.url}/usage.js" data-id="a/b c" data-into="#usage"></script>'
    style = f"<style>:root {{ color-scheme: {schemes or 'normal'} }}</style><link rel=icon href=data:,>"
    await page.emulate_media(color_scheme="dark")
    await page.goto(site.add_page("/embedding", "<div id=usage></div>", style + tag))
    frame = page.frame_locator("#usage iframe")
    await expect(frame.locator("#views")).to_have_text("0")
    assert await frame.locator("html").get_attribute("data-theme") == (theme or None)
    address = await page.locator("iframe").get_attribute("src")
    assert address == f"{server.url}/embed/a%2Fb%20c{'?theme=' if theme else ''}{theme}"


@pytest.fixture(scope="session")
def axe() -> str:
    """Return the source of axe-core, installed once into ``.cache``."""
    script = AXE_FOLDER / "node_modules/axe-core/axe.min.js"
    if not script.exists():
        try:
            AXE_FOLDER.mkdir(parents=True, exist_ok=True)
            wanted = ["--no-audit", "--no-fund", f"axe-core@{AXE_MAJOR}"]
            command = [shutil.which("npm") or "npm", "install", "--prefix", str(AXE_FOLDER), *wanted]
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            message = f"npm could not install axe-core {AXE_MAJOR}: {error}"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)
    return script.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE["width"], WIDE["width"]])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_has_no_serious_finding(server: Server, browser: Browser, axe: str, scheme: Any, width: int) -> None:
    context = await browser.new_context(bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900})
    page = await context.new_page()
    for path in PATHS:
        await page.goto(server.url + path)
        await page.evaluate(axe)
        findings = (await page.evaluate("axe.run(document, {resultTypes: ['violations']})"))["violations"]
        serious = [
            (found["id"], [node["html"] for node in found["nodes"]])
            for found in findings
            if found["impact"] in {"serious", "critical"}
        ]
        assert serious == [], path
    await context.close()
