"""Likelihood ratios: published values, and what holds for all counts."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.reports.log_likelihood import association_score, change_score

COUNTS = st.integers(0, 10_000)
SOME = st.integers(1, 1000)


@pytest.mark.parametrize(
    ("both", "only_one", "only_other", "neither", "published"),
    [
        # T. Dunning 1993, bigrams of a text of 31,777 words ("the swiss", "can be", "previous year", "mineral water").
        (110, 2442, 111, 29114, 270.72),
        (29, 13, 123, 31612, 263.90),
        (31, 23, 139, 31584, 256.84),
        (10, 0, 3, 31764, 167.23),
    ],
)
def test_the_score_equals_that_of_the_paper(
    both: int, only_one: int, only_other: int, neither: int, published: float
) -> None:
    total = both + only_one + only_other + neither
    assert association_score(both, both + only_one, both + only_other, total) == pytest.approx(published, abs=0.005)


def test_things_that_only_occur_together_have_the_entropy_of_their_share() -> None:
    # Two of four have both, two have neither: 2 · 4 · ln 2.
    assert association_score(2, 2, 2, 4) == pytest.approx(8 * log(2))


@given(SOME, SOME, SOME, SOME)
def test_independent_things_have_no_score(one: int, not_one: int, other: int, not_other: int) -> None:
    total = (one + not_one) * (other + not_other)
    assert association_score(one * other, one * (other + not_other), other * (one + not_one), total) == 0


@given(SOME, COUNTS)
def test_what_everyone_has_is_associated_with_nothing(one: int, others: int) -> None:
    assert association_score(one, one, one + others, one + others) == 0


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_scores_are_not_negative_and_symmetric(common: int, only_one: int, only_other: int, neither: int) -> None:
    total = common + only_one + only_other + neither
    one, other = common + only_one, common + only_other
    score = association_score(common, one, other, total)
    assert score >= 0
    assert score == pytest.approx(association_score(common, other, one, total), rel=1e-9, abs=1e-9)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_only_more_frequent_than_by_chance_has_a_score(
    common: int, only_one: int, only_other: int, neither: int
) -> None:
    total = common + only_one + only_other + neither
    score = association_score(common, common + only_one, common + only_other, total)
    if common * neither <= only_one * only_other:
        assert score == 0
    elif common * neither > 1.01 * only_one * only_other:  # Nearer to chance, the score is about what is rounded away.
        assert score > 0


@given(COUNTS, SOME, SOME, COUNTS)
def test_more_frequent_pairs_of_equally_frequent_things_score_higher(
    common: int, only_one: int, only_other: int, neither: int
) -> None:
    one, other, total = common + only_one, common + only_other, common + only_one + only_other + neither
    less, more = (association_score(both, one, other, total) for both in (common, common + 1))
    assert more > less if more else less == 0


@given(SOME, SOME, SOME, SOME, st.integers(2, 9))
def test_a_score_grows_with_the_evidence(common: int, only_one: int, only_other: int, neither: int, times: int) -> None:
    one, other, total = common + only_one, common + only_other, common + only_one + only_other + neither
    whole = association_score(times * common, times * one, times * other, times * total)
    assert whole == pytest.approx(times * association_score(common, one, other, total), rel=1e-6, abs=1e-6)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_accepts_contradictory_estimates(common: int, one: int, other: int, total: int) -> None:
    assert association_score(common, one, other, total) >= 0


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 0, 0.0),
        (7, 7, 0.0),
        (0, 5, 10 * log(2)),
        (5, 0, -10 * log(2)),
        # 2 · (9 ln 9/6 + 3 ln 3/6), 2 · (600 ln 600/450 + 300 ln 300/450)
        (3, 9, 3.1395),
        (300, 600, 101.9394),
    ],
)
def test_a_change_is_a_signed_likelihood_ratio(before: int, after: int, expected: float) -> None:
    assert change_score(before, after) == pytest.approx(expected, abs=5e-5)


@given(COUNTS, COUNTS)
def test_a_rise_is_a_fall_in_the_opposite_direction(before: int, after: int) -> None:
    assert change_score(before, after) == -change_score(after, before)
    assert (change_score(before, after) > 0) == (after > before)


@given(COUNTS, COUNTS)
def test_the_score_of_a_rise_grows_with_the_later_count(before: int, after: int) -> None:
    assert change_score(before, after + 1) > change_score(before, after)
