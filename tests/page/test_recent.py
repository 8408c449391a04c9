"""Pages that are kept for a moment, and for when the store is unavailable."""

import asyncio

import pytest

from metronome.errors import InvalidQuery, StoreUnavailable
from metronome.page import recent
from metronome.page.recent import FRESH_SECONDS, RecentPage, RecentPages


class Source:
    """Computes pages, which count how often that happened."""

    def __init__(self, size: int = 10) -> None:
        self.count = 0
        self.size = size
        self.error: Exception | None = None

    async def compute(self) -> RecentPage:
        await asyncio.sleep(0)
        self.count += 1
        if self.error is not None:
            raise self.error
        return RecentPage(self.count, b"x" * self.size, b"", "")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_page_is_kept_for_a_moment() -> None:
    clock, source = Clock(), Source()
    pages = RecentPages(clock=clock)
    assert (await pages.get("a", source.compute))[0].content == 1
    clock.now = FRESH_SECONDS - 0.01
    assert (await pages.get("a", source.compute))[0].content == 1
    assert (await pages.get("b", source.compute))[0].content == 2
    clock.now = FRESH_SECONDS
    assert (await pages.get("a", source.compute))[0].content == 3


async def test_concurrent_requests_share_a_computation_and_its_error() -> None:
    clock, source = Clock(), Source()
    pages = RecentPages(clock=clock)
    results = await asyncio.gather(*(pages.get("a", source.compute) for _ in range(5)))
    assert ([page.content for page, _ in results], source.count) == ([1] * 5, 1)
    source.error = StoreUnavailable("down")
    errors = await asyncio.gather(*(pages.get("b", source.compute) for _ in range(5)), return_exceptions=True)
    assert (errors, source.count) == ([source.error] * 5, 2)


async def test_a_page_is_computed_again_as_soon_as_the_store_has_more_events() -> None:
    version, source = 1, Source()
    pages = RecentPages(lambda: version, Clock())
    assert (await pages.get("a", source.compute))[0].content == 1
    version = 2
    assert (await pages.get("a", source.compute))[0].content == 2
    # A computation that started before does not count either.
    running = asyncio.create_task(pages.get("b", source.compute))
    await asyncio.sleep(0)
    version = 3
    later = [asyncio.create_task(pages.get("b", source.compute)) for _ in range(3)]
    assert (await running)[0].content == 3
    assert [(await task)[0].content for task in later] == [4] * 3


async def test_the_last_page_is_returned_while_the_store_is_unavailable_which_is_tried_now_and_then() -> None:
    clock, source = Clock(), Source()
    pages = RecentPages(clock=clock)
    await pages.get("a", source.compute)
    source.error = StoreUnavailable("down")
    clock.now = 10.0
    page, error = await pages.get("a", source.compute)
    assert (page.content, error, source.count) == (1, source.error, 2)
    clock.now += FRESH_SECONDS / 2
    page, error = await pages.get("a", source.compute)
    assert (page.content, error, source.count) == (1, source.error, 2)
    clock.now += FRESH_SECONDS
    source.error = None
    page, error = await pages.get("a", source.compute)
    assert (page.content, error, source.count) == (3, None, 3)


async def test_an_error_of_the_request_is_not_hidden_by_an_old_page() -> None:
    clock, source = Clock(), Source()
    pages = RecentPages(clock=clock)
    await pages.get("a", source.compute)
    source.error = InvalidQuery("no such field")
    clock.now = 10.0
    with pytest.raises(InvalidQuery):
        await pages.get("a", source.compute)


async def test_a_client_that_leaves_does_not_end_the_computation_for_others() -> None:
    clock, source = Clock(), Source()
    pages = RecentPages(clock=clock)
    first = asyncio.create_task(pages.get("a", source.compute))
    second = asyncio.create_task(pages.get("a", source.compute))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second)[0].content == 1


async def test_the_oldest_pages_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "_MAX_PAGES", 3)
    monkeypatch.setattr(recent, "_MAX_BYTES", 1000)
    pages, source = RecentPages(clock=Clock()), Source()
    for key in ("a", "b", "c", "a", "d"):
        await pages.get(key, source.compute)
    assert source.count == 4
    # "b" was requested least recently.
    for key in ("a", "c", "d"):
        await pages.get(key, source.compute)
    assert source.count == 4
    source.size = 990
    await pages.get("large", source.compute)
    source.size = 10
    await pages.get("d", source.compute)
    assert source.count == 5
    await pages.get("a", source.compute)
    assert source.count == 6


async def test_no_page_is_sent_after_events_were_forgotten() -> None:
    deletions, source = 0, Source()
    pages = RecentPages(clock=Clock(), deletions=lambda: deletions)
    assert (await pages.get("a", source.compute))[0].content == 1
    deletions += 1
    source.error = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        await pages.get("a", source.compute)
    source.error = None
    running = asyncio.create_task(pages.get("b", source.compute))
    for _ in range(2):
        await asyncio.sleep(0)
    deletions += 1
    assert (await running)[0].content == 3
    assert (await pages.get("b", source.compute))[0].content == 4
