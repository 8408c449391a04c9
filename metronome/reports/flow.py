"""Flow: which items people use before and after an item, within a session.

A path is the list of the items of one session in the order of time; an item that occurs several times in a row is in
it once. A step leads from an item to the next one. A visitor's session ends with a pause of 30 minutes (see
`metronome.reports.sessions`).
"""

from collections import Counter
from collections.abc import Sequence
from heapq import nsmallest
from itertools import groupby, pairwise
from typing import Any, Final

from metronome.reports.parameters import IS_VIEW_OR_DOWNLOAD, ReportParameters, item_filter, rounded_share
from metronome.reports.sample import SequenceSample
from metronome.reports.sessions import cut_sessions
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Exists
from metronome.stores.sequences import EventSequence

ALL_ITEMS_PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots"})
PARAMETERS: Final = ALL_ITEMS_PARAMETERS | {"steps"}

_PATH_EVENTS: Final = frozenset(IS_VIEW_OR_DOWNLOAD.values)
_FIELDS: Final = ("id", "event", "visitor")


def item_path(session: EventSequence) -> tuple[str, ...]:
    """Return the path of a session.

    Args:
        session: the first values of each event are its item ID and its ``event``; those without an item, and those that
            are no view or download, are skipped.

    """
    return tuple(
        item
        for item, _ in groupby(
            event.values[0]
            for event in session.events
            if event.values[0] is not None and event.values[1] in _PATH_EVENTS
        )
    )


class ItemFlow:
    """What precedes and follows one item on the paths that are added.

    A path that returns to the item counts each time, so an item may be two steps before itself.

    Args:
        item: the item ID.
        max_distance: up to how many steps away, 1 or more.

    Attributes:
        sessions: how many paths have the item.
        entries: how many start with it.
        exits: how many end with it.
        before: for each distance, from one step, how often each item is that many steps before the item.
        after: the same for items after it.

    """

    def __init__(self, item: str, max_distance: int) -> None:
        self._item = item
        self.sessions = 0
        self.entries = 0
        self.exits = 0
        self.before: list[Counter[str]] = [Counter() for _ in range(max_distance)]
        self.after: list[Counter[str]] = [Counter() for _ in range(max_distance)]

    def add(self, path: Sequence[str]) -> None:
        """Count one path."""
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
    """Where the paths that are added start, lead and end.

    Attributes:
        sessions: how many paths there are.
        entries: how many start with each item.
        exits: how many end with each item.
        transitions: how many steps lead from one item to another.

    """

    def __init__(self) -> None:
        self.sessions = 0
        self.entries: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.transitions: Counter[tuple[str, str]] = Counter()

    def add(self, path: Sequence[str]) -> None:
        """Count one path, unless it is empty."""
        if not path:
            return
        self.sessions += 1
        self.entries[path[0]] += 1
        self.exits[path[-1]] += 1
        self.transitions.update(pairwise(path))


def top_counts(counts: Counter[Any], limit: int | None) -> dict[Any, int]:
    """Return the greatest counts, greatest first; equal ones in the order of their keys."""
    return dict(nsmallest(limit or len(counts), counts.items(), key=lambda entry: (-entry[1], entry[0])))


async def flow_report(store: Store, item: str | None, parameters: ReportParameters) -> dict[str, Any]:
    """Return how people move between items.

    It counts views and downloads in sessions; of a session, only the part in the range. Of many sessions, it uses the
    newest (see `SequenceSample`).

    Args:
        store: runs the queries.
        item: the item ID, or None for all items.
        parameters: the range, maximum number of entries in each ranking, and ``steps`` around the item.

    Returns:
        For an item: ``sessions`` with it; how many of them start with it, ``entries``, and end with it, ``exits``,
        also as ``entry_share`` and ``exit_share`` from 0 to 1 (None without sessions); and how often each other item
        is right before and after it, ``previous`` and ``next``, most frequent first. With more than one of ``steps``
        also the lists ``before`` and ``after`` with such counts by distance.

        For all: ``sessions``, ``entries`` and ``exits`` by item, most frequent first, and ``transitions``, most
        frequent first, each ``from`` one item ``to`` another with its ``count``.

        For an incomplete sample, ``exact: false`` and ``sessions_looked_at`` are added.

    """
    selecting = AllOf((item_filter(item), IS_VIEW_OR_DOWNLOAD))
    # Other events show that a session goes on.
    sample = SequenceSample(store, "session", _FIELDS, parameters, selecting=selecting, included=Exists("event"))
    if item is None:
        site_flow = SiteFlow()
        async for sequence in sample:
            for session in cut_sessions(sequence, _FIELDS.index("visitor")):
                site_flow.add(item_path(session))
        report = _site_flow_report(site_flow, parameters.limit)
    else:
        item_flow = ItemFlow(item, parameters.steps)
        async for sequence in sample:
            for session in cut_sessions(sequence, _FIELDS.index("visitor")):
                item_flow.add(item_path(session))
        report = _item_flow_report(item_flow, parameters.limit)
    return report | sample.completeness_fields()


def _item_flow_report(flow: ItemFlow, limit: int | None) -> dict[str, Any]:
    before = [top_counts(counts, limit) for counts in flow.before]
    after = [top_counts(counts, limit) for counts in flow.after]
    report: dict[str, Any] = {
        "sessions": flow.sessions,
        "entries": flow.entries,
        "exits": flow.exits,
        "entry_share": rounded_share(flow.entries, flow.sessions),
        "exit_share": rounded_share(flow.exits, flow.sessions),
        "previous": before[0],
        "next": after[0],
    }
    return report if len(before) == 1 else report | {"before": before, "after": after}


def _site_flow_report(flow: SiteFlow, limit: int | None) -> dict[str, Any]:
    transitions = top_counts(flow.transitions, limit)
    return {
        "sessions": flow.sessions,
        "entries": top_counts(flow.entries, limit),
        "exits": top_counts(flow.exits, limit),
        "transitions": [
            {"from": source, "to": target, "count": count} for (source, target), count in transitions.items()
        ],
    }
