"""The scripts of Plausible, and the calls of GoatCounter's, in a real browser on a page of another origin."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext

from tests.browser.chromium import browser, require_chromium, visitor, wait_for_events  # noqa: F401  # fixtures
from tests.browser.sites import SitePage, StaticSite, running_site
from tests.programs.programs import INSTALLED
from tests.servers import Server, running_server, unique_name

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODULES = INSTALLED / "node" / "node_modules"
TRACKER = "plausible-tracker/build/module"
SCRIPT = "text/javascript"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    require_chromium()
    with running_server(tmp_path_factory.mktemp("trackers") / "data") as running:
        yield running


@pytest.fixture
def site() -> Iterator[StaticSite]:
    with running_site() as running:
        yield running


def serve(site: StaticSite, path: str, file: Path) -> None:
    site.pages[path] = SitePage(file.read_text(), SCRIPT)


async def test_plausible_tracker_counts_views_and_events(
    server: Server,
    site: StaticSite,
    visitor: BrowserContext,  # noqa: F811  # the fixture
) -> None:
    item = unique_name("item-")
    for name in ("index", "lib/tracker", "lib/request"):
        file = MODULES / TRACKER / f"{name}.js"
        # The package is made for bundlers, and imports without the extension.
        serve(site, f"/{name}", file)
    tag = f"""<script type="module">
        import Plausible from "/index"
        const plausible = Plausible({{domain: "data.example.org", apiHost: "{server.url}", trackLocalhost: true}})
        plausible.trackPageview()
        await new Promise((callback) => plausible.trackEvent("Signup", {{callback, props: {{plan: "a"}}}}))
    </script>"""
    page = await visitor.new_page()
    await page.goto(site.add_page(f"/{item}", head=tag))
    await wait_for_events(server, {"view": 1, "Signup": 1}, id=f"/{item}")


async def test_plausibles_own_script_counts_views_links_and_downloads(
    server: Server,
    site: StaticSite,
    visitor: BrowserContext,  # noqa: F811  # the fixture
) -> None:
    item = unique_name("item-")
    serve(site, "/plausible.js", MODULES / "@plausible-analytics/tracker/plausible.js")
    tag = f"""<script type="module">
        import {{ init, track }} from "/plausible.js"
        window.__plausible = true
        init({{domain: "data.example.org", endpoint: "{server.url}/api/event", captureOnLocalhost: true,
               outboundLinks: true, fileDownloads: true}})
        window.track = track
    </script>"""
    links = {"file": f"/{item}.csv", "out": "https://other.example/"}
    body = "".join(f'<a id="{name}" target="_blank" href="{url}">a</a>' for name, url in links.items())
    page = await visitor.new_page()
    await page.goto(site.add_page(f"/{item}", body, tag))
    await page.wait_for_function("!!window.track")
    await page.click("#file")
    await page.click("#out")
    await page.evaluate("""track("Buy", {revenue: {currency: "EUR", amount: 9.5}, props: {plan: "gold"}})""")
    await wait_for_events(server, {"download": 1}, id=f"/{item}.csv", format="csv")
    rows = server.get(f"/query?id=/{item}&by=event")["rows"]
    counts = {event: count for event, count in rows if event != "heartbeat"}
    assert counts == {"view": 1, "outlink": 1, "Buy": 1}


async def test_the_calls_of_goatcounters_script_count(
    server: Server,
    site: StaticSite,
    visitor: BrowserContext,  # noqa: F811  # the fixture
) -> None:
    item = unique_name("item-")
    # Its script is not in a package: it is served by GoatCounter. These are its calls.
    query = f"p=%2F{item}&t=A%20page&e=false&s=1280%2C720%2C1&b=0&q="
    page = await visitor.new_page()
    await page.goto(site.add_page(f"/{item}"))
    assert await page.evaluate(f"""navigator.sendBeacon("{server.url}/count?{query}&rnd=a")""")
    size = await page.evaluate(
        f"""new Promise((resolve, reject) => {{
            const image = document.createElement("img")
            image.onload = () => resolve([image.naturalWidth, image.naturalHeight])
            image.onerror = reject
            image.src = "{server.url}/count?{query}&rnd=b"
        }})"""
    )
    assert size == [1, 1]
    await wait_for_events(server, {"view": 2}, id=f"/{item}")
