"""Flow: where people come from before an item and go after it, within a session.

Walks: from which items to which others people go, counted walk by walk.

A walk is the list of the items of one session in the order of time, where an item that comes several times
running stands once. A step leads from an item to the next one.
"""

from collections import Counter
from collections.abc import Sequence
from heapq import nsmallest
from itertools import groupby, pairwise
from typing import Any, Final

from metronome.reports.parameters import Parameters
from metronome.reports.sample import Sample
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Exists, OneOf
from metronome.stores.sequences import Trail


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


PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots", "steps"})
PARAMETERS_OF_ALL: Final = PARAMETERS - {"steps"}

_USED: Final = AllOf((Exists("id"), OneOf("event", ("view", "download"))))
_SHARE_DIGITS: Final = 4


async def flow(store: Store, item: str | None, asked: Parameters) -> dict[str, Any]:
    """Answer how people move between items.

    What counts are views and downloads of items in sessions, as `metronome.reports.flow` has it. A session
    is told as far as it lies in the range of time. Of many sessions the newest are looked at (see `Sample`).

    Args:
        store: what is asked.
        item: the item's id, or None for all.
        asked: the range, how many entries of each ranking at most, and how many ``steps`` around the item.

    Returns:
        Of an item: ``sessions`` that touch it; in how many of them it is the first item, ``entries``, and the
        last, ``exits``, and which share of them that is, ``entry_share`` and ``exit_share``, from 0 to 1 (None
        where there are none); and which items come right before and after it how often, ``previous`` and
        ``next``, most first. With more than one of ``steps``, also ``before`` and ``after``, lists of the
        like: what is one step away, two, and so on.

        Of all: ``sessions``, ``entries`` and ``exits`` by item, most first, and ``transitions``, most
        first, each ``from`` an item ``to`` another with their ``count``.

        Where not all sessions are looked at, ``exact: false`` and ``sessions_looked_at`` are added.

    """
    touching = _USED if item is None else AllOf((Equals("id", item), *_USED.inner))
    sessions = Sample(store, "session", ("id",), asked, touching=touching, told=_USED)
    counts = Everywhere() if item is None else Around(item, asked.steps)
    async for trail in sessions:
        counts.add(walk_of(trail))
    shown = _of_all(counts, asked.limit) if isinstance(counts, Everywhere) else _of_item(counts, asked.limit)
    return shown | sessions.note()


def _of_item(around: Around, limit: int | None) -> dict[str, Any]:
    before = [most_first(counts, limit) for counts in around.before]
    after = [most_first(counts, limit) for counts in around.after]
    shown: dict[str, Any] = {
        "sessions": around.sessions,
        "entries": around.entries,
        "exits": around.exits,
        "entry_share": _share(around.entries, around.sessions),
        "exit_share": _share(around.exits, around.sessions),
        "previous": before[0],
        "next": after[0],
    }
    return shown if len(before) == 1 else shown | {"before": before, "after": after}


def _share(number: int, sessions: int) -> float | None:
    return round(number / sessions, _SHARE_DIGITS) if sessions else None


def _of_all(everywhere: Everywhere, limit: int | None) -> dict[str, Any]:
    steps = most_first(everywhere.transitions, limit)
    return {
        "sessions": everywhere.sessions,
        "entries": most_first(everywhere.entries, limit),
        "exits": most_first(everywhere.exits, limit),
        "transitions": [{"from": one, "to": other, "count": count} for (one, other), count in steps.items()],
    }
