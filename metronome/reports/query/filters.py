"""The filters that questions are made of, in one form however they were written."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from metronome.errors import Unaskable
from metronome.question import AllOf, AnyOf, Equals, Filter, OneOf, Prefix, Range

BOUNDS: Final = {">": "above", ">=": "at_least", "<": "below", "<=": "at_most"}
"""The signs of bounds, and what each is called in a `metronome.question.Range`."""

_SHOWN: Final = 60


def is_any(name: str, values: Iterable[str]) -> Filter:
    """Ask for events whose field has one of these values."""
    different = tuple(dict.fromkeys(values))
    return Equals(name, different[0]) if len(different) == 1 else OneOf(name, different)


def begins_with_any(name: str, texts: Iterable[str]) -> Filter:
    """Ask for events whose field begins with one of these texts."""
    different = tuple(Prefix(name, text) for text in dict.fromkeys(texts))
    return different[0] if len(different) == 1 else AnyOf(different)


def within(name: str, bounds: Sequence[tuple[str, float]]) -> Filter:
    """Ask for events whose field holds a number within bounds, each with its sign.

    Raises:
        Unaskable: a bound is given twice, or is no finite number.

    """
    found = {BOUNDS[sign]: number for sign, number in bounds}
    if len(found) < len(bounds):
        raise Unaskable(f"{name[:_SHOWN]} has the same bound twice: give one of each")
    if not all(map(math.isfinite, found.values())):
        raise Unaskable(f"the bounds of {name[:_SHOWN]} are beyond all numbers: write one of up to 1e308")
    return Range(name, **found)


def all_of(filters: Iterable[Filter]) -> Filter:
    """Ask for events that all of these hold for."""
    together = tuple(filters)
    return together[0] if len(together) == 1 else AllOf(together)
