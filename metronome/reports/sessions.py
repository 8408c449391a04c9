"""Sessions as reports count them: a visitor's events without a pause of 30 minutes.

Ingest gives a visitor's events one session a day, since it keeps no state: the order in which events arrive does not
matter, and a log can be imported again. So a session is cut where a report reads it. Sessions that a sender set are
left as they are: the sender knows better when they end.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from metronome.stores.sequences import EventSequence
from metronome.times import VISIT_PAUSE

PAUSE_MS: Final = VISIT_PAUSE // timedelta(milliseconds=1)
"""A session, and a stay, end after this time without an event, in milliseconds."""


def cut_sessions(sequence: EventSequence, visitor_index: int) -> Iterator[EventSequence]:
    """Yield the sessions of a sequence: a visitor's is cut at each pause, any other is yielded as it is.

    Args:
        sequence: the events with the same ``session``.
        visitor_index: which value of each event is its ``visitor``.

    """
    events = sequence.events
    if all(event.values[visitor_index] != sequence.key for event in events):
        yield sequence
        return
    start = 0
    for at in range(1, len(events)):
        if events[at].timestamp_ms - events[at - 1].timestamp_ms > PAUSE_MS:
            yield EventSequence(sequence.key, events[start:at])
            start = at
    yield EventSequence(sequence.key, events[start:])
