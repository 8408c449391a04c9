"""Flow: where people come from before an item and go after it, within a session."""

from typing import Any, Final

from metronome.question import AllOf, Equals, Exists, OneOf
from metronome.reports.parameters import Parameters
from metronome.reports.sampling import Sample
from metronome.reports.walks import Around, Everywhere, most_first, walk_of
from metronome.stores.store import Store

PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots", "steps"})
PARAMETERS_OF_ALL: Final = PARAMETERS - {"steps"}

_USED: Final = AllOf((Exists("id"), OneOf("event", ("view", "download"))))
_SHARE_DIGITS: Final = 4


async def flow(store: Store, item: str | None, asked: Parameters) -> dict[str, Any]:
    """Answer how people move between items.

    What counts are views and downloads of items in sessions, as `metronome.reports.walks` has it. A session
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
