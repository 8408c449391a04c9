"""The events of a spool that queries do not see yet, by item."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from metronome.event import DocumentContext, Event, build_document
from metronome.spool import Pending, PendingEvents, SpoolReader, SpoolWriter, pending

CONTEXT: Final = DocumentContext("2015-01-22T09:30:00.000Z", None, "2015-01-23T09:30:00.000Z")
ROOM: Final = 10**9
REFRESH_SECONDS: Final = 10.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Spool:
    """A spool, and what queries do not see of it."""

    def __init__(self, folder: Path, refresh_seconds: float) -> None:
        self.clock = Clock()
        self.writer = SpoolWriter(folder, ROOM)
        self.reader = SpoolReader(folder)
        self.pending = PendingEvents(self.reader, refresh_seconds, self.clock)

    async def commit(self, *items: str) -> None:
        documents = [build_document(Event({"event": "view", "id": item}), CONTEXT, "e1") + b"\n" for item in items]
        await self.writer.put(b"".join(documents), len(items))

    async def ship(self, max_bytes: int = ROOM) -> None:
        chunk = self.reader.read_chunk(0, max_bytes)
        assert chunk
        await self.pending.record_stored(chunk)
        self.reader.acknowledge(chunk.last_seq)

    async def close(self) -> None:
        await self.writer.close()
        self.reader.close()


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    """Provide the spool of a store whose documents queries see at once."""
    spool = Spool(tmp_path, 0.0)
    yield spool
    await spool.close()


@pytest.fixture
async def refreshed(tmp_path: Path) -> AsyncIterator[Spool]:
    """Provide the spool of a store that needs a refresh."""
    spool = Spool(tmp_path, REFRESH_SECONDS)
    yield spool
    await spool.close()


async def test_finds_the_last_commit_and_the_number_of_events_of_items(spool: Spool) -> None:
    await spool.commit("a", "b", "a")
    await spool.commit("b")
    await spool.commit("c")
    assert await spool.pending.find(["a"]) == Pending(1, 2)
    assert await spool.pending.find(["b"]) == Pending(2, 2)
    assert await spool.pending.find(["a", "b"]) == Pending(2, 4)
    assert await spool.pending.find(["x"]) == Pending(0, 0)
    assert (await spool.pending.find([]))[:2] == (3, 5)


@pytest.mark.parametrize("item", ['a"b', "a\\b", "cafés", "a\nb", "\U0001f600", "a/b", "\u2028", "a\ud800", " "])
async def test_finds_items_with_any_characters(spool: Spool, item: str) -> None:
    await spool.commit("other", item)
    assert await spool.pending.find([item]) == Pending(1, 1)


async def test_texts_that_look_like_an_item_are_not_items(spool: Spool) -> None:
    document = build_document(Event({"id": "a", "note": '{"id":"b"}', "more": {"note": '"id":"b"'}}), CONTEXT, "e1")
    await spool.writer.put(document + b"\n", 1)
    assert await spool.pending.find(["b"]) == Pending(0, 0)
    assert await spool.pending.find(["a"]) == Pending(1, 1)


async def test_what_the_store_has_is_not_pending(spool: Spool) -> None:
    await spool.commit("a")
    await spool.commit("b")
    await spool.ship(max_bytes=1)
    assert await spool.pending.find(["a"]) == Pending(0, 0)
    assert await spool.pending.find(["b"]) == Pending(2, 1)
    assert (await spool.pending.find([]))[:2] == (2, 1)
    await spool.ship()
    assert await spool.pending.find([]) == Pending(0, 0)
    assert not spool.pending.has_unseen


async def test_each_commit_is_read_once(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    read_commit = spool.reader.read_commit

    def record(after: int) -> tuple[int, int, bytes] | None:
        commit = read_commit(after)
        read.extend(commit[:1] if commit else ())
        return commit

    monkeypatch.setattr(spool.reader, "read_commit", record)
    for _ in range(3):
        await spool.commit("a")
        await spool.pending.find(["a"])
    await spool.ship(max_bytes=1)
    assert await spool.pending.find(["a"]) == Pending(3, 2)
    assert read == [1, 2, 3]


async def test_a_large_backlog_is_not_searched(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "SEARCH_MAX_BYTES", 100)
    await spool.commit("a", "b")
    found = await spool.pending.find(["x"])
    assert found[:2] == (1, 2)
    assert found.backlog_bytes > 100


async def test_a_restart_finds_what_is_in_the_spool(spool: Spool) -> None:
    await spool.commit("a")
    await spool.ship()
    await spool.commit("b")
    restarted = PendingEvents(spool.reader, 0.0)
    assert await restarted.find(["a"]) == Pending(0, 0)
    assert await restarted.find(["b"]) == Pending(2, 1)


async def test_stored_events_are_pending_until_a_refresh(refreshed: Spool) -> None:
    await refreshed.commit("a")
    await refreshed.commit("b")
    await refreshed.ship()
    await refreshed.commit("c", "a")
    assert refreshed.pending.has_unseen
    assert await refreshed.pending.find(["b"]) == Pending(2, 1)
    assert await refreshed.pending.find(["a"]) == Pending(3, 2)
    assert (await refreshed.pending.find([]))[:2] == (3, 4)
    refreshed.pending.mark_visible(2)
    assert not refreshed.pending.has_unseen
    assert await refreshed.pending.find(["b"]) == Pending(0, 0)
    assert await refreshed.pending.find(["a"]) == Pending(3, 1)


async def test_stored_events_are_visible_after_the_time_of_automatic_refreshes(refreshed: Spool) -> None:
    await refreshed.commit("a")
    await refreshed.ship()
    refreshed.clock.now += REFRESH_SECONDS - 1
    await refreshed.commit("b")
    await refreshed.ship()
    assert (await refreshed.pending.find([]))[:2] == (2, 2)
    refreshed.clock.now += 1
    assert (await refreshed.pending.find([]))[:2] == (2, 1)
    refreshed.clock.now += REFRESH_SECONDS
    assert not refreshed.pending.has_unseen
    assert await refreshed.pending.find([]) == Pending(0, 0)


async def test_shipped_chunks_keep_their_place_among_indexed_commits(refreshed: Spool) -> None:
    await refreshed.commit("a")
    await refreshed.commit("b")
    await refreshed.commit("c")
    await refreshed.pending.find(["a"])
    await refreshed.ship(max_bytes=1)
    await refreshed.ship(max_bytes=1)
    refreshed.pending.mark_visible(1)
    assert [await refreshed.pending.find([item]) for item in "abc"] == [Pending(0, 0), Pending(2, 1), Pending(3, 1)]
