"""Ranges of UTC days, as they are given on the command line."""

from datetime import date
from typing import Annotated

import typer

from metronome.archive.inventory import DateRange
from metronome.errors import ConfigurationError

FirstDayOption = Annotated[
    str | None,
    typer.Option("--from", metavar="DAY", help="The first UTC day, as 2015-01-22.", show_default="the first of all"),
]
LastDayOption = Annotated[
    str | None,
    typer.Option("--to", metavar="DAY", help="The last UTC day, itself included.", show_default="the last of all"),
]


def parse_day_range(first: str | None, last: str | None) -> DateRange:
    """Read a range of days.

    Raises:
        ConfigurationError: one is no day, or the last lies before the first.

    """
    days = DateRange(_parse_day("--from", first), _parse_day("--to", last))
    if days.first is not None and days.last is not None and days.last < days.first:
        raise ConfigurationError(f"--to {last} lies before --from {first}")
    return days


def _parse_day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{option} is {text!r}: write a day as 2015-01-22") from None
