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

from metronome.archive.inventory import Holding
from metronome.errors import Misconfigured
from metronome.files import state_folder

PARCEL_EVENTS: Final = 10_000
"""As many as the server takes in one request."""
PARCEL_BYTES: Final = 8 * 2**20
"""Past this a parcel is sent however few documents it has: the server decodes no more than 16 MiB."""


class Part(NamedTuple):
    """What of an object is in a parcel.

    Attributes:
        path: the object's name.
        first: the number of its first line here, from 1.
        events: how many lines these are.

    """

    path: str
    first: int
    events: int


class Parcel(NamedTuple):
    """Documents that are sent together.

    Attributes:
        body: a line each.
        parts: which objects they are from.
        finished: the objects of which it has the last documents.

    """

    body: bytes
    parts: tuple[Part, ...]
    finished: tuple[Holding, ...]

    @property
    def events(self) -> int:
        """How many documents it has."""
        return sum(part.events for part in self.parts)

    def place(self, index: int) -> str:
        """Say where a document is."""
        for part in self.parts:
            if index < part.events:
                return f"{part.path}, line {part.first + index:,}"
            index -= part.events
        raise IndexError(index)


class Packer:
    """Packs the documents of one object after the other."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self._parts: list[Part] = []
        self._finished: list[Holding] = []

    def add(self, holding: Holding, lines: bytes) -> Iterator[Parcel]:
        """Take an object's documents, and yield the parcels that are full."""
        first, before = 1, len(self._lines)
        for number, line in enumerate(lines.splitlines(keepends=True), start=1):
            full = len(self._lines) == PARCEL_EVENTS or self._size + len(line) > PARCEL_BYTES
            if full and self._lines:
                self._note(holding, first, number - first)
                yield self._sealed()
                first, before = number, 0
            self._lines.append(line)
            self._size += len(line)
        self._note(holding, first, len(self._lines) - before)
        self._finished.append(holding)

    def rest(self) -> Iterator[Parcel]:
        """Yield what is left, if there is something."""
        if self._lines or self._finished:
            yield self._sealed()

    def _note(self, holding: Holding, first: int, events: int) -> None:
        if events:
            self._parts.append(Part(holding.path, first, events))

    def _sealed(self) -> Parcel:
        parcel = Parcel(b"".join(self._lines), tuple(self._parts), tuple(self._finished))
        self._lines, self._size, self._parts, self._finished = [], 0, [], []
        return parcel


class Trail:
    """The trail of one archive's replay to one server.

    Args:
        file: where it is kept; it need not exist.

    Raises:
        Misconfigured: it cannot be written.

    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._taken = set(file.read_bytes().splitlines()) if file.exists() else set()
            self._output: BinaryIO = file.open("ab")
        except OSError as error:
            raise Misconfigured(f"--progress {file} cannot be kept: {error.strerror}") from None

    def __contains__(self, holding: Holding) -> bool:
        """Tell whether the server has all of an object."""
        return _line(holding) in self._taken

    def add(self, holding: Holding) -> None:
        """Note that the server has all of an object.

        Raises:
            Misconfigured: it cannot be written.

        """
        try:
            self._output.write(_line(holding) + b"\n")
            self._output.flush()
        except OSError as error:
            raise Misconfigured(f"--progress {self.file} cannot be written: {error.strerror}") from None

    def forget(self) -> None:
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


def default_file(archive: str, url: str) -> Path:
    """Return where the trail is kept if nobody says otherwise: in the user's state folder."""
    name = blake2b(f"{archive.rstrip('/')} {url.rstrip('/')}".encode(), digest_size=8).hexdigest()
    return state_folder() / f"replay-{name}.txt"


def _line(holding: Holding) -> bytes:
    known = holding.listed.sha256 if holding.listed else str(holding.bytes)
    return f"{known} {holding.path}".encode()
