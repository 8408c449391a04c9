"""Sequences, newest values and replacements: their searches and what the responses mean."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery, MetronomeError, QueryTooExpensive, StoreAccessDenied, StoreUnavailable
from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch
from metronome.stores.elasticsearch.bulk import (
    IndexNames,
    build_create_body,
    build_lookup,
    build_replace_body,
    deduplicate_batch,
    read_replace_result,
    read_stored_documents,
)
from metronome.stores.elasticsearch.queries import (
    build_day_counts_search,
    build_newest_search,
    read_newest_values,
    window_starts,
)
from metronome.stores.elasticsearch.searches import check_search_response, has_too_many_buckets
from metronome.stores.elasticsearch.sequences import bucket_rows, split_key_ranges
from metronome.stores.query import Equals
from metronome.stores.sequences import EventSequence, SequenceBuilder, SequenceEvent

DAY = datetime(2015, 1, 22, tzinfo=UTC)
CONTEXT = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)

_buckets = st.lists(
    st.builds(
        lambda key, at, text, count: {"key": {"key": key, "at": at, "0": text}, "doc_count": count},
        st.sampled_from("abc"),
        st.integers(0, 3),
        st.none() | st.sampled_from("xy"),
        st.integers(1, 3),
    ),
    max_size=20,
)


@given(_buckets, st.integers(1, 5), st.none() | st.integers(1, 4))
def test_builds_the_same_sequences_from_chunks_of_any_size(
    buckets: list[dict[str, Any]], size: int, max_events: int | None
) -> None:
    buckets.sort(key=lambda bucket: bucket["key"]["key"])
    builder = SequenceBuilder(max_events)
    sequences: list[EventSequence] = []
    for start in range(0, len(buckets), size):
        sequences += builder.add(bucket_rows(buckets[start : start + size]))
    sequences += builder.flush()
    expected: dict[str, list[SequenceEvent]] = {}
    for bucket in buckets:
        key, timestamp_ms, text = bucket["key"].values()
        expected.setdefault(key, []).extend([SequenceEvent(timestamp_ms, (text,))] * bucket["doc_count"])
    assert sequences == [EventSequence(key, tuple(events[:max_events])) for key, events in expected.items()]


def test_splits_keys_into_ranges_with_enough_events() -> None:
    sample = [{"key": key, "doc_count": count} for key, count in zip("abcdef", (3, 3, 10, 1, 1, 1), strict=True)]
    assert split_key_ranges(sample, 1, 6) == ["b", "c"]
    assert split_key_ranges(sample, 2, 6) == ["a", "b", "c", "f"]
    assert split_key_ranges(sample, 1, 100) == []
    assert split_key_ranges([], 1, 1) == []


def _days(*counts: int) -> dict[str, Any]:
    buckets = [
        {"key": int((DAY + timedelta(days=at)).timestamp()) * 1000, "doc_count": count}
        for at, count in enumerate(counts)
    ]
    return {"aggregations": {"days": {"buckets": buckets}}}


@pytest.mark.parametrize(
    ("response", "limit", "start", "expected"),
    [
        ({}, 5, None, []),
        (_days(), 5, None, []),
        (_days(9), 0, None, []),
        (_days(1_000_000), 1, None, [None]),
        (_days(5, 5, 5), 1, None, [1, None]),
        (_days(5, 5, 8), 1, None, [2, None]),
        (_days(50, 32, 7, 8), 1, None, [3, 1, None]),
        (_days(1, 1, 1), 1, None, [None]),
        (_days(50, 32, 7, 8), 1, DAY + timedelta(hours=36), [3, 1.5, 1.5]),
    ],
)
def test_searches_the_newest_days_first(
    response: dict[str, Any], limit: int, start: datetime | None, expected: list[float | None]
) -> None:
    moments = [None if days is None else DAY + timedelta(days=days) for days in expected]
    assert list(window_starts(response, limit, start)) == moments


@pytest.mark.parametrize("field", ["utm.source", "a b", "params", "event.original", ""])
def test_rejects_newest_values_of_params(field: str) -> None:
    with pytest.raises(InvalidQuery):
        build_day_counts_search(field, None, None, None)


def test_reads_newest_values_from_the_sort_keys_of_hits() -> None:
    assert read_newest_values({"hits": {"hits": [{"sort": [2, "b"]}, {"sort": [1, "a"]}]}}) == ("b", "a")
    assert read_newest_values({}) == ()
    body = build_newest_search("session", 5, Equals("id", "x"), None, DAY)
    assert (body["size"], body["collapse"]) == (5, {"field": "session"})


def _line(name: str, day: int = 22, **fields: Any) -> bytes:
    return build_document(Event({"ts": f"2015-01-{day}T12:00:00Z", "event_id": name, **fields}), CONTEXT, "")


def _found(day: int) -> dict[str, Any]:
    return {"found": True, "_source": {"@timestamp": f"2015-01-{day}T12:00:00.000Z"}}


def test_replaces_no_document_with_another_time() -> None:
    docs = [{**_found(21), "_seq_no": 1, "_primary_term": 1}]
    assert read_stored_documents(DocumentBatch.from_documents([_line("a")]), {"docs": docs}) == []


def test_keeps_the_first_of_duplicate_documents() -> None:
    lines = [_line("a", id="1"), _line("b"), b'{"event_id":"headless"}', _line("a", id="2"), _line("a", 23)]
    assert deduplicate_batch(DocumentBatch.from_documents(lines)).documents() == [lines[0], lines[1], lines[4]]


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=60), st.integers(10, 28)), max_size=8, unique=True),
    st.sets(st.integers(10, 28)),
)
def test_looks_documents_up_where_they_are_written(names: list[tuple[str, int]], daily: set[int]) -> None:
    indices = IndexNames("p", [f"p-2015.01.{day}" for day in daily])
    batch = DocumentBatch.from_documents([_line(name, day) for name, day in names])
    lookup = build_lookup(batch, indices)
    assert [item["_index"] for item in lookup] == [
        f"p-2015.01.{day}" if day in daily else "p-2015.01" for _, day in names
    ]
    creations = build_create_body(batch.body, indices).split(b"\n")
    assert [orjson.loads(action)["create"] for action in creations[:-1:2]] == lookup
    docs = [{**_found(day), "_seq_no": at, "_primary_term": 3} for at, (_, day) in enumerate(names)]
    actions = build_replace_body(read_stored_documents(batch, {"docs": docs}), indices).split(b"\n")
    assert actions[1::2] == batch.documents()
    assert [orjson.loads(action)["index"] for action in actions[:-1:2]] == [
        {**item, "if_seq_no": at, "if_primary_term": 3} for at, item in enumerate(lookup)
    ]


def test_ignores_documents_that_are_not_stored() -> None:
    batch = DocumentBatch.from_documents([_line(name) for name in "abcd"])
    docs: list[dict[str, Any]] = [
        {"found": False},
        {**_found(22), "_seq_no": 7, "_primary_term": 1},
        {"error": {"type": "index_not_found_exception", "reason": "no such index"}},
        {"error": {"type": "index_closed_exception", "reason": "closed"}},
    ]
    (stored,) = read_stored_documents(batch, {"docs": docs})
    assert (stored.document, stored.seq_no, stored.primary_term) == (_line("b"), 7, 1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("security_exception", StoreAccessDenied), ("no_shard_available_action_exception", StoreUnavailable)],
)
def test_raises_if_documents_cannot_be_looked_up(kind: str, expected: type[MetronomeError]) -> None:
    with pytest.raises(expected):
        read_stored_documents(
            DocumentBatch.from_documents([_line("a")]), {"docs": [{"error": {"type": kind, "reason": "why"}}]}
        )


def test_looks_up_again_what_changed_meanwhile() -> None:
    batch = DocumentBatch.from_documents([_line(name) for name in "abc"])
    stored = read_stored_documents(batch, {"docs": [{**_found(22), "_seq_no": 1, "_primary_term": 1}] * 3})
    items = [{"index": {"status": 200}}, {"index": {"status": 409}}, {"index": {"status": 400, "error": {"type": "x"}}}]
    assert read_replace_result(stored, {"items": items}) == (1, DocumentBatch.from_documents([_line("b")]))
    for status, expected in ((403, StoreAccessDenied), (429, StoreUnavailable), (503, StoreUnavailable)):
        with pytest.raises(expected):
            read_replace_result(stored[:1], {"items": [{"index": {"status": status, "error": {"type": "x"}}}]})


def _failed(kind: str, status: int) -> dict[str, Any]:
    cause = {"type": kind, "reason": "why"}
    whole = {"type": "search_phase_execution_exception", "reason": "Partial shards failure", "root_cause": [cause]}
    return {"error": whole, "status": status}


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (_failed("search_timeout_exception", 504), QueryTooExpensive),
        (_failed("search_timeout_exception", 429), QueryTooExpensive),
        ({"timed_out": True}, QueryTooExpensive),
        (_failed("circuit_breaking_exception", 429), QueryTooExpensive),
        (_failed("es_rejected_execution_exception", 429), StoreUnavailable),
        (_failed("x_content_parse_exception", 400), InvalidQuery),
        (_failed("security_exception", 403), StoreAccessDenied),
        ({"_shards": {"failed": 1}}, StoreUnavailable),
    ],
)
def test_raises_the_error_of_each_failed_search(response: dict[str, Any], expected: type[MetronomeError]) -> None:
    with pytest.raises(expected):
        check_search_response(response, 10)
    assert not has_too_many_buckets(response)


def test_recognizes_successful_searches_and_too_many_groups() -> None:
    check_search_response({"timed_out": False, "_shards": {"failed": 0}, "status": 200}, 10)
    assert has_too_many_buckets(_failed("too_many_buckets_exception", 400))
    assert has_too_many_buckets({"error": {"type": "outer", "caused_by": {"type": "too_many_buckets_exception"}}})
