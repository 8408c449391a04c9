"""Where the parts of a chart are."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.page.chart import axis_ticks, bar_title, lay_out_chart
from metronome.page.model import Bar, Chart, Unit
from tests.page.made_up import made_up_chart


def chart_of(*values: float | None, previous: tuple[float | None, ...] = (), tick: str = "1 Jan") -> Chart:
    earlier = previous or (None,) * len(values)
    bars = tuple(Bar("1 Jan 2015", tick, value, before, "/") for value, before in zip(values, earlier, strict=True))
    return Chart("Views by day", "", Unit.COUNT, bars, "December" if previous else "")


@pytest.mark.parametrize(
    ("largest", "unit", "ticks"),
    [
        (0, Unit.COUNT, (0,)),
        (1, Unit.COUNT, (0, 1)),
        (3, Unit.COUNT, (0, 1, 2, 3)),
        (7, Unit.COUNT, (0, 2, 4, 6)),
        (1213, Unit.COUNT, (0, 400, 800, 1200)),
        (112_000, Unit.MILLISECONDS, (0, 30_000, 60_000, 90_000)),
        (0.31, Unit.SCORE, (0, 0.1, 0.2, 0.3)),
    ],
)
def test_ticks_are_round(largest: float, unit: Unit, ticks: tuple[float, ...]) -> None:
    assert axis_ticks(largest, unit) == pytest.approx(ticks)


@given(st.floats(min_value=1, max_value=1e15), st.sampled_from([Unit.COUNT, Unit.MILLISECONDS]))
def test_an_axis_has_few_ticks_up_to_the_largest_value(largest: float, unit: Unit) -> None:
    ticks = axis_ticks(largest, unit)
    assert 2 <= len(ticks) <= 5
    assert ticks[-1] <= largest * (1 + 1e-9)
    assert all(tick == int(tick) for tick in ticks)


@given(st.lists(st.none() | st.floats(min_value=0, max_value=1e12), max_size=60))
def test_bars_stay_within_the_plot(values: list[float | None]) -> None:
    layout = lay_out_chart(chart_of(*values))
    for place, value in zip(layout.bars, values, strict=True):
        assert 0 <= float(place.y) <= 100
        assert float(place.y) + float(place.height) == pytest.approx(100, abs=0.02)
        assert float(place.x) + float(place.width) <= 100.02
        assert (float(place.height) > 0) == bool(value)
    assert layout.has_values == any(values)


def test_the_earlier_period_is_a_line_with_gaps() -> None:
    layout = lay_out_chart(chart_of(4, 4, 4, 4, 4, previous=(4, 2, None, 3, 3)))
    assert layout.lines == ("0.5,0 1.5,50", "3.5,25 4.5,25")


def test_an_earlier_period_without_events_draws_no_line_over_the_axis() -> None:
    assert lay_out_chart(chart_of(4, 4, previous=(0, 0))).lines == ()


@pytest.mark.parametrize(
    ("count", "tick", "labels"),
    [(30, "1 Jan", 5), (7, "1 Jan", 7), (24, "14:00", 12), (12, "Jan", 12), (120, "1 Jan", 9)],
)
def test_labels_have_room(count: int, tick: str, labels: int) -> None:
    layout = lay_out_chart(chart_of(*[1] * count, tick=tick))
    assert len(layout.labels) == labels
    assert sum(not label.is_minor for label in layout.labels) <= 6


def test_labels_of_many_months_have_years() -> None:
    chart = chart_of(*[1] * 50, tick="Feb")
    bars = tuple(
        replace(bar, tick=str(2015 + number // 12)) if number % 12 == 3 else bar
        for number, bar in enumerate(chart.bars)
    )
    layout = lay_out_chart(replace(chart, bars=bars))
    assert [label.text for label in layout.labels] == ["2015", "Feb", "2016", "Feb", "2017", "Feb", "2018", "Feb"]


def test_a_bar_is_said_in_words() -> None:
    chart = made_up_chart()
    bar = replace(chart.bars[0], label="14 Nov 2026", value=1369, previous=306)
    assert bar_title(chart, bar, "views") == "14 Nov 2026: 1,369\u00a0views; December: 306"
    assert bar_title(chart, replace(bar, is_incomplete=True, previous=None)) == "14 Nov 2026: 1,369 so far"
