"""Replacing documents: what changes is what was there, and nothing else."""

import asyncio

from metronome.stores.base import Batch, Store
from metronome.stores.query import Equals, Exists, Question
from tests.contracts.store.events import StoreTests, count, event, fill, rows


class ReplacingTests(StoreTests):
    """Documents that are written over."""

    async def test_a_document_takes_the_place_of_the_one_with_its_identity(self, store: Store) -> None:
        before = [event("2015-01-22T09:00:00Z", event_id=f"e{at}", id="a", bot="b" if at else "") for at in range(3)]
        await fill(store, *before, event("2015-01-23T09:00:00Z", event_id="e0", id="a"))
        after = event("2015-01-22T09:00:00Z", event_id="e1", id="a", country="CH")
        assert await replace(store, after) == 1
        assert await count(store) == 4
        assert await rows(store, Question(by=("bot",))) == [("b", 1)]
        assert await rows(store, Question(by=("country",))) == [("CH", 1)]
        assert await rows(store, Question(by=("day",))) == [("2015-01-22", 3), ("2015-01-23", 1)]
        assert await rows(store, Question(where=Equals("id", "a"))) == [(4,)]

    async def test_replacing_twice_is_replacing_once(self, store: Store) -> None:
        await fill(store, event("2015-01-22T09:00:00Z", event_id="e", id="a"), event(id="b"))
        after = event("2015-01-22T09:00:00Z", event_id="e", id="a", os="Linux")
        assert [await replace(store, after) for _ in range(2)] == [1, 1]
        assert await replace(store, after, after) in {1, 2}
        assert await rows(store, Question(by=("os",))) == [("Linux", 1)]
        assert await count(store) == 2

    async def test_what_is_not_there_is_not_replaced(self, store: Store) -> None:
        await fill(store, event("2015-01-22T09:00:00Z", event_id="e", id="a"))
        other_day = event("2015-01-21T09:00:00Z", event_id="e", id="b")
        unknown = event("2015-01-22T09:00:00Z", event_id="f", id="b")
        assert await replace(store, other_day, unknown) == 0
        assert await replace(store) == 0
        assert await rows(store, Question(by=("id",))) == [("a", 1)]

    async def test_what_has_no_identity_replaces_nothing(self, store: Store) -> None:
        line = event("2015-01-22T09:00:00Z", event_id="e", id="a")
        await fill(store, line)
        nameless = b'{"@timestamp":"2015-01-22T09:00:00.000Z","event":"view","id":"b"}'
        changed = line.replace(b'"id":"a"', b'"id":"c"')
        assert await replace(store, nameless, changed) == 1
        assert await rows(store, Question(by=("id",))) == [("c", 1)]

    async def test_a_document_that_was_replaced_is_still_known(self, store: Store) -> None:
        line = event("2015-01-22T09:00:00Z", event_id="e", id="a")
        await fill(store, line)
        await replace(store, event("2015-01-22T09:00:00Z", event_id="e", id="a", os="Linux"))
        assert (await store.write(Batch.of([line]))).duplicates == 1
        await store.refresh()
        assert await rows(store, Question(by=("os",))) == [("Linux", 1)]

    async def test_many_are_replaced_at_once_and_of_the_same_the_first(self, store: Store) -> None:
        days = [f"2015-01-2{at % 3}T09:00:00Z" for at in range(6_000)]
        await fill(store, *[event(at, event_id=f"e{number}") for number, at in enumerate(days)])
        after = [event(at, event_id=f"e{number}", os="Linux") for number, at in enumerate(days)]
        again = [event(at, event_id=f"e{number}", os="BeOS") for number, at in enumerate(days[:100])]
        assert await replace(store, *after, *again) == 6_000
        assert await rows(store, Question(by=("os",))) == [("Linux", 6_000)]

    async def test_replacing_beside_other_writing_neither_doubles_nor_loses(self, store: Store) -> None:
        before = [event("2015-01-22T09:00:00Z", event_id=f"e{number}") for number in range(200)]
        await fill(store, *before[:100])
        versions = [
            Batch.of([event("2015-01-22T09:00:00Z", event_id=f"e{number}", os=name) for number in range(100)])
            for name in ("a", "b", "c", "d")
        ]
        replaced, written = await asyncio.gather(
            asyncio.gather(*map(store.replace, versions)), store.write(Batch.of(before))
        )
        await store.refresh()
        assert replaced == [100] * 4
        assert (written.stored, written.duplicates) == (100, 100)
        assert await count(store) == 200
        assert await rows(store, Question(where=Exists("os"))) == [(100,)]

    async def test_what_is_forgotten_does_not_come_back(self, store: Store) -> None:
        lines = [event("2015-01-22T09:00:00Z", event_id=f"e{number}", id="a", os="x") for number in range(300)]
        await fill(store, *lines)
        await asyncio.gather(store.forget(item="a"), store.replace(Batch.of(lines)))
        await store.forget(item="a")
        assert await replace(store, *lines) == 0
        assert await count(store) == 0


async def replace(store: Store, *documents: bytes) -> int:
    """Replace documents and make it visible."""
    replaced = await store.replace(Batch.of(list(documents)))
    await store.refresh()
    return replaced
