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

from metronome.errors import Damaged
from metronome.spool import Span
from metronome.times import stamp_of

MANIFESTS: Final = "manifests"
SUFFIX: Final = ".ndjson.gz"
OBJECT_PATTERN: Final = re.compile(r"(\d{4}/\d\d/\d\d/\d\d)/([^/]+)\.ndjson\.gz")
"""Path of an object: the hour that its documents happened in, and the name of its roll."""
_VERSION: Final = 1
_HOUR: Final = slice(len('{"@timestamp":"'), len('{"@timestamp":"2015-01-22T09'))
"""Where each document has the hour that it happened in."""
_PIECE_BYTES: Final = 2**18
"""So much is looked at at once: what stays in the processor's cache is split several times as fast."""
_LEVEL: Final = 1
"""Of igzip's levels that which is fast and nearly as small as the others."""
_GZIP: Final = 16 + isal_zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Listed:
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
    arrived: tuple[str, str]
    objects: tuple[Listed, ...]

    @property
    def events(self) -> int:
        """How many documents its objects hold together."""
        return sum(one.events for one in self.objects)


@dataclass(frozen=True, slots=True)
class Roll:
    """What is to be written of a span of a spool.

    Attributes:
        objects: the bytes of each object by its name, in the order of their hours.
        manifest: lists them.

    """

    objects: dict[str, bytes]
    manifest: Manifest


def lay_out(span: Span, bodies: Iterable[bytes]) -> Roll:
    """Make the objects of what a span of a spool holds, and their manifest.

    Args:
        span: names the roll.
        bodies: what the span holds, whole lines each; they are let go of one by one.

    """
    name = f"{span.spool}-{span.first:012}-{span.last:012}"
    hours: dict[bytes, _Hour] = {}
    for body in bodies:
        for hour, lines, events in _by_hour(body):
            (hours.get(hour) or hours.setdefault(hour, _Hour())).add(lines, events)
    began, ended = (stamp_of(datetime.fromtimestamp(at / 1000, UTC)) for at in span.arrived)
    objects, listed = {}, []
    for hour in sorted(hours):
        path = f"{hour.decode().replace('-', '/').replace('T', '/')}/{name}{SUFFIX}"
        objects[path] = packed = hours[hour].packed()
        listed.append(Listed(path, hours[hour].events, len(packed), sha256(packed).hexdigest()))
    path = f"{MANIFESTS}/{began[:10].replace('-', '/')}/{name}.json"
    return Roll(objects, Manifest(path, (began, ended), tuple(listed)))


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as an object's bytes."""
    body = {
        "version": _VERSION,
        "arrived": manifest.arrived,
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
            Listed(str(one["path"]), int(one["events"]), int(one["bytes"]), str(one["sha256"]))
            for one in read["objects"]
        )
        manifest = Manifest(path, (str(began), str(ended)), objects)
        if manifest.events != read["events"]:
            raise Damaged(f"{path} is no manifest: its numbers do not add up")
    except (ValueError, TypeError, LookupError, AttributeError):
        raise Damaged(f"{path} is no manifest: it cannot be read") from None
    return manifest


def unpack(path: str, body: bytes, listed: Listed | None) -> bytes:
    """Return the documents of an object, a line each.

    Args:
        path: what messages call it.
        body: its bytes.
        listed: what its manifest says of it; None if that is not known.

    Raises:
        Damaged: it is not what was written.

    """
    if listed is not None and (len(body) != listed.bytes or sha256(body).hexdigest() != listed.sha256):
        raise Damaged(f"{path} is not what was written: its manifest has {listed.bytes:,} bytes of another checksum")
    try:
        lines = gzip.decompress(body)
    except (zlib.error, EOFError, OSError):
        raise Damaged(f"{path} is cut short, or no gzip") from None
    if lines and not lines.endswith(b"\n"):
        raise Damaged(f"{path} ends within a line")
    return lines


class _Hour:
    """The documents of an hour, compressed as they come; little waits for more, since a compressor takes room."""

    def __init__(self) -> None:
        self.events = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._packed: list[bytes] = []
        self._packer: Any = None

    def add(self, lines: bytes, events: int) -> None:
        self.events += events
        self._waiting.append(lines)
        self._waiting_bytes += len(lines)
        if self._waiting_bytes >= _PIECE_BYTES:
            self._pack()

    def packed(self) -> bytes:
        self._pack()
        self._packed.append(self._packer.flush())
        return b"".join(self._packed)

    def _pack(self) -> None:
        # The header has neither a time nor a name: the same documents make the same bytes.
        self._packer = self._packer or isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
        self._packed.append(self._packer.compress(b"".join(self._waiting)))
        self._waiting, self._waiting_bytes = [], 0


def _by_hour(body: bytes) -> Iterable[tuple[bytes, bytes, int]]:
    """Split lines by the hours they happened in: yields an hour, its lines, and how many these are."""
    at = 0
    while at < len(body):
        end = body.find(b"\n", min(at + _PIECE_BYTES, len(body)) - 1) + 1
        piece = body[at : end or len(body)]
        at += len(piece)
        head = piece[: _HOUR.stop]
        count = piece.count(b"\n")
        # Most pieces are of one hour. Within a line there is no line feed, so none but heads are counted.
        if 1 + piece.count(b"\n" + head) == count:
            yield head[_HOUR], piece, count
            continue
        hours: dict[bytes, list[bytes]] = {}
        for line in piece.splitlines(keepends=True):
            hours.setdefault(line[_HOUR], []).append(line)
        for hour, lines in hours.items():
            yield hour, b"".join(lines), len(lines)
