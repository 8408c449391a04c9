"""The contract of stores for event sequences and newest values."""

from datetime import UTC, datetime
from typing import Final

import orjson
import pytest

from metronome.errors import InvalidQuery
from metronome.stores.base import Store
from metronome.stores.query import Equals, Exists, Not, OneOf
from metronome.stores.sequences import SequenceQuery
from tests.contracts.store_contract import StoreContract, event_document, read_sequences, write_new_documents

EVENTS: Final = (
    event_document("2015-01-22T10:00:00Z", session="s1", visitor="v1", id="a"),
    event_document("2015-01-22T09:00:00.500Z", session="s1", visitor="v1", id="b"),
    event_document("2015-01-22T09:00:00.250Z", session="s1", visitor="v1", id="c", event="heartbeat"),
    event_document("2015-01-23T08:00:00Z", session="s2", visitor="v1", id="a"),
    event_document("2015-01-22T23:59:59.999Z", session="s2", visitor="v1"),
    event_document("2015-01-22T12:00:00Z", session="s3", visitor="v2", id="b", duration=2.5),
    event_document("2015-01-22T13:00:00Z", id="a"),
)
_NINE_OCLOCK_MS: Final = 1_421_917_200_000
"""2015-01-22T09:00:00Z, in milliseconds since 1970."""
_HOUR_MS: Final = 3_600_000


class SequenceTests(StoreContract):
    """Sequences are complete and sorted, and newest values are right."""

    async def test_sequences_are_sorted_by_key_and_events_by_time(self, filled_store: Store) -> None:
        assert await read_sequences(filled_store, SequenceQuery("session", ("id", "event"))) == [
            (
                "s1",
                [
                    (_NINE_OCLOCK_MS + 250, "c", "heartbeat"),
                    (_NINE_OCLOCK_MS + 500, "b", "view"),
                    (_NINE_OCLOCK_MS + _HOUR_MS, "a", "view"),
                ],
            ),
            (
                "s2",
                [(_NINE_OCLOCK_MS + 15 * _HOUR_MS - 1, None, "view"), (_NINE_OCLOCK_MS + 23 * _HOUR_MS, "a", "view")],
            ),
            ("s3", [(_NINE_OCLOCK_MS + 3 * _HOUR_MS, "b", "view")]),
        ]

    async def test_any_field_can_be_the_key(self, filled_store: Store) -> None:
        by_visitor = await read_sequences(filled_store, SequenceQuery("visitor", ("session", "duration")))
        assert [(key, [event[1:] for event in events]) for key, events in by_visitor] == [
            ("v1", [("s1", None)] * 3 + [("s2", None)] * 2),
            ("v2", [("s3", "2.5")]),
        ]

    async def test_filters_and_time_ranges_exclude_events(self, filled_store: Store) -> None:
        start, end = datetime(2015, 1, 22, 9, 0, 0, 500_000, UTC), datetime(2015, 1, 23, tzinfo=UTC)
        views = await read_sequences(filled_store, SequenceQuery("session", ("id",), Exists("id"), start, end))
        assert [(key, [event[1] for event in events]) for key, events in views] == [("s1", ["b", "a"]), ("s3", ["b"])]
        named = await read_sequences(
            filled_store, SequenceQuery("session", ("id",), OneOf("session", ("s3", "s2", "s9")))
        )
        assert [key for key, _ in named] == ["s2", "s3"]
        assert await read_sequences(filled_store, SequenceQuery("session", ("id",), Equals("id", "nothing"))) == []

    async def test_events_of_the_same_time_are_sorted_by_values(self, store: Store) -> None:
        same = [event_document(session="s", id=item, lang=lang) for item in ("b", "é", "a") for lang in ("x", "")]
        await write_new_documents(
            store, *same, event_document(session="s", lang="x"), event_document(session="s", id="a", lang="x")
        )
        ((_, events),) = await read_sequences(store, SequenceQuery("session", ("id", "lang")))
        assert [event[1:] for event in events] == [
            (None, "x"),
            ("a", ""),
            ("a", "x"),
            ("a", "x"),
            ("b", ""),
            ("b", "x"),
            ("é", ""),
            ("é", "x"),
        ]

    async def test_empty_store_has_no_sequences_and_no_newest_values(self, store: Store) -> None:
        assert await read_sequences(store, SequenceQuery("session", ("id",))) == []
        assert await store.newest_values("session", 10) == ()
        names = "id event format referer clientip message duration value session visitor bot event_id"
        assert await store.list_fields() <= set(names.split())

    async def test_numbers_are_returned_as_written(self, store: Store) -> None:
        numbers = (1, -4, 2.5, 1.0, 0.1, -0.0, 123456789.125, 0.0001, 2**53 + 1, 2**63 - 1, "01", True)
        await write_new_documents(
            store, *[event_document(session=f"s{at:02}", n=number) for at, number in enumerate(numbers)]
        )
        values = [events[0][1] for _, events in await read_sequences(store, SequenceQuery("session", ("n",)))]
        assert values == [number if isinstance(number, str) else orjson.dumps(number).decode() for number in numbers]

    async def test_fields_missing_on_some_days_are_returned_for_others(self, store: Store) -> None:
        days = [f"2015-01-2{at}T12:00:00Z" for at in range(5)]
        await write_new_documents(store, *[event_document(at, session="s", visitor="v") for at in days])
        await write_new_documents(
            store,
            event_document(days[1], session="s", rare="x", price=5),
            event_document(days[3], session="t", rare="y"),
        )
        sequences = await read_sequences(store, SequenceQuery("session", ("rare", "price")))
        assert [(key, [event[1:] for event in events if event[1:] != (None, None)]) for key, events in sequences] == [
            ("s", [("x", "5")]),
            ("t", [("y", None)]),
        ]
        assert [key for key, _ in await read_sequences(store, SequenceQuery("rare", ("session",)))] == ["x", "y"]
        assert await store.newest_values("rare", 5) == ("y", "x")
        assert await store.newest_values("price", 5) == ("5",)
        assert await read_sequences(store, SequenceQuery("nothing", ("session",))) == []

    async def test_max_events_truncates_each_sequence(self, store: Store) -> None:
        await write_new_documents(
            store,
            *[
                event_document(f"2015-01-22T12:{minute:02}:00Z", session="long", id=f"i{minute}")
                for minute in range(30)
            ],
            *[event_document(session="same", id="a") for _ in range(5)],
            event_document(session="short", id="a"),
        )
        sequences = await read_sequences(store, SequenceQuery("session", ("id",), max_events=3))
        assert [(key, [event[1] for event in events]) for key, events in sequences] == [
            ("long", ["i0", "i1", "i2"]),
            ("same", ["a", "a", "a"]),
            ("short", ["a"]),
        ]

    @pytest.mark.slow  # it writes thousands of events
    async def test_sequences_are_a_consistent_snapshot(self, store: Store) -> None:
        await write_new_documents(
            store, *[event_document(session=f"s{at % 100:03}", id="before") for at in range(30_000)]
        )
        iterator = store.sequences(SequenceQuery("session", ("id",)))
        sequences = [await anext(iterator)]
        await write_new_documents(store, *[event_document(session=f"s{at:03}", id="after") for at in range(200)])
        sequences += [sequence async for sequence in iterator]
        assert [sequence.key for sequence in sequences] == [f"s{at:03}" for at in range(100)]
        assert all([event.values for event in sequence.events] == [("before",)] * 300 for sequence in sequences)

    async def test_iteration_can_stop_early(self, filled_store: Store) -> None:
        async for sequence in filled_store.sequences(SequenceQuery("session", ("id",))):
            assert sequence.key == "s1"
            break
        assert len(await read_sequences(filled_store, SequenceQuery("session", ("id",)))) == 3

    @pytest.mark.slow
    async def test_sequences_of_many_events_are_complete(self, store: Store) -> None:
        number = 23_000
        await write_new_documents(
            store, *[event_document(session=f"s{at % 7_000:05}", visitor="one", id=f"i{at}") for at in range(number)]
        )
        sequences = await read_sequences(store, SequenceQuery("session", ("id",)))
        assert len(sequences) == 7_000
        assert sum(len(events) for _, events in sequences) == number
        ((_, events),) = await read_sequences(store, SequenceQuery("visitor", ("id",)))
        assert len(events) == number

    @pytest.mark.slow  # it writes thousands of events
    async def test_filters_by_many_keys_at_once(self, store: Store) -> None:
        await write_new_documents(store, *[event_document(session=f"s{at}", id="a") for at in range(6_000)])
        keys = await store.newest_values("session", 5_000)
        assert len(set(keys)) == 5_000
        assert len(await read_sequences(store, SequenceQuery("session", ("id",), OneOf("session", keys)))) == 5_000

    async def test_rejects_newest_values_below_the_top_level(self, store: Store) -> None:
        with pytest.raises(InvalidQuery):
            await store.newest_values("utm.source", 5)

    async def test_newest_values_are_those_with_the_newest_events(self, filled_store: Store) -> None:
        assert await filled_store.newest_values("session", 10) == ("s2", "s3", "s1")
        assert await filled_store.newest_values("session", 2) == ("s2", "s3")
        assert await filled_store.newest_values("id", 3, Not(Equals("id", "a"))) == ("b", "c")
        noon = datetime(2015, 1, 22, 12, tzinfo=UTC)
        assert await filled_store.newest_values("session", 5, end=noon) == ("s1",)
        assert await filled_store.newest_values(
            "session", 5, start=noon, end=datetime(2015, 1, 22, 13, tzinfo=UTC)
        ) == ("s3",)
        assert await filled_store.newest_values("nothing", 5) == ()

    async def test_newest_values_of_the_same_time_are_sorted_descending(self, store: Store) -> None:
        await write_new_documents(store, *[event_document(session=name) for name in ("b", "a", "c", "a")])
        assert await store.newest_values("session", 2) == ("c", "b")

    @pytest.mark.slow
    async def test_newest_values_may_be_many_days_old(self, store: Store) -> None:
        # The last event of each value is a day before that of the value before it; all have many older ones.
        days = [f"2015-{1 + day // 28:02}-{1 + day % 28:02}T12:00:00Z" for day in range(40)]
        await write_new_documents(
            store,
            *[event_document(at, session=f"s{name:02}") for day, at in enumerate(days) for name in range(40 - day)],
        )
        newest = tuple(f"s{name:02}" for name in range(40))
        for limit in (1, 2, 3, 7, 20, 39, 40, 41):
            assert await store.newest_values("session", limit) == newest[:limit]
        start, end = datetime(2015, 1, 11, tzinfo=UTC), datetime(2015, 1, 21, tzinfo=UTC)
        # Twenty values have an event on the last of these days, all at the same time.
        assert await store.newest_values("session", 25, start=start, end=end) == (
            *(f"s{name:02}" for name in reversed(range(21))),
            *(f"s{name:02}" for name in range(21, 25)),
        )

    async def test_list_fields_returns_top_level_names(self, filled_store: Store) -> None:
        await write_new_documents(filled_store, event_document(LCP=12, **{"utm.source": "mail", "Ünï": "x"}))
        fields = await filled_store.list_fields()
        assert {"id", "event", "session", "visitor", "duration", "LCP"} <= fields
        assert fields.isdisjoint(
            {"event_id", "params", "utm.source", "Ünï", "event.original", "@timestamp", "LCP.num", "nothing"}
        )

    @pytest.fixture
    async def filled_store(self, store: Store) -> Store:
        """Provide a store that holds `EVENTS`."""
        await write_new_documents(store, *EVENTS)
        return store
