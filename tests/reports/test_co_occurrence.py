"""The strongest pairs, against a plain count of every pair."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from metronome.reports.log_likelihood import association_score
from metronome.reports.recommendations import ItemPair, strongest_pairs

VISITS = st.lists(st.sets(st.sampled_from("abcdefgh")), max_size=40)


def counted(visits: list[set[str]], least: int) -> list[ItemPair]:
    """Count pairs one by one."""
    found = []
    for one, other in combinations(sorted(set().union(*visits)), 2):
        both = sum(one in visit and other in visit for visit in visits)
        each = {item: sum(item in visit for visit in visits) for item in (one, other)}
        score = association_score(both, each[one], each[other], len(visits))
        if both >= least and score > 0:
            found.append(ItemPair((one, other), score, both))
    return sorted(found, key=lambda pair: (-pair.score, pair.items))


@given(VISITS, st.integers(1, 6), st.integers(0, 30))
def test_strongest_pairs_equal_those_of_a_naive_count(visits: list[set[str]], least: int, limit: int) -> None:
    assert strongest_pairs(visits, least, limit) == counted(visits, least)[:limit]


def test_two_items_used_only_together_are_the_strongest_pair() -> None:
    visits = [{"a", "b"}] * 3 + [{"c", "d"}] * 2 + [{"c"}, {"d"}] + [{"everybody"}]
    visits = [visit | {"everybody"} for visit in visits]
    assert [pair.items for pair in strongest_pairs(visits, 2, 10)] == [("a", "b"), ("c", "d")]
    assert strongest_pairs([], 1, 10) == []
