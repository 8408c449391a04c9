"""How surprising a difference between counts is: likelihood ratios, which tell much evidence from little.

The statistic is Dunning's: T. Dunning, "Accurate Methods for the Statistics of Surprise and Coincidence",
Computational Linguistics 19(1), 1993. It is twice the logarithm of how much likelier the counts are where each of
them has a rate of its own than where all share one, 2 · Σ observed · ln(observed / expected). Unlike a ratio of
rates it grows with the number of events that speak for a difference; unlike χ² it stays true where the
counts are small, as most counts of usage are.
"""

from math import log


def association_score(both_count: int, first_count: int, second_count: int, total: int) -> float:
    """Return how surely two things go together, beyond what chance brings together.

    It is the likelihood ratio of the table of those with both, with either and with neither. What
    everybody has goes together with nothing: then the expected is observed, and the ratio is 0.

    Args:
        both_count: how many have both.
        first_count: how many have the first.
        second_count: how many have the second.
        total: how many there are.

    Returns:
        At least 0; 0 also where the two avoid each other. Where margins are only estimated, what does not fit
        together counts as no more than it can be: nobody has both but not the other one.

    """
    only_one, only_other = max(0, first_count - both_count), max(0, second_count - both_count)
    neither = max(0, total - both_count - only_one - only_other)
    if both_count * neither <= only_one * only_other:
        return 0.0
    rows = (both_count + only_one, only_other + neither)
    columns = (both_count + only_other, only_one + neither)
    every = sum(rows)
    cells = ((both_count, 0, 0), (only_one, 0, 1), (only_other, 1, 0), (neither, 1, 1))
    # The quotient is exactly 1 where a cell is as expected: products of whole numbers are not rounded.
    found = sum(count * log(count * every / (rows[row] * columns[column])) for count, row, column in cells if count)
    return max(0.0, 2 * found)


def change_score(before: int, after: int) -> float:
    """Return how surely a rate has risen, or fallen, between two times of equal length.

    It is the likelihood ratio of two Poisson counts, as P. Rayson and R. Garside compare frequencies with it
    ("Comparing Corpora using Frequency Profiling", 2000), with the sign of the change. So 300 → 600 stands
    above 3 → 9, whose ratio is greater but may well be chance.

    Args:
        before: how many in the first of both times.
        after: how many in the second.

    Returns:
        Above 0 for a rise, below 0 for a fall, 0 where nothing changed.

    """
    expected = (before + after) / 2
    found = 2 * sum(count * log(count / expected) for count in (before, after) if count)
    return 0.0 if before == after else found if after > before else -found
