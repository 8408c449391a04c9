"""Asking: each metric, each filter, groups, order and cuts, to the last count."""

from typing import Final

import pytest

from metronome.stores.base import Store
from metronome.stores.query import EXCLUDE_BOTS, MAX_GROUPS, Equals, Exists, Not, Prefix, Query, Range
from tests.contracts.store.events import (
    StoreContract,
    event_document,
    parse_metrics,
    parse_order,
    query_rows,
    write_new_documents,
)

_MAIL_CAMPAIGN: Final = {"utm.source": "mail"}

EVENTS: Final = (
    event_document(
        "2015-01-22T09:00:00Z", id="doc1", visitor="v1", session="s1", referer="arcgis.com", n=1, **_MAIL_CAMPAIGN
    ),
    event_document("2015-01-22T09:30:00Z", id="doc1", visitor="v2", session="s2", referer="arcgis.com", n=2.5),
    event_document("2015-01-22T10:00:00Z", id="doc1", visitor="v1", session="s1", format="PDF", n=3),
    event_document("2015-01-22T10:15:00Z", id="doc2", visitor="v1", session="s3", duration=200.5, **_MAIL_CAMPAIGN),
    event_document("2015-01-23T00:00:00Z", id="doc2", visitor="v3", bot="crawler", n=-4),
    event_document(
        "2015-01-23T12:00:00Z", id="doc3", event="error", message="It's 100% broken", **{"utm.source": "ad"}
    ),
    event_document("2015-01-23T12:00:00Z", event="timing", duration="50", value="high", lang=""),
)
"""Six events of three items and one of none, on two days."""


class QueryTests(StoreContract):
    """What a few events, counted by hand, answer."""

    async def test_empty_store_returns_empty_results(self, store: Store) -> None:
        every = parse_metrics("count", "visitors", "sessions", "unique:id", "sum:n", "avg:n", "min:n", "max:n", "p50:n")
        whole, by_id, by_day, by_both, by_param = await store.query(
            Query(every),
            Query(every, group_by=("id",)),
            Query(every, group_by=("day",)),
            Query(every, group_by=("day", "id")),
            Query(group_by=("utm.source",)),
        )
        assert whole.rows == ((0, 0, 0, 0, 0.0, None, None, None, None),)
        assert whole.exact
        assert whole.total == 1
        for answer in (by_id, by_day, by_both, by_param):
            assert answer.rows == ()
            assert answer.total == 0
            assert answer.exact

    async def test_no_query_returns_no_result(self, store: Store) -> None:
        assert await store.query() == ()

    async def test_counts_events(self, asked: Store) -> None:
        assert await query_rows(asked, Query()) == [(7,)]
        assert await query_rows(asked, Query(where=EXCLUDE_BOTS)) == [(6,)]
        assert await query_rows(asked, Query(group_by=("id",))) == [("doc1", 3), ("doc2", 2), ("doc3", 1)]
        assert await query_rows(asked, Query(group_by=("event",))) == [
            ("download", 1),
            ("error", 1),
            ("timing", 1),
            ("view", 4),
        ]
        assert await query_rows(asked, Query(group_by=("format",))) == [("pdf", 1)]

    async def test_counts_distinct_values(self, asked: Store) -> None:
        unique = parse_metrics("visitors", "sessions", "unique:id", "unique:utm.source", "unique:n", "unique:nothing")
        (whole,) = await asked.query(Query(unique))
        assert whole.rows == ((3, 3, 3, 2, 4, 0),)
        (by_item,) = await asked.query(Query(unique[:4], group_by=("id",)))
        assert by_item.rows == (("doc1", 2, 2, 1, 1), ("doc2", 2, 1, 1, 1), ("doc3", 0, 0, 1, 1))

    async def test_aggregates_numbers(self, asked: Store) -> None:
        found = await query_rows(asked, Query(parse_metrics("sum:n", "avg:n", "min:n", "max:n")))
        assert found == [(2.5, 0.625, -4.0, 3.0)]
        assert [type(number) for number in found[0]] == [float] * 4
        # Where a number came as text, it is one; where a text is none, it is skipped.
        assert await query_rows(asked, Query(parse_metrics("sum:duration", "max:duration"))) == [(250.5, 200.5)]
        assert await query_rows(asked, Query(parse_metrics("sum:value", "max:value"))) == [(0.0, None)]

    async def test_aggregates_numbers_sent_as_text(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document(width="1200"),
            event_document(width="800.5"),
            event_document(width="wide"),
            event_document(width="01"),
        )
        question = Query(parse_metrics("count:width", "sum:width", "max:width"))
        assert await query_rows(store, question) == [(3, 2001.5, 1200.0)]
        assert await query_rows(store, Query(where=Range("width", above=800))) == [(2,)]
        assert [row[0] for row in await query_rows(store, Query(group_by=("width",)))] == [
            "01",
            "1200",
            "800.5",
            "wide",
        ]

    async def test_aggregates_each_group(self, asked: Store) -> None:
        question = Query(parse_metrics("max:n", "count", "sum:duration", "avg:duration"), group_by=("id",))
        assert await query_rows(asked, question) == [
            ("doc1", 3.0, 3, 0.0, None),
            ("doc2", -4.0, 2, 200.5, 200.5),
            ("doc3", None, 1, 0.0, None),
        ]

    async def test_aggregating_an_unknown_field_returns_null(self, asked: Store) -> None:
        measures = parse_metrics("sum:nothing", "avg:nothing", "min:nothing", "max:nothing", "p99:nothing")
        assert await query_rows(asked, Query(measures)) == [(0.0, None, None, None, None)]
        assert await query_rows(asked, Query(measures, group_by=("format",))) == [("pdf", 0.0, None, None, None, None)]
        # Nor has text in params numbers.
        assert await query_rows(asked, Query(parse_metrics("sum:utm.source", "max:utm.source"))) == [(0.0, None)]

    async def test_percentiles_are_accurate(self, store: Store) -> None:
        await write_new_documents(
            store, *[event_document(n=number, id="many") for number in range(1_001)], event_document(n=7, id="one")
        )
        question = Query(parse_metrics("p50:n", "p5:n", "p99.9:n"), group_by=("id",))
        (answer,) = await store.query(question)
        many, one = answer.rows
        assert many[1] == pytest.approx(500, abs=10)
        assert many[2] == pytest.approx(50, abs=10)
        assert many[3] == pytest.approx(999, abs=2)
        assert one == ("one", 7.0, 7.0, 7.0)

    async def test_estimates_many_distinct_values_within_one_percent(self, store: Store) -> None:
        await write_new_documents(
            store, *[event_document(visitor=f"v{number % 5_000}", id=f"i{number % 2}") for number in range(10_000)]
        )
        (answer,) = await store.query(Query(parse_metrics("visitors", "count"), group_by=("id",)))
        for _, visitors, number in answer.rows:
            assert visitors == pytest.approx(2_500, rel=0.01)
            assert type(visitors) is int
            assert number == 5_000

    async def test_omits_groups_without_a_value(self, asked: Store) -> None:
        assert await query_rows(asked, Query(group_by=("referer",))) == [("arcgis.com", 2)]
        assert await query_rows(asked, Query(group_by=("id", "referer"))) == [("doc1", "arcgis.com", 2)]
        assert await query_rows(asked, Query(group_by=("utm.source",))) == [("ad", 1), ("mail", 2)]
        assert await query_rows(asked, Query(group_by=("lang",))) == [("", 1)]
        assert await query_rows(asked, Query(group_by=("nothing",))) == []
        assert await query_rows(asked, Query(group_by=("no.thing",))) == []
        assert await query_rows(asked, Query(group_by=("id", "nothing"))) == []
        assert await query_rows(asked, Query(group_by=("nothing", "utm.source"))) == []

    async def test_groups_by_several_fields_in_the_requested_order(self, asked: Store) -> None:
        assert await query_rows(asked, Query(group_by=("day", "id"))) == [
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
        assert await query_rows(asked, Query(group_by=("id", "utm.source", "day"))) == expected
        assert await query_rows(asked, Query(parse_metrics("max:n"), group_by=("utm.source", "id"))) == [
            ("ad", "doc3", None),
            ("mail", "doc1", 1.0),
            ("mail", "doc2", None),
        ]

    async def test_groups_by_the_text_of_numbers(self, asked: Store) -> None:
        assert await query_rows(asked, Query(group_by=("n",))) == [("-4", 1), ("1", 1), ("2.5", 1), ("3", 1)]
        assert await query_rows(asked, Query(where=Equals("n", "2.5"))) == [(1,)]
        assert await query_rows(asked, Query(group_by=("duration",))) == [("200.5", 1), ("50", 1)]

    async def test_sorts_and_limits(self, asked: Store) -> None:
        by = ("visitor",)
        every = Query(parse_metrics("count", "sum:n"), group_by=by)
        v1, v2, v3 = ("v1", 3, 4.0), ("v2", 1, 2.5), ("v3", 1, -4.0)
        assert await query_rows(asked, every) == [v1, v2, v3]
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
            question = Query(every.metrics, by, sort_keys=parse_order(*given), limit=limit, offset=offset)
            (answer,) = await asked.query(question)
            assert list(answer.rows) == expected
            assert answer.total == 3
            assert answer.exact

    async def test_sorts_missing_numbers_first(self, asked: Store) -> None:
        question = Query(parse_metrics("max:n"), group_by=("id",), sort_keys=parse_order("max:n"))
        assert await query_rows(asked, question) == [("doc3", None), ("doc2", -4.0), ("doc1", 3.0)]

    async def test_returns_results_in_the_order_of_queries(self, asked: Store) -> None:
        questions = [Query(where=Equals("id", f"doc{number}")) for number in (3, 1, 4, 2)]
        questions.insert(2, Query(group_by=("utm.source", "event")))
        answers = await asked.query(*questions)
        assert [answer.rows[0] for answer in answers] == [(1,), (3,), ("ad", "error", 1), (0,), (2,)]

    async def test_returns_every_one_of_many_groups(self, store: Store) -> None:
        number = 12_000
        documents = [
            event_document(id=f"item{at % number:05}", **{"utm.term": f"t{at % 7}"}) for at in range(number + 500)
        ]
        await write_new_documents(store, *documents)
        question = Query(group_by=("id",), sort_keys=parse_order("-count", "-id"), limit=2, offset=499)
        top, by_both, by_term = await store.query(
            question, Query(group_by=("id", "event"), offset=number - 1), Query(group_by=("utm.term", "id"), limit=1)
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
    async def test_reports_more_groups_than_the_limit(self, store: Store) -> None:
        lines = [
            b'{"@timestamp":"2015-01-22T12:00:00.000Z","event_id":"%d","event":"view","id":"i%d","params":{"utm.term":"t%d"}}'
            % (at, at % (MAX_GROUPS + 1), at % 60_000)
            for at in range(MAX_GROUPS + 10)
        ]
        await write_new_documents(store, *lines)
        cut = Query(group_by=("id",), limit=10)
        too_many, enough, few = await store.query(
            cut, Query(group_by=("utm.term",), sort_keys=parse_order("-count"), limit=1), Query(group_by=("event",))
        )
        assert too_many.total == MAX_GROUPS + 1 if too_many.exact else too_many.total <= MAX_GROUPS + 1
        assert len(too_many.rows) == 10
        assert (enough.rows, enough.total, enough.exact) == ((("t0", 2),), 60_000, True)
        assert (few.rows, few.exact) == ((("view", MAX_GROUPS + 10),), True)

    async def test_values_over_1024_characters_count_as_missing(self, store: Store) -> None:
        await write_new_documents(
            store, event_document(note="x" * 1024), event_document(note="x" * 1025), event_document(note="y")
        )
        assert await query_rows(store, Query(group_by=("note",))) == [("x" * 1024, 1), ("y", 1)]
        assert await query_rows(store, Query(where=Exists("note"))) == [(2,)]
        assert await query_rows(store, Query(where=Not(Exists("note")))) == [(1,)]
        assert await query_rows(store, Query(where=Prefix("note", "x"))) == [(1,)]
        assert await query_rows(store, Query(where=Equals("note", "x" * 1025))) == [(0,)]
        assert await query_rows(store, Query(where=Equals("note", "x" * 100_000))) == [(0,)]

    async def test_doc_count_field_does_not_multiply_events(self, store: Store) -> None:
        await write_new_documents(store, event_document(id="doc1", _doc_count=1_000_000))
        assert await query_rows(store, Query(group_by=("id",))) == [("doc1", 1)]
        assert await query_rows(store, Query(group_by=("_doc_count",))) == [("1000000", 1)]

    @pytest.fixture
    async def asked(self, store: Store) -> Store:
        """Provide a store that holds `EVENTS`."""
        await write_new_documents(store, *EVENTS)
        return store
