"""Layout of an archive: gzipped NDJSON objects by hour, and a manifest for each upload.

::

    2015/01/22/09/web1-3f9a2c1b-000000000001-000000000500.ndjson.gz     documents of that hour, UTC
    manifests/2015/01/22/web1-3f9a2c1b-000000000001-000000000500.json   what the upload has written

An upload holds the events of one spool from its commit *first* to its commit *last*: one object for each hour in which
they happened, all with the same name in different folders. The manifest is written last, in the folder of the day of
the first commit: it lists the number of documents, the size and the SHA-256 of each object. Repeating an upload writes
the same paths and bytes.

Documents are in the order in which they were received, encoded as in `metronome.event`. Where events were forgotten,
there is a tombstone (see `metronome.archive.erasure`).
"""

import gzip
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import orjson
from isal import isal_zlib

from metronome.errors import ArchiveDamaged
from metronome.spool import CommitRange
from metronome.times import format_timestamp

MANIFEST_PREFIX: Final = "manifests"
OBJECT_SUFFIX: Final = ".ndjson.gz"
OBJECT_PATH_PATTERN: Final = re.compile(r"(\d{4}/\d\d/\d\d/\d\d)/([^/]+)\.ndjson\.gz")
"""Path of an object: the hour of its documents, and the name of its upload."""
_UPLOAD_NAME_PATTERN: Final = re.compile(r"(.+)-\d{12,}-(\d{12,})(?:\.ndjson\.gz|\.json)")
_MANIFEST_VERSION: Final = 1
_HOUR_SLICE: Final = slice(len('{"@timestamp":"'), len('{"@timestamp":"2015-01-22T09'))
"""Position of the hour in each document."""
_SPLIT_BYTES: Final = 2**18
"""Size of the pieces that are split by hour: pieces in the processor's cache are split several times as fast."""
COMPRESSION_LEVEL: Final = 1
"""The level of igzip that is fast, and compresses nearly as well as the higher ones."""
GZIP_WINDOW_BITS: Final = 16 + isal_zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """An object as listed in a manifest; the fields are the manifest's keys.

    Attributes:
        path: path of the object.
        events: number of documents.
        bytes: size in bytes.
        sha256: SHA-256 of the object in hexadecimal.

    """

    path: str
    events: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The objects of an upload.

    Attributes:
        path: path of the manifest itself.
        received_between: timestamps of the first and the last commit.
        objects: the objects, in the order of their hours.

    """

    path: str
    received_between: tuple[str, str]
    objects: tuple[ManifestEntry, ...]

    @property
    def events(self) -> int:
        """Number of documents in all objects."""
        return sum(entry.events for entry in self.objects)


@dataclass(frozen=True, slots=True)
class ArchiveUpload:
    """The objects to upload for a range of commits.

    Attributes:
        objects: the bytes of each object by path, in the order of their hours.
        manifest: the manifest of these objects.

    """

    objects: dict[str, bytes]
    manifest: Manifest


def build_objects(commit_range: CommitRange, bodies: Iterable[bytes]) -> ArchiveUpload:
    """Build the objects of a range of commits, and their manifest.

    Args:
        commit_range: the range.
        bodies: its documents as NDJSON; one body at a time is held in memory.

    """
    name = f"{commit_range.spool_name}-{commit_range.first_seq:012}-{commit_range.last_seq:012}"
    hours: dict[bytes, _HourBuffer] = {}
    for body in bodies:
        for hour, lines, events in _split_by_hour(body):
            (hours.get(hour) or hours.setdefault(hour, _HourBuffer())).add(lines, events)
    first, last = (format_timestamp(datetime.fromtimestamp(ms / 1000, UTC)) for ms in commit_range.committed_ms)
    objects, entries = {}, []
    for hour in sorted(hours):
        path = f"{hour.decode().replace('-', '/').replace('T', '/')}/{name}{OBJECT_SUFFIX}"
        objects[path] = body = hours[hour].finish()
        entries.append(ManifestEntry(path, hours[hour].events, len(body), sha256(body).hexdigest()))
    path = f"{MANIFEST_PREFIX}/{first[:10].replace('-', '/')}/{name}.json"
    return ArchiveUpload(objects, Manifest(path, (first, last), tuple(entries)))


def parse_upload_name(path: str) -> tuple[str, int]:
    """Return the spool's name and the number of the last commit of an object or a manifest; "" and 0 for others."""
    match = _UPLOAD_NAME_PATTERN.fullmatch(path.rpartition("/")[2])
    return (match[1], int(match[2])) if match else ("", 0)


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest as JSON."""
    body = {
        "version": _MANIFEST_VERSION,
        "arrived": manifest.received_between,
        "events": manifest.events,
        "objects": [asdict(entry) for entry in manifest.objects],
    }
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def decode_manifest(path: str, body: bytes) -> Manifest:
    """Decode a manifest.

    Raises:
        ArchiveDamaged: it is not a valid manifest.

    """
    try:
        fields: dict[str, Any] = orjson.loads(body)
        first, last = fields["arrived"]
        entries = tuple(
            ManifestEntry(str(entry["path"]), int(entry["events"]), int(entry["bytes"]), str(entry["sha256"]))
            for entry in fields["objects"]
        )
        manifest = Manifest(path, (str(first), str(last)), entries)
        is_consistent = manifest.events == fields["events"]
    except (ValueError, TypeError, LookupError, AttributeError):
        raise ArchiveDamaged(f"{path} is not a valid manifest: it cannot be parsed") from None
    if not is_consistent:
        raise ArchiveDamaged(f"{path} is not a valid manifest: its numbers of events do not add up")
    return manifest


def verify_object(path: str, body: bytes, manifest_entry: ManifestEntry | None) -> bytes:
    """Return an object, gzipped as it is, if it is as it was written.

    Args:
        path: path of the object.
        body: its bytes.
        manifest_entry: its entry in a manifest; None if no manifest lists it.

    Raises:
        ArchiveDamaged: it is not as it was written.

    """
    if manifest_entry is None:
        decompress_object(path, body, None)
    else:
        _verify_checksum(path, body, manifest_entry)
    return body


def decompress_object(path: str, body: bytes, manifest_entry: ManifestEntry | None) -> bytes:
    """Return the documents of an object as NDJSON; arguments and errors as of `verify_object`."""
    if manifest_entry is not None:
        _verify_checksum(path, body, manifest_entry)
    try:
        lines = gzip.decompress(body)
    except (zlib.error, EOFError, OSError):
        raise ArchiveDamaged(f"{path} is truncated, or not gzip") from None
    if lines and not lines.endswith(b"\n"):
        raise ArchiveDamaged(f"{path} ends within a line")
    return lines


def _verify_checksum(path: str, body: bytes, manifest_entry: ManifestEntry) -> None:
    if len(body) != manifest_entry.bytes or sha256(body).hexdigest() != manifest_entry.sha256:
        raise ArchiveDamaged(f"{path} differs from its manifest in size or checksum")


class _HourBuffer:
    """Documents of an hour. A compressor takes memory, so hours with few documents have none until the end."""

    def __init__(self) -> None:
        self.events = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._compressed: list[bytes] = []
        self._compressor: Any = None

    def add(self, lines: bytes, events: int) -> None:
        self.events += events
        self._pending.append(lines)
        self._pending_bytes += len(lines)
        if self._pending_bytes >= _SPLIT_BYTES:
            self._compress_pending()

    def finish(self) -> bytes:
        self._compress_pending()
        self._compressed.append(self._compressor.flush())
        return b"".join(self._compressed)

    def _compress_pending(self) -> None:
        # The gzip header has neither a time nor a name, so the same documents always give the same bytes.
        self._compressor = self._compressor or isal_zlib.compressobj(
            COMPRESSION_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW_BITS
        )
        self._compressed.append(self._compressor.compress(b"".join(self._pending)))
        self._pending, self._pending_bytes = [], 0


def _split_by_hour(body: bytes) -> Iterable[tuple[bytes, bytes, int]]:
    """Yield hours, lines of the hour, and their number."""
    offset = 0
    while offset < len(body):
        end = body.find(b"\n", min(offset + _SPLIT_BYTES, len(body)) - 1) + 1
        piece = body[offset : end or len(body)]
        offset += len(piece)
        head = piece[: _HOUR_SLICE.stop]
        count = piece.count(b"\n")
        # Most pieces are of one hour. A line feed in a document is escaped, so only beginnings of lines are counted.
        if 1 + piece.count(b"\n" + head) == count:
            yield head[_HOUR_SLICE], piece, count
            continue
        hours: dict[bytes, list[bytes]] = {}
        for line in piece.splitlines(keepends=True):
            hours.setdefault(line[_HOUR_SLICE], []).append(line)
        for hour, lines in hours.items():
            yield hour, b"".join(lines), len(lines)
