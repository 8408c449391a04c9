"""Reads an archive's objects one after the other, some of them ahead, and tells of those that are damaged."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from datetime import date
from typing import Annotated, Final

import typer

from metronome.archives.archive import Archive
from metronome.archives.stock import Days, Holding, fetch
from metronome.cli.background import Background
from metronome.errors import Damaged, Misconfigured

Where = Annotated[
    str,
    typer.Argument(
        metavar="ARCHIVE",
        help="The archive: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder.",
    ),
]
FirstDay = Annotated[
    str | None, typer.Option("--from", metavar="DAY", help="The first day, UTC.", show_default="the first of all")
]
LastDay = Annotated[
    str | None, typer.Option("--to", metavar="DAY", help="The last day, included.", show_default="the last of all")
]

_AHEAD: Final = 6
_AHEAD_BYTES: Final = 32 * 2**20
"""So much of compressed objects is fetched ahead at the most, but always one object."""


def fetched(
    background: Background, archive: Archive, holdings: Iterable[Holding]
) -> Iterator[tuple[Holding, bytes | Damaged]]:
    """Yield each object's documents, a line each, or what is wrong with it; in the order of the objects.

    Raises:
        ArchiveAway: the archive does not answer.
        ArchiveDenied: it lets nobody read.

    """
    waiting = iter(holdings)
    ahead: deque[tuple[Holding, Future[bytes]]] = deque()
    following = next(waiting, None)
    while ahead or following is not None:
        size = sum(holding.bytes for holding, _ in ahead)
        while following is not None and (not ahead or (len(ahead) < _AHEAD and size < _AHEAD_BYTES)):
            ahead.append((following, background.begin(fetch(archive, following))))
            size += following.bytes
            following = next(waiting, None)
        holding, future = ahead.popleft()
        try:
            yield holding, future.result()
        except Damaged as error:
            yield holding, error


def read_days(first: str | None, last: str | None) -> Days:
    """Read a range of days as it is given on the command line.

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
