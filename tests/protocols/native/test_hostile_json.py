"""JSON that is made to take long is rejected before it does."""

import time

import orjson
import pytest

from metronome.errors import PayloadTooLarge
from metronome.event import Event
from metronome.protocol import EVENT_MAX_VALUES, JSON_MAX_VALUES, Request, load_json
from metronome.protocols.elasticsearch.bulk import parse_bulk_body
from metronome.protocols.native import tick

SIZE = 15 * 2**20
SECONDS = 0.5
"""Without a limit, these take up to ten seconds; a busy machine takes several times as long as usual."""


def names(size: int) -> bytes:
    """Return an object with as many short names as fit into a size."""
    return b"{" + b",".join(b'"%x":1' % number for number in range(size // 9)) + b"}"


HOSTILE = {
    "arrays": b"[" + b"[],".ljust(3) * (SIZE // 3) + b"[]]",
    "nested arrays": b"[" + b",".join([b"[" * 500 + b"]" * 500] * (SIZE // 1001)) + b"]",
    "nested arrays in events": b"[" + b",".join([b'{"a":' + b"[" * 500 + b"]" * 500 + b"}"] * (SIZE // 1006)) + b"]",
    "names": names(SIZE),
    "objects": b"[" + b"{}," * (SIZE // 3) + b"{}]",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_rejects_a_body_with_too_many_values_quickly(body: bytes) -> None:
    start = time.process_time()
    with pytest.raises(PayloadTooLarge, match="the JSON has over 1,000,000 values"):
        list(tick.parse(Request(body, "application/json", 10**9)).events)
    assert time.process_time() - start < SECONDS


def test_rejects_an_event_with_too_many_values_and_no_other() -> None:
    hostile = names(2**20)
    lines = b"\n".join([b'{"id":"a"}', hostile, b'{"id":"b"}'])
    first, rejected, last = tick.parse(Request(lines, "application/x-ndjson", 10)).events
    assert (type(first), type(rejected), type(last)) == (Event, PayloadTooLarge, Event)


def test_accepts_large_texts_with_many_commas() -> None:
    event = {"id": "a", "text": "word, " * (2**20 // 8)}
    body = orjson.dumps([event] * 5)
    assert [type(each) for each in tick.parse(Request(body, "", 10)).events] == [Event] * 5


def test_the_limits_are_of_values() -> None:
    assert len(load_json(b"[" + b"1," * (JSON_MAX_VALUES - 2) + b"1]")) == JSON_MAX_VALUES - 1
    with pytest.raises(PayloadTooLarge):
        load_json(b"[" + b"1," * JSON_MAX_VALUES + b"1]")
    assert EVENT_MAX_VALUES < JSON_MAX_VALUES
    assert parse_bulk_body(b'{"index":{}}\n' + names(2**20) + b"\n", "x", 10)
