"""Batches become ``_bulk`` bodies, and responses verdicts."""

from datetime import date

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import StoreAway, StoreDenied
from metronome.event import Door, Event, document
from metronome.stores.base import Batch, Refusal, Verdicts
from metronome.stores.elasticsearch.bulk import (
    HEADLESS,
    bulk_body,
    delete_body,
    halves,
    merge,
    read_deletions,
    read_heads,
    read_verdicts,
    split,
    split_headless,
)
from metronome.stores.elasticsearch.connection import (
    BodyTooLarge,
    NotUnderstood,
    ShardsMissing,
    error_of,
    once_there,
    reason_of,
)

DOOR = Door(arrival="2015-01-22T12:00:00.000Z", earliest=None, latest="2030-01-01T00:00:00.000Z")
ONE, TWO, THREE = (
    b'{"@timestamp":"2015-01-22T12:00:00.000Z","event_id":"%d","id":"doc1"}' % number for number in (1, 2, 3)
)

_event_ids = st.text(min_size=1, max_size=100)
_days = st.dates(date(1970, 1, 1), date(2029, 12, 31))


def test_each_document_gets_the_action_that_its_head_names() -> None:
    body = bulk_body(ONE + b"\n" + TWO.replace(b"2015-01-22", b"2014-12-31") + b"\n", "metronome")
    assert body.split(b"\n") == [
        b'{"create":{"_index":"metronome-2015.01.22","_id":"1"}}',
        ONE,
        b'{"create":{"_index":"metronome-2014.12.31","_id":"2"}}',
        TWO.replace(b"2015-01-22", b"2014-12-31"),
        b"",
    ]


@given(st.lists(st.tuples(_event_ids, _days, st.text()), max_size=20))
def test_whatever_the_identity_it_is_the_action_s(events: list[tuple[str, date, str]]) -> None:
    batch = Batch.of(
        [document(Event({"ts": f"{day}", "event_id": name, "note": note}), DOOR, "spare") for name, day, note in events]
    )
    lines = bulk_body(batch.body, "p").split(b"\n")
    assert lines.pop() == b""
    assert lines[1::2] == batch.documents()
    for action, line in zip(lines[::2], lines[1::2], strict=True):
        source = orjson.loads(line)
        day = source["@timestamp"][:10].replace("-", ".")
        assert orjson.loads(action) == {"create": {"_index": f"p-{day}", "_id": source["event_id"]}}


def test_a_head_inside_a_document_is_none() -> None:
    line = ONE[:-1] + b',"note":' + orjson.dumps(TWO.decode()) + b"}"
    assert read_heads(line + b"\n") == [(b"2015", b"01", b"22", b'"1"')]


def test_documents_without_a_head_are_refused_one_by_one() -> None:
    batch, refused = split_headless(Batch.of([ONE, b"{}", b"", TWO, b'{"event_id":"x"}']))
    assert batch == Batch.of([ONE, TWO])
    assert refused == tuple(Refusal(line, HEADLESS) for line in (b"{}", b"", b'{"event_id":"x"}'))


@given(st.lists(st.integers(0, 60), max_size=50), st.integers(1, 500))
def test_parts_are_the_whole_and_about_as_large_as_they_may_be(lengths: list[int], size: int) -> None:
    batch = Batch.of([b"x" * length for length in lengths])
    parts = list(split(batch, size))
    assert b"".join(part.body for part in parts) == batch.body
    assert sum(part.count for part in parts) == batch.count
    assert all(part.count == part.body.count(b"\n") > 0 for part in parts)
    assert all(len(part.body) <= size + 61 for part in parts)


def test_halves_are_the_whole() -> None:
    assert halves(Batch.of([ONE, TWO, THREE])) == (Batch.of([ONE]), Batch.of([TWO, THREE]))


def test_where_nothing_failed_all_is_stored() -> None:
    assert read_verdicts(Batch.of([ONE, TWO]), {"errors": False, "items": []}) == Verdicts(2)


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (200, "", Verdicts(2)),
        (409, "version_conflict_engine_exception", Verdicts(1, duplicates=1)),
        (400, "document_parsing_exception", Verdicts(1, refused=(Refusal(TWO, "document_parsing_exception: why"),))),
        (404, "index_not_found_exception", Verdicts(1, refused=(Refusal(TWO, "index_not_found_exception: why"),))),
        (400, "validation_exception", Verdicts(1, again=Batch.of([TWO]))),
        (429, "es_rejected_execution_exception", Verdicts(1, again=Batch.of([TWO]))),
        (503, "unavailable_shards_exception", Verdicts(1, again=Batch.of([TWO]))),
        (500, "", Verdicts(1, again=Batch.of([TWO]))),
    ],
)
def test_each_status_has_its_verdict(status: int, error: str, expected: Verdicts) -> None:
    item = {"status": status, **({"error": {"type": error, "reason": "why"}} if error else {})}
    response = {"errors": True, "items": [{"create": {"status": 201}}, {"create": item}]}
    assert read_verdicts(Batch.of([ONE, TWO]), response) == expected


@pytest.mark.parametrize("status", [401, 403])
def test_a_document_that_is_not_allowed_stops_all(status: int) -> None:
    item = {"status": status, "error": {"type": "security_exception", "reason": "no privilege"}}
    with pytest.raises(StoreDenied, match="no privilege"):
        read_verdicts(Batch.of([ONE]), {"errors": True, "items": [{"create": item}]})


def test_verdicts_of_parts_add_up() -> None:
    parts = [
        Verdicts(1, 2, (Refusal(ONE, "why"),), Batch.of([TWO])),
        Verdicts(3),
        Verdicts(0, again=Batch.of([THREE])),
    ]
    assert merge(parts) == Verdicts(4, 2, (Refusal(ONE, "why"),), Batch.of([TWO, THREE]))
    assert merge([]) == Verdicts(0)


def test_a_reason_says_what_caused_it_and_stays_short() -> None:
    error = {"type": "outer", "reason": "fails", "caused_by": {"type": "inner", "reason": None}}
    assert reason_of(error) == "outer: fails — inner: no reason given"
    assert len(reason_of({"type": "long", "reason": "x" * 10_000})) == 500
    assert reason_of("proxy says no") == "proxy says no"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, NotUnderstood),
        (401, StoreDenied),
        (403, StoreDenied),
        (404, StoreAway),
        (408, StoreAway),
        (413, BodyTooLarge),
        (429, StoreAway),
        (500, StoreAway),
        (502, StoreAway),
        (503, StoreAway),
        (504, StoreAway),
    ],
)
def test_each_status_of_an_answer_has_its_error(status: int, expected: type[Exception]) -> None:
    for body in ({"error": {"type": "t", "reason": "why"}, "status": status}, "why", b"why", None, {"error": "why"}):
        error = error_of(status, body)
        assert type(error) is expected
        assert str(status) in str(error)


async def test_a_new_index_is_waited_for_a_moment_and_a_lost_one_not_for_ever() -> None:
    missing = error_of(503, {"error": {"type": "search_phase_execution_exception", "reason": "missing shards"}})
    assert type(missing) is ShardsMissing
    tries = 0

    async def search(needed: int) -> str:
        nonlocal tries
        tries += 1
        if tries < needed:
            raise missing
        return "found"

    assert await once_there(lambda: search(3)) == "found"
    tries = 0
    with pytest.raises(StoreAway):
        await once_there(lambda: search(100))
    assert tries == 6


def test_deletions_name_what_was_found() -> None:
    hits = [{"_index": "p-2015.01.22", "_id": 'a"b', "sort": [1]}]
    assert delete_body(hits) == b'{"delete":{"_index":"p-2015.01.22","_id":"a\\"b"}}\n'


def test_what_was_gone_already_was_not_deleted() -> None:
    items = [{"delete": {"status": 200}}, {"delete": {"status": 404}}, {"delete": {"status": 200}}]
    assert read_deletions({"items": items}) == 2


@pytest.mark.parametrize(("status", "expected"), [(403, StoreDenied), (429, StoreAway), (503, StoreAway)])
def test_what_cannot_be_deleted_is_an_error(status: int, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        read_deletions({"items": [{"delete": {"status": status, "error": {"type": "t", "reason": "r"}}}]})
