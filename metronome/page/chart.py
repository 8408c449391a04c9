"""The layout of a chart: positions in percent of the plot, which the template writes as SVG.

Positions are percentages, so that one SVG fits any width while its labels keep their size.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from metronome.page.model import Bar, Chart, Unit
from metronome.page.numbers import format_number

_WANTED_INTERVALS: Final = 4
_COUNT_STEPS: Final = (1, 2, 2.5, 4, 5)
_SMALLEST_STEP: Final = 0.001
_SECOND: Final = 1_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_TIME_STEPS: Final = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(unit * count for unit in (_SECOND, _MINUTE) for count in (1, 2, 5, 10, 15, 20, 30)),
    *(_HOUR * count for count in (1, 2, 3, 6, 12, 24)),
)
_MAX_LABELS: Final = 12
_LABELS_ON_A_PHONE: Final = 5
_LABEL_STEPS_OF_HOURS: Final = (1, 2, 3, 6, 12, 24)
_LABEL_STEPS_OF_MONTHS: Final = (1, 2, 3, 6, 12, 24, 60, 120)
_LABEL_STEPS: Final = (1, 2, 7, 14, 28)
_FILLED: Final = 0.84
"""The part of a bar's place that the bar fills; the rest is space between bars."""
_MIN_HEIGHT: Final = 0.6
"""Percent: a small number is visible next to none."""


@dataclass(frozen=True, slots=True)
class GridLine:
    """A horizontal line: its distance from the top in percent, and its label."""

    y: str
    text: str


@dataclass(frozen=True, slots=True)
class AxisLabel:
    """A label below the bars: the position of its middle in percent; `is_minor` if a phone has no room for it."""

    x: str
    text: str
    is_minor: bool


@dataclass(frozen=True, slots=True)
class PlacedBar:
    """A bar in its place.

    Attributes:
        bar: what it shows.
        title: the bar in words.
        left: left edge of its place, in percent.
        x: left edge of the bar.
        y: top of the bar.
        width: width of the bar.
        height: height of the bar; 0 for none.

    """

    bar: Bar
    title: str
    left: str
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True, slots=True)
class ChartLayout:
    """A chart, ready to be written.

    Attributes:
        grid: lines from the bottom up.
        labels: labels of the time axis.
        bars: the bars, oldest first.
        place: the width of a bar's place, in percent.
        lines: the earlier period: points of polylines, in bars horizontally and percent vertically.
        has_values: whether there is anything to show.
        has_weekends: whether a bar is a day of a weekend, which has a colour of its own.

    """

    grid: tuple[GridLine, ...]
    labels: tuple[AxisLabel, ...]
    bars: tuple[PlacedBar, ...]
    place: str
    lines: tuple[str, ...]
    has_values: bool
    has_weekends: bool


def lay_out_chart(chart: Chart, noun: str = "") -> ChartLayout:
    """Place the bars, grid lines and labels of a chart.

    Args:
        chart: what to show.
        noun: what is counted, such as ``views``, for the bars' titles; empty for none.

    """
    values = [value for bar in chart.bars for value in (bar.value, bar.previous) if value]
    ticks = axis_ticks(max(values, default=0), chart.unit)
    top = max(max(values, default=0), ticks[-1]) or 1
    count = len(chart.bars)
    place = 100 / count if count else 100
    return ChartLayout(
        grid=tuple(
            GridLine(_percent(100 - 100 * tick / top), format_number(tick, chart.unit) if tick else "0")
            for tick in ticks
        ),
        labels=_axis_labels(chart.bars, place),
        bars=tuple(_place_bar(chart, bar, index, place, top, noun) for index, bar in enumerate(chart.bars)),
        place=_percent(place),
        # A line of nothing but zeros would hide the axis.
        lines=tuple(_polylines([bar.previous for bar in chart.bars], top))
        if any(bar.previous for bar in chart.bars)
        else (),
        has_values=bool(values),
        has_weekends=any(bar.is_weekend and bar.value for bar in chart.bars),
    )


def axis_ticks(largest: float, unit: Unit) -> tuple[float, ...]:
    """Return the round numbers of an axis from 0 up to at most the largest value: three to five of them.

    Args:
        largest: the largest value.
        unit: what the values count: ticks of times are round seconds, minutes or hours.

    """
    if largest <= 0:
        return (0,)
    step = _round_step(largest / _WANTED_INTERVALS, unit)
    return tuple(step * number for number in range(math.floor(largest / step + 1e-9) + 1))


def bar_title(chart: Chart, bar: Bar, noun: str = "") -> str:
    """Return a bar in words, such as ``14 Nov 2026: 369 views; October: 306``."""
    so_far = " so far" if bar.is_incomplete else ""
    counted = f"\u00a0{noun}" if noun and bar.value is not None else ""
    text = f"{bar.label}: {format_number(bar.value, chart.unit)}{counted}{so_far}"
    if chart.previous_label and bar.previous is not None:
        text += f"; {chart.previous_label}: {format_number(bar.previous, chart.unit)}"
    return text


def _round_step(wanted: float, unit: Unit) -> float:
    if unit is Unit.MILLISECONDS:
        days = 24 * _HOUR
        return next((step for step in _TIME_STEPS if step >= wanted), math.ceil(wanted / days) * days)
    wanted = max(wanted, 1.0 if unit is Unit.COUNT else _SMALLEST_STEP)
    power = 10.0 ** math.floor(math.log10(wanted))
    steps = (step * power for step in (*_COUNT_STEPS, 10))
    return next(step for step in steps if step >= wanted - 1e-9 and (unit is not Unit.COUNT or step == int(step)))


def _axis_labels(bars: Sequence[Bar], place: float) -> tuple[AxisLabel, ...]:
    has_hours = bool(bars) and ":" in bars[0].tick
    january = next((index for index, bar in enumerate(bars) if bar.tick.isdecimal()), None)
    steps = _LABEL_STEPS_OF_HOURS if has_hours else _LABEL_STEPS if january is None else _LABEL_STEPS_OF_MONTHS
    fits = (step for step in steps if len(bars) <= step * _MAX_LABELS)
    step = next(fits, math.ceil(len(bars) / _MAX_LABELS))
    # Without the Januaries, which have their year, nothing would say to which years the other months belong.
    labelled = range((january or 0) % step, len(bars), step)
    is_crowded = len(labelled) > _LABELS_ON_A_PHONE
    return tuple(
        AxisLabel(_percent((index + 0.5) * place), bars[index].tick, is_minor=is_crowded and number % 2 == 1)
        for number, index in enumerate(labelled)
    )


def _place_bar(chart: Chart, bar: Bar, index: int, place: float, top: float, noun: str) -> PlacedBar:
    height = max(100 * bar.value / top, _MIN_HEIGHT) if bar.value and bar.value > 0 else 0
    return PlacedBar(
        bar=bar,
        title=bar_title(chart, bar, noun),
        left=_percent(index * place),
        x=_percent((index + (1 - _FILLED) / 2) * place),
        y=_percent(100 - height),
        width=_percent(place * _FILLED),
        height=_percent(height),
    )


def _polylines(values: Sequence[float | None], top: float) -> Iterable[str]:
    """Yield the points of each stretch of at least two values without a gap."""
    gaps = [-1, *(index for index, value in enumerate(values) if value is None), len(values)]
    for before, after in pairwise(gaps):
        stretch = [
            f"{index + 0.5:g},{_percent(100 - 100 * (values[index] or 0) / top)}" for index in range(before + 1, after)
        ]
        if len(stretch) > 1:
            yield " ".join(stretch)


def _percent(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".") or "0"
