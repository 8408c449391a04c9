"""Documents of an archive's objects, packed for the way: small objects together, large ones in parts."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from metronome.archives.stock import Holding

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
