"""Tables and plots of results: with bars, as wide as the terminal; in a pipe plain text, in full."""

import sys
from collections.abc import Iterable, Sequence
from io import TextIOWrapper
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from metronome.cli.output import sanitize_for_terminal

_HORIZONTAL_BLOCKS: Final = " ▏▎▍▌▋▊▉█"
_VERTICAL_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS: Final = " #"
"""For terminals whose encoding is ASCII."""


class Plot(NamedTuple):
    """A drawn series.

    Attributes:
        lines: from top to bottom, all of the same width.
        maximum: the value at the top.

    """

    lines: list[str]
    maximum: float


def draw_bar(value: float, maximum: float, width: int, *, ascii_only: bool = False) -> str:
    """Draw a value as a bar; a value above zero is always visible.

    Args:
        value: the value; without a bar unless above zero.
        maximum: the value of the longest bar.
        width: length of the longest bar in characters.
        ascii_only: whether to draw in ASCII, in coarser steps.

    """
    if value <= 0 or maximum <= 0:
        return ""
    return _draw_line(
        min(value / maximum, 1.0) * width, width, _ASCII_BLOCKS if ascii_only else _HORIZONTAL_BLOCKS
    ).rstrip()


def draw_plot(
    values: Sequence[float | None], width: int, height: int, *, are_sums: bool = False, ascii_only: bool = False
) -> Plot | None:
    """Draw a series as columns of the same width, side by side.

    Args:
        values: missing and negative values are left blank. If there are more than fit, each column shows several
            adjacent ones, the same number in each.
        width: maximum width in characters.
        height: height in lines.
        are_sums: whether several values are added up, as counts are; otherwise, their mean is shown.
        ascii_only: as in `draw_bar`.

    Returns:
        The plot, or None if no value is above zero.

    """
    combined = _downsample(values, width, are_sums=are_sums)
    maximum = max((value for value in combined if value is not None), default=0.0)
    if maximum <= 0:
        return None
    blocks = _ASCII_BLOCKS if ascii_only else _VERTICAL_BLOCKS
    columns = [_draw_line(max(value or 0.0, 0.0) / maximum * height, height, blocks) for value in combined]
    column_width = width // len(combined)
    lines = ["".join(column[line] * column_width for column in columns) for line in reversed(range(height))]
    return Plot(lines, maximum)


def _draw_line(length: float, width: int, blocks: str) -> str:
    """Draw a length in blocks, the last of which may be partial; a length above zero is at least one partial block."""
    parts = len(blocks) - 1
    whole, rest = divmod(max(round(length * parts), 1 if length > 0 else 0), parts)
    return (blocks[-1] * whole + (blocks[rest] if rest else "")).ljust(width)


def _downsample(values: Sequence[float | None], width: int, *, are_sums: bool) -> list[float | None]:
    size = -(-len(values) // width)
    groups = (values[start : start + size] for start in range(0, len(values), size or 1))
    return [combine_values(group, are_sums=are_sums) for group in groups]


def combine_values(values: Iterable[float | None], *, are_sums: bool) -> float | None:
    """Return the sum or the mean of the values that are not missing; None if all are."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    return sum(numbers) if are_sums else sum(numbers) / len(numbers)


Cell = str | int | float | None
Row = Sequence[Cell]

_PIPE_WIDTH: Final = 1_000_000
_MAX_TEXT_WIDTH: Final = 60
"""Longer texts are truncated at a terminal of less than twice this width, to leave room for the other columns."""
_MIN_TEXT_WIDTH: Final = 12
_MAX_BAR_WIDTH: Final = 40
_MIN_BAR_WIDTH: Final = 8
_COLUMN_GAP: Final = 2
_PLOT_LINES: Final = 8
_MIN_PLOT_POINTS: Final = 3
_PLOT_MARGIN: Final = 10
_PLOT_PASSES: Final = 3
_CHANGE_SUFFIX: Final = ":change"
_ONE_DECIMAL_FROM: Final = 100
_SHORT_FROM: Final = 10_000
_UNIT_SUFFIXES: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_LEFT: Final[JustifyMethod] = "left"
_RIGHT: Final[JustifyMethod] = "right"
_CHART_STYLE: Final = "cyan"


class ResultPrinter:
    """Prints results on standard output.

    At a terminal, long texts are truncated and bars are omitted if they do not fit. In a pipe, texts are printed in
    full, without bars and plots.
    """

    def __init__(self) -> None:
        if isinstance(sys.stdout, TextIOWrapper):
            # A character that the terminal's encoding lacks is shown as a question mark.
            sys.stdout.reconfigure(errors="replace")
        console = Console(highlight=False)
        self._is_terminal = console.is_terminal
        self._console = console if self._is_terminal else Console(highlight=False, width=_PIPE_WIDTH, color_system=None)
        self._ascii_only = console.options.ascii_only

    def print_blank_line(self) -> None:
        """Print an empty line."""
        self._console.print()

    def print_table(
        self, names: Sequence[str], rows: Sequence[Row], text_columns: int, bar_column: int | None = None
    ) -> None:
        """Print rows below the names of their columns.

        Args:
            names: names of the columns.
            rows: at least one row, with a cell for each column.
            text_columns: how many of the first columns hold texts; the others hold numbers.
            bar_column: index of the column that bars are drawn for, if they fit.

        """
        header = [sanitize_for_terminal(name) for name in (_shorten_headers(names) if self._is_terminal else names)]
        cells = [[format_cell(cell, name) for name, cell in zip(names, row, strict=True)] for row in rows]
        widths = [max(map(cell_len, column)) for column in zip(header, *cells, strict=True)]
        if self._is_terminal:
            if self._free_width([*self._shrink_widths(widths, text_columns), *widths[text_columns:]]) < 0:
                short_cells = [
                    [format_cell(cell, name, short=True) for name, cell in zip(names, row, strict=True)] for row in rows
                ]
                widths = [max(map(cell_len, column)) for column in zip(header, *short_cells, strict=True)]
                if self._free_width([*self._shrink_widths(widths, text_columns), *widths[text_columns:]]) < 0:
                    self._print_records([sanitize_for_terminal(name) for name in names], cells)
                    return
                cells = short_cells
            widths[:text_columns] = self._shrink_widths(widths, text_columns)
        bars = self._draw_bars(rows, bar_column, self._free_width(widths))
        table = Table(box=None, padding=(0, _COLUMN_GAP, 0, 0), pad_edge=False, header_style="bold")
        for index, name in enumerate(header):
            justify = _LEFT if index < text_columns else _RIGHT
            table.add_column(Text(name), justify=justify, no_wrap=True, overflow="ellipsis", width=widths[index])
        if bars:
            table.add_column("", no_wrap=True, style=_CHART_STYLE)
        for index, row in enumerate(cells):
            table.add_row(*map(Text, row), *([bars[index]] if bars else []))
        self._print(table)

    @property
    def plot_columns(self) -> int:
        """How many values a plot shows side by side."""
        return max(1, self._console.width - _PLOT_MARGIN)

    def print_plot(
        self, title: str, labels: Sequence[str], values: Sequence[float | None], *, are_sums: bool = False
    ) -> None:
        """Plot a series, if standard output is a terminal.

        Args:
            title: title of the plot.
            labels: labels of the values; the first and the last are shown.
            values: one for each label, none below zero.
            are_sums: as in `draw_plot`.

        """
        if not self._is_terminal or len(values) < _MIN_PLOT_POINTS:
            return
        margin, plot = 1, None
        # The width of the scale depends on what is drawn, and what is drawn on the width that it leaves.
        for _ in range(_PLOT_PASSES):
            width = max(1, self._console.width - margin)
            plot = draw_plot(values, width, _PLOT_LINES, are_sums=are_sums, ascii_only=self._ascii_only)
            margin = cell_len(format_cell(plot.maximum, short=True)) + 1 if plot else 1
        if plot is None:
            return
        self.print_blank_line()
        self._print(Text(" " * margin).append(sanitize_for_terminal(title), style="bold"))
        for index, line in enumerate(plot.lines):
            scale = format_cell(plot.maximum, short=True) if index == 0 else ""
            self._print(Text(f"{scale:>{margin - 1}} ").append(line, style=_CHART_STYLE))
        gap = max(len(plot.lines[0]) - cell_len(labels[0]) - cell_len(labels[-1]), 1)
        self._print(Text(" " * margin + labels[0] + " " * gap + labels[-1]))

    def _free_width(self, widths: Sequence[int]) -> int:
        return self._console.width - sum(widths) - _COLUMN_GAP * len(widths)

    def _shrink_widths(self, widths: Sequence[int], text_columns: int) -> list[int]:
        """Shrink the widest text columns until all columns fit."""
        max_width = max(_MAX_TEXT_WIDTH, self._console.width // 2)
        shrunk = [min(width, max_width) for width in widths[:text_columns]]
        while shrunk and max(shrunk) > _MIN_TEXT_WIDTH and self._free_width([*shrunk, *widths[text_columns:]]) < 0:
            shrunk[shrunk.index(max(shrunk))] -= 1
        return shrunk

    def _draw_bars(self, rows: Sequence[Row], bar_column: int | None, free_width: int) -> list[str]:
        if not self._is_terminal or bar_column is None or free_width < _MIN_BAR_WIDTH:
            return []
        values = [value if isinstance(value := row[bar_column], (int, float)) else 0.0 for row in rows]
        width = min(free_width, _MAX_BAR_WIDTH)
        return [draw_bar(value, max(values), width, ascii_only=self._ascii_only) for value in values]

    def _print_records(self, header: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        """Print each row as several lines, one for each column."""
        margin = max(map(cell_len, header)) + _COLUMN_GAP
        for row in cells:
            for name, cell in zip(header, row, strict=True):
                self._print(Text(name, style="bold").append(" " * (margin - cell_len(name))).append(cell, style="none"))
            self.print_blank_line()

    def _print(self, renderable: Text | Table) -> None:
        if self._is_terminal:
            self._console.print(renderable, no_wrap=True, overflow="ellipsis")
            return
        with self._console.capture() as captured:
            self._console.print(renderable, no_wrap=True, overflow="ignore")
        for line in captured.get().splitlines():
            sys.stdout.write(f"{line.rstrip()}\n")


def _shorten_headers(names: Sequence[str]) -> list[str]:
    """Remove from the names of comparison columns the metric, which the column before them has already."""
    headers = [*names]
    for index, name in enumerate(names):
        if index > 1 and name.endswith(_CHANGE_SUFFIX):
            headers[index - 1 : index + 1] = [column.rpartition(":")[2] for column in names[index - 1 : index + 1]]
    return headers


def format_cell(value: Cell, column: str = "", *, short: bool = False) -> str:
    """Format a value of a table.

    Args:
        value: the value; None is shown as a dash.
        column: name of its column; values of ``:change`` columns are shown as percentages.
        short: whether to abbreviate large numbers, such as 1.2M.

    """
    if value is None or isinstance(value, str):
        return "-" if value is None else sanitize_for_terminal(value)
    if column.endswith(_CHANGE_SUFFIX):
        return f"{value:+,.1%}"
    if short and abs(value) >= _SHORT_FROM:
        size, suffix = next((size, suffix) for size, suffix in _UNIT_SUFFIXES if abs(value) >= size)
        return f"{value / size:,.1f}{suffix}"
    decimals = 0 if value == int(value) else 1 if abs(value) >= _ONE_DECIMAL_FROM else 2
    return f"{value:.3g}" if 0 < abs(value) < 1 else f"{value:,.{decimals}f}"
