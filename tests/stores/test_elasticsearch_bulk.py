"""Bodies of ``_bulk`` requests, and what their responses mean."""

from datetime import date
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import StoreAccessDenied, StoreUnavailable
from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch, RejectedDocument, StoreBusy, WriteResult
from metronome.stores.elasticsearch.bulk import (
    MISSING_HEAD,
    IndexNames,
    build_create_body,
    build_delete_body,
    read_delete_count,
    read_heads,
    read_write_result,
    split_batch,
    split_headless_documents,
)
from metronome.stores.elasticsearch.connection import (
    IndexBlocked,
    IndexClosed,
    IndexMissing,
    IndexUnavailable,
    RequestRejected,
    RequestTooLarge,
    ShardLimitReached,
    ShardsUnavailable,
    UnexpectedResponse,
    build_error,
    format_reason,
    retry_missing_shards,
)

CONTEXT = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
ONE, TWO, THREE = (
    b'{"@timestamp":"2015-01-22T12:00:00.000Z","event_id":"%d","id":"doc1"}' % number for number in (1, 2, 3)
)

_event_ids = st.text(min_size=1, max_size=100)
_days = st.dates(date(1970, 1, 1), date(2029, 12, 31))


def test_each_document_gets_the_action_for_its_head() -> None:
    body = build_create_body(ONE + b"\n" + TWO.replace(b"2015-01-22", b"2014-12-31") + b"\n", IndexNames("metronome"))
    assert body.split(b"\n") == [
        b'{"create":{"_index":"metronome-2015.01","_id":"1"}}',
        ONE,
        b'{"create":{"_index":"metronome-2014.12","_id":"2"}}',
        TWO.replace(b"2015-01-22", b"2014-12-31"),
        b"",
    ]


@given(st.lists(st.tuples(_event_ids, _days, st.text()), max_size=20))
def test_actions_have_the_ids_of_their_documents(events: list[tuple[str, date, str]]) -> None:
    batch = DocumentBatch.from_documents(
        [
            build_document(Event({"ts": f"{day}", "event_id": name, "note": note}), CONTEXT, "spare")
            for name, day, note in events
        ]
    )
    lines = build_create_body(batch.body, IndexNames("p")).split(b"\n")
    assert lines.pop() == b""
    assert lines[1::2] == batch.documents()
    for action, line in zip(lines[::2], lines[1::2], strict=True):
        source = orjson.loads(line)
        month = source["@timestamp"][:7].replace("-", ".")
        assert orjson.loads(action) == {"create": {"_index": f"p-{month}", "_id": source["event_id"]}}


def test_ignores_heads_inside_documents() -> None:
    line = ONE[:-1] + b',"note":' + orjson.dumps(TWO.decode()) + b"}"
    assert read_heads(line + b"\n") == [(b"2015", b"01", b"22", b'"1"')]


def test_rejects_documents_without_a_head() -> None:
    batch, rejected = split_headless_documents(
        DocumentBatch.from_documents([ONE, b"{}", b"", TWO, b'{"event_id":"x"}'])
    )
    assert batch == DocumentBatch.from_documents([ONE, TWO])
    assert rejected == tuple(RejectedDocument(line, MISSING_HEAD) for line in (b"{}", b"", b'{"event_id":"x"}'))


@given(st.lists(st.integers(0, 60), max_size=50), st.integers(1, 500))
def test_splits_a_batch_into_parts_of_limited_size(lengths: list[int], size: int) -> None:
    batch = DocumentBatch.from_documents([b"x" * length for length in lengths])
    parts = list(split_batch(batch, size))
    assert b"".join(part.body for part in parts) == batch.body
    assert sum(part.count for part in parts) == batch.count
    assert all(part.count == part.body.count(b"\n") > 0 for part in parts)
    assert all(len(part.body) <= size + 61 for part in parts)


def test_splits_a_batch_in_half() -> None:
    assert DocumentBatch.from_documents([ONE, TWO, THREE]).split_in_half() == (
        DocumentBatch.from_documents([ONE]),
        DocumentBatch.from_documents([TWO, THREE]),
    )


def test_counts_all_documents_as_stored_without_errors() -> None:
    assert read_write_result(DocumentBatch.from_documents([ONE, TWO]), {"errors": False, "items": []}) == WriteResult(2)


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (200, "", WriteResult(2)),
        (409, "version_conflict_engine_exception", WriteResult(1, duplicates=1)),
        (
            400,
            "document_parsing_exception",
            WriteResult(1, rejected=(RejectedDocument(TWO, "document_parsing_exception: why"),)),
        ),
        (400, "validation_exception", WriteResult(1, waiting=DocumentBatch.from_documents([TWO]))),
        (400, "index_closed_exception", WriteResult(1, waiting=DocumentBatch.from_documents([TWO]))),
        (404, "index_not_found_exception", WriteResult(1, waiting=DocumentBatch.from_documents([TWO]))),
        (403, "cluster_block_exception", WriteResult(1, waiting=DocumentBatch.from_documents([TWO]))),
        (429, "cluster_block_exception", WriteResult(1, waiting=DocumentBatch.from_documents([TWO]))),
        (503, "cluster_block_exception", WriteResult(1, retry=DocumentBatch.from_documents([TWO]))),
        (429, "es_rejected_execution_exception", WriteResult(1, retry=DocumentBatch.from_documents([TWO]))),
        (503, "unavailable_shards_exception", WriteResult(1, waiting=DocumentBatch.from_documents([TWO]))),
        (500, "", WriteResult(1, retry=DocumentBatch.from_documents([TWO]))),
    ],
)
def test_reads_the_outcome_of_each_status(status: int, error: str, expected: WriteResult) -> None:
    item = {"status": status, **({"error": {"type": error, "reason": "why"}} if error else {})}
    response = {"errors": True, "items": [{"create": {"status": 201}}, {"create": item}]}
    assert read_write_result(DocumentBatch.from_documents([ONE, TWO]), response) == expected


@pytest.mark.parametrize("status", [401, 403])
def test_raises_if_writing_is_not_allowed(status: int) -> None:
    item = {"status": status, "error": {"type": "security_exception", "reason": "no privilege"}}
    with pytest.raises(StoreAccessDenied, match="no privilege"):
        read_write_result(DocumentBatch.from_documents([ONE]), {"errors": True, "items": [{"create": item}]})


@pytest.mark.parametrize(
    ("status", "error", "expected", "advice"),
    [
        # As Elasticsearch 8.19 answers: with `action.auto_create_index: false`, to a closed index, at its limit of
        # shards, and at the flood stage of a full disk.
        (404, "index_not_found_exception", IndexMissing, "action.auto_create_index"),
        (400, "index_closed_exception", IndexClosed, "open or delete the index"),
        (400, "validation_exception", ShardLimitReached, "cluster.max_shards_per_node"),
        (429, "cluster_block_exception", IndexBlocked, "free disk space"),
        (403, "cluster_block_exception", IndexBlocked, "index's settings"),
        (503, "unavailable_shards_exception", IndexUnavailable, "bring back the node"),
        (429, "es_rejected_execution_exception", StoreBusy, "more resources"),
    ],
)
def test_says_why_documents_wait(status: int, error: str, expected: type[Exception], advice: str) -> None:
    item = {"create": {"status": status, "error": {"type": error, "reason": "[metronome-2015.01.22] why"}}}
    response = {"errors": True, "items": [{"create": {"status": 201}}, item]}
    failure = read_write_result(DocumentBatch.from_documents([ONE, TWO]), response).failure
    assert type(failure) is expected
    assert "[metronome-2015.01.22] why" in str(failure)
    assert failure.retry
    assert advice in failure.advice


@pytest.mark.parametrize(
    "response",
    [
        {},
        "<html>",
        {"errors": True},
        {"errors": True, "items": []},
        {"errors": True, "items": [{"create": {}}, {"create": {}}]},
        {"errors": True, "items": [{}, {}]},
        {"errors": True, "items": ["<html>", "<html>"]},
    ],
)
def test_a_response_without_outcomes_stores_and_rejects_nothing(response: Any) -> None:
    with pytest.raises(UnexpectedResponse):
        read_write_result(DocumentBatch.from_documents([ONE, TWO]), response)


def test_adds_the_results_of_parts() -> None:
    parts = [
        WriteResult(1, 2, (RejectedDocument(ONE, "why"),), DocumentBatch.from_documents([TWO])),
        WriteResult(3),
        WriteResult(0, retry=DocumentBatch.from_documents([THREE])),
        WriteResult(0, waiting=DocumentBatch.from_documents([ONE]), failure=IndexClosed("closed")),
    ]
    total = sum(parts, WriteResult(0))
    assert total == WriteResult(
        4,
        2,
        (RejectedDocument(ONE, "why"),),
        DocumentBatch.from_documents([TWO, THREE]),
        DocumentBatch.from_documents([ONE]),
    )
    assert str(total.failure) == "closed"


def test_reasons_have_causes_and_a_maximum_length() -> None:
    error = {"type": "outer", "reason": "fails", "caused_by": {"type": "inner", "reason": None}}
    assert format_reason(error) == "outer: fails — inner: no reason given"
    assert len(format_reason({"type": "long", "reason": "x" * 10_000})) == 500
    assert format_reason("proxy says no") == "proxy says no"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, RequestRejected),
        (401, StoreAccessDenied),
        (403, StoreAccessDenied),
        (404, StoreUnavailable),
        (408, StoreUnavailable),
        (413, RequestTooLarge),
        (429, StoreUnavailable),
        (500, StoreUnavailable),
        (502, StoreUnavailable),
        (503, StoreUnavailable),
        (504, StoreUnavailable),
    ],
)
def test_builds_the_error_of_each_status(status: int, expected: type[Exception]) -> None:
    for body in ({"error": {"type": "t", "reason": "why"}, "status": status}, "why", b"why", None, {"error": "why"}):
        error = build_error(status, body)
        # A proxy's 400 says nothing about the events.
        is_proxy = status == 400 and not (isinstance(body, dict) and isinstance(body["error"], dict))
        assert type(error) is (UnexpectedResponse if is_proxy else expected)
        assert str(status) in str(error)


@pytest.mark.slow
async def test_retries_searches_with_missing_shards_a_few_times() -> None:
    missing = build_error(503, {"error": {"type": "search_phase_execution_exception", "reason": "missing shards"}})
    assert type(missing) is ShardsUnavailable
    attempts = 0

    async def search(failures: int) -> str:
        nonlocal attempts
        attempts += 1
        if attempts <= failures:
            raise missing
        return "found"

    assert await retry_missing_shards(lambda: search(2)) == "found"
    attempts = 0
    with pytest.raises(StoreUnavailable):
        await retry_missing_shards(lambda: search(100))
    assert attempts == 6


def test_builds_a_deletion_for_each_hit() -> None:
    hits = [{"_index": "p-2015.01.22", "_id": 'a"b', "sort": [1]}]
    assert build_delete_body(hits) == b'{"delete":{"_index":"p-2015.01.22","_id":"a\\"b"}}\n'


def test_does_not_count_documents_that_were_deleted_before() -> None:
    items = [{"delete": {"status": 200}}, {"delete": {"status": 404}}, {"delete": {"status": 200}}]
    assert read_delete_count({"items": items}) == 2


@pytest.mark.parametrize(
    ("status", "expected"), [(403, StoreAccessDenied), (429, StoreUnavailable), (503, StoreUnavailable)]
)
def test_raises_if_documents_cannot_be_deleted(status: int, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        read_delete_count({"items": [{"delete": {"status": status, "error": {"type": "t", "reason": "r"}}}]})
