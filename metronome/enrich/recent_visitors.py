"""Visitors around midnight: whoever is there before and after it stays one visitor.

A visitor's ID changes with the UTC day, which for many is the middle of the afternoon. So in the first half hour of a
day, an event keeps the ID of the day before if that visitor was seen within the last half hour. That needs a table, of
this process only, and the events in about the order of time; else there are two visitors, as there would be without it.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from metronome.times import is_same_visit

FIRST_MINUTES: Final = "00:30"
"""Until then, hours and minutes in UTC, an event may belong to a visitor of the day before."""
LAST_MINUTES: Final = "23:30"
"""From then on, visitors are remembered."""

_MAX_VISITORS: Final = 50_000


class RecentVisitors:
    """The visitors who were seen last before midnight, in bounded memory.

    Args:
        max_visitors: how many are remembered; those who were seen longest ago are forgotten first.

    """

    def __init__(self, max_visitors: int = _MAX_VISITORS) -> None:
        self._max_visitors = max_visitors
        self._last_seen: OrderedDict[str, str] = OrderedDict()

    def resolve(self, visitor: str, timestamp: str, find_earlier: Callable[[], str | None]) -> str:
        """Return the visitor of an event in the half hours around midnight.

        Args:
            visitor: the ID on the day of the event.
            timestamp: of the event.
            find_earlier: returns the ID of the same person on the day before; None if it cannot be computed.

        """
        if timestamp[11:16] >= LAST_MINUTES:
            self._remember(visitor, timestamp)
            return visitor
        earlier = find_earlier() if self._last_seen else None
        last_seen = None if earlier is None else self._last_seen.get(earlier)
        if earlier is None or last_seen is None or not is_same_visit(last_seen, timestamp):
            return visitor
        self._remember(earlier, max(last_seen, timestamp))
        return earlier

    def _remember(self, visitor: str, timestamp: str) -> None:
        self._last_seen[visitor] = timestamp
        self._last_seen.move_to_end(visitor)
        if len(self._last_seen) > self._max_visitors:
            self._last_seen.popitem(last=False)
