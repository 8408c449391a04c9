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
from metronome.archive.segments import (
    MANIFEST_PREFIX,
    OBJECT_PATH_PATTERN,
    Manifest,
    ManifestEntry,
    decode_manifest,
    decompress_object,
)
from metronome.errors import ArchiveDamaged
from metronome.server_client import EventLoopThread

_CONCURRENT_READS: Final = 16
_UNLISTED_RECEIVED_AT: Final = "9999"
"""When what no manifest lists has arrived: behind all else."""


@dataclass(frozen=True, slots=True)
class ArchiveObject:
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
    size: int
    manifest_entry: ManifestEntry | None
    received_at: str


@dataclass(slots=True)
class Inventory:
    """What an archive holds of some days.

    Attributes:
        holdings: its objects, in the order in which what they hold arrived.
        damages: a sentence for each manifest and object that is missing or no such thing.

    """

    objects: list[ArchiveObject] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class DateRange(NamedTuple):
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


ALL_DATES: Final = DateRange()


async def list_objects(
    archive: Archive, dates: DateRange = ALL_DATES, on_progress: Callable[[int], None] = lambda _: None
) -> Inventory:
    """Look what an archive holds of some days.

    Args:
        archive: is looked through.
        dates: of these.
        on_progress: called with how many manifests have been read, now and then.

    """
    stock = Inventory()
    listed: dict[str, tuple[ManifestEntry, str]] = {}
    async for manifest in _iterate_manifests(archive, stock.errors, on_progress):
        listed |= {one.path: (one, manifest.received_between[0]) for one in manifest.objects}
    found: set[str] = set()
    async for entry in archive.iterate_objects():
        day = _object_date(entry.path)
        if day is None:
            continue
        found.add(entry.path)
        of_manifest, arrived = listed.get(entry.path, (None, _UNLISTED_RECEIVED_AT))
        if day in dates:
            stock.objects.append(ArchiveObject(entry.path, day, entry.size, of_manifest, arrived))
    missing = (path for path in sorted(listed.keys() - found) if _object_date(path) in dates)
    stock.errors += [f"{path} is missing, and its manifest lists it" for path in missing]
    stock.objects.sort(key=lambda holding: (holding.received_at, holding.path.rpartition("/")[2], holding.path))
    return stock


async def read_object(archive: Archive, archive_object: ArchiveObject) -> bytes:
    """Return the documents of an object, a line each.

    Raises:
        Damaged: it is missing, or not what was written.

    """
    body = await archive.get(archive_object.path)
    return await asyncio.to_thread(decompress_object, archive_object.path, body, archive_object.manifest_entry)


def _object_date(path: str) -> date | None:
    """Return the day of an object of documents; None for all other objects."""
    if OBJECT_PATH_PATTERN.fullmatch(path) is None:
        return None
    try:
        return date.fromisoformat(path[:10].replace("/", "-"))
    except ValueError:
        return None


async def _iterate_manifests(
    archive: Archive, errors: list[str], on_progress: Callable[[int], None]
) -> AsyncIterator[Manifest]:
    paths = iter(sorted([entry.path async for entry in archive.iterate_objects(MANIFEST_PREFIX)]))
    read = 0
    while some := [*islice(paths, _CONCURRENT_READS)]:
        for manifest in await asyncio.gather(*(_read_manifest(archive, path) for path in some)):
            if isinstance(manifest, ArchiveDamaged):
                errors.append(str(manifest))
            else:
                yield manifest
        read += len(some)
        on_progress(read)


async def _read_manifest(archive: Archive, path: str) -> Manifest | ArchiveDamaged:
    try:
        return decode_manifest(path, await archive.get(path))
    except ArchiveDamaged as error:
        return error


ArchiveArgument = Annotated[
    str,
    typer.Argument(
        metavar="ARCHIVE",
        help="The archive: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder.",
    ),
]
_PREFETCH_OBJECTS: Final = 6
_PREFETCH_MAX_BYTES: Final = 32 * 2**20
"""So much of compressed objects is fetched ahead at the most, but always one object."""


def read_objects(
    loop_thread: EventLoopThread, archive: Archive, objects: Iterable[ArchiveObject]
) -> Iterator[tuple[ArchiveObject, bytes | ArchiveDamaged]]:
    """Yield each object's documents, a line each, or what is wrong with it; in the order of the objects.

    Raises:
        ArchiveUnavailable: the archive does not answer.
        ArchiveAccessDenied: it lets nobody read.

    """
    waiting = iter(objects)
    ahead: deque[tuple[ArchiveObject, Future[bytes]]] = deque()
    following = next(waiting, None)
    while ahead or following is not None:
        size = sum(holding.size for holding, _ in ahead)
        while following is not None and (not ahead or (len(ahead) < _PREFETCH_OBJECTS and size < _PREFETCH_MAX_BYTES)):
            ahead.append((following, loop_thread.submit(read_object(archive, following))))
            size += following.size
            following = next(waiting, None)
        holding, future = ahead.popleft()
        try:
            yield holding, future.result()
        except ArchiveDamaged as error:
            yield holding, error
