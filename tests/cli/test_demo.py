"""``metronome demo`` fills a server with demo data, against a fake server with the routes that it uses."""

import asyncio
import json
import sys
import webbrowser
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner, Result

from metronome.cli import app, demo, output
from metronome.demo import demo_days


@dataclass
class Server:
    """A server that records the events it accepts."""

    url: str = ""
    items: list[str] = field(default_factory=list)
    accepts_old_events: bool = True
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    received: int = 0
    shipping: list[int] = field(default_factory=lambda: [500, 0])

    async def list_items(self, _: web.Request) -> web.Response:
        return web.json_response({"items": [{"id": item} for item in self.items]})

    async def tick(self, request: web.Request) -> web.Response:
        events = [json.loads(line) for line in (await request.read()).splitlines()]
        self.received += len(events)
        if not self.accepts_old_events:
            rejected = [{"index": index, "error": "ts is too old"} for index in range(len(events))]
            return web.json_response({"accepted": 0, "rejected": rejected})
        self.events |= {event["event_id"]: event for event in events}
        return web.json_response({"accepted": len(events), "rejected": []})

    async def ready(self, _: web.Request) -> web.Response:
        events = self.shipping.pop(0) if len(self.shipping) > 1 else self.shipping[0]
        return web.json_response({"store": {"events": events}})


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """Run a fake server; the demo has only the last three days, so that it is quick."""

    def last_days(now: datetime) -> list[Any]:
        return demo_days(now)[-3:]

    def fail(url: str) -> bool:
        raise AssertionError(f"opens {url}")

    monkeypatch.setattr(demo, "demo_days", last_days)
    monkeypatch.setattr(webbrowser, "open", fail)
    fake = Server()
    application = web.Application()
    application.add_routes(
        [
            web.get("/items.json", fake.list_items),
            web.post("/tick", fake.tick),
            web.get("/health/ready", fake.ready),
        ]
    )
    async with TestServer(application) as running:
        fake.url = f"http://127.0.0.1:{running.port}"
        yield fake


async def run(server: Server, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["demo", "--url", server.url, *arguments])


async def test_sends_all_events_waits_for_the_store_and_names_the_page(server: Server) -> None:
    result = await run(server)
    assert result.exit_code == 0, result.output
    assert len(server.events) == server.received > 1000
    assert server.shipping == [0]
    assert result.stdout == f"{server.received:,} events of 40 items in the last 90 days: see {server.url}/\n"


async def test_a_repetition_sends_the_same_events(server: Server) -> None:
    await run(server)
    first = set(server.events)
    await run(server)
    assert first <= set(server.events)
    # A few may have happened in between.
    assert len(server.events) - len(first) < 20


async def test_another_seed_sends_other_events(server: Server) -> None:
    await run(server)
    first = len(server.events)
    assert (await run(server, "--seed", "7")).exit_code == 0
    assert len(server.events) > 1.7 * first


async def test_a_server_that_limits_the_age_of_events_gets_nothing_and_the_user_advice(server: Server) -> None:
    server.accepts_old_events = False
    result = await run(server)
    assert result.exit_code == 1
    assert server.received == 1
    assert "rejects events that are 90 days old (ts is too old); nothing was sent" in result.stderr
    assert "metronome keys create demo --scope import" in result.stderr


async def test_a_server_with_other_items_gets_the_demo_only_with_yes(server: Server) -> None:
    server.items = ["street-trees", "rivers"]
    result = await run(server)
    assert result.exit_code == 2
    assert "has items of its own, such as 'rivers'" in result.stderr
    assert server.received == 0
    assert (await run(server, "--yes")).exit_code == 0
    assert server.received > 1000


async def test_a_server_with_the_demo_gets_it_again(server: Server) -> None:
    server.items = ["street-trees"]
    assert (await run(server)).exit_code == 0


@pytest.mark.parametrize(
    ("is_terminal", "display", "opens"), [(True, ":0", True), (True, "", False), (False, ":0", False)]
)
def test_a_browser_can_be_opened_from_a_terminal_of_a_computer_with_a_display(
    *, is_terminal: bool, display: str, opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert output.can_open_browser() is opens


@pytest.mark.parametrize(("arguments", "opened"), [([], 1), (["--no-open"], 0)])
async def test_opens_the_page_unless_told_not_to(
    server: Server, arguments: list[str], opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []
    monkeypatch.setattr(demo, "can_open_browser", lambda: True)
    monkeypatch.setattr(webbrowser, "open", pages.append)
    await run(server, *arguments)
    assert pages == [f"{server.url}/"] * opened
