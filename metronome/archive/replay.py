"""Documents of an archive's objects, packed for the way: small objects together, large ones in parts.

Which objects of an archive a server has taken already, in a file that outlives a replay that was interrupted.

The file only saves time: without it all is sent again, and nothing is counted twice. It is deleted once a replay has
sent everything.
"""

from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

from metronome.archive.inventory import ArchiveObject
from metronome.errors import ConfigurationError
from metronome.files import state_folder

REPLAY_BATCH_MAX_EVENTS: Final = 10_000
"""As many as the server takes in one request."""
REPLAY_BATCH_MAX_BYTES: Final = 8 * 2**20
"""Past this a parcel is sent however few documents it has: the server decodes no more than 16 MiB."""


class BatchPart(NamedTuple):
    """What of an object is in a parcel.

    Attributes:
        path: the object's name.
        first: the number of its first line here, from 1.
        events: how many lines these are.

    """

    path: str
    first_line: int
    events: int


class ReplayBatch(NamedTuple):
    """Documents that are sent together.

    Attributes:
        body: a line each.
        parts: which objects they are from.
        finished: the objects of which it has the last documents.

    """

    body: bytes
    parts: tuple[BatchPart, ...]
    completed_objects: tuple[ArchiveObject, ...]

    @property
    def events(self) -> int:
        """How many documents it has."""
        return sum(part.events for part in self.parts)

    def location(self, index: int) -> str:
        """Say where a document is."""
        for part in self.parts:
            if index < part.events:
                return f"{part.path}, line {part.first_line + index:,}"
            index -= part.events
        raise IndexError(index)


class ReplayBatcher:
    """Packs the documents of one object after the other."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self._parts: list[BatchPart] = []
        self._completed_objects: list[ArchiveObject] = []

    def add(self, archive_object: ArchiveObject, lines: bytes) -> Iterator[ReplayBatch]:
        """Take an object's documents, and yield the parcels that are full."""
        first, before = 1, len(self._lines)
        for number, line in enumerate(lines.splitlines(keepends=True), start=1):
            full = len(self._lines) == REPLAY_BATCH_MAX_EVENTS or self._size + len(line) > REPLAY_BATCH_MAX_BYTES
            if full and self._lines:
                self._add_part(archive_object, first, number - first)
                yield self._take_batch()
                first, before = number, 0
            self._lines.append(line)
            self._size += len(line)
        self._add_part(archive_object, first, len(self._lines) - before)
        self._completed_objects.append(archive_object)

    def flush(self) -> Iterator[ReplayBatch]:
        """Yield what is left, if there is something."""
        if self._lines or self._completed_objects:
            yield self._take_batch()

    def _add_part(self, archive_object: ArchiveObject, first_line: int, events: int) -> None:
        if events:
            self._parts.append(BatchPart(archive_object.path, first_line, events))

    def _take_batch(self) -> ReplayBatch:
        parcel = ReplayBatch(b"".join(self._lines), tuple(self._parts), tuple(self._completed_objects))
        self._lines, self._size, self._parts, self._completed_objects = [], 0, [], []
        return parcel


class ReplayCheckpoint:
    """The trail of one archive's replay to one server.

    Args:
        file: where it is kept; it need not exist.

    Raises:
        ConfigurationError: it cannot be written.

    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._sent = set(file.read_bytes().splitlines()) if file.exists() else set()
            self._output: BinaryIO = file.open("ab")
        except OSError as error:
            raise ConfigurationError(f"--checkpoint {file} cannot be kept: {error.strerror}") from None

    def __contains__(self, holding: ArchiveObject) -> bool:
        """Tell whether the server has all of an object."""
        return _checkpoint_line(holding) in self._sent

    def mark_sent(self, archive_object: ArchiveObject) -> None:
        """Note that the server has all of an object.

        Raises:
            ConfigurationError: it cannot be written.

        """
        try:
            self._output.write(_checkpoint_line(archive_object) + b"\n")
            self._output.flush()
        except OSError as error:
            raise ConfigurationError(f"--checkpoint {self.file} cannot be written: {error.strerror}") from None

    def delete(self) -> None:
        """Delete the file."""
        with suppress(OSError):
            self.file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return this trail, to be closed at the block's end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        with suppress(OSError):
            self._output.close()


def default_checkpoint_file(archive: str, url: str) -> Path:
    """Return where the trail is kept if nobody says otherwise: in the user's state folder."""
    name = blake2b(f"{archive.rstrip('/')} {url.rstrip('/')}".encode(), digest_size=8).hexdigest()
    return state_folder() / f"replay-{name}.txt"


def _checkpoint_line(archive_object: ArchiveObject) -> bytes:
    known = archive_object.manifest_entry.sha256 if archive_object.manifest_entry else str(archive_object.size)
    return f"{known} {archive_object.path}".encode()
