"""Counts what an archive holds of a day: each event once, however often it came.

Two documents are the same if their ``event_id`` and UTC day are, as in `metronome.stores.base.Sink.write`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

import orjson

from metronome.event import DOCUMENT_HEAD_PATTERN

SHARD_MAX_EVENTS: Final = 5_000_000
"""So many identities are kept in memory at the most: of a day that has more, a share at a time."""

_HEAD: Final = re.compile(DOCUMENT_HEAD_PATTERN)


class DistinctEventCounter:
    """Counts the events of one UTC day, or of a share of them.

    Args:
        shard: which of the shares.
        shard_count: how many there are.

    """

    def __init__(self, shard: int = 0, shard_count: int = 1) -> None:
        self._shard = shard
        self._shard_count = shard_count
        self._event_id_hashes: set[int] = set()
        self.counts_by_event: Counter[str] = Counter()

    def add(self, lines: bytes) -> None:
        """Count documents, a line each; of two that are the same, the first."""
        for line in lines.splitlines():
            head = _HEAD.match(line)
            if head is None:
                continue
            # A number for each identity: of ten million of a day, two share one with a chance of one in 300,000.
            identity = hash(head[4])
            if identity % self._shard_count != self._shard or identity in self._event_id_hashes:
                continue
            self._event_id_hashes.add(identity)
            self.counts_by_event[orjson.loads(line)["event"]] += 1


def required_shards(events: int) -> int:
    """Return in how many shares so many events are counted."""
    return -(-events // SHARD_MAX_EVENTS) or 1


def merge_counts(counters: Iterable[DistinctEventCounter]) -> Counter[str]:
    """Return the events of all shares by their names."""
    return sum((census.counts_by_event for census in counters), Counter())
