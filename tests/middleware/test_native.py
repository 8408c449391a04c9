"""Events as lines of JSON, as Metronome reads them."""

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
from metronome.middleware.transport import SendOutcome, TargetResponse
from metronome.protocol import Request
from metronome.protocols.native import tick
from tests.middleware.records import record

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
    """An object that JSON has no form for."""

    def __str__(self) -> str:
        return "odd"


def read(body: bytes) -> list[Any]:
    parsed = tick.parse(Request(body, "application/x-ndjson", 1000))
    return [event.fields if isinstance(event, Event) else event for event in parsed.events]


@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=10), VALUES, max_size=6), min_size=1, max_size=5))
def test_metronome_parses_what_was_encoded(events: list[dict[str, Any]]) -> None:
    protocol = TickProtocol(CONFIG)
    body = (
        protocol.body_prefix
        + protocol.separator.join(protocol.encode(event, f"e{n}") for n, event in enumerate(events))
        + protocol.body_suffix
    )
    assert read(body) == [{"event_id": f"e{n}", **event} for n, event in enumerate(events)]


def test_values_without_a_json_form_become_text() -> None:
    odd = {"a": Odd(), "b": 2**70, "c": "\ud800", "d": {1: {Odd()}}, "e": float("inf"), 5: 1}
    (event,) = read(TickProtocol(CONFIG).encode(odd, "e"))  # type: ignore[arg-type]  # hosts may pass anything
    assert event == {
        "event_id": "e",
        "a": "odd",
        "b": str(2**70),
        "c": "\ufffd",
        "d": {"1": ["odd"]},
        "e": None,
        "5": 1,
    }


def test_encoding_without_orjson() -> None:
    check = (
        "import sys; sys.modules['orjson'] = None; from metronome.middleware.native import encode_json; "
        "sys.stdout.buffer.write(encode_json({'a': ['\u00e9', 1.5, None, True], 'b': {'c': 2**70}}))"
    )
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, check=True, timeout=60)
    assert run.stdout.decode() == '{"a":["é",1.5,null,true],"b":{"c":"1180591620717411303424"}}'


def test_an_event_id_of_the_host_takes_precedence() -> None:
    assert orjson.loads(TickProtocol(CONFIG).encode({"event_id": "mine"}, "e"))["event_id"] == "mine"


def test_the_key_is_sent_in_a_header() -> None:
    assert TickProtocol(ClientConfig(url="http://h", key="k")).headers["Authorization"] == "Bearer k"
    assert TickProtocol(CONFIG).url == "http://localhost:8080/tick"


def test_a_request_has_timestamp_duration_and_event_id() -> None:
    (event,) = read(TickProtocol(CONFIG).encode(EventBuilder(CONFIG).build_event(record()), "e"))
    assert (event["ts"], event["duration"], event["event_id"]) == (1_769_083_200_250, 12.346, "e")


def evaluate(status: int, body: bytes = b"", count: int = 3, **headers: str) -> SendOutcome:
    return TickProtocol(CONFIG).evaluate_response(
        TargetResponse(status, {name.replace("_", "-"): text for name, text in headers.items()}, body), count
    )


def test_responses_are_evaluated() -> None:
    assert evaluate(200, b'{"accepted":3,"rejected":[]}') == SendOutcome(sent=3)
    partial = evaluate(200, b'{"accepted":2,"rejected":[{"index":0,"error":"invalid timestamp"}]}')
    assert (partial.sent, partial.rejected) == (2, 1)
    assert "invalid timestamp" in partial.reason
    assert evaluate(200, b"<html>").retry
    assert evaluate(200, b'{"accepted":1e999,"rejected":[]}').retry
    for status in (500, 502, 503, 429, 408):
        assert evaluate(status).retry
    assert evaluate(503, retry_after="7").retry_after == 7
    assert evaluate(503, retry_after="999999").retry_after == 300
    assert evaluate(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT").retry_after == 0
    assert evaluate(413).split
    assert evaluate(413, count=1).rejected == 1
    for status, advice in (
        (400, "status 400"),
        (401, "check the key"),
        (403, "check the key"),
        (404, "check the URL"),
        (302, "check the URL"),
    ):
        assert evaluate(status).rejected == 3
        assert advice in evaluate(status).reason


@given(st.integers(100, 599), st.binary(max_size=60), st.text(max_size=8))
def test_any_answer_is_evaluate(status: int, body: bytes, retry_after: str) -> None:
    outcome = evaluate(status, body, retry_after=retry_after)
    assert outcome.retry or outcome.split or outcome.rejected or outcome.sent
