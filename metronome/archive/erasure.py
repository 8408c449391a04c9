"""Forget events in an archive: objects are rewritten without them, their manifests replaced, and a tombstone put.

A tombstone says which events were forgotten, and which uploads were complete before: those of each spool up to a
commit, and those of other spools that were received before a time. A replay skips such events in these uploads, also in
a copy of the archive in which the objects were not rewritten. It holds a hash of the item, visitor or import, so that
it does not name whom it forgets.

Each step can be repeated: a manifest is replaced before its objects, whose bytes follow from the selection, so that
after an interruption a rewritten object agrees with the manifest, and one that was not is rewritten.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import orjson
from isal import isal_zlib

from metronome.archive.base import Archive
from metronome.archive.inventory import ArchiveObject, list_objects
from metronome.archive.segments import (
    COMPRESSION_LEVEL,
    GZIP_WINDOW_BITS,
    MANIFEST_PREFIX,
    Manifest,
    ManifestEntry,
    decode_manifest,
    decompress_object,
    encode_manifest,
    parse_upload_name,
)
from metronome.errors import ArchiveDamaged
from metronome.stores.selection import Selection, stored_selection

TOMBSTONE_PREFIX: Final = "forgotten"
_TOMBSTONE_VERSION: Final = 1
_CONCURRENT_MANIFESTS: Final = 4


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Events that were forgotten.

    Attributes:
        name: identifies the request.
        selection: which events.
        at: timestamp of the request.
        spools: the number of the last commit before the request, by the name of the spool.

    """

    name: str
    selection: Selection
    at: str
    spools: Mapping[str, int]

    @property
    def path(self) -> str:
        """Path of the object that holds it."""
        return f"{TOMBSTONE_PREFIX}/{self.name}.json"

    def covers(self, archive_object: ArchiveObject) -> bool:
        """Return whether an object was complete before, so that its selected events are forgotten."""
        return self.covers_upload(archive_object.path, archive_object.received_until)

    def covers_upload(self, path: str, received_until: str) -> bool:
        """Return the same for the path of an object or manifest, and the timestamp of its last commit.

        Args:
            path: the path.
            received_until: empty if no manifest lists the object.

        """
        spool, last_seq = parse_upload_name(path)
        if spool in self.spools:
            return last_seq <= self.spools[spool]
        return bool(received_until) and received_until < self.at

    def encode(self) -> bytes:
        """Encode the tombstone as JSON."""
        hashed = self.selection.hashed()
        body = {
            "version": _TOMBSTONE_VERSION,
            "by": hashed.kind,
            "value": hashed.value,
            "at": self.at,
            "spools": dict(self.spools),
        }
        return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def decode_tombstone(path: str, body: bytes) -> Tombstone:
    """Decode a tombstone.

    Raises:
        ArchiveDamaged: it is not a valid tombstone.

    """
    try:
        fields: dict[str, Any] = orjson.loads(body)
        selection = stored_selection(fields["by"], fields["value"])
        spools = {str(name): int(seq) for name, seq in fields["spools"].items()}
        return Tombstone(path.rpartition("/")[2].removesuffix(".json"), selection, str(fields["at"]), spools)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise ArchiveDamaged(f"{path} is not a valid tombstone: it cannot be parsed") from None


async def read_tombstones(archive: Archive) -> list[Tombstone]:
    """Return all tombstones of an archive.

    Raises:
        ArchiveDamaged: one is invalid: without it, a replay would bring forgotten events back.

    """
    paths = sorted([info.path async for info in archive.iterate_objects(TOMBSTONE_PREFIX)])
    return [decode_tombstone(path, await archive.get(path)) for path in paths]


def drop_forgotten(tombstones: Iterable[Tombstone], archive_object: ArchiveObject, lines: bytes) -> tuple[bytes, int]:
    """Return the documents of an object without forgotten ones, and the number of those."""
    dropped = 0
    for tombstone in tombstones:
        if tombstone.covers(archive_object):
            lines, count = tombstone.selection.drop_lines(lines)
            dropped += count
    return lines, dropped


@dataclass(slots=True)
class ErasureProgress:
    """What was done so far.

    Attributes:
        objects: the number of objects to read or delete.
        done: how many of them were.
        events: the number of forgotten events.
        damaged: a sentence for each object that cannot be read, and so may still have such events.

    """

    objects: int
    done: int
    events: int
    damaged: list[str]


class ArchiveErasure:
    """Forgets events in an archive.

    Args:
        archive: the archive.
        tombstone: what to forget; its selection is not hashed.

    """

    def __init__(self, archive: Archive, tombstone: Tombstone) -> None:
        self._archive = archive
        self._tombstone = tombstone
        self.progress = ErasureProgress(0, 0, 0, [])

    async def put_tombstone(self) -> None:
        """Write the tombstone."""
        await self._archive.put(self._tombstone.path, self._tombstone.encode())

    async def erase_incomplete_uploads(self, acknowledged: Mapping[str, int]) -> None:
        """Forget events in uploads that were interrupted, and will be repeated.

        No such upload may run meanwhile.

        Args:
            acknowledged: the number of the last commit that is archived, by the name of the spool.

        """
        inventory = await list_objects(self._archive)
        for archive_object in inventory.objects:
            spool, last_seq = parse_upload_name(archive_object.path)
            is_incomplete = archive_object.manifest_entry is None or last_seq > acknowledged.get(spool, last_seq)
            if spool in acknowledged and is_incomplete and self._tombstone.covers(archive_object):
                # Its manifest is written again, too.
                await self._erase_unlisted(archive_object)

    async def erase_complete_uploads(self) -> None:
        """Forget events in all uploads that were complete before the request."""
        inventory = await list_objects(self._archive)
        covered = [archive_object for archive_object in inventory.objects if self._tombstone.covers(archive_object)]
        self.progress.objects, self.progress.done = len(covered), 0
        manifests = [info.path async for info in self._archive.iterate_objects(MANIFEST_PREFIX)]
        names = {path.rpartition("/")[2].removesuffix(".json") for path in manifests}
        for archive_object in covered:
            # An earlier attempt removed it from its manifest, but did not come to delete it.
            if archive_object.manifest_entry is None and _upload_name(archive_object.path) in names:
                await self._erase_unlisted(archive_object)
        for start in range(0, len(manifests), _CONCURRENT_MANIFESTS):
            await asyncio.gather(*map(self._erase_manifest, manifests[start : start + _CONCURRENT_MANIFESTS]))

    async def _erase_unlisted(self, archive_object: ArchiveObject) -> None:
        body = await self._archive.get(archive_object.path)
        try:
            erased = await asyncio.to_thread(self._erase_body, archive_object.path, body)
        except ArchiveDamaged as error:
            self.progress.damaged.append(str(error))
            return
        if not erased.events:
            await self._archive.delete(archive_object.path)
        elif erased.removed:
            await self._archive.put(archive_object.path, erased.body)

    async def _erase_manifest(self, path: str) -> None:
        try:
            manifest = decode_manifest(path, await self._archive.get(path))
        except ArchiveDamaged as error:
            self.progress.damaged.append(str(error))
            return
        if not self._tombstone.covers_upload(path, manifest.received_between[1]):
            return
        entries: list[ManifestEntry] = []
        changes: list[tuple[str, bytes]] = []
        for entry in manifest.objects:
            try:
                changed = await self._erase_entry(entry)
            except ArchiveDamaged as error:
                self.progress.damaged.append(str(error))
                entries.append(entry)
                continue
            if changed is None:
                entries.append(entry)
                continue
            changes.append((entry.path, changed.body))
            self.progress.events += changed.removed
            if changed.events:
                entries.append(_describe(entry, changed))
        if tuple(entries) != manifest.objects:
            await self._archive.put(path, encode_manifest(Manifest(path, manifest.received_between, tuple(entries))))
        for object_path, body in changes:
            if body:
                await self._archive.put(object_path, body)
            else:
                await self._archive.delete(object_path)
        self.progress.done += len(manifest.objects)

    async def _erase_entry(self, entry: ManifestEntry) -> "_Erased | None":
        """Return what replaces an object; None if it stays.

        Raises:
            ArchiveDamaged: it is neither what the manifest lists nor what an earlier attempt was about to replace.

        """
        before = self._tombstone.selection.before
        if before is not None:
            hour = datetime.strptime(entry.path[: len("2015/01/22/09")], "%Y/%m/%d/%H").replace(tzinfo=UTC)
            return _Erased(b"", 0, entry.events) if hour < before else None
        body = await self._archive.get(entry.path)
        if len(body) == entry.bytes and sha256(body).hexdigest() == entry.sha256:
            erased = await asyncio.to_thread(self._erase_body, entry.path, body)
            return erased if erased.removed else None
        # The manifest may have been replaced before an interruption, and the object not.
        erased = await asyncio.to_thread(self._erase_body, entry.path, body)
        if _describe(entry, erased) != entry:
            raise ArchiveDamaged(f"{entry.path} differs from its manifest in size or checksum")
        return erased

    def _erase_body(self, path: str, body: bytes) -> "_Erased":
        lines = decompress_object(path, body, None)
        kept, removed = self._tombstone.selection.drop_lines(lines)
        if not removed:
            return _Erased(body, kept.count(b"\n"), 0)
        return _Erased(_compress(kept) if kept else b"", kept.count(b"\n"), removed)


@dataclass(frozen=True, slots=True)
class _Erased:
    """An object without forgotten events.

    Attributes:
        body: its bytes; empty if no event is left.
        events: the number of events that are left.
        removed: the number of forgotten events.

    """

    body: bytes
    events: int
    removed: int


def _describe(entry: ManifestEntry, erased: _Erased) -> ManifestEntry:
    return replace(entry, events=erased.events, bytes=len(erased.body), sha256=sha256(erased.body).hexdigest())


def _compress(lines: bytes) -> bytes:
    compressor = isal_zlib.compressobj(COMPRESSION_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW_BITS)
    return bytes(compressor.compress(lines) + compressor.flush())


def _upload_name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ndjson")[0]
