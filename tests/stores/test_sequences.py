"""Queries of sequences are validated, and their events have one order."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery
from metronome.stores.sequences import SequenceEvent, SequenceQuery, sequence_event_key


@pytest.mark.parametrize("fields", [(), ("id", "id"), ("id", "event", "id")])
def test_rejects_missing_and_repeated_fields(fields: tuple[str, ...]) -> None:
    with pytest.raises(InvalidQuery, match="at least one field, and each once"):
        SequenceQuery("session", fields)


@pytest.mark.parametrize(
    ("key_field", "fields"), [("session", ("id", "utm.source")), ("a b", ("id",)), ("params", ("id",))]
)
def test_rejects_fields_below_the_top_level(key_field: str, fields: tuple[str, ...]) -> None:
    with pytest.raises(InvalidQuery, match="not at the top level"):
        SequenceQuery(key_field, fields)


def test_sorts_events_by_time_and_values_with_missing_ones_first() -> None:
    events = [
        SequenceEvent(2, ("a",)),
        SequenceEvent(1, ("b",)),
        SequenceEvent(1, ("",)),
        SequenceEvent(1, (None,)),
        SequenceEvent(1, ("é",)),
        SequenceEvent(1, ("B",)),
    ]
    ordered = sorted(events, key=sequence_event_key)
    assert [(event.timestamp_ms, *event.values) for event in ordered] == [
        (1, None),
        (1, ""),
        (1, "B"),
        (1, "b"),
        (1, "é"),
        (2, "a"),
    ]


@given(
    st.lists(
        st.builds(SequenceEvent, st.integers(0, 2), st.tuples(st.none() | st.text(max_size=2), st.none() | st.text()))
    )
)
def test_events_with_equal_keys_are_equal(events: list[SequenceEvent]) -> None:
    ordered = sorted(events, key=sequence_event_key)
    for event, later in pairwise(ordered):
        assert event == later or sequence_event_key(event) < sequence_event_key(later)
