"""Reports as Metronome reads them."""

import subprocess
import sys
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from metronome.event import Event
from metronome.middleware.config import ClientConfig
from metronome.middleware.events import EventBuilder
from metronome.middleware.native import TickProtocol
from metronome.middleware.response_policy import SendOutcome, TargetResponse
from metronome.protocol import Request
from metronome.protocols.native import tick
from tests.middleware.records import hit

CONFIG = ClientConfig(url="http://localhost:8080/")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


class Odd:
    """An object of a host's own."""

    def __str__(self) -> str:
        return "odd"


def read(body: bytes) -> list[Any]:
    readings = tick.parse(Request(body, "application/x-ndjson", 1000))
    return [reading.fields if isinstance(reading, Event) else reading for reading in readings.events]


@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=10), VALUES, max_size=6), min_size=1, max_size=5))
def test_the_dialect_reads_what_was_written(events: list[dict[str, Any]]) -> None:
    wire = TickProtocol(CONFIG)
    body = (
        wire.body_prefix
        + wire.separator.join(wire.encode(event, f"e{n}") for n, event in enumerate(events))
        + wire.body_suffix
    )
    assert read(body) == [{"event_id": f"e{n}", **event} for n, event in enumerate(events)]


def test_what_json_has_no_form_for_becomes_text() -> None:
    odd = {"a": Odd(), "b": 2**70, "c": "\ud800", "d": {1: {Odd()}}, "e": float("inf"), 5: 1}
    (event,) = read(TickProtocol(CONFIG).encode(odd, "e"))  # type: ignore[arg-type]  # hosts do such things
    assert event == {
        "event_id": "e",
        "a": "odd",
        "b": str(2**70),
        "c": "\ufffd",
        "d": {"1": ["odd"]},
        "e": None,
        "5": 1,
    }


def test_without_orjson_it_is_the_same() -> None:
    check = (
        "import sys; sys.modules['orjson'] = None; from metronome.middleware.json import as_json; "
        "sys.stdout.buffer.write(as_json({'a': ['\u00e9', 1.5, None, True], 'b': {'c': 2**70}}))"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, check=True, timeout=60)
    assert found.stdout.decode() == '{"a":["é",1.5,null,true],"b":{"c":"1180591620717411303424"}}'


def test_an_identity_of_the_host_s_own_counts() -> None:
    assert orjson.loads(TickProtocol(CONFIG).encode({"event_id": "mine"}, "e"))["event_id"] == "mine"


def test_the_key_goes_into_the_header() -> None:
    assert TickProtocol(ClientConfig(url="http://h", key="k")).headers["Authorization"] == "Bearer k"
    assert TickProtocol(CONFIG).url == "http://localhost:8080/tick"


def test_a_request_is_read_with_its_time_and_duration() -> None:
    (event,) = read(TickProtocol(CONFIG).encode(EventBuilder(CONFIG).build_event(hit()), "e"))
    assert (event["ts"], event["duration"], event["event_id"]) == (1_769_083_200_250, 12.346, "e")


def judged(status: int, body: bytes = b"", count: int = 3, **headers: str) -> SendOutcome:
    return TickProtocol(CONFIG).evaluate_response(
        TargetResponse(status, {name.replace("_", "-"): text for name, text in headers.items()}, body), count
    )


def test_each_answer_is_judged_by_what_it_means() -> None:
    assert judged(200, b'{"accepted":3,"rejected":[]}') == SendOutcome(sent=3)
    some = judged(200, b'{"accepted":2,"rejected":[{"index":0,"error":"no time"}]}')
    assert (some.sent, some.rejected) == (2, 1)
    assert "no time" in some.reason
    assert judged(200, b"<html>").retry
    assert judged(200, b'{"accepted":1e999,"rejected":[]}').retry
    for status in (500, 502, 503, 429, 408):
        assert judged(status).retry
    assert judged(503, retry_after="7").retry_after == 7
    assert judged(503, retry_after="999999").retry_after == 300
    assert judged(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT").retry_after == 0
    assert judged(413).split
    assert judged(413, count=1).rejected == 1
    for status, advice in (
        (400, "answers 400"),
        (401, "give a key"),
        (403, "give a key"),
        (404, "correct the url"),
        (302, "correct the url"),
    ):
        assert judged(status).rejected == 3
        assert advice in judged(status).reason


@given(st.integers(100, 599), st.binary(max_size=60), st.text(max_size=8))
def test_any_answer_is_judged(status: int, body: bytes, retry_after: str) -> None:
    verdict = judged(status, body, retry_after=retry_after)
    assert verdict.retry or verdict.split or verdict.rejected or verdict.sent
