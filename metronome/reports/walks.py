"""Walks: from which items to which others people go, counted walk by walk.

A walk is the list of the items of one session in the order of time, where an item that comes several times
running stands once. A step leads from an item to the next one.
"""

from collections import Counter
from collections.abc import Sequence
from heapq import nsmallest
from itertools import groupby, pairwise
from typing import Any

from metronome.trails import Trail


def walk_of(trail: Trail) -> tuple[str, ...]:
    """Return the walk of a trail, whose events tell of their item first; those without one are left out."""
    return tuple(item for item, _ in groupby(step.texts[0] for step in trail.steps if step.texts[0] is not None))


class Around:
    """What lies around one item on the walks that are added.

    Args:
        item: the item's id.
        steps: how far to look, 1 or more.

    Attributes:
        sessions: how many walks touch the item.
        entries: how many begin with it.
        exits: how many end with it.
        before: for each distance, from one step up, how often each item lies so many steps before it.
        after: likewise, so many steps after it.

    A walk that comes by an item several times counts each time there, so that an item may lie two steps before itself.

    """

    def __init__(self, item: str, steps: int) -> None:
        self._item = item
        self.sessions = 0
        self.entries = 0
        self.exits = 0
        self.before: list[Counter[str]] = [Counter() for _ in range(steps)]
        self.after: list[Counter[str]] = [Counter() for _ in range(steps)]

    def add(self, walk: Sequence[str]) -> None:
        """Count one walk."""
        places = [at for at, item in enumerate(walk) if item == self._item]
        if not places:
            return
        self.sessions += 1
        self.entries += places[0] == 0
        self.exits += places[-1] == len(walk) - 1
        for distance, (before, after) in enumerate(zip(self.before, self.after, strict=True), start=1):
            before.update(walk[at - distance] for at in places if at >= distance)
            after.update(walk[at + distance] for at in places if at + distance < len(walk))


class Everywhere:
    """Where the walks that are added begin, lead, and end.

    Attributes:
        sessions: how many walks there are.
        entries: how many begin with each item.
        exits: how many end with each item.
        transitions: how many steps lead from one item to another.

    """

    def __init__(self) -> None:
        self.sessions = 0
        self.entries: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.transitions: Counter[tuple[str, str]] = Counter()

    def add(self, walk: Sequence[str]) -> None:
        """Count one walk; an empty one is none."""
        if not walk:
            return
        self.sessions += 1
        self.entries[walk[0]] += 1
        self.exits[walk[-1]] += 1
        self.transitions.update(pairwise(walk))


def most_first(counts: Counter[Any], limit: int | None) -> dict[Any, int]:
    """Return the greatest counts, greatest first, those that are equal in the order of what they count."""
    return dict(nsmallest(limit or len(counts), counts.items(), key=lambda entry: (-entry[1], entry[0])))
