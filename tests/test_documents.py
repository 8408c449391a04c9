"""Documents that come back are validated: what `build_document` builds is valid, and nothing else."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metronome.errors import Malformed
from metronome.event import DocumentContext, Event, build_document, validate_document
from tests.test_event_properties import CONTEXT, ENRICHING, OUR_HOSTILE, read
from tests.test_event_properties import _events as events
from tests.test_event_properties import _telling as telling

LATEST = "2026-01-23T12:00:00.000Z"
GOOD: dict[str, Any] = {"@timestamp": "2015-01-22T09:30:00.000Z", "event_id": "e1", "@version": "1", "event": "view"}


def made(event: Event, door: DocumentContext) -> bytes | None:
    try:
        return build_document(event, door, "spare")
    except Malformed:
        return None


@pytest.mark.slow
@settings(max_examples=3 * settings().max_examples)
@given(st.builds(lambda some, more: {**some, **more}, events, telling), st.sampled_from([CONTEXT, ENRICHING]))
def test_documents_of_build_document_are_valid(fields: dict[str, Any], door: DocumentContext) -> None:
    line = made(Event(fields), door)
    if line is not None:
        assert validate_document(line, LATEST) == line


@pytest.mark.parametrize("text", OUR_HOSTILE.read_bytes().splitlines())
def test_documents_of_hostile_events_are_valid(text: bytes) -> None:
    event = read(text)
    line = (
        None
        if event is None
        else made(event, replace(CONTEXT, config=replace(CONTEXT.config, anonymize_addresses=False)))
    )
    assert line is None or validate_document(line, LATEST) == line


def line(**fields: Any) -> bytes:
    return orjson.dumps({**GOOD, **fields})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not a document of Metronome"),
        (b"{}", "not a document of Metronome"),
        (orjson.dumps({"event_id": "e1", "@timestamp": GOOD["@timestamp"]}), "begins with @timestamp and event_id"),
        (line()[:-1], "invalid JSON"),
        (line() + b"{}", "invalid JSON"),
        (line(**{"@timestamp": "2015-13-22T09:30:00.000Z"}), "invalid timestamp"),
        (line(**{"@timestamp": "2015-01-22T09:30:00Z"}), "invalid @timestamp: expected the form"),
        (line(**{"@timestamp": "2099-01-22T09:30:00.000Z"}), "more than a day ahead"),
        (line(event_id="x" * 513), "invalid event_id: expected a text of 1 to 512 bytes"),
        (line(_doc_count=1000000), "invalid field '_doc_count'"),
        (line(**{"a.b": 1}), "invalid field 'a.b'"),
        (line(**{"x" * 101: 1}), "invalid field"),
        (line(deep={"er": 1}), "invalid deep: expected"),
        (line(many=[1]), "invalid many: expected"),
        (line(big=2**63), "invalid big: expected"),
        (line(params=[]), "invalid params: expected an object of texts"),
        (line(params={"a": 1}), "invalid params: expected an object of texts"),
        (line(**{"event.original": {}}), "invalid event.original: expected"),
        (line(**{"event.original": 1}), "invalid event.original: expected a text"),
        (line(id=7), "invalid id: expected a text"),
        (line(id="x" * 1025), "invalid id: expected a text of at most 1024 bytes"),
        (line(bot=True), "invalid bot: expected a text"),
        (line(**{f"n{number}": 1 for number in range(250)}), "over 250 fields"),
    ],
)
def test_rejects_invalid_documents(text: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        validate_document(text, LATEST)


def test_repeated_field_is_reduced_to_one() -> None:
    twice = line()[:-1] + b',"event":"download"}'
    assert orjson.loads(validate_document(twice, LATEST)) == {**GOOD, "event": "download"}


@given(
    st.one_of(
        st.binary(max_size=80),
        st.dictionaries(st.text(max_size=5), st.integers()).map(
            lambda more: line(**more) if all(-(2**63) < n < 2**64 for n in more.values()) else b"{"
        ),
    )
)
def test_any_bytes_are_valid_or_malformed(text: bytes) -> None:
    try:
        kept = validate_document(text, LATEST)
    except Malformed:
        return
    assert validate_document(kept, LATEST) == kept
