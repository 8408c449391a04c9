"""What tests in a browser share: one Chromium for the run, a Metronome and a site of pages for each module."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from tests.browser.sites import Site, serving_pages
from tests.servers import Server, serving, unique_name

pytest.register_assert_rewrite("tests.browser.chromium")

from tests.browser.chromium import launched, need_chromium  # noqa: E402  # what it asserts is to be told in full


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with launched(need_chromium()) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser) -> AsyncIterator[BrowserContext]:
    """Somebody with a browser that knows nothing yet."""
    context = await browser.new_context()
    try:
        yield context
    finally:
        await context.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_chromium()
    with serving(tmp_path_factory.mktemp("browser") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving_pages() as running:
        yield running


@pytest.fixture
def item() -> str:
    return unique_name("item-")
