"""Sampling: which sessions, or visitors, a report looks at, so that its cost has a bound.

What is worked out of trails takes time and memory for each of them. So no more than the newest are looked at, those
whose usage is most like today's; and where these leave any out, the report says so.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from metronome.reports.parameters import ReportParameters
from metronome.stores.base import Store
from metronome.stores.query import Filter, OneOf
from metronome.stores.sequences import EventSequence, SequenceQuery

MAX_SEQUENCES: Final = 5_000
MAX_EVENTS_PER_SEQUENCE: Final = 1_000
MAX_TOTAL_EVENTS: Final = 250_000


@dataclass(frozen=True, slots=True)
class SampleLimits:
    """How much is looked at, at the most.

    Attributes:
        trails: so many sessions, or visitors.
        steps: so many events of each, the oldest: more in a session, or a day, are hardly a person's doing.
        steps_in_all: so many events, and the rest of the trail that they end in.

    """

    sequences: int = MAX_SEQUENCES
    events_per_sequence: int = MAX_EVENTS_PER_SEQUENCE
    total_events: int = MAX_TOTAL_EVENTS


_DEFAULT_LIMITS: Final = SampleLimits()


class SequenceSample:
    """The newest sessions, or visitors, that have to do with something, and what happened in them.

    To be iterated over once: it yields the trails in the order of their keys. Three bounds keep it cheap whatever was
    sent. It takes no more trails than those with the newest events; of each, no more than its first events, so that a
    robot that nothing but its zeal gives away costs little; and once these trails have very many events together, no
    more of them. So memory and time have a bound, and which trails these are does not depend on the store.

    Args:
        store: what is asked.
        key: the field that the events of a trail have in common: ``session`` or ``visitor``.
        fields: what to tell of each event.
        parameters: the range of time and whether bots count; events out of that are in no trail.
        selecting: a trail is looked at if it has an event that this lets through; the newest such events decide which
            trails are newest.
        included: which of the trail's events are told.
        limits: how much is looked at.

    Attributes:
        looked_at: how many trails there were, once all have been yielded.
        is_whole: whether that is all there is.

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
        limits: SampleLimits = _DEFAULT_LIMITS,
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
        """Yield the trails."""
        asked, bounds = self._parameters, self._limits
        # One more than is looked at, of trails as of steps, tells whether that is all.
        keys = await self._store.newest_values(
            self._key, bounds.sequences + 1, asked.build_filter(self._selecting), asked.start, asked.end
        )
        self.is_complete = len(keys) <= bounds.sequences
        where = asked.build_filter(OneOf(self._key, keys[: bounds.sequences]), self._included)
        told = SequenceQuery(self._key, self._fields, where, asked.start, asked.end, bounds.events_per_sequence + 1)
        steps = 0
        async for trail in self._store.sequences(told):
            if steps >= bounds.total_events:
                self.is_complete = False
                return
            if len(trail.events) > bounds.events_per_sequence:
                self.is_complete = False
            yield EventSequence(trail.key, trail.events[: bounds.events_per_sequence])
            steps += min(len(trail.events), bounds.events_per_sequence)
            self.sampled_count += 1

    def completeness_fields(self) -> dict[str, Any]:
        """Return what a report adds to its answer, once all trails have been yielded.

        Nothing where the sample is all there is; else ``exact: false``, and how many were looked at as
        ``sessions_looked_at``, or ``visitors_looked_at``.
        """
        return {} if self.is_complete else {"exact": False, f"{self._key}s_looked_at": self.sampled_count}
