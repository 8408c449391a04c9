"""How significant a difference between counts is, as a log-likelihood ratio.

The statistic is T. Dunning's ("Accurate Methods for the Statistics of Surprise and Coincidence", Computational
Linguistics 19(1), 1993): twice the logarithm of how much likelier the counts are if each has its own rate than if all
share one, 2 · Σ observed · ln(observed / expected). Unlike a ratio of rates it grows with the number of events, and
unlike χ² it holds for small counts, which most counts of usage are.
"""

from math import log


def association_score(both_count: int, first_count: int, second_count: int, total: int) -> float:
    """Return how significantly two things occur together more often than by chance.

    Args:
        both_count: how many have both.
        first_count: how many have the first.
        second_count: how many have the second.
        total: how many there are.

    Returns:
        The likelihood ratio of the table of those with both, one and neither; 0 if the two occur together no more
        often than by chance, as with something that everyone has. Estimated counts that contradict each other are
        reduced to the largest possible ones.

    """
    only_first, only_second = max(0, first_count - both_count), max(0, second_count - both_count)
    neither = max(0, total - both_count - only_first - only_second)
    if both_count * neither <= only_first * only_second:
        return 0.0
    rows = (both_count + only_first, only_second + neither)
    columns = (both_count + only_second, only_first + neither)
    actual_total = sum(rows)
    cells = ((both_count, 0, 0), (only_first, 0, 1), (only_second, 1, 0), (neither, 1, 1))
    # The quotient is exactly 1 if a cell is as expected: products of integers are not rounded.
    score = sum(
        count * log(count * actual_total / (rows[row] * columns[column])) for count, row, column in cells if count
    )
    return max(0.0, 2 * score)


def change_score(before: int, after: int) -> float:
    """Return how significantly a rate rose or fell between two periods of equal length.

    This is the likelihood ratio of two Poisson counts with the sign of the change, as P. Rayson and R. Garside compare
    frequencies ("Comparing Corpora using Frequency Profiling", 2000). So 300 → 600 scores higher than 3 → 9, which has
    a greater ratio but may be chance.

    Args:
        before: count of the first period.
        after: count of the second period.

    Returns:
        Above 0 for a rise, below 0 for a fall, 0 for no change.

    """
    if before == after:
        return 0.0
    expected = (before + after) / 2
    score = 2 * sum(count * log(count / expected) for count in (before, after) if count)
    return score if after > before else -score
