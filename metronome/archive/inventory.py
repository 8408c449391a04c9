"""List the objects of an archive, and read them in order, some of them ahead."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import Final

from metronome.archive.base import Archive, DateRange
from metronome.archive.segments import (
    MANIFEST_PREFIX,
    OBJECT_PATH_PATTERN,
    Manifest,
    ManifestEntry,
    decode_manifest,
    decompress_object,
    verify_object,
)
from metronome.errors import ArchiveDamaged
from metronome.server_client import EventLoopThread

_CONCURRENT_READS: Final = 16
_PREFETCH_OBJECTS: Final = 6
_PREFETCH_MAX_BYTES: Final = 32 * 2**20
"""Maximum size of the objects that are read ahead; one object is always."""
_UNLISTED_RECEIVED_AT: Final = "9999"
"""Sorts objects that no manifest lists after all others."""


@dataclass(frozen=True, slots=True)
class ArchiveObject:
    """An object that holds documents.

    Attributes:
        path: path of the object.
        day: UTC day of its documents.
        size: size in bytes.
        manifest_entry: its entry in a manifest; None if no manifest lists it.
        received_at: timestamp at which the first document of its manifest was received.
        received_until: timestamp at which the last one was; empty if no manifest lists it.

    """

    path: str
    day: date
    size: int
    manifest_entry: ManifestEntry | None
    received_at: str
    received_until: str = ""


@dataclass(slots=True)
class Inventory:
    """The objects of an archive in a range of days.

    Attributes:
        objects: the objects, in the order in which their documents were received.
        errors: a sentence for each invalid manifest and each missing object.

    """

    objects: list[ArchiveObject] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


ALL_DATES: Final = DateRange()


async def list_objects(
    archive: Archive, dates: DateRange = ALL_DATES, on_progress: Callable[[int], None] = lambda _: None
) -> Inventory:
    """List the objects of an archive.

    Args:
        archive: the archive.
        dates: days to list.
        on_progress: called with the number of manifests read so far, now and then.

    """
    inventory = Inventory()
    listed: dict[str, tuple[ManifestEntry, str, str]] = {}
    async for manifest in _iterate_manifests(archive, inventory.errors, on_progress):
        listed |= {entry.path: (entry, *manifest.received_between) for entry in manifest.objects}
    present: set[str] = set()
    async for info in archive.iterate_objects():
        day = _object_date(info.path)
        if day is None:
            continue
        present.add(info.path)
        entry, received_at, received_until = listed.get(info.path, (None, _UNLISTED_RECEIVED_AT, ""))
        if day in dates:
            inventory.objects.append(ArchiveObject(info.path, day, info.size, entry, received_at, received_until))
    missing = (path for path in sorted(listed.keys() - present) if _object_date(path) in dates)
    inventory.errors += [f"{path} is missing, but its manifest lists it" for path in missing]
    inventory.objects.sort(key=lambda item: (item.received_at, item.path.rpartition("/")[2], item.path))
    return inventory


async def read_object(archive: Archive, archive_object: ArchiveObject, *, decompress: bool = True) -> bytes:
    """Return the documents of an object as NDJSON, or the object itself, gzipped.

    Raises:
        ArchiveDamaged: the object is missing, or not as it was written.

    """
    body = await archive.get(archive_object.path)
    read = decompress_object if decompress else verify_object
    return await asyncio.to_thread(read, archive_object.path, body, archive_object.manifest_entry)


def _object_date(path: str) -> date | None:
    """Return the day of an object that holds documents; None for all other objects."""
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
    while batch := [*islice(paths, _CONCURRENT_READS)]:
        for manifest in await asyncio.gather(*(_read_manifest(archive, path) for path in batch)):
            if isinstance(manifest, ArchiveDamaged):
                errors.append(str(manifest))
            else:
                yield manifest
        read += len(batch)
        on_progress(read)


async def _read_manifest(archive: Archive, path: str) -> Manifest | ArchiveDamaged:
    try:
        return decode_manifest(path, await archive.get(path))
    except ArchiveDamaged as error:
        return error


def read_objects(
    loop_thread: EventLoopThread, archive: Archive, objects: Iterable[ArchiveObject], *, decompress: bool = True
) -> Iterator[tuple[ArchiveObject, bytes | ArchiveDamaged]]:
    """Yield each object with its content, or with what is wrong with it; in the order of the objects.

    Args:
        loop_thread: runs the requests.
        archive: the archive.
        objects: the objects to read.
        decompress: whether to return documents as NDJSON; otherwise the verified object, gzipped.

    Raises:
        ArchiveUnavailable: the archive does not respond.
        ArchiveAccessDenied: the archive denies access.

    """
    remaining = iter(objects)
    ahead: deque[tuple[ArchiveObject, Future[bytes]]] = deque()
    following = next(remaining, None)
    while ahead or following is not None:
        size = sum(archive_object.size for archive_object, _ in ahead)
        while following is not None and (not ahead or (len(ahead) < _PREFETCH_OBJECTS and size < _PREFETCH_MAX_BYTES)):
            ahead.append((following, loop_thread.submit(read_object(archive, following, decompress=decompress))))
            size += following.size
            following = next(remaining, None)
        archive_object, future = ahead.popleft()
        try:
            yield archive_object, future.result()
        except ArchiveDamaged as error:
            yield archive_object, error
