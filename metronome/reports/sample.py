"""Samples of sessions or visitors, so that the cost of a report is bounded.

Reports about sequences of events take time and memory for each. So they use only the newest sequences, whose usage is
the most like today's, and say so if there are more.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from metronome.reports.parameters import ReportParameters
from metronome.stores.base import Store
from metronome.stores.query import Filter, OneOf
from metronome.stores.sequences import EventSequence, SequenceQuery


@dataclass(frozen=True, slots=True)
class SampleLimits:
    """The size of a sample.

    Attributes:
        sequences: maximum number of sessions or visitors.
        events_per_sequence: maximum number of events of each, the oldest ones. A person hardly causes more in a
            session or a day; a robot may.
        total_events: no further sequence is added once the sample has this many events.

    """

    sequences: int = 5_000
    events_per_sequence: int = 1_000
    total_events: int = 250_000


DEFAULT_LIMITS: Final = SampleLimits()


class SequenceSample:
    """The newest sessions or visitors with a selected event; iterate over it once.

    It yields sequences in the order of their keys. Its limits bound time and memory whatever was sent, and the sample
    is the same from every store.

    Args:
        store: runs the queries.
        key: the field that the events of a sequence share: ``session`` or ``visitor``.
        fields: which fields of each event to read.
        parameters: the range, and whether bots count; other events are in no sequence.
        selecting: a sequence is in the sample if this filter matches one of its events; the newest of these events
            decide which sequences are newest.
        included: filter for the events of each sequence.
        limits: the size of the sample.

    Attributes:
        sampled_count: how many sequences there were, once all have been yielded.
        is_complete: whether the sample has all sequences and events there are.

    """

    def __init__(
        self,
        store: Store,
        key: str,
        fields: tuple[str, ...],
        parameters: ReportParameters,
        *,
        selecting: Filter,
        included: Filter,
        limits: SampleLimits = DEFAULT_LIMITS,
    ) -> None:
        self._store = store
        self._key = key
        self._fields = fields
        self._parameters = parameters
        self._selecting = selecting
        self._included = included
        self._limits = limits
        self.sampled_count = 0
        self.is_complete = True

    async def __aiter__(self) -> AsyncIterator[EventSequence]:
        """Yield the sequences."""
        parameters, limits = self._parameters, self._limits
        start, end = parameters.start, parameters.end
        # One sequence and one event beyond each limit show whether the sample is complete.
        keys = await self._store.newest_values(
            self._key, limits.sequences + 1, parameters.build_filter(self._selecting), start, end
        )
        self.is_complete = len(keys) <= limits.sequences
        where = parameters.build_filter(OneOf(self._key, keys[: limits.sequences]), self._included)
        query = SequenceQuery(self._key, self._fields, where, start, end, limits.events_per_sequence + 1)
        total_events = 0
        async for sequence in self._store.sequences(query):
            if total_events >= limits.total_events:
                self.is_complete = False
                return
            events = sequence.events[: limits.events_per_sequence]
            if len(events) < len(sequence.events):
                self.is_complete = False
            yield EventSequence(sequence.key, events)
            total_events += len(events)
            self.sampled_count += 1

    def completeness_fields(self) -> dict[str, Any]:
        """Return what to add to a report, once all sequences have been yielded.

        Nothing if the sample is complete; else ``exact: false``, and the size of the sample as ``sessions_looked_at``
        or ``visitors_looked_at``.
        """
        return {} if self.is_complete else {"exact": False, f"{self._key}s_looked_at": self.sampled_count}
