"""Replay of an archive: pack documents into batches, and record which objects a server has accepted.

The checkpoint file only saves time: without it, all objects are sent again, and no event is counted twice. It is
deleted once a replay is complete.
"""

from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from metronome.archive.inventory import ArchiveObject
from metronome.errors import ConfigurationError
from metronome.files import state_folder
from metronome.server_client import BATCH_MAX_BYTES, REQUEST_MAX_EVENTS


class BatchPart(NamedTuple):
    """The part of an object that is in a batch.

    Attributes:
        path: path of the object.
        first_line: number of its first line in the batch, from 1.
        events: number of its lines in the batch.

    """

    path: str
    first_line: int
    events: int


class ReplayBatch(NamedTuple):
    """Documents that are sent in one request.

    Attributes:
        body: the documents as NDJSON.
        parts: the objects that they are from.
        completed_objects: the objects whose last documents are in the batch.

    """

    body: bytes
    parts: tuple[BatchPart, ...]
    completed_objects: tuple[ArchiveObject, ...]

    @property
    def events(self) -> int:
        """Number of documents."""
        return sum(part.events for part in self.parts)

    def location(self, index: int) -> str:
        """Return where a document is."""
        for part in self.parts:
            if index < part.events:
                return f"{part.path}, line {part.first_line + index:,}"
            index -= part.events
        raise IndexError(index)


class ReplayBatcher:
    """Packs documents into batches: those of small objects together, those of large ones in parts."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self._parts: list[BatchPart] = []
        self._completed_objects: list[ArchiveObject] = []

    def add(self, archive_object: ArchiveObject, lines: bytes) -> Iterator[ReplayBatch]:
        """Add the documents of an object, and yield the batches that are full."""
        first, before = 1, len(self._lines)
        for number, line in enumerate(lines.splitlines(keepends=True), start=1):
            is_full = len(self._lines) == REQUEST_MAX_EVENTS or self._size + len(line) > BATCH_MAX_BYTES
            if is_full and self._lines:
                self._add_part(archive_object, first, number - first)
                yield self._take_batch()
                first, before = number, 0
            self._lines.append(line)
            self._size += len(line)
        self._add_part(archive_object, first, len(self._lines) - before)
        self._completed_objects.append(archive_object)

    def flush(self) -> Iterator[ReplayBatch]:
        """Yield the last batch, if it has documents or completes objects."""
        if self._lines or self._completed_objects:
            yield self._take_batch()

    def _add_part(self, archive_object: ArchiveObject, first_line: int, events: int) -> None:
        if events:
            self._parts.append(BatchPart(archive_object.path, first_line, events))

    def _take_batch(self) -> ReplayBatch:
        batch = ReplayBatch(b"".join(self._lines), tuple(self._parts), tuple(self._completed_objects))
        self._lines, self._size, self._parts, self._completed_objects = [], 0, [], []
        return batch


class ReplayCheckpoint:
    """Records which objects of one archive one server has accepted.

    Args:
        file: the checkpoint file; it need not exist.
        restart: discard what earlier replays recorded.

    Raises:
        ConfigurationError: the file cannot be opened.

    """

    def __init__(self, file: Path, *, restart: bool = False) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._sent = set(file.read_bytes().splitlines()) if file.exists() and not restart else set()
            self._output: BinaryIO = file.open("wb" if restart else "ab")
        except OSError as error:
            raise ConfigurationError(f"cannot open --checkpoint {file}: {error.strerror}") from None

    def __contains__(self, archive_object: ArchiveObject) -> bool:
        """Return whether the server has accepted all documents of an object."""
        return _checkpoint_line(archive_object) in self._sent

    def mark_sent(self, archive_object: ArchiveObject) -> None:
        """Record that the server has accepted all documents of an object.

        Raises:
            ConfigurationError: the file cannot be written.

        """
        try:
            self._output.write(_checkpoint_line(archive_object) + b"\n")
            self._output.flush()
        except OSError as error:
            raise ConfigurationError(f"cannot write --checkpoint {self.file}: {error.strerror}") from None

    def delete(self) -> None:
        """Delete the file."""
        with suppress(OSError):
            self.file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return the checkpoint."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        with suppress(OSError):
            self._output.close()


def default_checkpoint_file(archive: str, url: str) -> Path:
    """Return the default checkpoint file of an archive and a server, in the user's state folder."""
    name = blake2b(f"{archive.rstrip('/')} {url.rstrip('/')}".encode(), digest_size=8).hexdigest()
    return state_folder() / f"replay-{name}.txt"


def _checkpoint_line(archive_object: ArchiveObject) -> bytes:
    entry = archive_object.manifest_entry
    return f"{entry.sha256 if entry else archive_object.size} {archive_object.path}".encode()
