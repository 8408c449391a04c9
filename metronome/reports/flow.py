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

from metronome.reports.parameters import ReportParameters
from metronome.reports.sample import SequenceSample
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Exists, OneOf
from metronome.stores.sequences import EventSequence


def item_path(sequence: EventSequence) -> tuple[str, ...]:
    """Return the walk of a trail, whose events tell of their item first; those without one are left out."""
    return tuple(item for item, _ in groupby(step.values[0] for step in sequence.events if step.values[0] is not None))


class ItemFlow:
    """What lies around one item on the walks that are added.

    Args:
        item: the item's id.
        max_distance: how far to look, 1 or more.

    Attributes:
        sessions: how many walks touch the item.
        entries: how many begin with it.
        exits: how many end with it.
        before: for each distance, from one step up, how often each item lies so many steps before it.
        after: likewise, so many steps after it.

    A walk that comes by an item several times counts each time there, so that an item may lie two steps before itself.

    """

    def __init__(self, item: str, max_distance: int) -> None:
        self._item = item
        self.sessions = 0
        self.entries = 0
        self.exits = 0
        self.before: list[Counter[str]] = [Counter() for _ in range(max_distance)]
        self.after: list[Counter[str]] = [Counter() for _ in range(max_distance)]

    def add(self, path: Sequence[str]) -> None:
        """Count one walk."""
        places = [at for at, item in enumerate(path) if item == self._item]
        if not places:
            return
        self.sessions += 1
        self.entries += places[0] == 0
        self.exits += places[-1] == len(path) - 1
        for distance, (before, after) in enumerate(zip(self.before, self.after, strict=True), start=1):
            before.update(path[at - distance] for at in places if at >= distance)
            after.update(path[at + distance] for at in places if at + distance < len(path))


class SiteFlow:
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

    def add(self, path: Sequence[str]) -> None:
        """Count one walk; an empty one is none."""
        if not path:
            return
        self.sessions += 1
        self.entries[path[0]] += 1
        self.exits[path[-1]] += 1
        self.transitions.update(pairwise(path))


def top_counts(counts: Counter[Any], limit: int | None) -> dict[Any, int]:
    """Return the greatest counts, greatest first, those that are equal in the order of what they count."""
    return dict(nsmallest(limit or len(counts), counts.items(), key=lambda entry: (-entry[1], entry[0])))


PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots", "steps"})
ALL_ITEMS_PARAMETERS: Final = PARAMETERS - {"steps"}

_ITEM_USE: Final = AllOf((Exists("id"), OneOf("event", ("view", "download"))))
_SHARE_DIGITS: Final = 4


async def flow_report(store: Store, item: str | None, parameters: ReportParameters) -> dict[str, Any]:
    """Answer how people move between items.

    What counts are views and downloads of items in sessions, as `metronome.reports.flow` has it. A session
    is told as far as it lies in the range of time. Of many sessions the newest are looked at (see `SequenceSample`).

    Args:
        store: what is asked.
        item: the item's id, or None for all.
        parameters: the range, how many entries of each ranking at most, and how many ``steps`` around the item.

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
    touching = _ITEM_USE if item is None else AllOf((Equals("id", item), *_ITEM_USE.filters))
    sessions = SequenceSample(store, "session", ("id",), parameters, selecting=touching, included=_ITEM_USE)
    counts = SiteFlow() if item is None else ItemFlow(item, parameters.steps)
    async for trail in sessions:
        counts.add(item_path(trail))
    shown = (
        _all_items_flow(counts, parameters.limit)
        if isinstance(counts, SiteFlow)
        else _item_flow(counts, parameters.limit)
    )
    return shown | sessions.completeness_fields()


def _item_flow(item_flow: ItemFlow, limit: int | None) -> dict[str, Any]:
    before = [top_counts(counts, limit) for counts in item_flow.before]
    after = [top_counts(counts, limit) for counts in item_flow.after]
    shown: dict[str, Any] = {
        "sessions": item_flow.sessions,
        "entries": item_flow.entries,
        "exits": item_flow.exits,
        "entry_share": _share(item_flow.entries, item_flow.sessions),
        "exit_share": _share(item_flow.exits, item_flow.sessions),
        "previous": before[0],
        "next": after[0],
    }
    return shown if len(before) == 1 else shown | {"before": before, "after": after}


def _share(number: int, sessions: int) -> float | None:
    return round(number / sessions, _SHARE_DIGITS) if sessions else None


def _all_items_flow(site_flow: SiteFlow, limit: int | None) -> dict[str, Any]:
    steps = top_counts(site_flow.transitions, limit)
    return {
        "sessions": site_flow.sessions,
        "entries": top_counts(site_flow.entries, limit),
        "exits": top_counts(site_flow.exits, limit),
        "transitions": [{"from": one, "to": other, "count": count} for (one, other), count in steps.items()],
    }
