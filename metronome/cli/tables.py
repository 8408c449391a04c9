"""Answers as tables: for people at a terminal, with bars and small plots, or plain for a pipe."""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Final

import typer
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from metronome.cli.plots import bar, plot
from metronome.cli.tally import printable

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
