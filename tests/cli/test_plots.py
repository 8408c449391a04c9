"""Bars and plots are drawn in characters."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.cli.query import fit_series
from metronome.cli.tables import draw_bar, draw_plot, format_cell

VALUES = st.just(0) | st.floats(1e-3, 1e15) | st.integers(0, 10**18)


@pytest.mark.parametrize(
    ("value", "drawn"),
    [(0, ""), (-1, ""), (8, "████"), (4, "██"), (5, "██▌"), (1, "▌"), (0.001, "▏"), (9, "████")],
)
def test_a_bar_is_as_long_as_its_value(value: float, drawn: str) -> None:
    assert draw_bar(value, 8, 4) == drawn


@pytest.mark.parametrize(("value", "drawn"), [(0, ""), (8, "####"), (5, "##"), (0.001, "#")])
def test_an_ascii_bar_is_coarser(value: float, drawn: str) -> None:
    assert draw_bar(value, 8, 4, ascii_only=True) == drawn


def test_draws_a_series_as_columns_of_the_same_width() -> None:
    drawn = draw_plot([0, 1, None, 4, 8], 11, 2)
    assert drawn is not None
    assert drawn.lines == ["        ██", "  ▂▂  ████"]
    assert drawn.maximum == 8


def test_draws_means_of_a_series_with_more_values_than_columns() -> None:
    drawn = draw_plot([1, 3, 8, 8, None, None, 4, None], 4, 1, ascii_only=True)
    assert drawn is not None
    assert (drawn.lines, drawn.maximum) == (["## #"], 8.0)


def test_adds_up_counts_of_a_series_with_more_values_than_columns() -> None:
    drawn = draw_plot([1, 3, 8, 0, None, None, 4, None, 2], 5, 1, are_sums=True, ascii_only=True)
    assert drawn is not None
    assert (drawn.lines, drawn.maximum) == (["## ##"], 8.0)
    # Equal values are equally high, however many there are for each column.
    drawn = draw_plot([1] * 120, 40, 4, are_sums=True)
    assert drawn is not None
    assert set(drawn.lines) == {"█" * 40}


@pytest.mark.parametrize("values", [[], [0, 0], [None], [-1, -2]])
def test_where_nothing_is_to_be_seen_nothing_is_drawn(values: list[float | None]) -> None:
    assert draw_plot(values, 10, 2) is None


@given(st.lists(VALUES | st.none(), max_size=200), st.integers(1, 100), st.integers(1, 10), st.booleans())
def test_a_plot_fits_its_room_and_shows_whatever_is_more_than_nothing(
    values: list[float | None],
    width: int,
    height: int,
    ascii_only: bool,  # noqa: FBT001  # drawn
) -> None:
    drawn = draw_plot(values, width, height, ascii_only=ascii_only)
    if drawn is None:
        assert not any(values)
        return
    assert len(drawn.lines) == height
    assert {len(line) for line in drawn.lines} == {len(drawn.lines[0])}
    assert 0 < len(drawn.lines[0]) <= width
    if len(values) <= width:
        each = len(drawn.lines[0]) // len(values)
        shown = [drawn.lines[-1][at * each] != " " for at in range(len(values))]
        assert shown == [bool(value) for value in values]
    for above, below in pairwise(drawn.lines):
        assert all(lower != " " for upper, lower in zip(above, below, strict=True) if upper != " ")


@given(VALUES, VALUES, st.integers(1, 60), st.booleans())
def test_a_bar_fits_its_room(value: float, most: float, width: int, ascii_only: bool) -> None:  # noqa: FBT001  # drawn
    drawn = draw_bar(value, most, width, ascii_only=ascii_only)
    assert len(drawn) <= width
    assert bool(drawn) == (value > 0 and most > 0)


@pytest.mark.slow
def test_a_long_series_has_a_unit_that_fits() -> None:
    days = {"2015-01-22": 3, "2019-06-01": 4, "2019-06-02": 5, "2024-12-31": 1}
    assert fit_series(days, "day", "UTC", 3650, are_sums=True) == ("day", days)
    months = {"2015-01": 3, "2019-06": 9, "2024-12": 1}
    assert fit_series(days, "day", "UTC", 150, are_sums=True) == ("month", months)
    assert fit_series(days, "day", "UTC", 150, are_sums=False)[1] == {**months, "2019-06": 4.5}
    assert fit_series(days, "day", "UTC", 2, are_sums=True) == ("year", {"2015": 3, "2019": 9, "2024": 1})
    minutes = {"2015-01-22T09:30:00Z": 1, "2015-01-22T09:45:00Z": 2, "2034-01-22T10:00:00Z": 3}
    assert fit_series(minutes, "minute", "Europe/Zurich", 80, are_sums=True) == (
        "quarter",
        {"2015-Q1": 3, "2034-Q1": 3},
    )
    assert fit_series({}, "day", "UTC", 80, are_sums=True) == ("day", {})


@pytest.mark.parametrize(
    ("value", "text"),
    [(9999, "9,999"), (12_345, "12.3k"), (1_250_000, "1.2M"), (-4e9, "-4.0G"), (0.5, "0.5"), (None, "-"), ("x", "x")],
)
def test_numbers_are_shortened_where_they_do_not_fit(value: float | str | None, text: str) -> None:
    assert format_cell(value, short=True) == text
