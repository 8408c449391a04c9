"""Trails and newest values: what happened after what, to whom, and who came last."""

from datetime import UTC, datetime
from typing import Final

import orjson
import pytest

from metronome.errors import Unaskable
from metronome.question import Equals, Exists, Not, OneOf
from metronome.stores.conformance.events import StoreTests, event, fill, trails
from metronome.stores.store import Store
from metronome.trails import Trails

EVENTS: Final = (
    event("2015-01-22T10:00:00Z", session="s1", visitor="v1", id="a"),
    event("2015-01-22T09:00:00.500Z", session="s1", visitor="v1", id="b"),
    event("2015-01-22T09:00:00.250Z", session="s1", visitor="v1", id="c", event="heartbeat"),
    event("2015-01-23T08:00:00Z", session="s2", visitor="v1", id="a"),
    event("2015-01-22T23:59:59.999Z", session="s2", visitor="v1"),
    event("2015-01-22T12:00:00Z", session="s3", visitor="v2", id="b", duration=2.5),
    event("2015-01-22T13:00:00Z", id="a"),
)
_BASE: Final = 1_421_917_200_000
"""2015-01-22T09:00:00Z, in milliseconds since 1970."""
_HOUR: Final = 3_600_000


class TrailTests(StoreTests):
    """What a few sessions, written out of order, tell."""

    async def test_trails_are_told_in_the_order_of_their_keys_and_steps_in_the_order_of_time(
        self, followed: Store
    ) -> None:
        assert await trails(followed, Trails("session", ("id", "event"))) == [
            (
                "s1",
                [
                    (_BASE + 250, "c", "heartbeat"),
                    (_BASE + 500, "b", "view"),
                    (_BASE + _HOUR, "a", "view"),
                ],
            ),
            ("s2", [(_BASE + 15 * _HOUR - 1, None, "view"), (_BASE + 23 * _HOUR, "a", "view")]),
            ("s3", [(_BASE + 3 * _HOUR, "b", "view")]),
        ]

    async def test_a_trail_may_be_that_of_any_field(self, followed: Store) -> None:
        by_visitor = await trails(followed, Trails("visitor", ("session", "duration")))
        assert [(key, [step[1:] for step in steps]) for key, steps in by_visitor] == [
            ("v1", [("s1", None)] * 3 + [("s2", None)] * 2),
            ("v2", [("s3", "2.5")]),
        ]

    async def test_filters_and_ranges_leave_steps_out(self, followed: Store) -> None:
        start, end = datetime(2015, 1, 22, 9, 0, 0, 500_000, UTC), datetime(2015, 1, 23, tzinfo=UTC)
        views = await trails(followed, Trails("session", ("id",), Exists("id"), start, end))
        assert [(key, [step[1] for step in steps]) for key, steps in views] == [("s1", ["b", "a"]), ("s3", ["b"])]
        named = await trails(followed, Trails("session", ("id",), OneOf("session", ("s3", "s2", "s9"))))
        assert [key for key, _ in named] == ["s2", "s3"]
        assert await trails(followed, Trails("session", ("id",), Equals("id", "nothing"))) == []

    async def test_events_of_the_same_time_come_in_the_order_of_their_texts(self, store: Store) -> None:
        same = [event(session="s", id=item, lang=lang) for item in ("b", "é", "a") for lang in ("x", "")]
        await fill(store, *same, event(session="s", lang="x"), event(session="s", id="a", lang="x"))
        ((_, steps),) = await trails(store, Trails("session", ("id", "lang")))
        assert [step[1:] for step in steps] == [
            (None, "x"),
            ("a", ""),
            ("a", "x"),
            ("a", "x"),
            ("b", ""),
            ("b", "x"),
            ("é", ""),
            ("é", "x"),
        ]

    async def test_an_empty_store_has_no_trails_and_nothing_newest(self, store: Store) -> None:
        assert await trails(store, Trails("session", ("id",))) == []
        assert await store.newest("session", 10) == ()
        assert await store.fields() <= {
            "id",
            "event",
            "format",
            "referer",
            "clientip",
            "message",
            "duration",
            "value",
        } | {
            "session",
            "visitor",
            "bot",
            "event_id",
        }

    async def test_numbers_are_told_as_they_were_written(self, store: Store) -> None:
        numbers = (1, -4, 2.5, 1.0, 0.1, -0.0, 123456789.125, 0.0001, 2**53 + 1, 2**63 - 1, "01", True)
        await fill(store, *[event(session=f"s{at:02}", n=number) for at, number in enumerate(numbers)])
        told = [steps[0][1] for _, steps in await trails(store, Trails("session", ("n",)))]
        assert told == [number if isinstance(number, str) else orjson.dumps(number).decode() for number in numbers]

    async def test_what_no_event_of_a_day_has_is_told_of_the_other_days(self, store: Store) -> None:
        days = [f"2015-01-2{at}T12:00:00Z" for at in range(5)]
        await fill(store, *[event(at, session="s", visitor="v") for at in days])
        await fill(store, event(days[1], session="s", rare="x", price=5), event(days[3], session="t", rare="y"))
        found = await trails(store, Trails("session", ("rare", "price")))
        assert [(key, [step[1:] for step in steps if step[1:] != (None, None)]) for key, steps in found] == [
            ("s", [("x", "5")]),
            ("t", [("y", None)]),
        ]
        assert [key for key, _ in await trails(store, Trails("rare", ("session",)))] == ["x", "y"]
        assert await store.newest("rare", 5) == ("y", "x")
        assert await store.newest("price", 5) == ("5",)
        assert await trails(store, Trails("nothing", ("session",))) == []

    async def test_of_each_trail_only_the_first_steps_are_told_where_more_are_too_many(self, store: Store) -> None:
        await fill(
            store,
            *[event(f"2015-01-22T12:{minute:02}:00Z", session="long", id=f"i{minute}") for minute in range(30)],
            *[event(session="same", id="a") for _ in range(5)],
            event(session="short", id="a"),
        )
        found = await trails(store, Trails("session", ("id",), most_steps=3))
        assert [(key, [step[1] for step in steps]) for key, steps in found] == [
            ("long", ["i0", "i1", "i2"]),
            ("same", ["a", "a", "a"]),
            ("short", ["a"]),
        ]

    async def test_trails_are_those_of_one_moment(self, store: Store) -> None:
        await fill(store, *[event(session=f"s{at % 100:03}", id="before") for at in range(30_000)])
        asked = store.trails(Trails("session", ("id",)))
        found = [await anext(asked)]
        await fill(store, *[event(session=f"s{at:03}", id="after") for at in range(200)])
        found += [trail async for trail in asked]
        assert [trail.key for trail in found] == [f"s{at:03}" for at in range(100)]
        assert all([step.texts for step in trail.steps] == [("before",)] * 300 for trail in found)

    async def test_whoever_reads_trails_may_stop(self, followed: Store) -> None:
        async for trail in followed.trails(Trails("session", ("id",))):
            assert trail.key == "s1"
            break
        assert len(await trails(followed, Trails("session", ("id",)))) == 3

    @pytest.mark.slow
    async def test_trails_of_many_events_are_whole(self, store: Store) -> None:
        number = 23_000
        await fill(store, *[event(session=f"s{at % 7_000:05}", visitor="one", id=f"i{at}") for at in range(number)])
        found = await trails(store, Trails("session", ("id",)))
        assert len(found) == 7_000
        assert sum(len(steps) for _, steps in found) == number
        ((_, steps),) = await trails(store, Trails("visitor", ("id",)))
        assert len(steps) == number

    async def test_many_keys_can_be_asked_for_at_once(self, store: Store) -> None:
        await fill(store, *[event(session=f"s{at}", id="a") for at in range(6_000)])
        keys = await store.newest("session", 5_000)
        assert len(set(keys)) == 5_000
        assert len(await trails(store, Trails("session", ("id",), OneOf("session", keys)))) == 5_000

    @pytest.mark.parametrize(("key", "fields"), [("session", ("utm.source",)), ("a b", ("id",))])
    async def test_what_does_not_stand_at_the_top_level_has_no_trails(
        self, followed: Store, key: str, fields: tuple[str, ...]
    ) -> None:
        with pytest.raises(Unaskable):
            await trails(followed, Trails(key, fields))

    async def test_the_newest_values_are_those_with_the_newest_events(self, followed: Store) -> None:
        assert await followed.newest("session", 10) == ("s2", "s3", "s1")
        assert await followed.newest("session", 2) == ("s2", "s3")
        assert await followed.newest("id", 3, Not(Equals("id", "a"))) == ("b", "c")
        noon = datetime(2015, 1, 22, 12, tzinfo=UTC)
        assert await followed.newest("session", 5, end=noon) == ("s1",)
        assert await followed.newest("session", 5, start=noon, end=datetime(2015, 1, 22, 13, tzinfo=UTC)) == ("s3",)
        assert await followed.newest("nothing", 5) == ()

    async def test_of_values_with_the_same_time_the_greater_comes_first(self, store: Store) -> None:
        await fill(store, *[event(session=name) for name in ("b", "a", "c", "a")])
        assert await store.newest("session", 2) == ("c", "b")

    @pytest.mark.slow
    async def test_the_newest_values_may_lie_many_days_back(self, store: Store) -> None:
        # Value after value has its last event a day earlier, and all have many before.
        days = [f"2015-{1 + day // 28:02}-{1 + day % 28:02}T12:00:00Z" for day in range(40)]
        await fill(
            store, *[event(at, session=f"s{name:02}") for day, at in enumerate(days) for name in range(40 - day)]
        )
        newest = tuple(f"s{name:02}" for name in range(40))
        for limit in (1, 2, 3, 7, 20, 39, 40, 41):
            assert await store.newest("session", limit) == newest[:limit]
        start, end = datetime(2015, 1, 11, tzinfo=UTC), datetime(2015, 1, 21, tzinfo=UTC)
        # Twenty of them have an event on the last of these days, and all of the same time.
        assert await store.newest("session", 25, start=start, end=end) == (
            *(f"s{name:02}" for name in reversed(range(21))),
            *(f"s{name:02}" for name in range(21, 25)),
        )

    async def test_fields_are_the_names_that_documents_have(self, followed: Store) -> None:
        await fill(followed, event(LCP=12, **{"utm.source": "mail", "Ünï": "x"}))
        fields = await followed.fields()
        assert {"id", "event", "session", "visitor", "duration", "LCP"} <= fields
        assert fields.isdisjoint(
            {"event_id", "params", "utm.source", "Ünï", "event.original", "@timestamp", "LCP.num", "nothing"}
        )

    @pytest.fixture
    async def followed(self, store: Store) -> Store:
        """Provide a store that holds `EVENTS`."""
        await fill(store, *EVENTS)
        return store
