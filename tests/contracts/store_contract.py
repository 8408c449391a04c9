"""The contract of stores: what every back end promises, as tests.

The test file of a back end subclasses each of these classes, those of `store_sequences` and of `store_model`, and
overrides one fixture::

    class TestMyWrites(WriteTests):
        @pytest.fixture
        async def store(self) -> AsyncIterator[Store]:
            store = MyStore()
            await store.setup()
            yield store
            await store.close()

The store must be empty and set up.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final
from uuid import uuid4

import orjson
import pytest

from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch, Store, WriteResult
from metronome.stores.query import (
    COUNT,
    EXCLUDE_BOTS,
    MAX_GROUPS,
    TIME_UNITS,
    AllOf,
    AnyOf,
    Equals,
    Exists,
    Filter,
    Metric,
    Not,
    OneOf,
    Prefix,
    Query,
    Range,
    SortKey,
)
from metronome.stores.selection import Selection, SelectionKind, parse_selection
from metronome.stores.sequences import SequenceQuery

NOON: Final = "2015-01-22T12:00:00.000Z"
INGEST_CONTEXT: Final = DocumentContext(received_at=NOON, min_timestamp=None, max_timestamp="9999-12-31T23:59:59.999Z")


class StoreContract:
    """The base class of the contract's tests."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """Provide an empty store that is set up, and close it after the test."""
        raise NotImplementedError("override this fixture with one that provides the store to test")
        yield  # noqa: PT022  # what comes after it is the back end's


def event_document(timestamp: str = NOON, /, **fields: Any) -> bytes:
    """Return the document of an event at that time, with a new ``event_id`` unless one is given."""
    return encode_document({"timestamp": timestamp, **fields})


def encode_document(fields: dict[str, Any]) -> bytes:
    """Return the document of an event with fields of any name."""
    return build_document(Event(fields), INGEST_CONTEXT, uuid4().hex)


async def write_documents(store: Store, documents: Iterable[bytes]) -> WriteResult:
    """Write documents and make them visible to queries."""
    result = await store.write(DocumentBatch.from_documents(list(documents)))
    await store.refresh()
    return result


async def write_new_documents(store: Store, *documents: bytes) -> None:
    """Write documents of which the store has none."""
    assert await write_documents(store, documents) == WriteResult(stored=len(documents))


async def count_events(store: Store) -> Any:
    """Return the number of events in a store."""
    (result,) = await store.query(Query())
    return result.rows[0][0]


async def query_rows(store: Store, query: Query) -> list[tuple[Any, ...]]:
    """Return the rows of a query's result, which must be exact."""
    (result,) = await store.query(query)
    assert result.exact
    assert result.columns == query.columns
    return list(result.rows)


async def read_sequences(store: Store, sequence_query: SequenceQuery) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """Return sequences as their keys and events, each event as its time and values."""
    return [
        (sequence.key, [(event.timestamp_ms, *event.values) for event in sequence.events])
        async for sequence in store.sequences(sequence_query)
    ]


def parse_metrics(*texts: str) -> tuple[Metric, ...]:
    """Return parsed metrics."""
    return tuple(Metric.parse(text) for text in texts)


def parse_sort_keys(*texts: str) -> tuple[SortKey, ...]:
    """Return parsed sort keys."""
    return tuple(SortKey.parse(text) for text in texts)


HOSTILE_EVENTS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"id": ""},
    {"id": None, "event": None, "format": None},
    {"id": "a/b?c#d e%20f\\g", "event": "a'); DROP TABLE events; --"},
    {"id": 'quotes " and \\" and \\', "event": "*", "format": "?"},
    {"id": "línea\nsegunda\r\n\ttab\u2028sep\u2029\x7f"},
    {"id": "nul\0inside", "note": "nul\0inside", "with.nul": "nul\0inside", "key\0nul": "x"},
    {"id": "ünï 👩\u200d👩\u200d👧 \u202ertl مرحبا", "emoji.👍": "👍"},
    {"id": "\ud800 lone", "\udfff": "surrogate", "note": "\udc00"},
    {"note": "x" * 1024, "long": "x" * 1025, "longer": "y" * 40_000, "very.long": "z" * 40_000},
    {"k" * 100: 1, "k" * 101: 1, "k" * 1_000: 1},
    {"": "nameless", " ": "blank", ".": "dot", "..": "dots", "a.": 1, ".a": 2, "a..b": 3},
    {"a": 1, "a.b": 2, "a.b.c": {"d": [1, {"e": None}]}},
    {"_id": "x", "_source": "y", "_index": "z", "_doc_count": 1_000_000, "_routing": "r", "_type": "t"},
    {"params": "text", "event.original": "text", "@version": "9", "@timestamp ": "x", "message": 5},
    {"params": {"nested": True}, "tags": ["a", "b"], "host": {"name": "h"}},
    {"mixed": 1, "value": 1},
    {"mixed": "text", "value": "text"},
    {"mixed": 1.5, "value": "2.5"},
    {"mixed": True, "value": True},
    {"mixed": None, "value": None},
    {"mixed": [1, 2], "value": [1, 2]},
    {"mixed": {"a": 1}, "value": {"a": 1}},
    {"mixed": "2015-01-22T00:00:00Z", "value": "2015-01-22"},
    {"int": 2**63 - 1, "low": -(2**63) + 1, "over": 2**63, "huge": 10**400, "big": "9" * 400},
    {"tiny": 5e-324, "large": 1.7976931348623157e308, "zero": -0.0, "exp": 1e22, "third": 1 / 3},
    {"duration": "12", "clientip": "not an address", "referer": "::::", "user_agent": "\0"},
    {"clientip": "2001:db8::1", "referrer": "https://www.example.com/a/?q#f", "url": "javascript:alert(1)"},
    {"session": 5, "visitor": 7, "bot": True},
    {"session": {"a": 1}, "visitor": ["v"], "bot": {"name": "x"}},
    {f"field{number}": number for number in range(150)},
)


class WriteTests(StoreContract):
    """Each event is stored exactly once, and comes back as it was."""

    async def test_reports_the_number_of_new_documents(self, store: Store) -> None:
        assert await write_documents(store, [event_document(), event_document(), event_document()]) == WriteResult(
            stored=3
        )
        assert await count_events(store) == 3

    async def test_accepts_an_empty_batch(self, store: Store) -> None:
        assert await store.write(DocumentBatch.from_documents([])) == WriteResult(stored=0)

    async def test_keeps_the_first_of_duplicates_within_a_batch(self, store: Store) -> None:
        documents = [
            event_document(event_id="1", id="first"),
            event_document(event_id="2", id="other"),
            event_document(event_id="1", id="second"),
        ]
        assert await write_documents(store, documents) == WriteResult(stored=2, duplicates=1)
        assert await query_rows(store, Query(group_by=("id",))) == [("first", 1), ("other", 1)]

    async def test_keeps_the_first_of_duplicates_across_batches(self, store: Store) -> None:
        await write_new_documents(store, event_document(event_id="1", id="first"))
        assert await write_documents(store, [event_document(event_id="1", id="second")]) == WriteResult(
            stored=0, duplicates=1
        )
        assert await query_rows(store, Query(group_by=("id",))) == [("first", 1)]

    async def test_deduplicates_a_resent_batch_in_another_order(self, store: Store) -> None:
        documents = [event_document(event_id=str(number)) for number in range(10)]
        await write_new_documents(store, *documents[:6])
        assert await write_documents(store, documents[9:3:-1]) == WriteResult(stored=4, duplicates=2)
        assert await write_documents(store, documents) == WriteResult(stored=0, duplicates=10)
        assert await count_events(store) == 10

    async def test_same_event_id_in_another_month_is_another_event(self, store: Store) -> None:
        documents = [
            event_document("2015-01-31T23:59:59.999Z", event_id="1"),
            event_document("2015-02-01T00:00:00.000Z", event_id="1"),
            event_document("2015-02-01T23:59:59.999Z", event_id="1"),
            event_document("2015-02-28T12:00:00.000Z", event_id="1"),
        ]
        assert await write_documents(store, documents) == WriteResult(stored=2, duplicates=2)
        assert await write_documents(store, reversed(documents)) == WriteResult(0, 4)

    async def test_event_ids_are_compared_exactly(self, store: Store) -> None:
        names = ["a", "A", " a", "a ", "á", "a\u0301", 'a"', "a\\", "a/b", "a\\u0062", "%", "1", "01", "e" * 512, "\n"]
        documents = [event_document(event_id=name) for name in names]
        await write_new_documents(store, *documents)
        assert await write_documents(store, documents) == WriteResult(stored=0, duplicates=len(names))

    async def test_stores_late_events(self, store: Store) -> None:
        await write_new_documents(store, event_document("2015-01-22T12:00:00Z"))
        await write_new_documents(
            store,
            event_document("1970-01-01T00:00:00Z"),
            event_document("2014-12-31T23:59:59Z"),
            event_document("2015-01-22T11:00:00Z"),
        )
        assert await query_rows(store, Query(group_by=("month",))) == [("1970-01", 1), ("2014-12", 1), ("2015-01", 2)]

    async def test_rejects_invalid_documents_and_stores_the_others(self, store: Store) -> None:
        broken = event_document(event_id="broken")[:-1] + b',"x":}'
        documents = [
            event_document(event_id="1"),
            broken,
            event_document(event_id="2"),
            b'{"id":"headless"}',
            event_document(event_id="3"),
        ]
        result = await write_documents(store, documents)
        assert result.stored == 3
        assert result.duplicates == 0
        assert result.retry is None
        assert {rejected.document for rejected in result.rejected} == {broken, b'{"id":"headless"}'}
        assert all(rejected.reason for rejected in result.rejected)
        assert await count_events(store) == 3

    async def test_stores_hostile_events_unchanged(self, store: Store) -> None:
        documents = [
            encode_document({"event_id": f"hostile {at}", **fields}) for at, fields in enumerate(HOSTILE_EVENTS)
        ]
        await write_new_documents(store, *documents)
        assert await count_events(store) == len(HOSTILE_EVENTS)
        assert sorted([document async for document in store.iterate_documents()]) == sorted(documents)
        assert await write_documents(store, documents) == WriteResult(stored=0, duplicates=len(HOSTILE_EVENTS))

    async def test_iterates_documents_oldest_first(self, store: Store) -> None:
        documents = [
            event_document("2015-01-23T00:00:00.001Z", id="4"),
            event_document("2015-01-22T23:59:59.999Z", id="2"),
            event_document("2015-01-21T12:00:00.000Z", id="1", value=1.0, note=None),
            event_document("2015-01-23T00:00:00.000Z", id="3"),
        ]
        await write_new_documents(store, *documents)
        stored = [document async for document in store.iterate_documents()]
        assert stored == [documents[2], documents[1], documents[3], documents[0]]

    async def test_returns_the_newest_documents_newest_first(self, store: Store) -> None:
        documents = [
            event_document("2015-01-23T00:00:00.001Z", id="4"),
            event_document("2015-01-22T23:59:59.999Z", id="2"),
            event_document("2015-01-21T12:00:00.000Z", id="1", value=1.0, note=None),
            event_document("2015-01-23T00:00:00.000Z", id="3"),
        ]
        assert await store.newest_documents(3) == ()
        await write_new_documents(store, *documents)
        newest_first = (documents[0], documents[3], documents[1], documents[2])
        assert await store.newest_documents(10) == newest_first
        assert await store.newest_documents(2) == newest_first[:2]
        assert await store.newest_documents(0) == ()
        assert await store.newest_documents(2, Not(Equals("id", "3"))) == (documents[0], documents[1])
        start, end = datetime(2015, 1, 22, tzinfo=UTC), datetime(2015, 1, 23, tzinfo=UTC)
        assert await store.newest_documents(2, None, start, end) == (documents[1],)
        assert await store.newest_documents(2, Equals("nothing", "x")) == ()

    async def test_iterates_no_documents_of_an_empty_store(self, store: Store) -> None:
        assert [document async for document in store.iterate_documents()] == []

    @pytest.mark.slow
    async def test_stores_a_large_batch_completely(self, store: Store) -> None:
        documents = [
            event_document(
                f"2015-01-{22 + number % 2}T{number % 24:02}:00:{number % 60:02}.{number % 1000:03}Z",
                event_id=f"e{number}",
                id=f"item {number % 100}",
                title="a page of some length, " * 20,
            )
            for number in range(20_000)
        ]
        await write_new_documents(store, *documents)
        assert await query_rows(store, Query(group_by=("day",))) == [("2015-01-22", 10_000), ("2015-01-23", 10_000)]
        stored = [document async for document in store.iterate_documents()]
        assert [orjson.loads(document)["@timestamp"] for document in stored] == sorted(
            orjson.loads(document)["@timestamp"] for document in documents
        )
        assert set(stored) == set(documents)
        assert await write_documents(store, [*documents[-100:], event_document(event_id="e20000")]) == WriteResult(
            stored=1, duplicates=100
        )

    @pytest.mark.slow  # it writes thousands of events
    async def test_keeps_the_first_of_distant_duplicates_in_a_large_batch(self, store: Store) -> None:
        documents = [event_document(event_id=f"e{number}", note="x" * 1_000) for number in range(10_000)]
        batch = [
            event_document(event_id="twice", id="first"),
            *documents,
            event_document(event_id="twice", id="second"),
        ]
        assert await write_documents(store, batch) == WriteResult(stored=10_001, duplicates=1)
        assert await query_rows(store, Query(group_by=("id",))) == [("first", 1)]

    async def test_concurrent_overlapping_batches_are_deduplicated(self, store: Store) -> None:
        documents = [event_document(event_id=str(number)) for number in range(500)]
        batches = [DocumentBatch.from_documents(documents[start : start + 200]) for start in range(0, 400, 50)]
        results = await asyncio.gather(*[store.write(batch) for batch in batches])
        await store.refresh()
        assert sum(result.stored + result.duplicates for result in results) == 8 * 200 - 50
        assert sum(result.stored for result in results) == 500
        assert await count_events(store) == 500

    async def test_queries_run_during_writes(self, store: Store) -> None:
        async def write_all() -> None:
            for start in range(0, 1_000, 100):
                await write_new_documents(
                    store, *[event_document(event_id=str(number)) for number in range(start, start + 100)]
                )

        async def count_often() -> list[Any]:
            return [await count_events(store) for _ in range(20)]

        _, counts = await asyncio.gather(write_all(), count_often())
        assert counts == sorted(counts)
        assert await query_rows(store, Query((COUNT,))) == [(1_000,)]

    async def test_setup_is_idempotent_and_ping_succeeds(self, store: Store) -> None:
        await write_new_documents(store, event_document())
        await store.setup()
        await store.ping()
        assert await count_events(store) == 1


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
"""Six events of three items and one without an item, on two days."""


class QueryTests(StoreContract):
    """Queries of a few events have the results that counting by hand gives."""

    async def test_empty_store_returns_empty_results(self, store: Store) -> None:
        every = parse_metrics("count", "visitors", "sessions", "unique:id", "sum:n", "avg:n", "min:n", "max:n", "p50:n")
        total_result, by_id, by_day, by_both, by_param = await store.query(
            Query(every),
            Query(every, group_by=("id",)),
            Query(every, group_by=("day",)),
            Query(every, group_by=("day", "id")),
            Query(group_by=("utm.source",)),
        )
        assert total_result.rows == ((0, 0, 0, 0, 0.0, None, None, None, None),)
        assert total_result.exact
        assert total_result.total == 1
        for result in (by_id, by_day, by_both, by_param):
            assert result.rows == ()
            assert result.total == 0
            assert result.exact

    async def test_no_query_returns_no_result(self, store: Store) -> None:
        assert await store.query() == ()

    async def test_counts_events(self, filled_store: Store) -> None:
        assert await query_rows(filled_store, Query()) == [(7,)]
        assert await query_rows(filled_store, Query(where=EXCLUDE_BOTS)) == [(6,)]
        assert await query_rows(filled_store, Query(group_by=("id",))) == [("doc1", 3), ("doc2", 2), ("doc3", 1)]
        assert await query_rows(filled_store, Query(group_by=("event",))) == [
            ("download", 1),
            ("error", 1),
            ("timing", 1),
            ("view", 4),
        ]
        assert await query_rows(filled_store, Query(group_by=("format",))) == [("pdf", 1)]

    async def test_counts_distinct_values(self, filled_store: Store) -> None:
        unique = parse_metrics("visitors", "sessions", "unique:id", "unique:utm.source", "unique:n", "unique:nothing")
        (total_result,) = await filled_store.query(Query(unique))
        assert total_result.rows == ((3, 3, 3, 2, 4, 0),)
        (by_item,) = await filled_store.query(Query(unique[:4], group_by=("id",)))
        assert by_item.rows == (("doc1", 2, 2, 1, 1), ("doc2", 2, 1, 1, 1), ("doc3", 0, 0, 1, 1))

    async def test_aggregates_numbers(self, filled_store: Store) -> None:
        rows = await query_rows(filled_store, Query(parse_metrics("sum:n", "avg:n", "min:n", "max:n")))
        assert rows == [(2.5, 0.625, -4.0, 3.0)]
        assert [type(number) for number in rows[0]] == [float] * 4
        # The text of a number counts as a number; other texts are skipped.
        assert await query_rows(filled_store, Query(parse_metrics("sum:duration", "max:duration"))) == [(250.5, 200.5)]
        assert await query_rows(filled_store, Query(parse_metrics("sum:value", "max:value"))) == [(0.0, None)]

    async def test_aggregates_numbers_sent_as_text(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document(width="1200"),
            event_document(width="800.5"),
            event_document(width="wide"),
            event_document(width="01"),
        )
        query = Query(parse_metrics("count:width", "sum:width", "max:width"))
        assert await query_rows(store, query) == [(3, 2001.5, 1200.0)]
        assert await query_rows(store, Query(where=Range("width", above=800))) == [(2,)]
        assert [row[0] for row in await query_rows(store, Query(group_by=("width",)))] == [
            "01",
            "1200",
            "800.5",
            "wide",
        ]

    async def test_aggregates_each_group(self, filled_store: Store) -> None:
        query = Query(parse_metrics("max:n", "count", "sum:duration", "avg:duration"), group_by=("id",))
        assert await query_rows(filled_store, query) == [
            ("doc1", 3.0, 3, 0.0, None),
            ("doc2", -4.0, 2, 200.5, 200.5),
            ("doc3", None, 1, 0.0, None),
        ]

    async def test_aggregating_an_unknown_field_returns_null(self, filled_store: Store) -> None:
        metrics = parse_metrics("sum:nothing", "avg:nothing", "min:nothing", "max:nothing", "p99:nothing")
        assert await query_rows(filled_store, Query(metrics)) == [(0.0, None, None, None, None)]
        assert await query_rows(filled_store, Query(metrics, group_by=("format",))) == [
            ("pdf", 0.0, None, None, None, None)
        ]
        # Values in params are texts, not numbers.
        assert await query_rows(filled_store, Query(parse_metrics("sum:utm.source", "max:utm.source"))) == [(0.0, None)]

    async def test_percentiles_are_accurate(self, store: Store) -> None:
        await write_new_documents(
            store, *[event_document(n=number, id="many") for number in range(1_001)], event_document(n=7, id="one")
        )
        query = Query(parse_metrics("p50:n", "p5:n", "p99.9:n"), group_by=("id",))
        (result,) = await store.query(query)
        many_numbers, one_number = result.rows
        assert many_numbers[1] == pytest.approx(500, abs=10)
        assert many_numbers[2] == pytest.approx(50, abs=10)
        assert many_numbers[3] == pytest.approx(999, abs=2)
        assert one_number == ("one", 7.0, 7.0, 7.0)

    async def test_estimates_many_distinct_values_within_one_percent(self, store: Store) -> None:
        await write_new_documents(
            store, *[event_document(visitor=f"v{number % 5_000}", id=f"i{number % 2}") for number in range(10_000)]
        )
        (result,) = await store.query(Query(parse_metrics("visitors", "count"), group_by=("id",)))
        for _, visitors, number in result.rows:
            assert visitors == pytest.approx(2_500, rel=0.01)
            assert type(visitors) is int
            assert number == 5_000

    async def test_omits_groups_without_a_value(self, filled_store: Store) -> None:
        assert await query_rows(filled_store, Query(group_by=("referer",))) == [("arcgis.com", 2)]
        assert await query_rows(filled_store, Query(group_by=("id", "referer"))) == [("doc1", "arcgis.com", 2)]
        assert await query_rows(filled_store, Query(group_by=("utm.source",))) == [("ad", 1), ("mail", 2)]
        assert await query_rows(filled_store, Query(group_by=("lang",))) == [("", 1)]
        assert await query_rows(filled_store, Query(group_by=("nothing",))) == []
        assert await query_rows(filled_store, Query(group_by=("no.thing",))) == []
        assert await query_rows(filled_store, Query(group_by=("id", "nothing"))) == []
        assert await query_rows(filled_store, Query(group_by=("nothing", "utm.source"))) == []

    async def test_groups_by_several_fields_in_the_requested_order(self, filled_store: Store) -> None:
        assert await query_rows(filled_store, Query(group_by=("day", "id"))) == [
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
        assert await query_rows(filled_store, Query(group_by=("id", "utm.source", "day"))) == expected
        assert await query_rows(filled_store, Query(parse_metrics("max:n"), group_by=("utm.source", "id"))) == [
            ("ad", "doc3", None),
            ("mail", "doc1", 1.0),
            ("mail", "doc2", None),
        ]

    async def test_groups_by_the_text_of_numbers(self, filled_store: Store) -> None:
        assert await query_rows(filled_store, Query(group_by=("n",))) == [("-4", 1), ("1", 1), ("2.5", 1), ("3", 1)]
        assert await query_rows(filled_store, Query(where=Equals("n", "2.5"))) == [(1,)]
        assert await query_rows(filled_store, Query(group_by=("duration",))) == [("200.5", 1), ("50", 1)]

    async def test_sorts_and_limits(self, filled_store: Store) -> None:
        by = ("visitor",)
        every = Query(parse_metrics("count", "sum:n"), group_by=by)
        v1, v2, v3 = ("v1", 3, 4.0), ("v2", 1, 2.5), ("v3", 1, -4.0)
        assert await query_rows(filled_store, every) == [v1, v2, v3]
        for sort_keys, limit, offset, expected in (
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
            query = Query(every.metrics, by, sort_keys=parse_sort_keys(*sort_keys), limit=limit, offset=offset)
            (result,) = await filled_store.query(query)
            assert list(result.rows) == expected
            assert result.total == 3
            assert result.exact

    async def test_sorts_missing_numbers_first(self, filled_store: Store) -> None:
        query = Query(parse_metrics("max:n"), group_by=("id",), sort_keys=parse_sort_keys("max:n"))
        assert await query_rows(filled_store, query) == [("doc3", None), ("doc2", -4.0), ("doc1", 3.0)]

    async def test_returns_results_in_the_order_of_queries(self, filled_store: Store) -> None:
        queries = [Query(where=Equals("id", f"doc{number}")) for number in (3, 1, 4, 2)]
        queries.insert(2, Query(group_by=("utm.source", "event")))
        results = await filled_store.query(*queries)
        assert [result.rows[0] for result in results] == [(1,), (3,), ("ad", "error", 1), (0,), (2,)]

    @pytest.mark.slow  # it writes thousands of events
    async def test_returns_every_one_of_many_groups(self, store: Store) -> None:
        number = 12_000
        documents = [
            event_document(id=f"item{at % number:05}", **{"utm.term": f"t{at % 7}"}) for at in range(number + 500)
        ]
        await write_new_documents(store, *documents)
        query = Query(group_by=("id",), sort_keys=parse_sort_keys("-count", "-id"), limit=2, offset=499)
        top, by_both, by_term = await store.query(
            query, Query(group_by=("id", "event"), offset=number - 1), Query(group_by=("utm.term", "id"), limit=1)
        )
        assert top.rows == (("item00000", 2), ("item11999", 1))
        assert top.total == number
        assert top.exact
        assert by_both.rows == (("item11999", "view", 1),)
        assert by_both.total == number
        assert by_both.exact
        assert by_term.rows == (("t0", "item00000", 1),)
        # The last 500 events are of the first items again, with another term.
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
            cut, Query(group_by=("utm.term",), sort_keys=parse_sort_keys("-count"), limit=1), Query(group_by=("event",))
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
    async def filled_store(self, store: Store) -> Store:
        """Provide a store that holds `EVENTS`."""
        await write_new_documents(store, *EVENTS)
        return store


VALUES: Final = (
    "plain",
    "PLAIN",
    "",
    " ",
    "plain ",
    "1",
    "1.0",
    "01",
    "true",
    "null",
    "*",
    "?",
    "p*",
    "p?ain",
    "%",
    "p%",
    "p_ain",
    "_lain",
    "pl.in",
    ".*",
    "[a-z]+",
    "(plain)|x",
    "^plain$",
    "~",
    "#",
    "@",
    "&&",
    "<1-9>",
    "a\\b",
    "\\",
    "\\*",
    'say "hi"',
    "it's",
    "'; DROP TABLE events; --",
    "$.a",
    "a.b",
    "{{x}}",
    "tab\tand\nline",
    "nul\0nul",
    "é",
    "e\u0301",
    "ß",
    "👍",
    "👩\u200d👩\u200d👧",
    "\u202emirror",
    "\uffff",
    "x" * 1024,
    "é" * 300,
)


class FilterTests(StoreContract):
    """Filters select the expected events, whatever characters values and names have."""

    async def test_each_filter_selects_the_expected_events(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document(id="1", lang="en", n=1, **{"utm.source": "mail"}),
            event_document(id="2", lang="en-GB", n=2.5, **{"utm.source": "e-mail", "utm.*": "star"}),
            event_document(id="3", lang="EN", n=-1, **{"utm.source": ""}),
            event_document(id="4", lang="", duration=100),
            event_document(id="5", lang=None, duration="1e3", utm={"source": "mail"}),
            event_document(id="6", bot="crawler", lang=True, n=10**15),
        )
        english, source = Equals("lang", "en"), "utm.source"
        expectations: list[tuple[Filter, str]] = [
            (english, "1"),
            (Equals("lang", "true"), "6"),
            (Equals("lang", ""), "4"),
            (Equals("nothing", ""), ""),
            (Equals("n", "2.5"), "2"),
            (Equals("n", "1"), "1"),
            (Equals("n", "1.0"), ""),
            (Equals(source, "mail"), "1"),
            (Equals(source, ""), "3"),
            (Equals("utm.*", "star"), "2"),
            (OneOf("lang", ("en", "EN", "xx")), "13"),
            (OneOf("lang", ()), ""),
            (OneOf(source, ("mail", "e-mail")), "12"),
            (OneOf("id", tuple(str(number) for number in range(70_000))), "123456"),
            (Prefix("lang", "en"), "12"),
            (Prefix("lang", ""), "12346"),
            (Prefix("lang", "en-GBx"), ""),
            (Prefix(source, "e"), "2"),
            (Prefix(source, ""), "123"),
            (Prefix("nothing", ""), ""),
            (Exists("lang"), "12346"),
            (Exists("n"), "1236"),
            (Exists(source), "123"),
            (Exists("utm.*"), "2"),
            (Exists("utm"), ""),
            (Exists("nothing"), ""),
            (Exists("no.thing"), ""),
            (Not(english), "23456"),
            (Not(Exists("lang")), "5"),
            (Not(Equals(source, "mail")), "23456"),
            (Not(Equals("nothing", "x")), "123456"),
            (Not(OneOf("lang", ())), "123456"),
            (Not(Not(english)), "1"),
            (EXCLUDE_BOTS, "12345"),
            (Range("n", at_least=1), "126"),
            (Range("n", above=1), "26"),
            (Range("n", below=2.5), "13"),
            (Range("n", at_most=2.5), "123"),
            (Range("n", above=-1, at_most=2.5), "12"),
            (Range("n", at_least=10**15, at_most=10**15), "6"),
            (Range("n", above=3, below=2), ""),
            (Range("n"), "1236"),
            (Range("n", below=float("inf"), above=float("-inf")), "1236"),
            (Range("n", above=float("inf")), ""),
            (Range("n", at_most=float("nan")), ""),
            (Range("duration", at_least=100), "45"),
            (Range("duration", above=100), "5"),
            (Range("lang", at_least=0), ""),
            (Range("nothing", at_least=0), ""),
            (Range(source, at_least=0), ""),
            (Not(Range("n", at_least=1)), "345"),
            (AllOf(()), "123456"),
            (AnyOf(()), ""),
            (Not(AllOf(())), ""),
            (Not(AnyOf(())), "123456"),
            (AllOf((Prefix("lang", "en"), Exists("n"))), "12"),
            (AllOf((Prefix("lang", "en"), Not(english))), "2"),
            (AnyOf((english, Exists("bot"))), "16"),
            (AnyOf((AllOf((english, Exists("bot"))), Not(AnyOf((Exists("n"), Equals("id", "4")))))), "5"),
            (AllOf((Not(AllOf((english, Range("n", at_least=1)))), AnyOf((Exists("n"), Exists("bot"))))), "236"),
        ]
        results = await store.query(*[Query(group_by=("id",), where=where) for where, _ in expectations])
        selections = ["".join(str(row[0]) for row in result.rows) for result in results]
        assert dict(zip(map(repr, [where for where, _ in expectations]), selections, strict=True)) == {
            repr(where): expected for where, expected in expectations
        }
        for where, expected in (expectations[0], expectations[7], expectations[-1]):
            assert len([document async for document in store.iterate_documents(where)]) == len(expected)

    @pytest.mark.parametrize("field", ["note", "note.inside", "note * \" ' \\ é"])
    async def test_equals_and_prefix_match_special_characters_literally(self, store: Store, field: str) -> None:
        await write_new_documents(
            store, *[event_document(**{field: value}, id=f"{at:02}") for at, value in enumerate(VALUES)]
        )
        stored = [value if field == "note" else value.replace("\0", "\ufffd") for value in VALUES]
        equal = await store.query(*[Query(group_by=("id",), where=Equals(field, value)) for value in VALUES])
        assert [result.rows for result in equal] == [((f"{at:02}", 1),) for at in range(len(VALUES))]
        beginning = await store.query(*[Query(group_by=(field,), where=Prefix(field, value[:300])) for value in VALUES])
        assert [{row[0] for row in result.rows} for result in beginning] == [
            {other for other in stored if other.startswith(value[:300])} for value in stored
        ]
        assert await query_rows(store, Query(group_by=(field,))) == sorted((value, 1) for value in stored)

    async def test_filters_accept_text_that_cannot_be_stored(self, store: Store) -> None:
        await write_new_documents(store, event_document(id="1", note="x"))
        texts = ("\ud800", "x\udfff", "\0", "x" * 50_000, "\uffff" * 2_000)
        for field in ("note", "no.te", "\ud800", "", " ", "\0", "x" * 5_000, "params", "event.original", "_id"):
            filters: list[Filter] = [*(Equals(field, text) for text in texts), *(Prefix(field, text) for text in texts)]
            other_queries = (
                Query((Metric.parse("max:n"),), where=Exists(field)),
                Query(group_by=(field,), where=Equals("id", "2")),
            )
            results = await store.query(*[Query(where=where) for where in filters], *other_queries)
            assert [result.rows for result in results[: len(filters)]] == [((0,),)] * len(filters)

    async def test_filters_by_event_id(self, store: Store) -> None:
        await write_new_documents(
            store, event_document(event_id="a", id="1"), event_document(event_id="b", id="2"), event_document(id="3")
        )
        filters = (
            Equals("event_id", "a"),
            OneOf("event_id", ("b", "x")),
            Exists("event_id"),
            Not(Equals("event_id", "b")),
        )
        results = await store.query(*[Query(group_by=("id",), where=where) for where in filters])
        assert ["".join(str(row[0]) for row in result.rows) for result in results] == ["1", "2", "123", "13"]

    async def test_filters_by_unusual_field_names(self, store: Store) -> None:
        names: list[str] = ["a.b", "a", "a.b.c", ".", "..", "*", "params", "params.x", "event.original", "_id", "@x"]
        names += ["x y", "é", "k" * 100, "k" * 101, "k" * 256, "a*", 'q"', "back\\slash", "a\0b", " ", "n.num", "1"]
        await write_new_documents(
            store, *[event_document(**{name: "value"}, id=f"{at:02}") for at, name in enumerate(names)]
        )
        results: list[Any] = await store.query(  # type: ignore[assignment]  # a tuple will do
            *[Query(group_by=("id", name), where=where(name)) for name in names for where in (Exists, _equals_value)]
        )
        assert [result.rows for result in results] == [
            ((f"{at:02}", "value", 1),) for at in range(len(names)) for _ in range(2)
        ]


def _equals_value(name: str) -> Filter:
    return Equals(name, "value")


SPRING_IN_ZURICH: Final = (
    "2015-03-28T22:59:59.999Z",  # 23:59 on the 28th
    "2015-03-28T23:00:00.000Z",  # 00:00 on the 29th
    "2015-03-29T00:59:59.999Z",  # 01:59, and a millisecond later
    "2015-03-29T01:00:00.000Z",  # it is 03:00
    "2015-03-29T21:59:59.999Z",  # 23:59 on the 29th, a Sunday
    "2015-03-29T22:00:00.000Z",  # 00:00 on the 30th
)
AUTUMN_IN_ZURICH: Final = (
    "2015-10-24T22:00:00.000Z",  # 00:00 on the 25th, a Sunday
    "2015-10-25T00:30:30.000Z",  # 02:30 for the first time
    "2015-10-25T01:30:30.000Z",  # and again
    "2015-10-25T01:30:59.999Z",
    "2015-10-25T22:59:59.999Z",  # 23:59
    "2015-10-25T23:00:00.000Z",  # 00:00 on the 26th
)


class TimeZoneTests(StoreContract):
    """Time units are those of the time zone, and time ranges exclude their end."""

    @pytest.mark.parametrize(
        ("unit", "expected"),
        [
            ("month", {"2015-03": 6}),
            ("week", {"2015-03-23": 5, "2015-03-30": 1}),
            ("day", {"2015-03-28": 1, "2015-03-29": 4, "2015-03-30": 1}),
            (
                "hour",
                {
                    "2015-03-28T23:00:00+01:00": 1,
                    "2015-03-29T00:00:00+01:00": 1,
                    "2015-03-29T01:00:00+01:00": 1,
                    "2015-03-29T03:00:00+02:00": 1,
                    "2015-03-29T23:00:00+02:00": 1,
                    "2015-03-30T00:00:00+02:00": 1,
                },
            ),
            (
                "minute",
                {
                    "2015-03-28T23:59:00+01:00": 1,
                    "2015-03-29T00:00:00+01:00": 1,
                    "2015-03-29T01:59:00+01:00": 1,
                    "2015-03-29T03:00:00+02:00": 1,
                    "2015-03-29T23:59:00+02:00": 1,
                    "2015-03-30T00:00:00+02:00": 1,
                },
            ),
        ],
    )
    async def test_skips_the_missing_hour_in_spring(self, store: Store, unit: str, expected: dict[str, int]) -> None:
        await write_new_documents(store, *map(event_document, SPRING_IN_ZURICH))
        assert dict(await query_rows(store, Query(group_by=(unit,), time_zone="Europe/Zurich"))) == expected

    @pytest.mark.parametrize(
        ("unit", "expected"),
        [
            ("month", {"2015-10": 6}),
            ("week", {"2015-10-19": 5, "2015-10-26": 1}),
            ("day", {"2015-10-25": 5, "2015-10-26": 1}),
            (
                "hour",
                {
                    "2015-10-25T00:00:00+02:00": 1,
                    "2015-10-25T02:00:00+02:00": 1,
                    "2015-10-25T02:00:00+01:00": 2,
                    "2015-10-25T23:00:00+01:00": 1,
                    "2015-10-26T00:00:00+01:00": 1,
                },
            ),
            (
                "minute",
                {
                    "2015-10-25T00:00:00+02:00": 1,
                    "2015-10-25T02:30:00+02:00": 1,
                    "2015-10-25T02:30:00+01:00": 2,
                    "2015-10-25T23:59:00+01:00": 1,
                    "2015-10-26T00:00:00+01:00": 1,
                },
            ),
        ],
    )
    async def test_distinguishes_the_repeated_hour_in_autumn(
        self, store: Store, unit: str, expected: dict[str, int]
    ) -> None:
        await write_new_documents(store, *map(event_document, AUTUMN_IN_ZURICH))
        assert dict(await query_rows(store, Query(group_by=(unit,), time_zone="Europe/Zurich"))) == expected

    @pytest.mark.parametrize(
        ("zone", "at", "expected"),
        [
            ("UTC", "2015-01-22T09:30:59.999Z", "09:30Z on 2015-01-22, week 2015-01-19, month 2015-01"),
            ("Europe/London", "2015-01-22T09:30:00.000Z", "09:30Z on 2015-01-22, week 2015-01-19, month 2015-01"),
            ("Europe/London", "2015-06-30T23:30:00.000Z", "00:30+01:00 on 2015-07-01, week 2015-06-29, month 2015-07"),
            ("America/New_York", "2015-02-02T04:59:00Z", "23:59-05:00 on 2015-02-01, week 2015-01-26, month 2015-02"),
            ("America/New_York", "2015-02-01T04:59:00Z", "23:59-05:00 on 2015-01-31, week 2015-01-26, month 2015-01"),
            ("Asia/Kolkata", "2014-12-31T18:30:00Z", "00:00+05:30 on 2015-01-01, week 2014-12-29, month 2015-01"),
            ("Asia/Kolkata", "2014-12-31T18:29:59.999Z", "23:59+05:30 on 2014-12-31, week 2014-12-29, month 2014-12"),
            ("Asia/Kathmandu", "2015-01-22T18:20:00Z", "00:05+05:45 on 2015-01-23, week 2015-01-19, month 2015-01"),
            ("America/St_Johns", "2015-03-08T05:15:00Z", "01:45-03:30 on 2015-03-08, week 2015-03-02, month 2015-03"),
            ("America/St_Johns", "2015-03-08T05:45:00Z", "03:15-02:30 on 2015-03-08, week 2015-03-02, month 2015-03"),
            # Clocks skip midnight.
            ("America/Sao_Paulo", "2015-10-18T03:00:00Z", "01:00-02:00 on 2015-10-18, week 2015-10-12, month 2015-10"),
            # The calendar skips the 30th of December 2011.
            ("Pacific/Apia", "2011-12-30T10:00:00Z", "00:00+14:00 on 2011-12-31, week 2011-12-26, month 2011-12"),
            ("Pacific/Auckland", "2015-09-26T14:00:00Z", "03:00+13:00 on 2015-09-27, week 2015-09-21, month 2015-09"),
        ],
    )
    async def test_formats_time_units_in_the_time_zone(self, store: Store, zone: str, at: str, expected: str) -> None:
        await write_new_documents(store, event_document(at))
        units = ("minute", "hour", "day", "week", "month")
        # Over all time, zones that once changed by parts of an hour are not exact on every store.
        start = datetime(2010, 1, 1, tzinfo=UTC)
        (named,) = await query_rows(store, Query((COUNT,), units, start=start, time_zone=zone))
        minute, hour, day, week, month, _ = named
        assert f"{minute[11:16]}{minute[19:]} on {day}, week {week}, month {month}" == expected
        assert hour == f"{minute[:14]}00{minute[16:]}"
        for unit, name in zip(units, named, strict=False):
            assert await query_rows(store, Query(group_by=(unit,), start=start, time_zone=zone)) == [(name, 1)]

    async def test_time_units_give_the_same_counts_alone_and_combined(self, store: Store) -> None:
        await write_new_documents(store, *map(event_document, SPRING_IN_ZURICH + AUTUMN_IN_ZURICH))
        for tz in ("Europe/Zurich", "America/St_Johns", "UTC"):
            for unit in TIME_UNITS:
                alone = await query_rows(store, Query(group_by=(unit,), time_zone=tz))
                together = await query_rows(store, Query(group_by=(unit, "event"), time_zone=tz))
                assert [(name, "view", number) for name, number in alone] == together

    async def test_pages_have_all_rows_in_order(self, store: Store) -> None:
        await write_new_documents(
            store,
            *(event_document(f"2015-01-22T09:{at // 60:02}:{at % 60:02}Z", id=f"i{at % 250}") for at in range(600)),
        )
        for query in (
            Query(group_by=("id",), sort_keys=(SortKey("count", descending=True),)),
            Query(group_by=("minute", "id"), limit=30, offset=7),
            Query(),
            Query(group_by=("id",), offset=1000),
        ):
            (result,) = await store.query(query)
            pages = [page async for page in store.query_pages(query)]
            assert [row for page in pages for row in page.rows] == [*result.rows]
            assert {(page.columns, page.total, page.exact) for page in pages} == {
                (result.columns, result.total, result.exact)
            }

    async def test_time_ranges_include_start_and_exclude_end(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document("2015-01-21T23:59:59.999Z", id="1"),
            event_document("2015-01-22T00:00:00.000Z", id="2"),
            event_document("2015-01-22T00:00:00.001Z", id="3"),
            event_document("2015-01-22T23:59:59.999Z", id="4"),
            event_document("2015-01-23T00:00:00.000Z", id="5"),
        )
        start, end = datetime(2015, 1, 22, tzinfo=UTC), datetime(2015, 1, 23, tzinfo=UTC)
        zurich = timezone(timedelta(hours=1))
        microsecond = timedelta(microseconds=1)
        for (range_start, range_end), expected in (
            ((None, None), "12345"),
            ((start, None), "2345"),
            ((None, start), "1"),
            ((None, end), "1234"),
            ((start, end), "234"),
            ((start.astimezone(zurich), end.astimezone(zurich)), "234"),
            ((start + microsecond, end + microsecond), "345"),
            ((start - microsecond, start + microsecond), "2"),
            ((start, start), ""),
            ((end, start), ""),
            ((datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)), "12345"),
        ):
            query = Query(group_by=("id",), start=range_start, end=range_end)
            assert "".join(name for name, _ in await query_rows(store, query)) == expected
            assert len(
                [document async for document in store.iterate_documents(start=range_start, end=range_end)]
            ) == len(expected)
        selected = [document async for document in store.iterate_documents(Equals("id", "3"), start, end)]
        assert len(selected) == 1
        assert await count_events(store) == 5

    @pytest.mark.slow  # Elasticsearch creates an index for each day
    async def test_groups_by_minute_over_many_years(self, store: Store) -> None:
        await write_new_documents(store, *[event_document(f"{year}-06-01T12:00:30Z") for year in range(1990, 2030)])
        named = await query_rows(store, Query(group_by=("minute",), time_zone="Europe/Zurich", limit=2, offset=20))
        assert named == [("2010-06-01T14:00:00+02:00", 1), ("2011-06-01T14:00:00+02:00", 1)]


class ReplacementTests(StoreContract):
    """Replacing changes stored documents and nothing else."""

    async def test_replaces_the_document_with_the_same_event_id_and_time(self, store: Store) -> None:
        before = [
            event_document("2015-01-22T09:00:00Z", event_id=f"e{at}", id="a", bot="b" if at else "") for at in range(3)
        ]
        await write_new_documents(store, *before, event_document("2015-02-23T09:00:00Z", event_id="e0", id="a"))
        after = event_document("2015-01-22T09:00:00Z", event_id="e1", id="a", country="CH")
        assert await replace_documents(store, after) == 1
        assert await count_events(store) == 4
        assert await query_rows(store, Query(group_by=("bot",))) == [("b", 1)]
        assert await query_rows(store, Query(group_by=("country",))) == [("CH", 1)]
        assert await query_rows(store, Query(group_by=("day",))) == [("2015-01-22", 3), ("2015-02-23", 1)]
        assert await query_rows(store, Query(where=Equals("id", "a"))) == [(4,)]

    async def test_replacing_is_idempotent(self, store: Store) -> None:
        await write_new_documents(
            store, event_document("2015-01-22T09:00:00Z", event_id="e", id="a"), event_document(id="b")
        )
        after = event_document("2015-01-22T09:00:00Z", event_id="e", id="a", os="Linux")
        assert [await replace_documents(store, after) for _ in range(2)] == [1, 1]
        assert await replace_documents(store, after, after) in {1, 2}
        assert await query_rows(store, Query(group_by=("os",))) == [("Linux", 1)]
        assert await count_events(store) == 2

    async def test_does_not_insert_missing_documents(self, store: Store) -> None:
        await write_new_documents(store, event_document("2015-01-22T09:00:00Z", event_id="e", id="a"))
        other_day = event_document("2015-01-21T09:00:00Z", event_id="e", id="b")
        unknown = event_document("2015-01-22T09:00:00Z", event_id="f", id="b")
        assert await replace_documents(store, other_day, unknown) == 0
        assert await replace_documents(store) == 0
        assert await query_rows(store, Query(group_by=("id",))) == [("a", 1)]

    async def test_documents_without_event_id_replace_nothing(self, store: Store) -> None:
        line = event_document("2015-01-22T09:00:00Z", event_id="e", id="a")
        await write_new_documents(store, line)
        nameless = b'{"@timestamp":"2015-01-22T09:00:00.000Z","event":"view","id":"b"}'
        changed = line.replace(b'"id":"a"', b'"id":"c"')
        assert await replace_documents(store, nameless, changed) == 1
        assert await query_rows(store, Query(group_by=("id",))) == [("c", 1)]

    async def test_replaced_documents_still_deduplicate(self, store: Store) -> None:
        line = event_document("2015-01-22T09:00:00Z", event_id="e", id="a")
        await write_new_documents(store, line)
        await replace_documents(store, event_document("2015-01-22T09:00:00Z", event_id="e", id="a", os="Linux"))
        assert (await store.write(DocumentBatch.from_documents([line]))).duplicates == 1
        await store.refresh()
        assert await query_rows(store, Query(group_by=("os",))) == [("Linux", 1)]

    @pytest.mark.slow  # it writes thousands of events
    async def test_replaces_many_documents_and_keeps_the_first_duplicate(self, store: Store) -> None:
        days = [f"2015-01-2{at % 3}T09:00:00Z" for at in range(6_000)]
        await write_new_documents(store, *[event_document(at, event_id=f"e{number}") for number, at in enumerate(days)])
        after = [event_document(at, event_id=f"e{number}", os="Linux") for number, at in enumerate(days)]
        again = [event_document(at, event_id=f"e{number}", os="BeOS") for number, at in enumerate(days[:100])]
        assert await replace_documents(store, *after, *again) == 6_000
        assert await query_rows(store, Query(group_by=("os",))) == [("Linux", 6_000)]

    async def test_concurrent_replace_and_write_neither_duplicate_nor_lose(self, store: Store) -> None:
        before = [event_document("2015-01-22T09:00:00Z", event_id=f"e{number}") for number in range(200)]
        await write_new_documents(store, *before[:100])
        versions = [
            DocumentBatch.from_documents(
                [event_document("2015-01-22T09:00:00Z", event_id=f"e{number}", os=name) for number in range(100)]
            )
            for name in ("a", "b", "c", "d")
        ]
        replaced, written = await asyncio.gather(
            asyncio.gather(*map(store.replace, versions)), store.write(DocumentBatch.from_documents(before))
        )
        await store.refresh()
        assert replaced == [100] * 4
        assert (written.stored, written.duplicates) == (100, 100)
        assert await count_events(store) == 200
        assert await query_rows(store, Query(where=Exists("os"))) == [(100,)]

    async def test_deleted_documents_do_not_come_back(self, store: Store) -> None:
        lines = [event_document("2015-01-22T09:00:00Z", event_id=f"e{number}", id="a", os="x") for number in range(300)]
        await write_new_documents(store, *lines)
        await asyncio.gather(store.delete_events(item="a"), store.replace(DocumentBatch.from_documents(lines)))
        await store.delete_events(item="a")
        assert await replace_documents(store, *lines) == 0
        assert await count_events(store) == 0


async def replace_documents(store: Store, *documents: bytes) -> int:
    """Replace documents and make the change visible to queries."""
    replaced = await store.replace(DocumentBatch.from_documents(list(documents)))
    await store.refresh()
    return replaced


class DeletionTests(StoreContract):
    """Events can be deleted by time, by item and by visitor."""

    async def test_deletes_nothing_from_an_empty_store(self, store: Store) -> None:
        assert await store.delete_events(before=datetime(2015, 1, 22, tzinfo=UTC)) == 0
        assert await store.delete_events(item="doc1") == 0
        assert await store.delete_events(visitor="v1") == 0

    async def test_rejects_a_deletion_without_exactly_one_selection(self, store: Store) -> None:
        await write_new_documents(store, event_document(id="doc1", visitor="v1"))
        for selection in (dict[str, Any](), {"item": "doc1", "visitor": "v1"}):
            with pytest.raises(ValueError, match="expected exactly one of before, item and visitor"):
                await store.delete_events(**selection)
        assert await count_events(store) == 1

    async def test_deletes_everything_before_midnight(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document("2014-12-31T00:00:00.000Z"),
            event_document("2015-01-21T00:00:00.000Z"),
            event_document("2015-01-21T23:59:59.999Z"),
            event_document("2015-01-22T00:00:00.000Z", id="kept"),
            event_document("2015-01-23T00:00:00.000Z", id="kept"),
        )
        day = datetime(2015, 1, 22, tzinfo=UTC)
        assert await store.delete_events(before=day) == 3
        assert await query_rows(store, Query(group_by=("id",))) == [("kept", 2)]
        assert await store.delete_events(before=day) == 0
        assert await count_events(store) == 2

    async def test_deletes_everything_before_a_time_of_day(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document("2015-01-21T12:00:00.000Z"),
            event_document("2015-01-22T00:00:00.000Z"),
            event_document("2015-01-22T08:59:59.999Z"),
            event_document("2015-01-22T09:00:00.000Z", id="kept"),
            event_document("2015-01-22T23:00:00.000Z", id="kept"),
        )
        moment = datetime(2015, 1, 22, 10, tzinfo=timezone(timedelta(hours=1)))
        assert await store.delete_events(before=moment) == 3
        assert await query_rows(store, Query(group_by=("id",))) == [("kept", 2)]
        assert await store.delete_events(before=moment) == 0

    async def test_deletes_an_item_on_all_days(self, store: Store) -> None:
        name = 'doc/1 "é" *?%_\\'
        await write_new_documents(
            store,
            event_document("2014-01-22T00:00:00Z", id=name),
            event_document("2015-01-22T00:00:00Z", id=name, event="download"),
            event_document("2015-01-22T00:00:00Z", id="doc/1"),
            event_document("2015-01-22T00:00:00Z", id=name + "x"),
            event_document("2015-01-22T00:00:00Z", id=name.upper()),
            event_document("2015-01-22T00:00:00Z", title=name),
        )
        assert await store.delete_events(item=name) == 2
        assert await count_events(store) == 4
        assert await query_rows(store, Query(where=Equals("id", name))) == [(0,)]
        assert await store.delete_events(item=name) == 0

    async def test_deletes_a_visitor(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document("2015-01-21T00:00:00Z", visitor="v1", id="a"),
            event_document("2015-01-22T00:00:00Z", visitor="v1", id="b"),
            event_document("2015-01-22T00:00:00Z", visitor="v2", id="c"),
            event_document("2015-01-22T00:00:00Z", id="v1"),
        )
        assert await store.delete_events(visitor="v1") == 2
        assert await query_rows(store, Query(group_by=("id",))) == [("c", 1), ("v1", 1)]
        assert await store.delete_events(visitor="v1") == 0

    async def test_forgets_what_an_import_gave(self, store: Store) -> None:
        logs = ("0" * 32, "1" * 32)
        await write_new_documents(
            store,
            *[
                event_document(f"2015-0{month}-22T00:00:00Z", id="a", **{"import": log})
                for month in (1, 2)
                for log in logs
            ],
            event_document(id="a"),
            event_document(id="b", params={"import": logs[0]}),
        )
        selection = Selection(SelectionKind.IMPORT, logs[0])
        assert await store.forget(selection) == 2
        assert await query_rows(store, Query(group_by=("id",))) == [("a", 3), ("b", 1)]
        assert await store.forget(selection) == 0

    async def test_forgets_as_it_deletes(self, store: Store) -> None:
        for kind, value in (("item", "doc1"), ("visitor", "v1"), ("before", "2015-01-22")):
            await write_new_documents(
                store,
                event_document("2015-01-21T23:59:59.999Z", id="doc1", visitor="v1"),
                event_document("2015-01-22T00:00:00.000Z", id="kept", visitor="v2"),
            )
            assert await store.forget(parse_selection({kind: value})) == 1
            await store.purge_deleted()
            assert await query_rows(store, Query(group_by=("id",))) == [("kept", 1)]
            assert await store.delete_events(item="kept") == 1

    async def test_drops_the_events_of_old_months(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document("2014-12-31T23:59:59.999Z", id="a", visitor="v1"),
            event_document("2015-01-31T23:59:59.999Z", id="b", visitor="v2"),
            event_document("2015-02-01T00:00:00.000Z", id="kept", visitor="v3"),
        )
        start = datetime(2015, 2, 1, tzinfo=UTC)
        assert await store.drop_events(start) == 2
        await store.refresh()
        assert await query_rows(store, Query(group_by=("visitor",))) == [("v3", 1)]
        assert [orjson.loads(line)["id"] async for line in store.iterate_documents()] == ["kept"]
        assert await store.drop_events(start) == 0
        await store.drop_counts(start)
        assert await query_rows(store, Query(group_by=("id",))) == [("kept", 1)]
        assert await query_rows(store, Query(group_by=("month",))) == [("2015-02", 1)]

    async def test_deletes_events_that_are_not_searchable_yet(self, store: Store) -> None:
        await write_new_documents(store, event_document(id="doc1", event_id="seen"))
        await write_documents(store, [event_document(id="doc1", event_id=str(number)) for number in range(5_000)])
        assert await store.delete_events(item="doc1") == 5_001
        assert await count_events(store) == 0

    async def test_stores_a_deleted_event_again(self, store: Store) -> None:
        document = event_document(id="doc1", event_id="1")
        await write_new_documents(store, document)
        assert await store.delete_events(item="doc1") == 1
        assert await write_documents(store, [document]) == WriteResult(stored=1)
        assert await store.delete_events(before=datetime(2015, 1, 23, tzinfo=UTC)) == 1
        assert await write_documents(store, [document]) == WriteResult(stored=1)
        assert await count_events(store) == 1
