"""The example of a touch table, in a real browser, and its sessions."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from metronome.scopes import Scope
from tests.browser.chromium import poll_until, require_chromium
from tests.examples.running import EXAMPLES, started
from tests.installations import create_key
from tests.servers import Server, running_server

pytestmark = pytest.mark.slow  # starts a service and a server

in_a_browser = pytest.mark.asyncio(loop_scope="session")

READ_KEY = "read key"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    require_chromium()
    with running_server(tmp_path / "data", microticks_key=READ_KEY) as running:
        yield running


@pytest.fixture
def key(server: Server) -> str:
    return create_key(server.data, "hall", Scope.TICK)


def get_list(server: Server, name: str) -> list[dict[str, Any]]:
    server.wait_until_shipped()
    rows: list[dict[str, Any]] = server.get(f"/{name}?key={READ_KEY.replace(' ', '+')}")[name]
    return rows


async def sessions(server: Server, *, ended: int) -> list[dict[str, Any]]:
    """Wait until *ended* sessions have ended, and return all, oldest first."""
    rows = await poll_until(
        lambda: get_list(server, "sessions"), lambda rows: sum(bool(row["stopped_at"]) for row in rows) >= ended
    )
    return sorted(rows, key=lambda row: str(row["started_at"]))


async def touch(page: Page, *targets: str) -> None:
    for target in targets:
        await page.tap(target)


@in_a_browser
async def test_each_visitor_is_a_session_with_its_touches(server: Server, browser: Browser, key: str) -> None:
    context = await browser.new_context(has_touch=True)
    with started("touch-table/serve.py", "--metronome", server.url, "--idle", "1.5", METRONOME_KEY=key) as address:
        page = await context.new_page()
        await page.goto(address)
        await page.wait_for_selector("[data-id=garnet]")
        # There is no session before the first touch.
        assert get_list(server, "sessions") == []
        await touch(page, "[data-id=amethyst]", "#more", "#back", "[data-id=pyrite]", "#done")
        await page.wait_for_selector("#overview:not([hidden])")
        (first,) = await sessions(server, ended=1)
        assert (first["consumer_id"], first["clicks"]) == ("hall", 4)
        # The second visitor walks away, and the session times out.
        await touch(page, "[data-id=amethyst]")
        await page.wait_for_selector("#detail:not([hidden]) >> text=Amethyst")
        await page.wait_for_selector("#done", state="hidden")
        assert await page.is_hidden("#detail")
        _, second = await sessions(server, ended=2)
        assert second["clicks"] == 1
    await context.close()
    events = get_list(server, "events")
    assert [(event["action"], event["data"].get("id"), event["data"].get("target")) for event in events] == [
        ("click", "amethyst", "tile"),
        ("view", "amethyst", None),
        ("click", "amethyst", "more"),
        ("click", "amethyst", "back"),
        ("click", "pyrite", "tile"),
        ("view", "pyrite", None),
        ("click", "amethyst", "tile"),
        ("view", "amethyst", None),
    ]
    assert [event["session_id"] for event in events] == [first["id"]] * 6 + [second["id"]] * 2
    assert server.get("/tock/amethyst.json")["views"] == {datetime.now(UTC).date().isoformat(): 2}
    assert server.get("/flow/amethyst.json")["next"] == {"pyrite": 1}


@in_a_browser
async def test_touches_during_an_outage_are_sent_later_and_counted_once(
    server: Server, browser: Browser, key: str
) -> None:
    context = await browser.new_context(has_touch=True)
    with started("touch-table/serve.py", "--metronome", server.url, METRONOME_KEY=key) as address:
        page = await context.new_page()
        await page.goto(address)
        await touch(page, "[data-id=azurite]")
        await poll_until(lambda: get_list(server, "events"), lambda rows: len(rows) == 2)
        server.kill()
        at = time.time()
        await touch(page, "#back", "[data-id=sulphur]", "#done", "[data-id=garnet]", "#done")
        server.start()
        first, second = await sessions(server, ended=2)
    await context.close()
    assert (first["clicks"], second["clicks"]) == (3, 1)
    events = get_list(server, "events")
    assert [(event["action"], event["data"]["id"]) for event in events] == [
        ("click", "azurite"),
        ("view", "azurite"),
        ("click", "azurite"),
        ("click", "sulphur"),
        ("view", "sulphur"),
        ("click", "garnet"),
        ("view", "garnet"),
    ]
    # Events keep their timestamps.
    last = datetime.fromisoformat(str(events[-1]["time"]))
    assert abs(last.replace(tzinfo=UTC).timestamp() - at) < 5


def test_without_a_key_it_exits_and_says_how_to_create_one() -> None:
    process = subprocess.run(
        [sys.executable, EXAMPLES / "touch-table/serve.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
        env={},
    )
    assert (process.returncode, process.stderr.count("metronome keys create hall")) == (1, 1)
