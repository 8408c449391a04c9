"""Read lines from log files, plain or compressed, and from standard input."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Final, Protocol, Self, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from metronome.errors import ConfigurationError
from metronome.protocols.access_logs.reader import LINE_MAX_BYTES

STANDARD_INPUT: Final = "-"
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BZIP2_MAGIC = b"BZh"
_XZ_MAGIC = b"\xfd7zX"
_ZIP_MAGIC = b"PK\x03\x04"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MAGIC_BYTES = 4
_BLOCK_BYTES = 1 << 18
_SPOOLED_BYTES = 1 << 24
_READ_ERRORS = (EOFError, OSError, zlib.error, zstd.ZstdError, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)
"""What the readers raise for a damaged file; `zipfile` raises the last one for a compression that it does not know."""


class LogFile:
    """A log that is read once, from beginning to end.

    Compression is detected from the first bytes, not from the name.

    Attributes:
        name: name of the log in messages.
        read_error: why the log could not be read to its end; None if it could.

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
        """Number of bytes read so far, before decompression."""
        return self._source.bytes_read

    @property
    def inode(self) -> tuple[int, int]:
        """Device and inode number of the file."""
        status = os.fstat(self._stream.fileno())
        return status.st_dev, status.st_ino

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the offset of each line in the uncompressed log, and the line without its line feed.

        A line over the limit is truncated. If the file is damaged, its complete lines are yielded, and ``read_error``
        is set.
        """
        offset = dropped = 0
        partial = b""
        for block in self._blocks():
            first, *others = block.split(b"\n")
            partial += first
            for line in others:
                yield offset, partial
                offset += len(partial) + dropped + 1
                partial, dropped = line, 0
            if len(partial) > LINE_MAX_BYTES:
                dropped += len(partial) - LINE_MAX_BYTES - 1
                partial = partial[: LINE_MAX_BYTES + 1]
        if partial and self.read_error is None:
            yield offset, partial

    def _blocks(self) -> Iterator[bytes]:
        try:
            with self._open_decompressed() as stream:
                while block := stream.read1(_BLOCK_BYTES):
                    yield block
        except _READ_ERRORS as error:
            self.read_error = f"{self.name} is damaged or incomplete: {error}"

    def _open_decompressed(self) -> "AbstractContextManager[_ReadableStream]":
        magic = self._source.peek()
        if magic.startswith(_UTF16_MARKS) or (magic[1::2] == b"\0\0" and magic[::2].isascii()):
            raise OSError("it is UTF-16: convert it first, as in iconv -f UTF-16 -t UTF-8 access.log")
        if magic.startswith(_GZIP_MAGIC):
            return closing(gzip.GzipFile(fileobj=self._source, mode="rb"))
        if magic == _ZSTD_MAGIC:
            return closing(zstd.ZstdFile(self._source, "r"))
        if magic.startswith(_BZIP2_MAGIC):
            return closing(bz2.BZ2File(self._source))
        if magic == _XZ_MAGIC:
            return closing(lzma.LZMAFile(cast("IO[bytes]", self._source)))
        if magic == _ZIP_MAGIC:
            return closing(_ZipStream(self._source))
        return nullcontext(self._source)


class _ReadableStream(Protocol):
    """A stream of bytes."""

    def read1(self, size: int = -1, /) -> bytes:
        """Return some bytes; none at the end."""


class _CountingReader(io.BufferedIOBase):
    """A binary stream that counts the bytes read from it."""

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
        limit = None if size is None or size < 0 else size
        block, self._head = self._head[:limit], self._head[len(self._head[:limit]) :]
        block += self._stream.read(-1 if limit is None else limit - len(block))
        self.bytes_read += len(block)
        return block

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size)


class _ZipStream:
    """The files in a ZIP archive, one after another; their names and order are those of the archive."""

    def __init__(self, source: _CountingReader) -> None:
        # The list of files is at the end.
        self._file = tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115  # closed in `close`
        shutil.copyfileobj(source, self._file)
        archive = zipfile.ZipFile(self._file)
        self._streams = iter([archive.open(name) for name in archive.namelist() if not name.endswith("/")])
        self._current: IO[bytes] | None = next(self._streams, None)

    def read1(self, size: int = -1, /) -> bytes:
        while self._current is not None:
            block = self._current.read(size)
            if block:
                return block
            self._current = next(self._streams, None)
        return b""

    def close(self) -> None:
        self._file.close()


def is_compressed(first_bytes: bytes) -> bool:
    """Return whether a file with these first four bytes is compressed."""
    return first_bytes.startswith((_GZIP_MAGIC, _ZSTD_MAGIC, _BZIP2_MAGIC, _XZ_MAGIC, _ZIP_MAGIC))


def total_size(paths: list[str]) -> int | None:
    """Return the total size of files in bytes; None if one is a pipe, whose size is not known.

    No file is opened: the data of a pipe would be lost.

    Raises:
        ConfigurationError: a file does not exist, is a folder, or must not be read.

    """
    total = 0
    is_known = True
    for path in paths:
        if path == STANDARD_INPUT:
            is_known = False
            continue
        if not Path(path).exists():
            raise ConfigurationError(f"cannot read {path}: no such file")
        if Path(path).is_dir():
            raise ConfigurationError(f"cannot read {path}: it is a folder; name the files in it")
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"cannot read {path}: permission denied")
        total += Path(path).stat().st_size
        is_known = is_known and Path(path).is_file()
    return total if is_known else None
