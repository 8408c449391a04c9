"""Pairs: which items the same visitors saw, of all items at once."""

from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import chain
from typing import NamedTuple

from metronome.reports.likelihood import association


class Pair(NamedTuple):
    """Two items that the same visitors saw.

    Attributes:
        items: their ids, the smaller text first.
        score: how surely they go together (see `metronome.reports.likelihood.association`), above 0.
        visitors: how many saw both.

    """

    items: tuple[str, str]
    score: float
    visitors: int


def strongest(visits: Sequence[Iterable[str]], least: int, limit: int) -> list[Pair]:
    """Return the pairs of items that go together most surely.

    Args:
        visits: for each visitor, the items that they saw, each once.
        least: how many visitors must have seen both at the least.
        limit: how many pairs at the most.

    Returns:
        Pairs, the highest score first; of equal ones in the order of their items.

    """
    seen = Counter(chain.from_iterable(visits))
    # An item that fewer saw is in no pair that enough saw.
    names = sorted(item for item, visitors in seen.items() if visitors >= least)
    numbers = {item: number for number, item in enumerate(names)}
    rows = [sorted(numbers[item] for item in visit if item in numbers) for visit in visits]
    found = (
        Pair((names[one], names[other]), score, common)
        for one, other, common in _together(rows, len(names))
        if common >= least
        for score in (association(common, seen[names[one]], seen[names[other]], len(visits)),)
        if score > 0
    )
    return nsmallest(limit, found, key=lambda pair: (-pair.score, pair.items))


def _together(rows: list[list[int]], items: int) -> Iterator[tuple[int, int, int]]:
    """Yield how many rows two numbers have in common, one number after the other: memory is that of one."""
    rows_of: list[list[list[int]]] = [[] for _ in range(items)]
    for row in rows:
        for number in row:
            rows_of[number].append(row)
    for number, those in enumerate(rows_of):
        greater = Counter(chain.from_iterable(row[bisect(row, number) :] for row in those))
        for other, common in greater.items():
            yield number, other, common
