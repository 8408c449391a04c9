"""Forgetting: what is named goes, all of it and nothing else."""

from datetime import UTC, datetime, timedelta, timezone

from metronome.stores.base import Store, Verdicts
from metronome.stores.query import Equals, Question
from tests.contracts.store.events import StoreTests, count, event, fill, rows, write


class ForgettingTests(StoreTests):
    """Events can be deleted by time, by item and by visitor."""

    async def test_forgets_nothing_where_there_is_nothing(self, store: Store) -> None:
        assert await store.forget(before=datetime(2015, 1, 22, tzinfo=UTC)) == 0
        assert await store.forget(item="doc1") == 0
        assert await store.forget(visitor="v1") == 0

    async def test_forgets_all_before_a_days_beginning(self, store: Store) -> None:
        await fill(
            store,
            event("2014-12-31T00:00:00.000Z"),
            event("2015-01-21T00:00:00.000Z"),
            event("2015-01-21T23:59:59.999Z"),
            event("2015-01-22T00:00:00.000Z", id="kept"),
            event("2015-01-23T00:00:00.000Z", id="kept"),
        )
        day = datetime(2015, 1, 22, tzinfo=UTC)
        assert await store.forget(before=day) == 3
        assert await rows(store, Question(by=("id",))) == [("kept", 2)]
        assert await store.forget(before=day) == 0
        assert await count(store) == 2

    async def test_forgets_all_before_a_time_of_day(self, store: Store) -> None:
        await fill(
            store,
            event("2015-01-21T12:00:00.000Z"),
            event("2015-01-22T00:00:00.000Z"),
            event("2015-01-22T08:59:59.999Z"),
            event("2015-01-22T09:00:00.000Z", id="kept"),
            event("2015-01-22T23:00:00.000Z", id="kept"),
        )
        moment = datetime(2015, 1, 22, 10, tzinfo=timezone(timedelta(hours=1)))
        assert await store.forget(before=moment) == 3
        assert await rows(store, Question(by=("id",))) == [("kept", 2)]
        assert await store.forget(before=moment) == 0

    async def test_forgets_an_item_on_all_its_days(self, store: Store) -> None:
        name = 'doc/1 "é" *?%_\\'
        await fill(
            store,
            event("2014-01-22T00:00:00Z", id=name),
            event("2015-01-22T00:00:00Z", id=name, event="download"),
            event("2015-01-22T00:00:00Z", id="doc/1"),
            event("2015-01-22T00:00:00Z", id=name + "x"),
            event("2015-01-22T00:00:00Z", id=name.upper()),
            event("2015-01-22T00:00:00Z", title=name),
        )
        assert await store.forget(item=name) == 2
        assert await count(store) == 4
        assert await rows(store, Question(where=Equals("id", name))) == [(0,)]
        assert await store.forget(item=name) == 0

    async def test_forgets_a_visitor(self, store: Store) -> None:
        await fill(
            store,
            event("2015-01-21T00:00:00Z", visitor="v1", id="a"),
            event("2015-01-22T00:00:00Z", visitor="v1", id="b"),
            event("2015-01-22T00:00:00Z", visitor="v2", id="c"),
            event("2015-01-22T00:00:00Z", id="v1"),
        )
        assert await store.forget(visitor="v1") == 2
        assert await rows(store, Question(by=("id",))) == [("c", 1), ("v1", 1)]
        assert await store.forget(visitor="v1") == 0

    async def test_forgets_what_no_question_has_seen_yet(self, store: Store) -> None:
        await fill(store, event(id="doc1", event_id="seen"))
        await write(store, [event(id="doc1", event_id=str(number)) for number in range(5_000)])
        assert await store.forget(item="doc1") == 5_001
        assert await count(store) == 0

    async def test_takes_a_forgotten_event_again(self, store: Store) -> None:
        document = event(id="doc1", event_id="1")
        await fill(store, document)
        assert await store.forget(item="doc1") == 1
        assert await write(store, [document]) == Verdicts(stored=1)
        assert await store.forget(before=datetime(2015, 1, 23, tzinfo=UTC)) == 1
        assert await write(store, [document]) == Verdicts(stored=1)
        assert await count(store) == 1
