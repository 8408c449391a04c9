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

from metronome.importer.summary import printable


@contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """Show a bar, what the columns say of its task, and how long it will take, while the block runs."""
    console = Console(stderr=True)
    everything = (BarColumn(), *columns, TimeRemainingColumn())
    with Progress(*everything, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress


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


Cell = str | int | float | None
Row = Sequence[Cell]

_PIPE_WIDTH: Final = 1_000_000
_LONGEST_TEXT: Final = 60
"""Longer texts are cut at a terminal that is not very wide, where they would leave no room for anything else."""
_SHORTEST_TEXT: Final = 12
_LONGEST_BAR: Final = 40
_SHORTEST_BAR: Final = 8
_GAP: Final = 2
_PLOT_LINES: Final = 8
_FEWEST_COLUMNS: Final = 3
_CHANGE: Final = ":change"
_LARGE: Final = 100
_LEFT: Final[JustifyMethod] = "left"
_RIGHT: Final[JustifyMethod] = "right"
_DRAWN_STYLE: Final = "cyan"


class Sheet:
    """What a command shows on standard output.

    At a terminal it is as wide as that: texts are cut, and bars are left out where there is no room. In a pipe it is
    plain text, whole, without bars and plots.
    """

    def __init__(self) -> None:
        if isinstance(sys.stdout, TextIOWrapper):
            # What a terminal cannot show is a question mark there, and no error.
            sys.stdout.reconfigure(errors="replace")
        console = Console(highlight=False)
        self._is_drawn = console.is_terminal
        self._console = console if self._is_drawn else Console(highlight=False, width=_PIPE_WIDTH, color_system=None)
        self._ascii_only = console.options.ascii_only

    def gap(self) -> None:
        """Leave a line empty."""
        self._console.print()

    def table(self, names: Sequence[str], rows: Sequence[Row], texts: int, measured: int | None = None) -> None:
        """Show rows under the names of their columns.

        Args:
            names: of the columns.
            rows: at least one, each with a cell for each column.
            texts: how many of the first columns hold texts; the others hold numbers.
            measured: which column bars are drawn for, where there is room.

        """
        header = [printable(name) for name in (_short(names) if self._is_drawn else names)]
        cells = [[written(cell, name) for name, cell in zip(names, row, strict=True)] for row in rows]
        widths = [max(map(cell_len, column)) for column in zip(header, *cells, strict=True)]
        if self._is_drawn:
            widths[:texts] = self._shrunk(widths, texts)
            if self._room(widths) < 0:
                self._list([printable(name) for name in names], cells)
                return
        bars = self._bars(rows, measured, self._room(widths))
        table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
        for at, name in enumerate(header):
            justify = _LEFT if at < texts else _RIGHT
            table.add_column(Text(name), justify=justify, no_wrap=True, overflow="ellipsis", width=widths[at])
        if bars:
            table.add_column("", no_wrap=True, style=_DRAWN_STYLE)
        for at, row in enumerate(cells):
            table.add_row(*map(Text, row), *([bars[at]] if bars else []))
        self._print(table)

    def plot(self, title: str, labels: Sequence[str], values: Sequence[float | None]) -> None:
        """Draw a series from left to right, at a terminal.

        Args:
            title: what it shows.
            labels: what its units are called; the first and the last are shown.
            values: as many, none below zero.

        """
        if not self._is_drawn or len(values) < _FEWEST_COLUMNS:
            return
        margin = max(cell_len(written(value)) for value in values) + 1
        drawn = plot(values, self._console.width - margin, _PLOT_LINES, ascii_only=self._ascii_only)
        if drawn is None:
            return
        self.gap()
        self._print(Text(" " * margin).append(printable(title), style="bold"))
        for at, line in enumerate(drawn.lines):
            scale = written(drawn.highest) if at == 0 else ""
            self._print(Text(f"{scale:>{margin - 1}} ").append(line, style=_DRAWN_STYLE))
        between = max(len(drawn.lines[0]) - cell_len(labels[0]) - cell_len(labels[-1]), 1)
        self._print(Text(" " * margin + labels[0] + " " * between + labels[-1]))

    def _room(self, widths: Sequence[int]) -> int:
        return self._console.width - sum(widths) - _GAP * len(widths)

    def _shrunk(self, widths: Sequence[int], texts: int) -> list[int]:
        """Cut the widest columns of texts until all fit."""
        longest = max(_LONGEST_TEXT, self._console.width // 2)
        shrunk = [min(width, longest) for width in widths[:texts]]
        while shrunk and max(shrunk) > _SHORTEST_TEXT and self._room([*shrunk, *widths[texts:]]) < 0:
            shrunk[shrunk.index(max(shrunk))] -= 1
        return shrunk

    def _bars(self, rows: Sequence[Row], measured: int | None, room: int) -> list[str]:
        if not self._is_drawn or measured is None or room < _SHORTEST_BAR:
            return []
        values = [value if isinstance(value := row[measured], (int, float)) else 0.0 for row in rows]
        width = min(room, _LONGEST_BAR)
        return [bar(value, max(values), width, ascii_only=self._ascii_only) for value in values]

    def _list(self, header: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        """Show each row as lines of its own, one for each column."""
        margin = max(map(cell_len, header)) + _GAP
        for row in cells:
            for name, cell in zip(header, row, strict=True):
                self._print(Text(name, style="bold").append(" " * (margin - cell_len(name))).append(cell, style="none"))
            self.gap()

    def _print(self, what: Text | Table) -> None:
        if self._is_drawn:
            self._console.print(what, no_wrap=True, overflow="ellipsis")
            return
        with self._console.capture() as captured:
            self._console.print(what, no_wrap=True, overflow="ignore")
        for line in captured.get().splitlines():
            sys.stdout.write(f"{line.rstrip()}\n")


def _short(names: Sequence[str]) -> list[str]:
    """Leave out of the names of columns that compare what the column before them has already."""
    short = [*names]
    for at, name in enumerate(names):
        if at > 1 and name.endswith(_CHANGE):
            short[at - 1 : at + 1] = [each.rpartition(":")[2] for each in names[at - 1 : at + 1]]
    return short


def note(text: str) -> None:
    """Say something that is no part of the answer, on standard error: a pipe has none of it."""
    typer.echo(printable(text), err=True)


def written(value: Cell, column: str = "") -> str:
    """Write a value for people.

    Args:
        value: nothing is a dash.
        column: where it stands; changes are written in per cent.

    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return printable(value)
    if column.endswith(_CHANGE):
        return f"{value:+,.1%}"
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= _LARGE:
        return f"{value:,.1f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"
