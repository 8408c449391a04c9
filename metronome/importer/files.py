"""Log files, plain or compressed, and standard input, as lines."""

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from metronome.errors import ConfigurationError
from metronome.protocols.access_logs.reader import LINE_MAX_BYTES

STANDARD_INPUT: Final = "-"
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAGIC_BYTES = 4
_BLOCK_BYTES = 1 << 18
_READ_ERRORS = (EOFError, OSError, zlib.error, zstd.ZstdError)


class LogFile:
    """One log that is read from its beginning to its end, once.

    What it is compressed with is told from its first bytes, not from its name.

    Attributes:
        name: what messages call it.
        damage: why it could not be read to its end, or None.

    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STANDARD_INPUT else path
        self.read_error: str | None = None
        self._path = path

    def __enter__(self) -> Self:
        self._stream = sys.stdin.buffer if self._path == STANDARD_INPUT else Path(self._path).open("rb")
        self._source = _CountingReader(self._stream)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path != STANDARD_INPUT:
            self._stream.close()

    @property
    def bytes_read(self) -> int:
        """How many bytes of it, as it is stored, have been read."""
        return self._source.bytes_read

    @property
    def inode(self) -> tuple[int, int]:
        """Which file it is, whatever it is called: its device and its number there."""
        found = os.fstat(self._stream.fileno())
        return found.st_dev, found.st_ino

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line, without its line feed, and how many uncompressed bytes come before it.

        Of a line that is too long to be read, only the first bytes are kept. Where the file is damaged,
        the lines that are whole are yielded, and ``damage`` says what is wrong.
        """
        offset = dropped = 0
        begun = b""
        for block in self._blocks():
            first, *others = block.split(b"\n")
            begun += first
            for line in others:
                yield offset, begun
                offset += len(begun) + dropped + 1
                begun, dropped = line, 0
            if len(begun) > LINE_MAX_BYTES:
                dropped += len(begun) - LINE_MAX_BYTES - 1
                begun = begun[: LINE_MAX_BYTES + 1]
        if begun and self.read_error is None:
            yield offset, begun

    def _blocks(self) -> Iterator[bytes]:
        try:
            with self._open_decompressed() as stream:
                while block := stream.read1(_BLOCK_BYTES):
                    yield block
        except _READ_ERRORS as error:
            self.read_error = f"{self.name} is damaged or not whole: {error}"

    def _open_decompressed(self) -> "AbstractContextManager[_CountingReader | gzip.GzipFile | zstd.ZstdFile]":
        magic = self._source.peek()
        if magic.startswith(_GZIP_MAGIC):
            return closing(gzip.GzipFile(fileobj=self._source, mode="rb"))
        if magic == _ZSTD_MAGIC:
            return closing(zstd.ZstdFile(self._source, "r"))
        return nullcontext(self._source)


class _CountingReader(io.BufferedIOBase):
    """The bytes as they are stored, counted."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._head = b""
        self.bytes_read = 0

    def peek(self) -> bytes:
        self._head = self._stream.read(_MAGIC_BYTES)
        return self._head

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = None if size is None or size < 0 else size
        block, self._head = self._head[:wanted], self._head[len(self._head[:wanted]) :]
        block += self._stream.read(-1 if wanted is None else wanted - len(block))
        self.bytes_read += len(block)
        return block

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size)


def is_compressed(first_bytes: bytes) -> bool:
    """Tell from the first four bytes of a file whether it is gzip or zstd."""
    return first_bytes.startswith((_GZIP_MAGIC, _ZSTD_MAGIC))


def total_size(paths: list[str]) -> int | None:
    """Return how many bytes these files have together, or None where one does not say.

    Raises:
        ConfigurationError: one is missing, is a folder or may not be read. Nothing has been opened yet: a
            pipe that was opened only to look at it would be lost.

    """
    total = 0
    known = True
    for path in paths:
        if path == STANDARD_INPUT:
            known = False
            continue
        if not Path(path).exists():
            raise ConfigurationError(f"{path} cannot be read: there is no such file")
        if Path(path).is_dir():
            raise ConfigurationError(f"{path} cannot be read: it is a folder, so name the files in it")
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"{path} cannot be read: this user may not")
        total += Path(path).stat().st_size
        known = known and Path(path).is_file()
    return total if known else None
