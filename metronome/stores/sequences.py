"""Trails: what happened in each session, or to each visitor, step by step.

Some of what is asked of usage cannot be counted event by event: what came before and after, how long something
was looked at, who else saw it. Reports work these out of trails, in the same way over every store.
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from metronome.errors import InvalidQuery
from metronome.stores.query import Filter


class SequenceEvent(NamedTuple):
    """One event of a trail.

    Attributes:
        at: when, in milliseconds since 1970.
        texts: the values of the fields that were asked for, as text, in their order; None where it has none.

    """

    timestamp_ms: int
    values: tuple[str | None, ...]


class EventSequence(NamedTuple):
    """The events that have one value in common, oldest first; events of the same time in the order of their texts.

    Attributes:
        key: that value.
        steps: at least one.

    """

    key: str
    events: tuple[SequenceEvent, ...]


@dataclass(frozen=True, slots=True)
class SequenceQuery:
    """Asks for trails.

    Attributes:
        key: the field that the events of a trail have in common, as ``session`` or ``visitor``; events without a
            value there are in none.
        fields: what to tell of each event, beside its time.
        where: which events are told; None for all.
        start: aware; events from then on. None for all that are older.
        end: aware; events before then. None for all that are newer.
        most_steps: how many steps of each trail are told at the most, the first ones; None for all.

    Raises:
        InvalidQuery: no field, or one twice.

    """

    key_field: str
    fields: tuple[str, ...]
    where: Filter | None = None
    start: datetime | None = None
    end: datetime | None = None
    max_events: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no store could answer."""
        if not self.fields or any(one == other for one, other in pairwise(sorted(self.fields))):
            raise InvalidQuery("trails tell of at least one field, and of each once")


def sequence_event_key(event: SequenceEvent) -> tuple[int, tuple[str, ...]]:
    """Return what the steps of a trail are sorted by: their time, then their texts, where none comes first."""
    return event.timestamp_ms, tuple("" if text is None else f"\x01{text}" for text in event.values)
