"""Trails are asked for by at least one field, and their steps have one order."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery
from metronome.stores.sequences import SequenceEvent, SequenceQuery, sequence_event_key


@pytest.mark.parametrize("fields", [(), ("id", "id"), ("id", "event", "id")])
def test_trails_tell_of_at_least_one_field_and_of_each_once(fields: tuple[str, ...]) -> None:
    with pytest.raises(InvalidQuery, match="at least one field, and of each once"):
        SequenceQuery("session", fields)


def test_steps_are_sorted_by_time_and_then_by_their_texts_where_none_comes_first() -> None:
    steps = [
        SequenceEvent(2, ("a",)),
        SequenceEvent(1, ("b",)),
        SequenceEvent(1, ("",)),
        SequenceEvent(1, (None,)),
        SequenceEvent(1, ("é",)),
        SequenceEvent(1, ("B",)),
    ]
    ordered = sorted(steps, key=sequence_event_key)
    assert [(step.timestamp_ms, *step.values) for step in ordered] == [
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
def test_steps_with_the_same_place_are_the_same(steps: list[SequenceEvent]) -> None:
    ordered = sorted(steps, key=sequence_event_key)
    for one, other in pairwise(ordered):
        assert one == other or sequence_event_key(one) < sequence_event_key(other)
