"""A real Chromium, and what a test has to know to make sense of it."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.servers import Server

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
"""What it calls itself. By default it says that it has no head, and that counts as a robot."""
FLAGS: Final = (
    f"--user-agent={AGENT}",
    # Hosts with names, of which a page's own may begin with www.
    "--host-resolver-rules=MAP site.test 127.0.0.1, MAP www.site.test 127.0.0.1",
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ARRIVE_SECONDS: Final = 30.0
QUIET_SECONDS: Final = 0.3
LOOK_SECONDS: Final = 0.05

Counts = dict[tuple[str | None, ...], int]


def need_chromium() -> Path:
    """Return where Chromium is, or skip the test; under CI there has to be one."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        message = f"there is no browser: install Debian's chromium, or one of {', '.join(NAMES)}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return Path(found)


@contextlib.asynccontextmanager
async def launched(chromium: Path) -> AsyncIterator[Browser]:
    """Have a Chromium run while the context lasts."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium,
            args=FLAGS,
            # Pages that one comes back to are restored as they were, as in any browser that people use.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def at_home(chromium: Path, profile: Path) -> AsyncIterator[BrowserContext]:
    """Have a Chromium run while the context lasts that remembers, in a folder, what it did there before."""
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(profile, executable_path=chromium, args=FLAGS)
        try:
            yield context
        finally:
            await context.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Have one Chromium for the whole run."""
    async with launched(need_chromium()) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser) -> AsyncIterator[BrowserContext]:
    """Have somebody whose browser knows nothing yet."""
    context = await browser.new_context()
    try:
        yield context
    finally:
        await context.close()


async def leave(page: Page) -> None:
    """Close a tab as its user does, so that the page hears of it."""
    async with page.expect_event("close"):
        await page.close(run_before_unload=True)


def counts(server: Server, by: str, **where: str) -> Counts:
    """Return how many events a server's store has in each group that its answers would count.

    Args:
        server: is asked.
        by: fields, with commas between.
        where: fields and their values.

    """
    filters = "".join(f"&{name}={quote(value, safe='')}" for name, value in where.items())
    answer = server.get(f"/query?by={by}&limit=0{filters}")
    # A field that no event has had yet is none that can be asked for.
    return {tuple(row[:-1]): row[-1] for row in answer.get("rows", ())}


async def arrive(server: Server, expected: Mapping[str, int], **where: str) -> None:
    """Wait until just these events are in the store, by what happened; any more are an error, later ones too."""
    wanted = {(event,): number for event, number in expected.items()}
    found = await until(lambda: _shipped(server, where), lambda found: found == wanted)
    assert found == wanted
    await asyncio.sleep(QUIET_SECONDS)
    assert _shipped(server, where) == wanted


def _shipped(server: Server, where: Mapping[str, str]) -> Counts:
    server.wait_until_shipped()
    return counts(server, "event", **where)


async def until(look: Any, is_right: Any, seconds: float = ARRIVE_SECONDS) -> Any:
    """Look until what is seen is right or time is over, and return what was seen last."""
    deadline = time.monotonic() + seconds
    while not is_right(seen := look()) and time.monotonic() < deadline:  # noqa: ASYNC110  # only asking tells
        await asyncio.sleep(LOOK_SECONDS)
    return seen


def tag(server: Server, more: str = "", **data: str) -> str:
    """Write the beacon's tag, deferred unless *more* says otherwise; *data* are its ``data-`` attributes."""
    written = "".join(f' data-{name}="{value}"' for name, value in data.items())
    return f'<script src="{server.url}/metronome.js" {more or "defer"}{written}></script>'
