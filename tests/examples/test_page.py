"""The example of pages with the beacon, in a real browser."""

import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.chromium import close_tab, require_chromium, wait_for_events
from tests.examples.running import EXAMPLES, started
from tests.servers import Server, free_port, running_server

pytestmark = pytest.mark.slow  # starts a service and a server

in_a_browser = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    require_chromium()
    with running_server(tmp_path / "data") as running:
        yield running


@in_a_browser
async def test_a_visit_is_counted_and_shown_on_the_page(server: Server, visitor: BrowserContext) -> None:
    problems: list[str] = []
    visitor.on("weberror", lambda error: problems.append(str(error.error)))
    visitor.on(
        "console",
        lambda message: problems.append(message.text) if "Content Security Policy" in message.text else None,
    )
    with started("page/serve.py", "--metronome", server.url) as address:
        page = await visitor.new_page()
        await page.goto(address)
        await page.click("text=Rivers and streams")
        await page.wait_for_url("**/rivers.html")
        usage = page.frame_locator("iframe")
        await expect(usage.locator("#views")).to_have_text("1", timeout=15_000)
        for form in ("CSV", "CSV", "GeoJSON"):
            async with page.expect_download() as download:
                await page.click(f"text={form} >> nth=0")
            assert (await download.value).suggested_filename.startswith("rivers.")
        # The frame reads new numbers every ten seconds.
        await expect(usage.locator("#downloads")).to_have_text("3", timeout=15_000)
        assert await usage.locator("#formats").inner_text() == "csv\n2\ngeojson\n1"
        assert await usage.locator(".chart .bar").count() == 1
        content = await usage.locator("main").bounding_box()
        assert content is not None
        await expect(page.locator("iframe")).to_have_attribute("height", str(math.ceil(content["height"])))
        await page.goto(f"{address}/trees.html", referer="https://www.example.org/links/")
        await expect(usage.locator("#referrers")).to_contain_text("example.org/links", timeout=15_000)
        await page.goto(f"{address}/")
        badge = page.get_by_alt_text("downloads of rivers")
        assert await badge.evaluate("(picture) => picture.decode().then(() => picture.naturalWidth > 50)")
        await close_tab(page)
        today = datetime.now(UTC).date().isoformat()
        leaving = {"timing": 1, "heartbeat": 1}
        await wait_for_events(server, {"view": 1, "download": 3, **leaving}, id="rivers")
        await wait_for_events(server, {"view": 1, **leaving}, id="trees")
        await wait_for_events(server, {"view": 2, "timing": 2, "heartbeat": 2}, id="home")
        assert server.get("/tock/rivers.json") == {
            "views": {today: 1},
            "downloads": {"csv": 2, "geojson": 1},
            "referers": {},
            "totals": {"views": 1, "downloads": 3},
            "partial": [today],
        }
        assert server.get("/tock/trees.json") == {
            "views": {today: 1},
            "downloads": {},
            "referers": {"example.org/links": 1},
            "totals": {"views": 1, "downloads": 0},
            "partial": [today],
        }
        assert server.get("/flow/rivers.json")["previous"] == {"home": 1}
        assert problems == []


def test_it_warns_if_metronome_is_unreachable() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "page/serve.py", "--port", "0", "--metronome", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("the page is at http://localhost:")
    process.terminate()
    _, errors = process.communicate(timeout=10)
    assert errors.startswith(f"Metronome is unreachable at {url}")
    assert errors.endswith("start it with `make serve`\n")
