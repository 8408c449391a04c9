"""Walks count what a plain count of the same lists gives."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from metronome.reports.flow import ItemFlow, SiteFlow, item_path, top_counts
from metronome.stores.sequences import EventSequence, SequenceEvent

ITEMS = st.sampled_from(["a", "b", "c", "d"])
VISITS = st.lists(st.lists(ITEMS | st.none(), max_size=12), max_size=6)


def folded(visit: list[str | None]) -> list[str]:
    """Return the walk of a visit, item by item."""
    walk: list[str] = []
    for item in visit:
        if item is not None and item not in walk[-1:]:
            walk.append(item)
    return walk


def trail(visit: list[str | None]) -> EventSequence:
    return EventSequence("s", tuple(SequenceEvent(at, (item, "view")) for at, item in enumerate(visit)))


def test_repeated_items_occur_once_in_a_path() -> None:
    assert item_path(trail(["a", "a", "b", "a", "a", "a"])) == ("a", "b", "a")


@given(VISITS, ITEMS, st.integers(1, 5))
def test_item_flow_equals_a_naive_count(visits: list[list[str | None]], item: str, steps: int) -> None:
    walks = [folded(visit) for visit in visits]
    around = ItemFlow(item, steps)
    for visit in visits:
        around.add(item_path(trail(visit)))
    assert around.sessions == sum(item in walk for walk in walks)
    assert around.entries == sum(walk[:1] == [item] for walk in walks)
    assert around.exits == sum(walk[-1:] == [item] for walk in walks)
    pairs = [
        (second - first, walk[first], walk[second])
        for walk in walks
        for first in range(len(walk))
        for second in range(first + 1, len(walk))
    ]
    for distance in range(1, steps + 1):
        before = Counter(one for apart, one, other in pairs if apart == distance and other == item)
        after = Counter(other for apart, one, other in pairs if apart == distance and one == item)
        assert (around.before[distance - 1], around.after[distance - 1]) == (before, after)


@given(VISITS)
def test_flows_of_items_add_up_to_that_of_all_items(visits: list[list[str | None]]) -> None:
    everywhere = SiteFlow()
    around = {item: ItemFlow(item, 1) for item in "abcd"}
    for visit in visits:
        walk = item_path(trail(visit))
        everywhere.add(walk)
        for each in around.values():
            each.add(walk)
    assert everywhere.sessions == sum(each.entries for each in around.values())
    assert everywhere.entries == Counter({item: each.entries for item, each in around.items()})
    assert everywhere.exits == Counter({item: each.exits for item, each in around.items()})
    for item, each in around.items():
        assert each.after[0] == Counter(
            {other: count for (one, other), count in everywhere.transitions.items() if one == item}
        )
        assert each.before[0] == Counter(
            {one: count for (one, other), count in everywhere.transitions.items() if other == item}
        )


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 3)), st.none() | st.integers(1, 5))
def test_top_counts_are_ordered_by_count_and_key(counts: dict[str, int], limit: int | None) -> None:
    ranked = sorted(sorted(counts), key=lambda name: counts[name], reverse=True)
    assert list(top_counts(Counter(counts), limit).items()) == [(name, counts[name]) for name in ranked[:limit]]
