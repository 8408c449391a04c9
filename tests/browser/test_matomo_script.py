"""The script in place of Matomo's: pages with Matomo's tag count unchanged."""

import pytest
from playwright.async_api import BrowserContext

from tests.browser.chromium import poll_until, wait_for_events
from tests.browser.sites import StaticSite
from tests.servers import Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]  # loads pages and waits for events

TAG = """<script>
  var _paq = window._paq = window._paq || [];
  _paq.push(["setDocumentTitle", "Wells"], ["setCustomDimension", 1, "gold"]);
  _paq.push(["trackPageView"], ["enableLinkTracking"]);
  _paq.push(["trackEvent", "map", "zoom", "in", 3]);
  (function() {
    var u = "%s/";
    _paq.push(["setTrackerUrl", u + "matomo.php"], ["setSiteId", "%s"]);
    var d = document, g = d.createElement("script"), s = d.getElementsByTagName("script")[0];
    g.async = true; g.src = u + "%s"; s.parentNode.insertBefore(g, s);
  })();
</script>"""


@pytest.mark.parametrize(("name", "number"), [("matomo.js", "7"), ("piwik.js", "8")])
async def test_a_page_with_matomos_tag_counts_its_calls(
    server: Server, site: StaticSite, visitor: BrowserContext, item: str, name: str, number: str
) -> None:
    page, warnings = await visitor.new_page(), []
    page.on("console", lambda message: warnings.append(message.text) if message.type == "warning" else None)
    links = {"file": "/data/a.csv", "out": "https://other.example/"}
    body = "".join(f'<a id="{link}" href="{url}" onclick="return false">a</a>' for link, url in links.items())
    await page.goto(site.add_page(f"/{item}", body, TAG % (server.url, number, name)))
    await page.wait_for_function("window.Matomo")
    await page.click("#file")
    await page.click("#out")
    await page.evaluate("""_paq.push(
        ["trackGoal", 2, 9.5], ["trackSiteSearch", "lake", false, 4], [function () { this.trackEvent("a", "b"); }],
        ["requireConsent"], ["trackEvent", "held", "back"])""")
    await page.evaluate("""_paq.push(["addEcommerceItem", "s1", "Map", "maps", 4, 2],
        ["trackEcommerceOrder", "o1", 8], ["noSuchCall"], ["noSuchCall"], ["disableCookies"])""")
    counts = {"view": 1, "event": 2, "download": 1, "outlink": 1, "goal": 1, "search": 1}
    await wait_for_events(server, counts, idsite=number)
    await page.evaluate("_paq.push(['setConsentGiven'])")
    await wait_for_events(server, {**counts, "event": 3, "order": 1}, idsite=number)
    rows = server.get(f"/query?event=view&idsite={number}&by=title,dimension1,id")["rows"]
    assert rows == [["Wells", "gold", f"/{item}", 1]]
    assert await page.evaluate("document.cookie") == ""
    assert await poll_until(lambda: list(warnings), bool) == ["Metronome does not support _paq.push(['noSuchCall'])"]
