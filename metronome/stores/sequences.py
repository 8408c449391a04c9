"""Event sequences: the events of each session, or of each visitor, in the order of time.

Some reports cannot be computed from counts of events: which page comes before and after another, how long something
is viewed, what else its visitors view. They read sequences, in the same way from every store.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from metronome.errors import InvalidQuery
from metronome.fields import is_top_level_name
from metronome.stores.query import Filter

_EXCERPT_CHARACTERS = 60


class SequenceEvent(NamedTuple):
    """One event of a sequence.

    Attributes:
        timestamp_ms: its time, in milliseconds since 1970.
        values: the text of each requested field, in their order; None where the event has no value.

    """

    timestamp_ms: int
    values: tuple[str | None, ...]


class EventSequence(NamedTuple):
    """The events with the same key, oldest first; events with the same time are sorted by their values.

    Attributes:
        key: the value that the events have in common.
        events: at least one.

    """

    key: str
    events: tuple[SequenceEvent, ...]


@dataclass(frozen=True, slots=True)
class SequenceQuery:
    """A query for sequences.

    Attributes:
        key_field: the field that the events of a sequence have in common, such as ``session`` or ``visitor``; events
            without a value are in no sequence.
        fields: the fields to return of each event, next to its time.
        where: which events are returned; None for all.
        start: aware; older events are left out. None for no limit.
        end: aware; events from then on are left out. None for no limit.
        max_events: the maximum number of events of each sequence, the first ones; None for all.

    Raises:
        InvalidQuery: there is no field, one occurs twice, or one or the key is not at the top level of documents.

    """

    key_field: str
    fields: tuple[str, ...]
    where: Filter | None = None
    start: datetime | None = None
    end: datetime | None = None
    max_events: int | None = None

    def __post_init__(self) -> None:
        """Reject a query that no back end can run."""
        if not self.fields or len(set(self.fields)) < len(self.fields):
            raise InvalidQuery("sequences need at least one field, and each once")
        for name in (self.key_field, *self.fields):
            require_top_level_field(name)


def require_top_level_field(name: str) -> str:
    """Return the name of a field that sequences and newest values can be queried by.

    Raises:
        InvalidQuery: values of this field are in ``params``, not at the top level of documents.

    """
    if not is_top_level_name(name):
        raise InvalidQuery(
            f"cannot read sequences of {name[:_EXCERPT_CHARACTERS]!r}: the field is not at the top level of documents"
        )
    return name


def sequence_event_key(event: SequenceEvent) -> tuple[int, tuple[str, ...]]:
    """Return what the events of a sequence are sorted by: their time, then their values, missing ones first."""
    return event.timestamp_ms, tuple("" if text is None else f"\x01{text}" for text in event.values)


class SequenceBuilder:
    """Builds sequences from sorted events that arrive in chunks.

    Args:
        max_events: see `SequenceQuery`.

    """

    def __init__(self, max_events: int | None = None) -> None:
        self._max_events = sys.maxsize if max_events is None else max_events
        self._key: str | None = None
        self._events: list[SequenceEvent] = []

    def add(self, rows: Iterable[tuple[str, int, tuple[str | None, ...], int]]) -> Iterator[EventSequence]:
        """Yield the sequences that are complete once these rows are added.

        Args:
            rows: the key, time in milliseconds and values of events, and how many events are equal in these.

        """
        for key, group in groupby(rows, itemgetter(0)):
            if key != self._key:
                yield from self.flush()
                self._key = key
            events = self._events
            for _, timestamp_ms, values, count in group:
                if count == 1 and len(events) < self._max_events:
                    events.append(SequenceEvent(timestamp_ms, values))
                else:
                    events += [SequenceEvent(timestamp_ms, values)] * min(count, self._max_events - len(events))

    def flush(self) -> Iterator[EventSequence]:
        """Yield the last sequence, if there is one."""
        if self._key is not None:
            yield EventSequence(self._key, tuple(self._events))
        self._key, self._events = None, []
