"""Small plots out of characters: pure functions."""

from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple

_RIGHTWARDS: Final = " ▏▎▍▌▋▊▉█"
_UPWARDS: Final = " ▁▂▃▄▅▆▇█"
_PLAIN: Final = " #"
"""For terminals that can show nothing but ASCII."""


class Plot(NamedTuple):
    """A series, drawn.

    Attributes:
        lines: the uppermost first, all equally wide.
        highest: the value that is as high as the plot.

    """

    lines: list[str]
    highest: float


def bar(value: float, most: float, width: int, *, ascii_only: bool = False) -> str:
    """Draw a value as a bar; whatever is more than nothing can be seen.

    Args:
        value: what is drawn; nothing is for what is not above zero.
        most: the value of a bar that is as long as can be.
        width: how long that is, in characters.
        ascii_only: whether to draw what every terminal shows, in coarser steps.

    """
    if value <= 0 or most <= 0:
        return ""
    return _line(min(value / most, 1.0) * width, width, _PLAIN if ascii_only else _RIGHTWARDS).rstrip()


def plot(values: Sequence[float | None], width: int, height: int, *, ascii_only: bool = False) -> Plot | None:
    """Draw a series as columns side by side, equally wide.

    Args:
        values: where there is none, or one below zero, nothing is drawn. Where there are more than fit, a column
            shows the mean of a few that follow each other.
        width: in characters, at the most.
        height: in lines.
        ascii_only: as in `bar`.

    Returns:
        The plot, or None where there is nothing to be seen.

    """
    means = _means(values, width)
    highest = max((value for value in means if value is not None), default=0.0)
    if highest <= 0:
        return None
    steps = _PLAIN if ascii_only else _UPWARDS
    upright = [_line(max(value or 0.0, 0.0) / highest * height, height, steps) for value in means]
    each = width // len(means)
    lines = ["".join(column[line] * each for column in upright) for line in reversed(range(height))]
    return Plot(lines, highest)


def _line(length: float, room: int, steps: str) -> str:
    """Draw a length in characters, the last of which may be a part; more than nothing is at least the least part."""
    parts = len(steps) - 1
    drawn = max(round(length * parts), 1 if length > 0 else 0)
    whole, rest = divmod(drawn, parts)
    return (steps[-1] * whole + (steps[rest] if rest else "")).ljust(room)


def _means(values: Sequence[float | None], width: int) -> list[float | None]:
    """Put values together, so that there are no more than fit."""
    if len(values) <= width:
        return list(values)
    groups = groupby(enumerate(values), lambda pair: pair[0] * width // len(values))
    return [_mean([value for _, value in group]) for _, group in groups]


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None
