"""Recordings of real clients: two views of an item, in every mode that each client has."""

from base64 import b64decode
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import Event
from metronome.protocols.forward.messages import ForwardFrameReader, encode_ack, parse_message
from tests.protocols.forward.parsing import parse_frame

RECORDINGS: Final = {
    "fluent-logger 0.11.1 of PyPI": (
        "k6hhcHAuaGl0c85rAyrDg6JpZKFhpWV2ZW50pHZpZXehbgGTqGFwcC5oaXRzzmsDKsODomlkoWGlZXZlbnSkdmlld6FuAg=="
    ),
    "the same with nanoseconds": (
        "k6hhcHAuaGl0c9cAawMqxA5wZfyDomlkoWGlZXZlbnSkdmlld6FuAZOoYXBwLmhpdHPXAGsDKsQOnnrlg6JpZKFhpWV2ZW50pHZpZXehbgI="
    ),
    "@fluent-org/logger 1.0.10, Message": (
        "lKhhcHAuaGl0c9cAawMqxSzxIICDomlkoWGlZXZlbnSkdmlld6FuAYGlY2h1bmu4Z2hSNFRYcUdNRklrVjRySjUydkErdz09lKhh"
        "cHAuaGl0c9cAawMqxSzxIICDomlkoWGlZXZlbnSkdmlld6FuAoGlY2h1bmu4WXRiYVh3ZDBGeEpmWkRWMHJXMU1Rdz09"
    ),
    "the same, Forward": (
        "k6hhcHAuaGl0c5KS1wBrAyrGJGsewIOiaWShYaVldmVudKR2aWV3oW4BktcAawMqxiR6YQCDomlkoWGlZXZlbnSkdmlld6FuAoKk"
        "c2l6ZQKlY2h1bmu4d2VGdXBTS291eHI0eG1xVEFCcHFTUT09"
    ),
    "the same, PackedForward": (
        "k6hhcHAuaGl0c8Q+ktcAawMqxxn81QCDomlkoWGlZXZlbnSkdmlld6FuAZLXAGsDKscaDBdAg6JpZKFhpWV2ZW50pHZpZXehbgKC"
        "pHNpemUCpWNodW5ruEpTYnhvallmSUZZc0ZCZ3hPRzdIOUE9PQ=="
    ),
    "the same, CompressedPackedForward": (
        "k6hhcHAuaGl0c8Q9H4sIAAAAAAAAA5t0nSGbWeuE+KxqhuZFmSkLE5emlqXmlSwpy0wtX5jHOAkqvXKvAxZpJgATFAJhPgAAAIOk"
        "c2l6ZQKlY2h1bmu4RWNVcUFyVHRWMkJDU0xlY2dXY2RYUT09qmNvbXByZXNzZWSkZ3ppcA=="
    ),
    "fluent-logger 3.4.1 of npm, Message": (
        "lKhhcHAuaGl0c85rAyrJg6JpZKFhpWV2ZW50pHZpZXehbgGBpWNodW5ruHo4YnFaaW9BYlltQVVvVmxMZjlOSEE9PZSoYXBwLmhp"
        "dHPOawMqyYOiaWShYaVldmVudKR2aWV3oW4CgaVjaHVua7htMHVTWnRmei8vMXNhYVRoWE00Tmh3PT0="
    ),
    "the same as PackedForward": (
        "k6hhcHAuaGl0c8Q0ks5rAyrKg6JpZKFhpWV2ZW50pHZpZXehbgGSzmsDKsqDomlkoWGlZXZlbnSkdmlld6FuAoSlY2h1bmu4WHVO"
        "cW1hMTFlSzlmNkR6bi91QzRBdz09pHNpemU0qmNvbXByZXNzZWSkdGV4dLJldmVudEVudHJ5RGF0YVNpemU0"
    ),
    "the same as CompressedPackedForward": (
        "k6hhcHAuaGl0c8QzH4sIAAAAAAAAA5t0LptZ61TzosyUhYlLU8tS80qWlGWmli/MY5yES4YJAOH1Ua80AAAAhKVjaHVua7hFZGVr"
        "L01jcXhFNXpBOEdBeE1MbkZRPT2kc2l6ZTOqY29tcHJlc3NlZKRnemlwsmV2ZW50RW50cnlEYXRhU2l6ZTQ="
    ),
}
EXPECTED: Final = [{"id": "a", "event": "view", "n": n, "type": "app.hits"} for n in (1, 2)]


def parse(content: bytes) -> tuple[list[Any], bytes]:
    """Return the fields of each event, or the type of the error in its place, and all acknowledgements."""
    events: list[Any] = []
    acks = b""
    for frame in ForwardFrameReader(2**20).feed(content):
        events += [dict(event.fields) if isinstance(event, Event) else type(event) for event in parse_frame(frame)]
        acks += encode_ack(parse_message(frame).chunk_id)
    return events, acks


@pytest.mark.parametrize("client", RECORDINGS)
def test_parses_and_acknowledges_the_frames_of_a_client(client: str) -> None:
    content = b64decode(RECORDINGS[client])
    events, acks = parse(content)
    assert [{name: value for name, value in event.items() if name != "@timestamp"} for event in events] == EXPECTED
    assert all(event["@timestamp"].startswith("2026-11-22T17:47:") for event in events)
    chunks = content.split(b"\xa5chunk")[1:]
    assert acks == b"".join(b"\x81\xa3ack" + chunk[:25] for chunk in chunks)


@given(st.sampled_from(list(RECORDINGS.values())), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255))))
def test_corrupted_recordings_are_parsed_or_rejected(recording: str, changes: list[tuple[int, int]]) -> None:
    content = bytearray(b64decode(recording))
    for at, value in changes:
        content[at % len(content)] = value
    try:
        events, _ = parse(bytes(content))
    except (Malformed, PayloadTooLarge):
        return
    assert all(isinstance(event, dict) or event in {Malformed, PayloadTooLarge} for event in events)
