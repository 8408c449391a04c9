"""How an archive is laid out: by hours, in compressed lines, with a manifest beside each roll.

::

    2015/01/22/09/web1-3f9a2c1b-000000000001-000000000500.ndjson.gz     the documents of that hour, UTC
    manifests/2015/01/22/web1-3f9a2c1b-000000000001-000000000500.json   what one roll has written

A *roll* is what one spool held from its commit *first* to its commit *last*. Each hour that its documents happened in
has an object, and all objects of a roll have the same name in different folders. The manifest comes last, in the
folder of the day that the roll's first commit was made on: it says how many documents each object holds, how large
it is, and its SHA-256. All of it follows from the roll alone, so whatever is written again is the same.

Documents stand in their objects in the order in which they came, as `metronome.event.document` made them.
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
"""Path of an object: the hour that its documents happened in, and the name of its roll."""
_MANIFEST_VERSION: Final = 1
_HOUR_SLICE: Final = slice(len('{"@timestamp":"'), len('{"@timestamp":"2015-01-22T09'))
"""Where each document has the hour that it happened in."""
_SPLIT_BYTES: Final = 2**18
"""So much is looked at at once: what stays in the processor's cache is split several times as fast."""
_COMPRESSION_LEVEL: Final = 1
"""Of igzip's levels that which is fast and nearly as small as the others."""
_GZIP_WINDOW_BITS: Final = 16 + isal_zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """What a manifest says of an object.

    Attributes:
        path: its name.
        events: how many documents it holds.
        bytes: how large it is.
        sha256: of its bytes, in hexadecimal.

    """

    path: str
    events: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a roll has written.

    Attributes:
        path: the manifest's own name.
        arrived: when the first and the last commit were made, as stamps.
        objects: in the order of their hours.

    """

    path: str
    received_between: tuple[str, str]
    objects: tuple[ManifestEntry, ...]

    @property
    def events(self) -> int:
        """How many documents its objects hold together."""
        return sum(one.events for one in self.objects)


@dataclass(frozen=True, slots=True)
class ArchiveUpload:
    """What is to be written of a span of a spool.

    Attributes:
        objects: the bytes of each object by its name, in the order of their hours.
        manifest: lists them.

    """

    objects: dict[str, bytes]
    manifest: Manifest


def build_objects(commit_range: CommitRange, bodies: Iterable[bytes]) -> ArchiveUpload:
    """Make the objects of what a span of a spool holds, and their manifest.

    Args:
        commit_range: names the roll.
        bodies: what the span holds, whole lines each; they are let go of one by one.

    """
    name = f"{commit_range.spool_name}-{commit_range.first_seq:012}-{commit_range.last_seq:012}"
    hours: dict[bytes, _HourBuffer] = {}
    for body in bodies:
        for hour, lines, events in _split_by_hour(body):
            (hours.get(hour) or hours.setdefault(hour, _HourBuffer())).add(lines, events)
    began, ended = (format_timestamp(datetime.fromtimestamp(at / 1000, UTC)) for at in commit_range.committed_ms)
    objects, listed = {}, []
    for hour in sorted(hours):
        path = f"{hour.decode().replace('-', '/').replace('T', '/')}/{name}{OBJECT_SUFFIX}"
        objects[path] = packed = hours[hour].finish()
        listed.append(ManifestEntry(path, hours[hour].events, len(packed), sha256(packed).hexdigest()))
    path = f"{MANIFEST_PREFIX}/{began[:10].replace('-', '/')}/{name}.json"
    return ArchiveUpload(objects, Manifest(path, (began, ended), tuple(listed)))


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as an object's bytes."""
    body = {
        "version": _MANIFEST_VERSION,
        "arrived": manifest.received_between,
        "events": manifest.events,
        "objects": [asdict(one) for one in manifest.objects],
    }
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def decode_manifest(path: str, body: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        Damaged: it is none.

    """
    try:
        read: dict[str, Any] = orjson.loads(body)
        began, ended = read["arrived"]
        objects = tuple(
            ManifestEntry(str(one["path"]), int(one["events"]), int(one["bytes"]), str(one["sha256"]))
            for one in read["objects"]
        )
        manifest = Manifest(path, (str(began), str(ended)), objects)
        if manifest.events != read["events"]:
            raise ArchiveDamaged(f"{path} is no manifest: its numbers do not add up")
    except (ValueError, TypeError, LookupError, AttributeError):
        raise ArchiveDamaged(f"{path} is no manifest: it cannot be read") from None
    return manifest


def decompress_object(path: str, body: bytes, manifest_entry: ManifestEntry | None) -> bytes:
    """Return the documents of an object, a line each.

    Args:
        path: what messages call it.
        body: its bytes.
        manifest_entry: what its manifest says of it; None if that is not known.

    Raises:
        Damaged: it is not what was written.

    """
    if manifest_entry is not None and (
        len(body) != manifest_entry.bytes or sha256(body).hexdigest() != manifest_entry.sha256
    ):
        raise ArchiveDamaged(
            f"{path} is not what was written: its manifest has {manifest_entry.bytes:,} bytes of another checksum"
        )
    try:
        lines = gzip.decompress(body)
    except (zlib.error, EOFError, OSError):
        raise ArchiveDamaged(f"{path} is cut short, or no gzip") from None
    if lines and not lines.endswith(b"\n"):
        raise ArchiveDamaged(f"{path} ends within a line")
    return lines


class _HourBuffer:
    """The documents of an hour, compressed as they come; little waits for more, since a compressor takes room."""

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
        # The header has neither a time nor a name: the same documents make the same bytes.
        self._compressor = self._compressor or isal_zlib.compressobj(
            _COMPRESSION_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW_BITS
        )
        self._compressed.append(self._compressor.compress(b"".join(self._pending)))
        self._pending, self._pending_bytes = [], 0


def _split_by_hour(body: bytes) -> Iterable[tuple[bytes, bytes, int]]:
    """Split lines by the hours they happened in: yields an hour, its lines, and how many these are."""
    at = 0
    while at < len(body):
        end = body.find(b"\n", min(at + _SPLIT_BYTES, len(body)) - 1) + 1
        piece = body[at : end or len(body)]
        at += len(piece)
        head = piece[: _HOUR_SLICE.stop]
        count = piece.count(b"\n")
        # Most pieces are of one hour. Within a line there is no line feed, so none but heads are counted.
        if 1 + piece.count(b"\n" + head) == count:
            yield head[_HOUR_SLICE], piece, count
            continue
        hours: dict[bytes, list[bytes]] = {}
        for line in piece.splitlines(keepends=True):
            hours.setdefault(line[_HOUR_SLICE], []).append(line)
        for hour, lines in hours.items():
            yield hour, b"".join(lines), len(lines)
