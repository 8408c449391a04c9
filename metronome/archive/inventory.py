"""What an archive holds: its objects, each with what its manifest says of it, and what is damaged.

Reads an archive's objects one after the other, some of them ahead, and tells of those that are damaged.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import Annotated, Final, NamedTuple

import typer

from metronome.archive.base import Archive
from metronome.archive.segments import MANIFESTS, OBJECT_PATTERN, Listed, Manifest, decode_manifest, unpack
from metronome.errors import Damaged
from metronome.server_client import Background

_AT_ONCE: Final = 16
_NEVER: Final = "9999"
"""When what no manifest lists has arrived: behind all else."""


@dataclass(frozen=True, slots=True)
class Holding:
    """An object of documents.

    Attributes:
        path: its name.
        day: the UTC day that its documents happened on.
        bytes: how large it is.
        listed: what its manifest says of it; None where no manifest lists it.
        arrived: when what it holds arrived, as a stamp.

    """

    path: str
    day: date
    bytes: int
    listed: Listed | None
    arrived: str


@dataclass(slots=True)
class Stock:
    """What an archive holds of some days.

    Attributes:
        holdings: its objects, in the order in which what they hold arrived.
        damages: a sentence for each manifest and object that is missing or no such thing.

    """

    holdings: list[Holding] = field(default_factory=list)
    damages: list[str] = field(default_factory=list)


class Days(NamedTuple):
    """A range of days.

    Attributes:
        first: its first; None for the beginning.
        last: its last, included; None for the end.

    """

    first: date | None = None
    last: date | None = None

    def __contains__(self, day: object) -> bool:
        """Tell whether a day is in it."""
        if not isinstance(day, date):
            return False
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


ALL_DAYS: Final = Days()


async def take_stock(archive: Archive, days: Days = ALL_DAYS, noted: Callable[[int], None] = lambda _: None) -> Stock:
    """Look what an archive holds of some days.

    Args:
        archive: is looked through.
        days: of these.
        noted: called with how many manifests have been read, now and then.

    """
    stock = Stock()
    listed: dict[str, tuple[Listed, str]] = {}
    async for manifest in _manifests(archive, stock.damages, noted):
        listed |= {one.path: (one, manifest.arrived[0]) for one in manifest.objects}
    found: set[str] = set()
    async for entry in archive.entries():
        day = _day_of(entry.path)
        if day is None:
            continue
        found.add(entry.path)
        of_manifest, arrived = listed.get(entry.path, (None, _NEVER))
        if day in days:
            stock.holdings.append(Holding(entry.path, day, entry.bytes, of_manifest, arrived))
    missing = (path for path in sorted(listed.keys() - found) if _day_of(path) in days)
    stock.damages += [f"{path} is missing, and its manifest lists it" for path in missing]
    stock.holdings.sort(key=lambda holding: (holding.arrived, holding.path.rpartition("/")[2], holding.path))
    return stock


async def fetch(archive: Archive, holding: Holding) -> bytes:
    """Return the documents of an object, a line each.

    Raises:
        Damaged: it is missing, or not what was written.

    """
    body = await archive.get(holding.path)
    return await asyncio.to_thread(unpack, holding.path, body, holding.listed)


def _day_of(path: str) -> date | None:
    """Return the day of an object of documents; None for all other objects."""
    if OBJECT_PATTERN.fullmatch(path) is None:
        return None
    try:
        return date.fromisoformat(path[:10].replace("/", "-"))
    except ValueError:
        return None


async def _manifests(archive: Archive, damages: list[str], noted: Callable[[int], None]) -> AsyncIterator[Manifest]:
    paths = iter(sorted([entry.path async for entry in archive.entries(MANIFESTS)]))
    read = 0
    while some := [*islice(paths, _AT_ONCE)]:
        for manifest in await asyncio.gather(*(_manifest(archive, path) for path in some)):
            if isinstance(manifest, Damaged):
                damages.append(str(manifest))
            else:
                yield manifest
        read += len(some)
        noted(read)


async def _manifest(archive: Archive, path: str) -> Manifest | Damaged:
    try:
        return decode_manifest(path, await archive.get(path))
    except Damaged as error:
        return error


Where = Annotated[
    str,
    typer.Argument(
        metavar="ARCHIVE",
        help="The archive: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder.",
    ),
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
