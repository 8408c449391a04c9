"""Asking: each metric, each filter, groups, order and cuts, to the last count."""

from typing import Final

import pytest

from metronome.question import (
    MAX_GROUPS,
    NO_BOTS,
    Equals,
    Exists,
    Not,
    Prefix,
    Question,
    Range,
)
from metronome.stores.conformance.events import StoreTests, event, fill, metrics, order, rows
from metronome.stores.store import Store

_MAIL: Final = {"utm.source": "mail"}

EVENTS: Final = (
    event("2015-01-22T09:00:00Z", id="doc1", visitor="v1", session="s1", referer="arcgis.com", n=1, **_MAIL),
    event("2015-01-22T09:30:00Z", id="doc1", visitor="v2", session="s2", referer="arcgis.com", n=2.5),
    event("2015-01-22T10:00:00Z", id="doc1", visitor="v1", session="s1", format="PDF", n=3),
    event("2015-01-22T10:15:00Z", id="doc2", visitor="v1", session="s3", duration=200.5, **_MAIL),
    event("2015-01-23T00:00:00Z", id="doc2", visitor="v3", bot="crawler", n=-4),
    event("2015-01-23T12:00:00Z", id="doc3", event="error", message="It's 100% broken", **{"utm.source": "ad"}),
    event("2015-01-23T12:00:00Z", event="timing", duration="50", value="high", lang=""),
)
"""Six events of three items and one of none, on two days."""


class AskingTests(StoreTests):
    """What a few events, counted by hand, answer."""

    async def test_an_empty_store_answers_without_events(self, store: Store) -> None:
        every = metrics("count", "visitors", "sessions", "unique:id", "sum:n", "avg:n", "min:n", "max:n", "p50:n")
        whole, by_id, by_day, by_both, by_param = await store.ask(
            Question(every),
            Question(every, by=("id",)),
            Question(every, by=("day",)),
            Question(every, by=("day", "id")),
            Question(by=("utm.source",)),
        )
        assert whole.rows == ((0, 0, 0, 0, 0.0, None, None, None, None),)
        assert whole.exact
        assert whole.total == 1
        for answer in (by_id, by_day, by_both, by_param):
            assert answer.rows == ()
            assert answer.total == 0
            assert answer.exact

    async def test_no_question_has_no_answer(self, store: Store) -> None:
        assert await store.ask() == ()

    async def test_counts(self, asked: Store) -> None:
        assert await rows(asked, Question()) == [(7,)]
        assert await rows(asked, Question(where=NO_BOTS)) == [(6,)]
        assert await rows(asked, Question(by=("id",))) == [("doc1", 3), ("doc2", 2), ("doc3", 1)]
        assert await rows(asked, Question(by=("event",))) == [("download", 1), ("error", 1), ("timing", 1), ("view", 4)]
        assert await rows(asked, Question(by=("format",))) == [("pdf", 1)]

    async def test_counts_distinct_values(self, asked: Store) -> None:
        unique = metrics("visitors", "sessions", "unique:id", "unique:utm.source", "unique:n", "unique:nothing")
        (whole,) = await asked.ask(Question(unique))
        assert whole.rows == ((3, 3, 3, 2, 4, 0),)
        (by_item,) = await asked.ask(Question(unique[:4], by=("id",)))
        assert by_item.rows == (("doc1", 2, 2, 1, 1), ("doc2", 2, 1, 1, 1), ("doc3", 0, 0, 1, 1))

    async def test_measures_numbers(self, asked: Store) -> None:
        found = await rows(asked, Question(metrics("sum:n", "avg:n", "min:n", "max:n")))
        assert found == [(2.5, 0.625, -4.0, 3.0)]
        assert [type(number) for number in found[0]] == [float] * 4
        # Where a number came as text, it is one; where a text is none, it is skipped.
        assert await rows(asked, Question(metrics("sum:duration", "max:duration"))) == [(250.5, 200.5)]
        assert await rows(asked, Question(metrics("sum:value", "max:value"))) == [(0.0, None)]

    async def test_measures_what_senders_can_only_write_as_text(self, store: Store) -> None:
        await fill(store, event(width="1200"), event(width="800.5"), event(width="wide"), event(width="01"))
        question = Question(metrics("count:width", "sum:width", "max:width"))
        assert await rows(store, question) == [(3, 2001.5, 1200.0)]
        assert await rows(store, Question(where=Range("width", above=800))) == [(2,)]
        assert [row[0] for row in await rows(store, Question(by=("width",)))] == ["01", "1200", "800.5", "wide"]

    async def test_measures_each_group(self, asked: Store) -> None:
        question = Question(metrics("max:n", "count", "sum:duration", "avg:duration"), by=("id",))
        assert await rows(asked, question) == [
            ("doc1", 3.0, 3, 0.0, None),
            ("doc2", -4.0, 2, 200.5, 200.5),
            ("doc3", None, 1, 0.0, None),
        ]

    async def test_nobody_has_a_number_in_what_nobody_has(self, asked: Store) -> None:
        measures = metrics("sum:nothing", "avg:nothing", "min:nothing", "max:nothing", "p99:nothing")
        assert await rows(asked, Question(measures)) == [(0.0, None, None, None, None)]
        assert await rows(asked, Question(measures, by=("format",))) == [("pdf", 0.0, None, None, None, None)]
        # Nor has text in params numbers.
        assert await rows(asked, Question(metrics("sum:utm.source", "max:utm.source"))) == [(0.0, None)]

    async def test_percentiles_lie_where_they_should(self, store: Store) -> None:
        await fill(store, *[event(n=number, id="many") for number in range(1_001)], event(n=7, id="one"))
        question = Question(metrics("p50:n", "p5:n", "p99.9:n"), by=("id",))
        (answer,) = await store.ask(question)
        many, one = answer.rows
        assert many[1] == pytest.approx(500, abs=10)
        assert many[2] == pytest.approx(50, abs=10)
        assert many[3] == pytest.approx(999, abs=2)
        assert one == ("one", 7.0, 7.0, 7.0)

    async def test_counts_many_distinct_values_about_right(self, store: Store) -> None:
        await fill(store, *[event(visitor=f"v{number % 5_000}", id=f"i{number % 2}") for number in range(10_000)])
        (answer,) = await store.ask(Question(metrics("visitors", "count"), by=("id",)))
        for _, visitors, number in answer.rows:
            assert visitors == pytest.approx(2_500, rel=0.01)
            assert type(visitors) is int
            assert number == 5_000

    async def test_a_group_without_a_value_is_left_out(self, asked: Store) -> None:
        assert await rows(asked, Question(by=("referer",))) == [("arcgis.com", 2)]
        assert await rows(asked, Question(by=("id", "referer"))) == [("doc1", "arcgis.com", 2)]
        assert await rows(asked, Question(by=("utm.source",))) == [("ad", 1), ("mail", 2)]
        assert await rows(asked, Question(by=("lang",))) == [("", 1)]
        assert await rows(asked, Question(by=("nothing",))) == []
        assert await rows(asked, Question(by=("no.thing",))) == []
        assert await rows(asked, Question(by=("id", "nothing"))) == []
        assert await rows(asked, Question(by=("nothing", "utm.source"))) == []

    async def test_groups_by_several_fields_in_the_order_that_is_asked_for(self, asked: Store) -> None:
        assert await rows(asked, Question(by=("day", "id"))) == [
            ("2015-01-22", "doc1", 3),
            ("2015-01-22", "doc2", 1),
            ("2015-01-23", "doc2", 1),
            ("2015-01-23", "doc3", 1),
        ]
        expected = [
            ("doc1", "mail", "2015-01-22", 1),
            ("doc2", "mail", "2015-01-22", 1),
            ("doc3", "ad", "2015-01-23", 1),
        ]
        assert await rows(asked, Question(by=("id", "utm.source", "day"))) == expected
        assert await rows(asked, Question(metrics("max:n"), by=("utm.source", "id"))) == [
            ("ad", "doc3", None),
            ("mail", "doc1", 1.0),
            ("mail", "doc2", None),
        ]

    async def test_groups_by_the_text_of_numbers(self, asked: Store) -> None:
        assert await rows(asked, Question(by=("n",))) == [("-4", 1), ("1", 1), ("2.5", 1), ("3", 1)]
        assert await rows(asked, Question(where=Equals("n", "2.5"))) == [(1,)]
        assert await rows(asked, Question(by=("duration",))) == [("200.5", 1), ("50", 1)]

    async def test_sorts_and_cuts(self, asked: Store) -> None:
        by = ("visitor",)
        every = Question(metrics("count", "sum:n"), by=by)
        v1, v2, v3 = ("v1", 3, 4.0), ("v2", 1, 2.5), ("v3", 1, -4.0)
        assert await rows(asked, every) == [v1, v2, v3]
        for given, limit, offset, expected in (
            (("-visitor",), None, 0, [v3, v2, v1]),
            (("count",), None, 0, [v2, v3, v1]),
            (("-count",), None, 0, [v1, v2, v3]),
            (("count", "-visitor"), None, 0, [v3, v2, v1]),
            (("sum:n",), 1, 0, [v3]),
            (("sum:n",), 2, 1, [v2, v1]),
            (("sum:n",), None, 2, [v1]),
            ((), 0, 0, []),
            ((), 5, 9, []),
        ):
            question = Question(every.metrics, by, order=order(*given), limit=limit, offset=offset)
            (answer,) = await asked.ask(question)
            assert list(answer.rows) == expected
            assert answer.total == 3
            assert answer.exact

    async def test_sorts_what_has_no_number_first(self, asked: Store) -> None:
        question = Question(metrics("max:n"), by=("id",), order=order("max:n"))
        assert await rows(asked, question) == [("doc3", None), ("doc2", -4.0), ("doc1", 3.0)]

    async def test_answers_questions_in_their_order(self, asked: Store) -> None:
        questions = [Question(where=Equals("id", f"doc{number}")) for number in (3, 1, 4, 2)]
        questions.insert(2, Question(by=("utm.source", "event")))
        answers = await asked.ask(*questions)
        assert [answer.rows[0] for answer in answers] == [(1,), (3,), ("ad", "error", 1), (0,), (2,)]

    async def test_knows_every_one_of_many_groups(self, store: Store) -> None:
        number = 12_000
        documents = [event(id=f"item{at % number:05}", **{"utm.term": f"t{at % 7}"}) for at in range(number + 500)]
        await fill(store, *documents)
        question = Question(by=("id",), order=order("-count", "-id"), limit=2, offset=499)
        top, by_both, by_term = await store.ask(
            question, Question(by=("id", "event"), offset=number - 1), Question(by=("utm.term", "id"), limit=1)
        )
        assert top.rows == (("item00000", 2), ("item11999", 1))
        assert top.total == number
        assert top.exact
        assert by_both.rows == (("item11999", "view", 1),)
        assert by_both.total == number
        assert by_both.exact
        assert by_term.rows == (("t0", "item00000", 1),)
        # The last 500 events are of items that were there, with another term.
        assert by_term.total == number + 500
        assert by_term.exact

    @pytest.mark.slow
    async def test_says_where_there_are_more_groups_than_it_asks_for(self, store: Store) -> None:
        lines = [
            b'{"@timestamp":"2015-01-22T12:00:00.000Z","event_id":"%d","event":"view","id":"i%d","params":{"utm.term":"t%d"}}'
            % (at, at % (MAX_GROUPS + 1), at % 60_000)
            for at in range(MAX_GROUPS + 10)
        ]
        await fill(store, *lines)
        cut = Question(by=("id",), limit=10)
        too_many, enough, few = await store.ask(
            cut, Question(by=("utm.term",), order=order("-count"), limit=1), Question(by=("event",))
        )
        assert too_many.total == MAX_GROUPS + 1 if too_many.exact else too_many.total <= MAX_GROUPS + 1
        assert len(too_many.rows) == 10
        assert (enough.rows, enough.total, enough.exact) == ((("t0", 2),), 60_000, True)
        assert (few.rows, few.exact) == ((("view", MAX_GROUPS + 10),), True)

    async def test_keeps_a_value_of_1024_characters_and_counts_a_longer_one_as_missing(self, store: Store) -> None:
        await fill(store, event(note="x" * 1024), event(note="x" * 1025), event(note="y"))
        assert await rows(store, Question(by=("note",))) == [("x" * 1024, 1), ("y", 1)]
        assert await rows(store, Question(where=Exists("note"))) == [(2,)]
        assert await rows(store, Question(where=Not(Exists("note")))) == [(1,)]
        assert await rows(store, Question(where=Prefix("note", "x"))) == [(1,)]
        assert await rows(store, Question(where=Equals("note", "x" * 1025))) == [(0,)]
        assert await rows(store, Question(where=Equals("note", "x" * 100_000))) == [(0,)]

    async def test_a_client_cannot_count_for_many(self, store: Store) -> None:
        await fill(store, event(id="doc1", _doc_count=1_000_000))
        assert await rows(store, Question(by=("id",))) == [("doc1", 1)]
        assert await rows(store, Question(by=("_doc_count",))) == [("1000000", 1)]

    @pytest.fixture
    async def asked(self, store: Store) -> Store:
        """Provide a store that holds `EVENTS`."""
        await fill(store, *EVENTS)
        return store
