"""Files with stored documents, which ``metronome export`` writes and ``metronome load`` reads.

While an export runs, its documents are appended to ``FILE.part``, one a line. The last whole line says where an
interrupted export continues. Only a complete export gets its name, and replaces an older file of that name.

Tables have a column for each field, for people, and the whole document as the last column, for `metronome load`.
"""

import csv
import fcntl
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple, Self

import orjson

from metronome.errors import ConfigurationError
from metronome.files import fsync_path, state_folder
from metronome.reports.csv import format_csv_rows
from metronome.server_client import BATCH_MAX_BYTES, REQUEST_MAX_EVENTS

DOCUMENT_COLUMN: Final = "document"
"""The column of tables with the whole document."""
SUFFIXES: Final = (".parquet", ".ndjson", ".csv")
MAX_COLUMNS: Final = 200
"""Senders may have stored any number of fields: rarer ones are in the documents only."""

_TIME_FIELD: Final = "@timestamp"
_TIME_COLUMN: Final = "timestamp"
"""Without the @, which spreadsheets take for a formula, and SQL for a name to quote."""
_HEAD_FIELDS: Final = (_TIME_FIELD, "event_id")
_COLUMN_NAMES: Final = {_TIME_FIELD: _TIME_COLUMN}
_READ_ROWS: Final = 2_000
_ROW_GROUP_ROWS: Final = 20_000
_MEMORY_LIMIT: Final = "256MB"
_TAIL_BYTES: Final = 2**20


def require_suffix(file: Path) -> str:
    """Return the suffix of a file, which decides its format.

    Raises:
        ConfigurationError: it is none of `SUFFIXES`.

    """
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigurationError(f"invalid file {str(file)!r}: expected a name that ends with {', '.join(SUFFIXES)}")
    return suffix


class PartFile:
    """The documents that an export has received so far, in ``FILE.part``; beside it, what they were selected by.

    Args:
        file: the file to be written.
        selection: which documents: an export of others does not continue this one.
        restart: discard what an interrupted export has received.

    Raises:
        ConfigurationError: the file cannot be written, or another export writes it.

    """

    def __init__(self, file: Path, selection: str, *, restart: bool = False) -> None:
        self.path = file.with_name(f"{file.name}.part")
        self._file = file
        self._selection_path = file.with_name(f"{file.name}.part.selection")
        try:
            self._output: BinaryIO = self.path.open("a+b")
        except OSError as error:
            raise self._cannot_write(error) from None
        try:
            fcntl.flock(self._output, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_same = self._selection_path.exists() and self._selection_path.read_text() == selection
            self._output.truncate(0 if restart or not is_same else self._end_of_last_line())
            self._selection_path.write_text(selection)
        except OSError as error:
            self._output.close()
            if isinstance(error, BlockingIOError):
                raise ConfigurationError(f"another export writes {file}: wait for it, or choose another name") from None
            raise self._cannot_write(error) from None

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        with suppress(OSError):
            self._output.close()

    def last_document(self) -> bytes | None:
        """Return the last document; None if there is none."""
        size = self._output.seek(0, os.SEEK_END)
        length = _TAIL_BYTES
        while size:
            self._output.seek(max(0, size - length))
            lines = self._output.read().splitlines()
            if len(lines) > 1 or length >= size:
                return lines[-1]
            length *= 4
        return None

    def count_documents(self) -> int:
        """Return the number of documents."""
        self._output.seek(0)
        return sum(block.count(b"\n") for block in iter(lambda: self._output.read(2**20), b""))

    def append(self, lines: bytes) -> None:
        """Append documents, each with a line feed at its end.

        Raises:
            ConfigurationError: the file cannot be written.

        """
        try:
            self._output.write(lines)
            self._output.flush()
        except OSError as error:
            raise self._cannot_write(error) from None

    def finish(self) -> int:
        """Write the file that was asked for, and delete this one; return the number of fields without a column.

        Raises:
            ConfigurationError: the file cannot be written.

        """
        omitted = 0
        suffix = require_suffix(self._file)
        complete = self.path if suffix == ".ndjson" else self._file.with_name(f"{self._file.name}.complete")
        try:
            if suffix != ".ndjson":
                fields = _list_fields(self.path)
                omitted = max(0, len(fields) - MAX_COLUMNS)
                fields = dict(islice(fields.items(), MAX_COLUMNS))
                (_write_parquet if suffix == ".parquet" else _write_csv)(self.path, complete, fields)
            fsync_path(complete)
            complete.replace(self._file)
            fsync_path(self._file.parent)
            self.path.unlink(missing_ok=True)
            self._selection_path.unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from None
        finally:
            if complete != self.path:
                complete.unlink(missing_ok=True)
        return omitted

    def _end_of_last_line(self) -> int:
        size = position = self._output.seek(0, os.SEEK_END)
        while position:
            position = max(0, position - _TAIL_BYTES)
            self._output.seek(position)
            end = self._output.read(min(_TAIL_BYTES, size - position)).rfind(b"\n")
            if end >= 0:
                return position + end + 1
        return 0

    def _cannot_write(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"cannot write {self._file}: {error.strerror}")


def _list_fields(path: Path) -> dict[str, str]:
    """Return the type of each field as a column of Parquet: the head of documents first, then the most common ones."""
    counts = Counter(_HEAD_FIELDS)
    kinds: dict[str, set[type]] = {name: {str} for name in _HEAD_FIELDS}
    with path.open("rb") as lines:
        for line in lines:
            fields = orjson.loads(line)
            counts.update(fields.keys())
            for name, value in fields.items():
                kinds.setdefault(name, set()).add(type(value))
    order = sorted(counts, key=lambda name: (name not in _HEAD_FIELDS, -counts[name], name))
    return {
        name: _column_type(name, kinds[name] - {type(None)})
        for name in order
        if name not in {_TIME_COLUMN, DOCUMENT_COLUMN}
    }


def _column_name(field: str) -> str:
    return _COLUMN_NAMES.get(field, field)


def _column_type(name: str, kinds: set[type]) -> str:
    if name == _TIME_FIELD:
        return "TIMESTAMP WITH TIME ZONE"
    if kinds == {bool}:
        return "BOOLEAN"
    if kinds == {int}:
        return "BIGINT"
    return "DOUBLE" if kinds and kinds <= {int, float} else "VARCHAR"


def _write_csv(path: Path, target: Path, fields: dict[str, str]) -> None:
    with path.open("rb") as lines, target.open("wb") as output:
        output.write(format_csv_rows([(*map(_column_name, fields), DOCUMENT_COLUMN)]).encode())
        while batch := list(islice(lines, _READ_ROWS)):
            output.write(format_csv_rows(_csv_row(line, fields) for line in batch).encode())


def _csv_row(line: bytes, fields: Iterable[str]) -> tuple[Any, ...]:
    document = orjson.loads(line)
    return (*map(document.get, fields), line.removesuffix(b"\n").decode())


def _write_parquet(path: Path, target: Path, fields: dict[str, str]) -> None:
    import duckdb  # noqa: PLC0415  # takes longer to import than the rest of the command

    columns = "".join(
        f"fields[{index}]::{kind} AS {_quote(_column_name(name))}, "
        for index, (name, kind) in enumerate(fields.items(), start=1)
    )
    pointers = [f"/{name.replace('~', '~0').replace('/', '~1')}" for name in fields]
    with closing(duckdb.connect(config={"memory_limit": _MEMORY_LIMIT, "threads": 1})) as database:
        database.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        database.execute(f"SET temp_directory = {_text(str(target.parent.absolute()))}")
        try:
            database.execute(
                f"COPY (SELECT {columns}{DOCUMENT_COLUMN} FROM (SELECT json::VARCHAR AS {DOCUMENT_COLUMN}, "
                f"json_extract_string(json, [{', '.join(map(_text, pointers))}]) AS fields "
                f"FROM read_ndjson_objects({_text(str(path))}, maximum_object_size = 67108864))) "
                f"TO {_text(str(target))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP_ROWS})"
            )
        except duckdb.IOException as error:
            raise ConfigurationError(f"cannot write {target}: {error}") from None


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


class LoadBatch(NamedTuple):
    """Documents of a file that are sent in one request.

    Attributes:
        body: the documents as NDJSON.
        first: number of the first one in the file, from 1.
        documents: number of documents.

    """

    body: bytes
    first: int
    documents: int

    def location(self, index: int) -> str:
        """Return where a document is."""
        return f"document {self.first + index:,}"


def iterate_load_batches(file: Path, skip: int = 0) -> Iterator[LoadBatch]:
    """Yield the documents of an exported file in batches.

    Args:
        file: a file that `PartFile.finish` wrote, or lines of documents.
        skip: number of documents at the beginning to leave out.

    Raises:
        ConfigurationError: the file cannot be read, or has no documents.

    """
    lines: list[bytes] = []
    size, number = 0, skip
    for line in _iterate_documents(file, skip):
        if lines and (len(lines) == REQUEST_MAX_EVENTS or size + len(line) >= BATCH_MAX_BYTES):
            yield LoadBatch(b"\n".join(lines), number - len(lines) + 1, len(lines))
            lines, size = [], 0
        lines.append(line)
        number += 1
        size += len(line) + 1
    if lines:
        yield LoadBatch(b"\n".join(lines), number - len(lines) + 1, len(lines))


def _iterate_documents(file: Path, skip: int) -> Iterator[bytes]:
    suffix = require_suffix(file)
    try:
        if suffix == ".parquet":
            yield from _iterate_parquet(file, skip)
            return
        with file.open("rb") as stream:
            if suffix == ".ndjson":
                lines = (line.removesuffix(b"\n").removesuffix(b"\r") for line in stream)
                yield from islice((line for line in lines if line), skip, None)
                return
        yield from _iterate_csv(file, skip)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None


def _iterate_csv(file: Path, skip: int) -> Iterator[bytes]:
    csv.field_size_limit(sys.maxsize)
    with file.open(newline="", encoding="utf-8") as text:
        try:
            rows = csv.DictReader(text)
            if DOCUMENT_COLUMN not in (rows.fieldnames or ()):
                raise _without_documents(file)
            for row in islice(rows, skip, None):
                yield (row[DOCUMENT_COLUMN] or "").encode()
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigurationError(f"cannot read {file}: {error}") from None


def _iterate_parquet(file: Path, skip: int) -> Iterator[bytes]:
    import duckdb  # noqa: PLC0415  # takes longer to import than the rest of the command

    with closing(duckdb.connect(config={"memory_limit": _MEMORY_LIMIT, "threads": 1})) as database:
        try:
            database.execute("SET enable_progress_bar = false")
            source = f"read_parquet({_text(str(file))})"
            columns = [row[0] for row in database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
            if DOCUMENT_COLUMN not in columns:
                raise _without_documents(file)
            rows = database.execute(f"SELECT {DOCUMENT_COLUMN} FROM {source} OFFSET {skip:d}")
            while batch := rows.fetchmany(_READ_ROWS):
                yield from (document.encode() for (document,) in batch)
        except duckdb.Error as error:
            raise ConfigurationError(f"cannot read {file}: {error}") from None


def _without_documents(file: Path) -> ConfigurationError:
    return ConfigurationError(f"{file} has no column {DOCUMENT_COLUMN!r}: expected a file of `metronome export`")


class LoadCheckpoint:
    """Records how many documents of a file a server has accepted.

    It only saves time: without it, all documents are sent again, and none is counted twice.

    Args:
        file: the file that is loaded; a changed file starts at its beginning.
        url: URL of the server.
        restart: discard what an interrupted load recorded.

    Raises:
        ConfigurationError: the file cannot be read.

    """

    def __init__(self, file: Path, url: str, *, restart: bool = False) -> None:
        try:
            status = file.stat()
        except OSError as error:
            raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
        identity = f"{file.resolve()} {status.st_size} {status.st_mtime_ns} {url.rstrip('/')}"
        name = blake2b(identity.encode(errors="surrogateescape"), digest_size=8).hexdigest()
        self._path = state_folder() / f"load-{name}.txt"
        self.accepted = 0
        if restart:
            self.delete()
        with suppress(OSError, ValueError):
            self.accepted = int(self._path.read_text())

    def record(self, accepted: int) -> None:
        """Record the number of documents that the server has accepted."""
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(str(accepted))

    def delete(self) -> None:
        """Delete what is recorded."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
