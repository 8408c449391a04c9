"""A real Chromium, and helpers of its tests."""

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

BROWSER_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
USER_AGENT: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
"""By default, it identifies itself as headless, which counts as a robot."""
FLAGS: Final = (
    f"--user-agent={USER_AGENT}",
    # Host names, so that a page can have one with www.
    "--host-resolver-rules=MAP site.test 127.0.0.1, MAP www.site.test 127.0.0.1",
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ARRIVAL_TIMEOUT_SECONDS: Final = 30.0
QUIET_SECONDS: Final = 0.3
POLL_SECONDS: Final = 0.05

GroupCounts = dict[tuple[str | None, ...], int]


def require_chromium() -> Path:
    """Return the path of Chromium, or skip the test; under CI, fail it."""
    found = next(filter(None, map(shutil.which, BROWSER_NAMES)), None)
    if found is None:
        message = f"Chromium not found: install Debian's chromium, or one of {', '.join(BROWSER_NAMES)}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return Path(found)


@contextlib.asynccontextmanager
async def launch_browser(chromium: Path) -> AsyncIterator[Browser]:
    """Run a Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium,
            args=FLAGS,
            # Restore pages from the back/forward cache, as browsers of users do.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def launch_with_profile(chromium: Path, profile: Path) -> AsyncIterator[BrowserContext]:
    """Run a Chromium with a persistent profile."""
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(profile, executable_path=chromium, args=FLAGS)
        try:
            yield context
        finally:
            await context.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Return a Chromium for the whole session."""
    async with launch_browser(require_chromium()) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser) -> AsyncIterator[BrowserContext]:
    """Return a new, empty browser context."""
    context = await browser.new_context()
    try:
        yield context
    finally:
        await context.close()


async def close_tab(page: Page) -> None:
    """Close a tab as a user does, so that the page receives its events."""
    async with page.expect_event("close"):
        await page.close(run_before_unload=True)


def count_events(server: Server, by: str, **where: str) -> GroupCounts:
    """Return the number of events in each group.

    Args:
        server: the server to query.
        by: fields to group by, separated by commas.
        where: filters: fields and their values.

    """
    filters = "".join(f"&{name}={quote(value, safe='')}" for name, value in where.items())
    answer = server.get(f"/query?by={by}&limit=0{filters}")
    # The server rejects fields that no event has had yet.
    return {tuple(row[:-1]): row[-1] for row in answer.get("rows", ())}


async def wait_for_events(server: Server, expected: Mapping[str, int], **where: str) -> None:
    """Wait until the store has exactly these numbers of events by name; fail if further ones arrive."""
    wanted = {(event,): number for event, number in expected.items()}
    found = await poll_until(lambda: _count_shipped(server, where), lambda found: found == wanted)
    assert found == wanted
    await asyncio.sleep(QUIET_SECONDS)
    assert _count_shipped(server, where) == wanted


def _count_shipped(server: Server, where: Mapping[str, str]) -> GroupCounts:
    server.wait_until_shipped()
    return count_events(server, "event", **where)


async def poll_until(observe: Any, condition: Any, limit: float = ARRIVAL_TIMEOUT_SECONDS) -> Any:
    """Observe until the condition holds or the time is over; return the last observation."""
    deadline = time.monotonic() + limit
    while not condition(seen := observe()) and time.monotonic() < deadline:  # noqa: ASYNC110  # polls a server
        await asyncio.sleep(POLL_SECONDS)
    return seen


def beacon_tag(server: Server, more: str = "", **data: str) -> str:
    """Return the beacon's script tag, deferred by default; *data* are its ``data-`` attributes."""
    written = "".join(f' data-{name}="{value}"' for name, value in data.items())
    return f'<script src="{server.url}/metronome.js" {more or "defer"}{written}></script>'
