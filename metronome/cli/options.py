"""Ranges of UTC days, as they are given on the command line."""

from datetime import date
from typing import Annotated

import typer

from metronome.archive.inventory import Days
from metronome.errors import Misconfigured

FirstDay = Annotated[
    str | None,
    typer.Option("--from", metavar="DAY", help="The first UTC day, as 2015-01-22.", show_default="the first of all"),
]
LastDay = Annotated[
    str | None,
    typer.Option("--to", metavar="DAY", help="The last UTC day, itself included.", show_default="the last of all"),
]


def read_days(first: str | None, last: str | None) -> Days:
    """Read a range of days.

    Raises:
        Misconfigured: one is no day, or the last lies before the first.

    """
    days = Days(_read_day("--from", first), _read_day("--to", last))
    if days.first is not None and days.last is not None and days.last < days.first:
        raise Misconfigured(f"--to {last} lies before --from {first}")
    return days


def _read_day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Misconfigured(f"{option} is {text!r}: write a day as 2015-01-22") from None
