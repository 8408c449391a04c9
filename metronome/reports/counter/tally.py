"""The tally: investigations and requests, total and unique, by item, month and access method.

Section 6.3 of the Code of Practice (see `metronome.reports.counter`): *investigations* are whatever people did with
a dataset, *requests* those of them that retrieved it; *total* ones are all, less double clicks, *unique* ones at most
one for each user session and dataset.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from metronome.errors import TooCostly
from metronome.reports.counter.clicks import Click

METRICS: Final = ("total_investigations", "unique_investigations", "total_requests", "unique_requests")
"""What is counted, in the order of all lists of four numbers here."""

MOST_CELLS: Final = 200_000
"""How many cells a tally has at most: a hundred megabytes or so."""


class Cell(NamedTuple):
    """What is counted together; machines are script and tools, the others are people."""

    item: str
    month: str
    is_machine: bool


class Counts:
    """The four numbers of one cell, and how many of each came from which country, where that is known.

    Attributes:
        numbers: by `METRICS`.
        countries: likewise, for each country. A unique one is of the country where its session began.

    """

    __slots__ = ("countries", "numbers")

    def __init__(self) -> None:
        self.numbers = [0, 0, 0, 0]
        self.countries: dict[str, list[int]] = {}

    def add(self, country: str | None, added: tuple[int, int, int, int]) -> None:
        """Count so many of each metric more."""
        _add(self.numbers, added)
        if country is not None:
            _add(self.countries.setdefault(country, [0, 0, 0, 0]), added)


class Tally:
    """Everything counted so far; its memory grows with cells and countries, not with events.

    Args:
        most: how many cells it may have.

    """

    def __init__(self, most: int = MOST_CELLS) -> None:
        self.cells: dict[Cell, Counts] = {}
        self._most = most

    def count_clicks(self, clicks: Iterable[Click]) -> None:
        """Count one user's clicks, double ones removed, oldest first.

        Raises:
            TooCostly: there are too many cells.

        """
        investigated: set[tuple[object, ...]] = set()
        requested: set[tuple[object, ...]] = set()
        for click in clicks:
            once = (click.item, click.is_machine, click.session)
            first = once not in investigated
            investigated.add(once)
            first_request = click.is_request and once not in requested
            if click.is_request:
                requested.add(once)
            cell = Cell(click.item, click.month, click.is_machine)
            self._counts(cell).add(click.country, (1, first, click.is_request, first_request))

    def count_alone(self, cell: Cell, country: str | None, number: int, *, are_requests: bool) -> None:
        """Count clicks of which nobody knows whose they are: each is a session of its own.

        Raises:
            TooCostly: there are too many cells.

        """
        requests = number if are_requests else 0
        self._counts(cell).add(country, (number, number, requests, requests))

    def _counts(self, cell: Cell) -> Counts:
        counts = self.cells.get(cell)
        if counts is None:
            if len(self.cells) >= self._most:
                raise TooCostly(
                    f"more than {self._most:,} numbers of items and months: ask for a month at a time, or for one item"
                )
            counts = self.cells[cell] = Counts()
        return counts


def _add(numbers: list[int], added: tuple[int, int, int, int]) -> None:
    for at, number in enumerate(added):
        numbers[at] += number
