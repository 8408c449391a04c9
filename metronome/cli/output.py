"""Answers as tables: for people at a terminal, with bars and small plots, or plain for a pipe.

The bars that show how far a command is: in a terminal only, and gone when it is done.

Small plots out of characters: pure functions.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import groupby
from typing import Final, NamedTuple

import typer
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, Progress, ProgressColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from metronome.importer.summary import sanitize_for_terminal


@contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """Show a bar, what the columns say of its task, and how long it will take, while the block runs."""
    console = Console(stderr=True)
    everything = (BarColumn(), *columns, TimeRemainingColumn())
    with Progress(*everything, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress


_HORIZONTAL_BLOCKS: Final = " ▏▎▍▌▋▊▉█"
_VERTICAL_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS: Final = " #"
"""For terminals that can show nothing but ASCII."""


class Plot(NamedTuple):
    """A series, drawn.

    Attributes:
        lines: the uppermost first, all equally wide.
        highest: the value that is as high as the plot.

    """

    lines: list[str]
    maximum: float


def draw_bar(value: float, maximum: float, width: int, *, ascii_only: bool = False) -> str:
    """Draw a value as a bar; whatever is more than nothing can be seen.

    Args:
        value: what is drawn; nothing is for what is not above zero.
        maximum: the value of a bar that is as long as can be.
        width: how long that is, in characters.
        ascii_only: whether to draw what every terminal shows, in coarser steps.

    """
    if value <= 0 or maximum <= 0:
        return ""
    return _draw_line(
        min(value / maximum, 1.0) * width, width, _ASCII_BLOCKS if ascii_only else _HORIZONTAL_BLOCKS
    ).rstrip()


def draw_plot(values: Sequence[float | None], width: int, height: int, *, ascii_only: bool = False) -> Plot | None:
    """Draw a series as columns side by side, equally wide.

    Args:
        values: where there is none, or one below zero, nothing is drawn. Where there are more than fit, a column
            shows the mean of a few that follow each other.
        width: in characters, at the most.
        height: in lines.
        ascii_only: as in `draw_bar`.

    Returns:
        The plot, or None where there is nothing to be seen.

    """
    means = _downsample(values, width)
    highest = max((value for value in means if value is not None), default=0.0)
    if highest <= 0:
        return None
    steps = _ASCII_BLOCKS if ascii_only else _VERTICAL_BLOCKS
    upright = [_draw_line(max(value or 0.0, 0.0) / highest * height, height, steps) for value in means]
    each = width // len(means)
    lines = ["".join(column[line] * each for column in upright) for line in reversed(range(height))]
    return Plot(lines, highest)


def _draw_line(length: float, width: int, blocks: str) -> str:
    """Draw a length in characters, the last of which may be a part; more than nothing is at least the least part."""
    parts = len(blocks) - 1
    drawn = max(round(length * parts), 1 if length > 0 else 0)
    whole, rest = divmod(drawn, parts)
    return (blocks[-1] * whole + (blocks[rest] if rest else "")).ljust(width)


def _downsample(values: Sequence[float | None], width: int) -> list[float | None]:
    """Put values together, so that there are no more than fit."""
    if len(values) <= width:
        return list(values)
    groups = groupby(enumerate(values), lambda pair: pair[0] * width // len(values))
    return [_mean([value for _, value in group]) for _, group in groups]


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


Cell = str | int | float | None
Row = Sequence[Cell]

_PIPE_WIDTH: Final = 1_000_000
_MAX_TEXT_WIDTH: Final = 60
"""Longer texts are cut at a terminal that is not very wide, where they would leave no room for anything else."""
_MIN_TEXT_WIDTH: Final = 12
_MAX_BAR_WIDTH: Final = 40
_MIN_BAR_WIDTH: Final = 8
_COLUMN_GAP: Final = 2
_PLOT_LINES: Final = 8
_MIN_PLOT_POINTS: Final = 3
_CHANGE_SUFFIX: Final = ":change"
_ONE_DECIMAL_FROM: Final = 100
_LEFT: Final[JustifyMethod] = "left"
_RIGHT: Final[JustifyMethod] = "right"
_CHART_STYLE: Final = "cyan"


class ResultPrinter:
    """What a command shows on standard output.

    At a terminal it is as wide as that: texts are cut, and bars are left out where there is no room. In a pipe it is
    plain text, whole, without bars and plots.
    """

    def __init__(self) -> None:
        if isinstance(sys.stdout, TextIOWrapper):
            # What a terminal cannot show is a question mark there, and no error.
            sys.stdout.reconfigure(errors="replace")
        console = Console(highlight=False)
        self._is_terminal = console.is_terminal
        self._console = console if self._is_terminal else Console(highlight=False, width=_PIPE_WIDTH, color_system=None)
        self._ascii_only = console.options.ascii_only

    def print_blank_line(self) -> None:
        """Leave a line empty."""
        self._console.print()

    def print_table(
        self, names: Sequence[str], rows: Sequence[Row], text_columns: int, bar_column: int | None = None
    ) -> None:
        """Show rows under the names of their columns.

        Args:
            names: of the columns.
            rows: at least one, each with a cell for each column.
            text_columns: how many of the first columns hold texts; the others hold numbers.
            bar_column: which column bars are drawn for, where there is room.

        """
        header = [sanitize_for_terminal(name) for name in (_shorten_headers(names) if self._is_terminal else names)]
        cells = [[format_cell(cell, name) for name, cell in zip(names, row, strict=True)] for row in rows]
        widths = [max(map(cell_len, column)) for column in zip(header, *cells, strict=True)]
        if self._is_terminal:
            widths[:text_columns] = self._shrink_widths(widths, text_columns)
            if self._free_width(widths) < 0:
                self._print_records([sanitize_for_terminal(name) for name in names], cells)
                return
        bars = self._draw_bars(rows, bar_column, self._free_width(widths))
        table = Table(box=None, padding=(0, _COLUMN_GAP, 0, 0), pad_edge=False, header_style="bold")
        for at, name in enumerate(header):
            justify = _LEFT if at < text_columns else _RIGHT
            table.add_column(Text(name), justify=justify, no_wrap=True, overflow="ellipsis", width=widths[at])
        if bars:
            table.add_column("", no_wrap=True, style=_CHART_STYLE)
        for at, row in enumerate(cells):
            table.add_row(*map(Text, row), *([bars[at]] if bars else []))
        self._print(table)

    def print_plot(self, title: str, labels: Sequence[str], values: Sequence[float | None]) -> None:
        """Draw a series from left to right, at a terminal.

        Args:
            title: what it shows.
            labels: what its units are called; the first and the last are shown.
            values: as many, none below zero.

        """
        if not self._is_terminal or len(values) < _MIN_PLOT_POINTS:
            return
        margin = max(cell_len(format_cell(value)) for value in values) + 1
        drawn = draw_plot(values, self._console.width - margin, _PLOT_LINES, ascii_only=self._ascii_only)
        if drawn is None:
            return
        self.print_blank_line()
        self._print(Text(" " * margin).append(sanitize_for_terminal(title), style="bold"))
        for at, line in enumerate(drawn.lines):
            scale = format_cell(drawn.maximum) if at == 0 else ""
            self._print(Text(f"{scale:>{margin - 1}} ").append(line, style=_CHART_STYLE))
        between = max(len(drawn.lines[0]) - cell_len(labels[0]) - cell_len(labels[-1]), 1)
        self._print(Text(" " * margin + labels[0] + " " * between + labels[-1]))

    def _free_width(self, widths: Sequence[int]) -> int:
        return self._console.width - sum(widths) - _COLUMN_GAP * len(widths)

    def _shrink_widths(self, widths: Sequence[int], text_columns: int) -> list[int]:
        """Cut the widest columns of texts until all fit."""
        longest = max(_MAX_TEXT_WIDTH, self._console.width // 2)
        shrunk = [min(width, longest) for width in widths[:text_columns]]
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
        """Show each row as lines of its own, one for each column."""
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
    """Leave out of the names of columns that compare what the column before them has already."""
    short = [*names]
    for at, name in enumerate(names):
        if at > 1 and name.endswith(_CHANGE_SUFFIX):
            short[at - 1 : at + 1] = [each.rpartition(":")[2] for each in names[at - 1 : at + 1]]
    return short


def print_note(text: str) -> None:
    """Say something that is no part of the answer, on standard error: a pipe has none of it."""
    typer.echo(sanitize_for_terminal(text), err=True)


def format_cell(value: Cell, column: str = "") -> str:
    """Write a value for people.

    Args:
        value: nothing is a dash.
        column: where it stands; changes are written in per cent.

    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return sanitize_for_terminal(value)
    if column.endswith(_CHANGE_SUFFIX):
        return f"{value:+,.1%}"
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= _ONE_DECIMAL_FROM:
        return f"{value:,.1f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"
