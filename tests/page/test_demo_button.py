"""The empty page offers the demo to those who may import, and loads it once."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Final, cast

import pytest

from metronome import demo
from metronome.demo import demo_days
from metronome.errors import SpoolFull
from metronome.event import Event
from metronome.intake import Intake
from metronome.protocol import IngestResult
from metronome.scopes import Scope
from metronome.web.handlers import QueryContext
from tests.page.running_page import RunningPage

BUTTON: Final = 'action="/demo"'


class CountingIntake:
    """Counts the events that it is given; the store stays empty."""

    def __init__(self) -> None:
        self.events = 0
        self.errors: list[Exception] = []

    async def store(self, events: Iterable[Event], *, is_trusted: bool) -> IngestResult:
        assert is_trusted
        await asyncio.sleep(0.01)
        if self.errors:
            raise self.errors.pop()
        count = len([*events])
        self.events += count
        return IngestResult(count, {})


@pytest.fixture
def intake(monkeypatch: pytest.MonkeyPatch) -> CountingIntake:
    """Return an intake for a demo of one day."""

    def last_day(now: datetime) -> list[date]:
        return demo_days(now)[-2:-1]

    monkeypatch.setattr(demo, "demo_days", last_day)
    return CountingIntake()


@pytest.fixture
async def page(tmp_path: Path, intake: CountingIntake) -> AsyncIterator[RunningPage]:
    async with RunningPage(tmp_path, intake=cast("Intake", intake)) as running:
        yield running


async def test_an_empty_page_offers_the_demo_and_loads_it(page: RunningPage, intake: CountingIntake) -> None:
    assert BUTTON in (await page.request("/")).text
    response = await page.request("/demo", "POST")
    assert (response.status, response.headers["Location"]) == (303, "/")
    assert intake.events > 500


async def test_clicking_twice_loads_the_demo_once(page: RunningPage, intake: CountingIntake) -> None:
    await page.request("/demo", "POST")
    once = intake.events
    responses = await asyncio.gather(page.request("/demo", "POST"), page.request("/demo", "POST"))
    assert [response.status for response in responses] == [303, 303]
    assert intake.events == once


async def test_a_demo_that_could_not_be_loaded_can_be_loaded_again(page: RunningPage, intake: CountingIntake) -> None:
    intake.errors.append(SpoolFull("the disk is full"))
    assert (await page.request("/demo", "POST")).status == 503
    assert (await page.request("/demo", "POST")).status == 303


async def test_a_store_with_events_gets_no_demo(page: RunningPage, intake: CountingIntake) -> None:
    await page.add_events({"id": "rivers", "event": "view"})
    assert BUTTON not in (await page.request("/")).text
    response = await page.request("/demo", "POST")
    assert response.status == 400
    assert "The store has events already" in response.text
    assert intake.events == 0


async def test_the_page_of_another_site_cannot_load_the_demo(page: RunningPage, intake: CountingIntake) -> None:
    response = await page.request("/demo", "POST", Origin="https://evil.example", Sec_Fetch_Site="cross-site")
    assert response.status == 403
    assert intake.events == 0


@pytest.mark.parametrize(("scopes", "status"), [((Scope.QUERY,), 403), ((Scope.TOCK, Scope.IMPORT), 303)])
async def test_with_keys_only_one_that_may_import_loads_the_demo(
    page: RunningPage, scopes: tuple[Scope, ...], status: int
) -> None:
    cookie = await page.cookie_of(await page.add_key("someone", *scopes))
    origin = {"Origin": f"http://{page.host}", "Sec_Fetch_Site": "same-origin"}
    assert (BUTTON in (await page.request("/", cookie=cookie)).text) is (status == 303)
    assert (await page.request("/demo", "POST", cookie=cookie, **origin)).status == status
    assert (await page.request("/demo", "POST", **origin)).status == 401


async def test_a_process_that_accepts_no_events_offers_no_demo(tmp_path: Path) -> None:
    async with RunningPage(tmp_path) as running:
        assert BUTTON not in (await running.request("/")).text
        assert (await running.request("/demo", "POST")).status in (404, 405)


async def test_the_demo_is_shown_once_all_of_it_is_in_the_store(
    page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [500, 20, 0]

    async def wait_for(_: object) -> int:
        return waiting.pop(0)

    monkeypatch.setattr(QueryContext, "wait_for", wait_for)
    assert (await page.request("/demo", "POST")).status == 303
    assert waiting == []
