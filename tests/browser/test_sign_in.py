"""Signing in to the page in a real browser, with and without scripts, below a path of a proxy."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest
from playwright.async_api import Browser, BrowserContext, expect

from metronome.scopes import Scope
from tests.browser.chromium import require_chromium
from tests.browser.sites import StaticSite
from tests.installations import create_key
from tests.servers import Server, running_server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]  # starts a server, and follows many links

BASE: Final = "/web/stats"
ERRORS: Final = "/?metric=errors"


class Keyed(NamedTuple):
    server: Server
    key: str

    @property
    def url(self) -> str:
        return f"{self.server.url}{BASE}"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    require_chromium()
    data = tmp_path_factory.mktemp("signing-in") / "data"
    key = create_key(data, "reader", Scope.QUERY)
    with running_server(data, base_path=BASE) as server:
        server.post_events(b'[{"id":"rivers","country":"CH"},{"id":"rivers","event":"error","message":"no tile"}]')
        server.wait_until_shipped()
        yield Keyed(server, key)


@pytest.mark.parametrize("has_scripts", [False, True])
async def test_a_filter_leads_to_the_sign_in_and_back(keyed: Keyed, browser: Browser, *, has_scripts: bool) -> None:
    context = await browser.new_context(java_script_enabled=has_scripts)
    page = await context.new_page()
    await page.goto(f"{keyed.url}/")
    await page.locator("table").get_by_role("link", name="Switzerland").click()
    await expect(page).to_have_url(f"{keyed.url}/sign-in?next={BASE}/%3Fcountry%3DCH")
    await page.get_by_label("Key").fill("0" * 40)
    await page.get_by_role("main").get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_have_text("The key is unknown.")
    await page.get_by_label("Key").fill(keyed.key)
    await page.get_by_role("main").get_by_role("button", name="Sign in").click()
    await expect(page).to_have_url(f"{keyed.url}/?country=CH")
    (cookie,) = await context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", f"{BASE}/")
    await page.goto(f"{keyed.url}{ERRORS}")
    await expect(page.get_by_role("main")).to_contain_text("no tile")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page).to_have_url(f"{keyed.url}/")
    assert await context.cookies() == []
    await page.goto(f"{keyed.url}{ERRORS}")
    await expect(page).to_have_url(f"{keyed.url}/sign-in?next={BASE}/%3Fmetric%3Derrors")
    await context.close()


async def test_other_sites_can_link_to_the_page_and_nothing_else(
    keyed: Keyed, site: StaticSite, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(f"{keyed.url}/sign-in")
    await page.get_by_label("Key").fill(keyed.key)
    await page.get_by_role("main").get_by_role("button", name="Sign in").click()
    await expect(page).to_have_url(f"{keyed.url}/")
    other = (
        f"<a href='{keyed.url}{ERRORS}'>errors</a>"
        f"<form method=post action='{keyed.url}/sign-out'><button>out</button></form>"
        f"<iframe name=page src='{keyed.url}/'></iframe><iframe name=embed src='{keyed.url}/embed/rivers'></iframe>"
    )
    site.add_page("/other", other)
    # Another host name is another site.
    await page.goto(f"{site.other_host_url}/other")
    await expect(page.frame_locator("[name=embed]").get_by_role("main")).to_contain_text("Views")
    await expect(page.frame_locator("[name=page]").get_by_role("main")).to_have_count(0)
    await page.get_by_role("button", name="out").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Not allowed")
    await page.goto(f"{site.other_host_url}/other")
    await page.get_by_role("link", name="errors").click()
    await expect(page).to_have_url(f"{keyed.url}{ERRORS}")
