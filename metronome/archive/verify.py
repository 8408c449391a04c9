"""Counts what an archive holds of a day: each event once, however often it came.

Two documents are the same if their ``event_id`` and UTC day are, as in `metronome.stores.base.Sink.write`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

import orjson

from metronome.event import HEAD_PATTERN

EVENTS_AT_ONCE: Final = 5_000_000
"""So many identities are kept in memory at the most: of a day that has more, a share at a time."""

_HEAD: Final = re.compile(HEAD_PATTERN)


class Census:
    """Counts the events of one UTC day, or of a share of them.

    Args:
        share: which of the shares.
        shares: how many there are.

    """

    def __init__(self, share: int = 0, shares: int = 1) -> None:
        self._share = share
        self._shares = shares
        self._seen: set[int] = set()
        self.events: Counter[str] = Counter()

    def add(self, lines: bytes) -> None:
        """Count documents, a line each; of two that are the same, the first."""
        for line in lines.splitlines():
            head = _HEAD.match(line)
            if head is None:
                continue
            # A number for each identity: of ten million of a day, two share one with a chance of one in 300,000.
            identity = hash(head[4])
            if identity % self._shares != self._share or identity in self._seen:
                continue
            self._seen.add(identity)
            self.events[orjson.loads(line)["event"]] += 1


def shares_of(events: int) -> int:
    """Return in how many shares so many events are counted."""
    return -(-events // EVENTS_AT_ONCE) or 1


def together(censuses: Iterable[Census]) -> Counter[str]:
    """Return the events of all shares by their names."""
    return sum((census.events for census in censuses), Counter())
