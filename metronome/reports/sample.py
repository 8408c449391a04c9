"""Sampling: which sessions, or visitors, a report looks at, so that its cost has a bound.

What is worked out of trails takes time and memory for each of them. So no more than the newest are looked at, those
whose usage is most like today's; and where these leave any out, the report says so.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from metronome.reports.parameters import Parameters
from metronome.stores.base import Store
from metronome.stores.query import Filter, OneOf
from metronome.stores.sequences import Trail, Trails

MOST_TRAILS: Final = 5_000
MOST_STEPS: Final = 1_000
MOST_STEPS_IN_ALL: Final = 250_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is looked at, at the most.

    Attributes:
        trails: so many sessions, or visitors.
        steps: so many events of each, the oldest: more in a session, or a day, are hardly a person's doing.
        steps_in_all: so many events, and the rest of the trail that they end in.

    """

    trails: int = MOST_TRAILS
    steps: int = MOST_STEPS
    steps_in_all: int = MOST_STEPS_IN_ALL


_BOUNDS: Final = Bounds()


class Sample:
    """The newest sessions, or visitors, that have to do with something, and what happened in them.

    To be iterated over once: it yields the trails in the order of their keys. Three bounds keep it cheap whatever was
    sent. It takes no more trails than those with the newest events; of each, no more than its first events, so that a
    robot that nothing but its zeal gives away costs little; and once these trails have very many events together, no
    more of them. So memory and time have a bound, and which trails these are does not depend on the store.

    Args:
        store: what is asked.
        key: the field that the events of a trail have in common: ``session`` or ``visitor``.
        fields: what to tell of each event.
        asked: the range of time and whether bots count; events out of that are in no trail.
        touching: a trail is looked at if it has an event that this lets through; the newest such events decide which
            trails are newest.
        told: which of the trail's events are told.
        bounds: how much is looked at.

    Attributes:
        looked_at: how many trails there were, once all have been yielded.
        is_whole: whether that is all there is.

    """

    def __init__(
        self,
        store: Store,
        key: str,
        fields: tuple[str, ...],
        asked: Parameters,
        *,
        touching: Filter,
        told: Filter,
        bounds: Bounds = _BOUNDS,
    ) -> None:
        self._store = store
        self._key = key
        self._fields = fields
        self._asked = asked
        self._touching = touching
        self._told = told
        self._bounds = bounds
        self.looked_at = 0
        self.is_whole = True

    async def __aiter__(self) -> AsyncIterator[Trail]:
        """Yield the trails."""
        asked, bounds = self._asked, self._bounds
        # One more than is looked at, of trails as of steps, tells whether that is all.
        keys = await self._store.newest(
            self._key, bounds.trails + 1, asked.only(self._touching), asked.start, asked.end
        )
        self.is_whole = len(keys) <= bounds.trails
        where = asked.only(OneOf(self._key, keys[: bounds.trails]), self._told)
        told = Trails(self._key, self._fields, where, asked.start, asked.end, bounds.steps + 1)
        steps = 0
        async for trail in self._store.trails(told):
            if steps >= bounds.steps_in_all:
                self.is_whole = False
                return
            if len(trail.steps) > bounds.steps:
                self.is_whole = False
            yield Trail(trail.key, trail.steps[: bounds.steps])
            steps += min(len(trail.steps), bounds.steps)
            self.looked_at += 1

    def note(self) -> dict[str, Any]:
        """Return what a report adds to its answer, once all trails have been yielded.

        Nothing where the sample is all there is; else ``exact: false``, and how many were looked at as
        ``sessions_looked_at``, or ``visitors_looked_at``.
        """
        return {} if self.is_whole else {"exact": False, f"{self._key}s_looked_at": self.looked_at}
