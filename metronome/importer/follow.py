"""Follow logs as they grow and are rotated, and send each request as it is logged, until told to stop.

How far each log has been imported is recorded in a file. A log is identified by the hash of its first lines and by its
inode, per server. The file only saves time: if it is lost or wrong, logs are read from their beginning, and no request
is counted twice.
"""

import math
import os
import re
import signal
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep, time
from types import FrameType
from typing import Final, NamedTuple, NoReturn

import orjson

from metronome.errors import ConfigurationError, Malformed
from metronome.files import state_folder
from metronome.importer.batches import SAMPLE_LINES, ImportConfig, LogBatch, LogBatcher, iterate_batches
from metronome.importer.files import STANDARD_INPUT, LogFile, is_compressed
from metronome.importer.summary import ImportSummary, RejectedLines
from metronome.protocols.access_logs.reader import LINE_MAX_BYTES, AccessLog, detect_growing_format
from metronome.server_client import BatchSender, SendResult, ServerClient, rate_limited

_MAX_AGE_SECONDS: Final = 90 * 86_400
_VERSION: Final = 1

Inode = tuple[int, int]
"""A file's device and number on it."""


class Position(NamedTuple):
    """How far a server has acknowledged a log; the fields are the keys in the positions file.

    Attributes:
        url: URL of the server.
        path: absolute path at which the log is written.
        fingerprint: hash of its first lines in hexadecimal; empty if there were none yet.
        inode: device and inode number of the file.
        offset: number of acknowledged bytes from the beginning.
        changed: last known modification time, in nanoseconds since 1970.

    """

    url: str
    path: str
    fingerprint: str
    inode: Inode
    offset: int
    changed: int


_PositionKey = tuple[str, str, str, Inode]


class PositionStore:
    """Loads and saves the positions of followed logs; other processes may use the same file.

    Args:
        file: the positions file; it need not exist.

    Raises:
        ConfigurationError: its folder cannot be created.

    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._removed: set[_PositionKey] = set()
        self._saved: dict[_PositionKey, Position] = {}
        self._current: dict[_PositionKey, Position] = {}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot create the folder of --positions {file}: {error.strerror}") from None
        self._loaded = self._read()

    def for_path(self, url: str, path: Path) -> list[Position]:
        """Return the positions of the logs that were followed at a path."""
        return [position for position in self._loaded.values() if (position.url, position.path) == (url, str(path))]

    def acknowledged_offset(self, url: str, fingerprint: bytes, inode: Inode | None = None) -> int:
        """Return the offset up to which a server has acknowledged a log, at one inode or at any; 0 if unknown."""
        return max(
            (
                position.offset
                for position in self._loaded.values()
                if (position.url, position.fingerprint) == (url, fingerprint.hex()) and inode in (None, position.inode)
            ),
            default=0,
        )

    def remove(self, position: Position) -> None:
        """Remove the position of a log that was imported to its end."""
        self._removed.add(_position_key(position))
        self._loaded.pop(_position_key(position), None)

    def save(self, positions: Iterable[Position]) -> None:
        """Write the file if a position has changed.

        Raises:
            ConfigurationError: the file cannot be written.

        """
        self._current = {_position_key(position): position for position in positions}
        self._removed -= self._current.keys()
        if self._current == self._saved and not self._removed:
            return
        # Another process may have saved its positions in the same file.
        oldest = (time() - _MAX_AGE_SECONDS) * 1e9
        others = {
            key: position
            for key, position in self._read().items()
            if position.changed > oldest and key not in self._removed and key not in self._saved
        }
        lines = [orjson.dumps(position._asdict()) for position in (others | self._current).values()]
        text = b'{"version":%d,"logs":[\n%b\n]}\n' % (_VERSION, b",\n".join(lines))
        new = self._file.with_name(f"{self._file.name}.{os.getpid()}.new")
        try:
            new.write_bytes(text)
            new.replace(self._file)
        except OSError as error:
            raise ConfigurationError(f"cannot write --positions {self._file}: {error.strerror}") from None
        self._saved = self._current
        self._removed = set()

    def _read(self) -> dict[_PositionKey, Position]:
        positions = {}
        with suppress(OSError, ValueError, LookupError, TypeError):
            for entry in orjson.loads(self._file.read_bytes())["logs"]:
                device, number = entry["inode"]
                texts = (str(entry["url"]), str(entry["path"]), str(entry["fingerprint"]))
                position = Position(*texts, (int(device), int(number)), int(entry["offset"]), int(entry["changed"]))
                positions[_position_key(position)] = position
        return positions


def default_positions_file() -> Path:
    """Return the default positions file, in the user's state folder."""
    return state_folder() / "positions.json"


def _position_key(position: Position) -> _PositionKey:
    return position.url, position.path, position.fingerprint, position.inode


_BLOCK_BYTES: Final = 1 << 18
_FIRST_BYTES: Final = 1024
"""Number of bytes at the beginning of a log that change if it was truncated and written again."""
_SAMPLE_BYTES: Final = 1 << 22
_NOTICE_SECONDS: Final = 2.0
"""Time after which the operator is told that no line of a log could be read."""
_MAX_BATCH_DELAY_SECONDS: Final = 1.0
"""Maximum time for which an event waits for others in its batch."""

OffsetLookup = Callable[[bytes, Inode], int]
"""Returns the acknowledged offset of a log with a fingerprint and an inode."""


class FollowedLog:
    """An open log that may grow, and how much of it was read and acknowledged.

    Args:
        path: current path; the log may be renamed later.
        config: how to read it.
        summary: counts the lines.
        find_offset: returns the offset to begin at.
        send: sends a batch.

    Attributes:
        inode: device and inode number of the file.
        modified_ns: modification time when it was read last, in nanoseconds since 1970.
        truncated: whether the file was truncated, and holds another log now.
        read_error: why the log cannot be read; None if it can.
        notice: why it cannot be read yet; None if it can.
        offset: number of bytes that were read as complete lines.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigurationError: the file cannot be followed.

    """

    def __init__(
        self,
        path: Path,
        config: ImportConfig,
        summary: ImportSummary,
        find_offset: OffsetLookup,
        send: Callable[[LogBatch], None],
    ) -> None:
        self._path = path
        self._config = config
        self._summary = summary
        self._find_offset = find_offset
        self._send = send
        self._file = _open_log_file(path)
        status = os.fstat(self._file)
        self.inode: Inode = (status.st_dev, status.st_ino)
        self.modified_ns = status.st_mtime_ns
        self.truncated = False
        self.read_error: str | None = None
        self.notice: str | None = None
        self._opened_at = monotonic()
        self.offset = 0
        self._first_bytes = b""
        self._partial_line = b""
        self._skipped_bytes = 0
        self._log: AccessLog | None = None
        self._batcher: LogBatcher | None = None
        self._waiting_since = 0.0
        self._acknowledged = 0
        self._in_flight = 0

    @property
    def fingerprint(self) -> bytes | None:
        """Hash of its first lines; None while there are too few."""
        return None if self._log is None else self._log.fingerprint

    @property
    def is_acknowledged(self) -> bool:
        """Whether the server has acknowledged everything that was read."""
        return not self._in_flight and not self._batcher

    @property
    def has_waited(self) -> bool:
        """Whether the log has been open for so long that its first lines should be readable."""
        return monotonic() - self._opened_at >= _NOTICE_SECONDS

    @property
    def unread_bytes(self) -> int:
        """Number of bytes that have not been read."""
        return 0 if self.truncated else max(0, os.fstat(self._file).st_size - self._read_offset)

    @property
    def is_deleted(self) -> bool:
        """Whether the file was deleted."""
        return os.fstat(self._file).st_nlink == 0

    def position(self, url: str, path: Path) -> Position:
        """Return how far the server has acknowledged the log."""
        if self.is_acknowledged:
            self._acknowledged = self.offset
        fingerprint = "" if self._log is None else self._log.fingerprint.hex()
        return Position(url, str(path), fingerprint, self.inode, self._acknowledged, self.modified_ns)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def identify(self) -> None:
        """Read the first lines to identify the log, if there are enough."""
        if self._batcher is None and self._read_block():
            self._identify_log()

    def read(self) -> bool:
        """Read a block, send full batches, and return whether there was anything new."""
        has_block = self._read_block()
        if self._batcher is None and not (has_block and self._identify_log()):
            return has_block
        return self._process_lines() or has_block

    def flush(self, *, is_quiet: bool) -> None:
        """Send the collected events if the log is quiet, or if they have waited for the maximum time."""
        if self._batcher and (is_quiet or monotonic() - self._waiting_since >= _MAX_BATCH_DELAY_SECONDS):
            self._send_batch(self._batcher)

    def finish(self) -> None:
        """Import the last line even without a line feed; of a truncated log, a copy has the complete line."""
        if self._batcher is not None and self._partial_line.strip() and not self.truncated:
            self._partial_line += b"\n"
            self._process_lines()
        self.flush(is_quiet=True)

    @property
    def _read_offset(self) -> int:
        return self.offset + len(self._partial_line) + self._skipped_bytes

    def _read_block(self) -> bool:
        """Read a block, and return whether there was one."""
        if self.truncated:
            return False
        block = b"" if self.read_error else os.pread(self._file, _BLOCK_BYTES, self._read_offset)
        # Checked after reading: the log may be truncated at any time.
        status = os.fstat(self._file)
        if (
            status.st_size < self._read_offset + len(block)
            or os.pread(self._file, len(self._first_bytes), 0) != self._first_bytes
        ):
            self.truncated = True
            return False
        self.modified_ns = status.st_mtime_ns
        self._partial_line += block
        if self._batcher is None and not self.read_error:
            self._first_bytes = self._partial_line[:_FIRST_BYTES]
        return bool(block)

    def _identify_log(self) -> bool:
        """Identify the log by its first lines, and skip what has been acknowledged."""
        sample = [line for line in self._partial_line.split(b"\n")[:-1] if line.strip()][:SAMPLE_LINES]
        is_enough = len(sample) == SAMPLE_LINES or len(self._partial_line) >= _SAMPLE_BYTES
        try:
            log_format = self._config.log_format or detect_growing_format(sample)
        except Malformed as error:
            if any(not line.lstrip().startswith(b"#") for line in sample):
                self.notice = f"{self._path}: {error}; waiting for lines that can be read"
            if is_enough:
                self.read_error = f"{self._path}: {error}; following resumes when the file is replaced"
                self._partial_line, self._skipped_bytes = b"", self._skipped_bytes + len(self._partial_line)
            return False
        if not (is_enough or self._config.can_identify(sample, log_format)):
            return False
        self.notice = None
        self._log = self._config.create_log(sample, log_format)
        self._batcher = LogBatcher(str(self._path), self._log, self._config.batch_events, self._summary, "byte")
        self._resume_at(self._find_offset(self._log.fingerprint, self.inode))
        return True

    def _resume_at(self, offset: int) -> None:
        if (
            self._log is None
            or not 0 < offset <= self._read_offset + self.unread_bytes
            or os.pread(self._file, 1, offset - 1) != b"\n"
        ):
            return
        if self._log.log_format.has_directives:
            with os.fdopen(os.dup(self._file), "rb") as file:
                file.seek(0)
                while file.tell() < offset and (line := file.readline(LINE_MAX_BYTES)):
                    self._log.skip_line(line)
        self.offset = self._acknowledged = offset
        self._partial_line, self._skipped_bytes = b"", 0

    def _process_lines(self) -> bool:
        batcher = self._batcher
        if batcher is None:
            return False
        *lines, rest = self._partial_line.split(b"\n")
        for line in lines:
            if not batcher:
                self._waiting_since = monotonic()
            is_full = bool(line.strip()) and batcher.add(self.offset, line, self.offset)
            self.offset += len(line) + self._skipped_bytes + 1
            self._skipped_bytes = 0
            if is_full:
                self._send_batch(batcher)
        if len(rest) > LINE_MAX_BYTES:
            self._skipped_bytes += len(rest) - LINE_MAX_BYTES - 1
            rest = rest[: LINE_MAX_BYTES + 1]
        self._partial_line = rest
        return bool(lines)

    def _send_batch(self, batcher: LogBatcher) -> None:
        # Counted before the batch is taken: after an interruption in between, the batch does not count as acknowledged.
        self._in_flight += 1
        self._send(batcher.take_batch(partial(self._batch_acknowledged, self.offset)))

    def _batch_acknowledged(self, offset: int) -> None:
        self._in_flight -= 1
        self._acknowledged = max(self._acknowledged, offset)


def _open_log_file(path: Path) -> int:
    try:
        # O_NONBLOCK: opening a pipe would wait for its writer.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(f"cannot follow {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ConfigurationError(f"cannot follow {path}: not a regular file")
    if is_compressed(os.pread(file, 4, 0)):
        os.close(file)
        raise ConfigurationError(f"cannot follow {path}: compressed files do not grow; import it without --follow")
    return file


class RotatedLog(NamedTuple):
    """A file that may hold an earlier part of a log.

    Attributes:
        path: path of the file.
        inode: device and inode number.
        modified_ns: modification time in nanoseconds since 1970.

    """

    path: Path
    inode: Inode
    modified_ns: int


def read_inode(path: Path) -> Inode | None:
    """Return device and inode number of the file at a path; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


_DIGITS: Final = re.compile(r"\d+")
_COMPRESSED_SUFFIXES: Final = r"(?:\.(?:gz|zst))?"


def _list_candidates(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the files that may be earlier parts of a log, and whether their names say so."""
    target = path.resolve() if path.is_symlink() else path
    for log in dict.fromkeys((path, target)):
        pattern = rf"{re.escape(log.name)}[.-](?:\d|old|bak).*|{re.escape(log.stem)}[.-]\d{{6,}}.*"
        name = re.compile(pattern, re.DOTALL)
        with suppress(OSError):
            for file in log.parent.iterdir():
                if file not in {path, target}:
                    yield file, name.fullmatch(file.name) is not None
    if target != path:
        for file in _list_dated_files(target):
            if file != target:
                yield file, True


def _list_dated_files(target: Path) -> Iterator[Path]:
    """Yield the files whose paths differ from that of a symbolic link's target in their numbers only.

    Programs such as cronolog write a file for each day, in folders such as ``2015/05/17``, and let a symbolic link
    point to the newest one.
    """
    first = next((index for index, part in enumerate(target.parts) if _DIGITS.search(part)), None)
    if first is None:
        return
    folders = [Path(*target.parts[:first])]
    for index, part in enumerate(target.parts[first:], first + 1):
        shape = _DIGITS.sub(lambda digits: rf"\d{{{len(digits[0])}}}", re.escape(part))
        name = re.compile(shape + (_COMPRESSED_SUFFIXES if index == len(target.parts) else ""))
        found: list[Path] = []
        for folder in folders:
            with suppress(OSError):
                found += [entry for entry in folder.iterdir() if name.fullmatch(entry.name)]
        folders = found
    yield from folders


def list_rotated_logs(
    path: Path, modified_since_ns: int, known_inodes: frozenset[Inode] = frozenset()
) -> list[RotatedLog]:
    """List the files that a log was rotated to recently, oldest first.

    Args:
        path: path at which the log is written.
        modified_since_ns: modification time of the log when it was read last, in nanoseconds since 1970: older files
            hold nothing new.
        known_inodes: files to include whatever their names are.

    Returns:
        The files in the same folder with names of rotated logs, such as ``access.log.1`` or ``access-20250517.log``,
        and those of *known_inodes*; of a symbolic link, also those in the folder of its target, and the files of other
        days, such as ``2025/05/16/access.log``. If a file exists both plain and compressed, only the plain one.

    """
    rotated: dict[Path, RotatedLog] = {}
    for file, is_named in _list_candidates(path):
        try:
            status = file.stat(follow_symlinks=False)
        except OSError:
            # It was renamed or compressed in the meantime.
            continue
        inode = status.st_dev, status.st_ino
        if (
            (is_named or inode in known_inodes)
            and stat.S_ISREG(status.st_mode)
            and status.st_mtime_ns >= modified_since_ns
        ):
            rotated[file] = RotatedLog(file, inode, status.st_mtime_ns)
    distinct = [
        file
        for file in rotated.values()
        if file.path.suffix not in {".gz", ".zst"} or file.path.with_suffix("") not in rotated
    ]
    return sorted(distinct, key=lambda file: file.modified_ns)


CLOSE_INACTIVE_SECONDS: Final = 600.0
"""Time for which a renamed log stays open after its last line: servers write to it until they reopen their logs."""
CLOSE_REMOVED_SECONDS: Final = 30.0
"""The same for a deleted log, which takes space on the disk until it is closed."""


class FollowTarget(NamedTuple):
    """The server that events are sent to, and the operator who is notified.

    Attributes:
        url: URL of the server.
        send: sends a batch.
        flush: waits for the server's response to all batches.
        notify: shows a message to the operator.

    """

    url: str
    send: Callable[[LogBatch], None]
    flush: Callable[[], None]
    notify: Callable[[str], None]


@dataclass(slots=True)
class _RetiredLog:
    """A log that was rotated away, and when (monotonic time); minus infinity if that was before it was opened."""

    log: FollowedLog
    retired_at: float = -math.inf
    is_finished: bool = False


class LogFollower:
    """Follows the logs that are written at one path, one after another.

    Args:
        path: the path.
        config: how to read the logs.
        summary: counts the lines.
        positions: how far the logs were imported before.
        target: the server.

    Raises:
        ConfigurationError: the file at the path cannot be followed, or its folder does not exist.

    """

    def __init__(
        self, path: str, config: ImportConfig, summary: ImportSummary, positions: PositionStore, target: FollowTarget
    ) -> None:
        self._path = Path(path).absolute()
        self._config = config
        self._summary = summary
        self._positions = positions
        self._target = target
        self._retired: list[_RetiredLog] = []
        self._last_modified_ns: int | None = None
        self._last_notified = ""
        if not self._path.parent.is_dir():
            raise ConfigurationError(f"cannot follow {path}: no such folder")
        self._current = self._open_log(self._path)
        if self._current is None:
            target.notify(f"{path} does not exist yet; waiting for it")

    @property
    def unread_bytes(self) -> int:
        """Number of bytes that have not been read."""
        return sum(log.unread_bytes for log in self._logs)

    def start(self) -> None:
        """Import the rest of the logs that were rotated away since the last run."""
        log = self._current
        if log is not None:
            log.identify()
        current = None if log is None else log.position(self._target.url, self._path)
        rotated = [
            position
            for position in self._positions.for_path(self._target.url, self._path)
            if current is None or (position.inode, position.fingerprint) != (current.inode, current.fingerprint)
        ]
        if rotated:
            self._last_modified_ns = min(position.changed for position in rotated)
            self._catch_up(frozenset(position.inode for position in rotated))
            for position in rotated:
                self._positions.remove(position)

    def poll(self) -> bool:
        """Read a block of each log, detect a rotation, and return whether there was anything new."""
        has_news = False
        for log in self._logs:
            has_more = log.read()
            log.flush(is_quiet=not has_more)
            self._notify_once(log.read_error or (log.notice if log.has_waited else None))
            has_news = has_news or has_more
        self._close_finished_logs()
        return self._switch_log() or has_news

    def positions(self) -> list[Position]:
        """Return how far the server has acknowledged each open log."""
        return [log.position(self._target.url, self._path) for log in self._logs]

    def close(self) -> None:
        """Close all files."""
        for log in self._logs:
            log.close()

    @property
    def _logs(self) -> list[FollowedLog]:
        return [retired.log for retired in self._retired] + ([] if self._current is None else [self._current])

    def _switch_log(self) -> bool:
        """Open the log that is at the path now, and return whether it is another one than before."""
        previous = self._current
        inode = read_inode(self._path)
        if inode == (None if previous is None else previous.inode) and not (previous and previous.truncated):
            return False
        if previous is not None:
            if inode is None and not previous.truncated:
                # A rotation is in progress: the previous log is read until there is a new one.
                return False
            self._retired.append(_RetiredLog(previous, monotonic()))
            self._last_modified_ns = previous.modified_ns
        self._current = self._open_log(self._path)
        # While the server was unavailable, there may have been several rotations.
        self._catch_up()
        return True

    def _close_finished_logs(self) -> None:
        """Close the rotated logs that are no longer written to, once the server has acknowledged them."""
        for retired in [*self._retired]:
            log = retired.log
            linger = 0.0 if log.truncated else CLOSE_REMOVED_SECONDS if log.is_deleted else CLOSE_INACTIVE_SECONDS
            is_quiet = log.truncated or min(monotonic() - retired.retired_at, time() - log.modified_ns / 1e9) >= linger
            if not is_quiet or (log.unread_bytes and log.read_error is None):
                retired.is_finished = False
                continue
            if not retired.is_finished:
                log.finish()
                retired.is_finished = True
            if log.is_acknowledged:
                log.close()
                self._retired.remove(retired)

    def _catch_up(self, inodes: frozenset[Inode] = frozenset()) -> None:
        """Import the files that the log was rotated to since it was read last."""
        if self._last_modified_ns is None:
            return
        imported: set[tuple[Inode, int]] = set()
        while files := self._pending_files(list_rotated_logs(self._path, self._last_modified_ns, inodes), imported):
            for file in files:
                log = self._open_rotated(file)
                # After a further rotation, the path belongs to another file; the files are listed again then.
                if log is not None and log.inode == file.inode:
                    log.identify()
                    self._retired.append(_RetiredLog(log))
                elif log is not None:
                    log.close()
                elif self._import_file(file):
                    imported.add((file.inode, file.modified_ns))
        if imported:
            self._target.flush()

    def _pending_files(self, files: list[RotatedLog], imported: set[tuple[Inode, int]]) -> list[RotatedLog]:
        open_inodes = {log.inode for log in self._logs if not log.truncated}
        return [
            file for file in files if file.inode not in open_inodes and (file.inode, file.modified_ns) not in imported
        ]

    def _open_rotated(self, file: RotatedLog) -> FollowedLog | None:
        """Open an earlier part of the log; None if it has disappeared, or is compressed."""
        try:
            return self._open_log(file.path, self._offset_of_any_copy)
        except ConfigurationError:
            return None

    def _import_file(self, part: RotatedLog) -> bool:
        """Import a file that is not written to any more; return whether the path still belongs to it."""
        try:
            with LogFile(str(part.path)) as file:
                if file.inode != part.inode:
                    return False
                for batch in iterate_batches(file, self._config, self._summary, self._offset_of_any_copy):
                    self._target.send(batch)
                if file.read_error is not None:
                    self._target.notify(f"{file.read_error}; the complete lines before were imported")
        except FileNotFoundError:
            return False
        except (Malformed, OSError) as error:
            self._target.notify(f"{part.path}: {error}")
        return True

    def _open_log(self, path: Path, find_offset: OffsetLookup | None = None) -> FollowedLog | None:
        try:
            return FollowedLog(path, self._config, self._summary, find_offset or self._offset_of, self._target.send)
        except FileNotFoundError:
            return None

    def _offset_of(self, fingerprint: bytes, inode: Inode) -> int:
        return self._positions.acknowledged_offset(self._target.url, fingerprint, inode)

    def _offset_of_any_copy(self, fingerprint: bytes, _: Inode | None = None) -> int:
        offsets = [log.offset for log in self._logs if log.fingerprint == fingerprint]
        return max([self._positions.acknowledged_offset(self._target.url, fingerprint), *offsets])

    def _notify_once(self, read_error: str | None) -> None:
        if read_error is not None and read_error != self._last_notified:
            self._last_notified = read_error
            self._target.notify(read_error)


_POLL_INTERVAL_SECONDS: Final = 0.25
_SAVE_INTERVAL_SECONDS: Final = 1.0
_STOP_TIMEOUT_SECONDS: Final = 2.0
"""Time for which results of batches in flight are awaited after the command was told to stop."""
_EXIT_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 0}


class FollowConfig(NamedTuple):
    """Which logs to follow, and where to send them.

    Attributes:
        files: the paths at which the logs are written.
        import_config: how to read them.
        client: the server.
        positions: the positions file.
        notify: shows a message to the operator.
        show_status: shows the current state in a line; called about once a second.

    """

    files: list[str]
    import_config: ImportConfig
    client: ServerClient
    positions: Path
    notify: Callable[[str], None]
    show_status: Callable[[str], None]


class _StopSignal(BaseException):
    """SIGINT or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = _EXIT_CODES[signal.Signals(number)]


def follow_logs(config: FollowConfig, summary: ImportSummary) -> int:
    """Follow logs until SIGINT or SIGTERM.

    Args:
        config: which logs to follow, and where to send them.
        summary: counts the lines.

    Returns:
        The exit code: 130 after SIGINT, 0 after SIGTERM.

    Raises:
        ConfigurationError: a log cannot be followed, the positions file cannot be written, or the URL is not that of
            a Metronome server.
        RequestError: the server rejects the request; the message has the reason.

    """
    if STANDARD_INPUT in config.files:
        raise ConfigurationError("cannot follow standard input: it is read to its end without --follow")
    try:
        with _handling_stop_signals():
            _follow_until_stopped(config, PositionStore(config.positions), summary)
    except _StopSignal as stop:
        return stop.exit_code


def _follow_until_stopped(config: FollowConfig, positions: PositionStore, summary: ImportSummary) -> NoReturn:
    def count_result(result: SendResult[LogBatch]) -> None:
        summary.add_result(result.batch.log, result.accepted, result.rejected)
        result.batch.on_acknowledged()

    with BatchSender(config.client, count_result, math.inf, rate_limited(config.notify)) as sender:
        target = FollowTarget(config.client.url.rstrip("/"), sender.send, sender.flush, config.notify)
        followers: list[LogFollower] = []
        try:
            followers.extend(
                LogFollower(path, config.import_config, summary, positions, target)
                for path in dict.fromkeys(config.files)
            )
            for follower in followers:
                follower.start()
            _poll_logs(followers, sender, positions, summary, config)
        except _StopSignal:
            _ignore_signals()
            sender.drain(_STOP_TIMEOUT_SECONDS)
            raise
        finally:
            positions.save(_collect_positions(followers))
            for follower in followers:
                follower.close()


def _poll_logs(
    followers: list[LogFollower],
    sender: BatchSender[LogBatch],
    positions: PositionStore,
    summary: ImportSummary,
    config: FollowConfig,
) -> NoReturn:
    saved_at = -math.inf
    saved_inodes: list[Inode] = []
    saved_lines = summary.lines
    notify_unreadable, notify_rejected = rate_limited(config.notify), rate_limited(config.notify)
    while True:
        current = _collect_positions(followers)
        inodes = [position.inode for position in current]
        elapsed = monotonic() - saved_at
        # A new log is saved at once, before it can be rotated away.
        if elapsed >= _SAVE_INTERVAL_SECONDS or inodes != saved_inodes:
            positions.save(current)
            _notify_last(summary.unreadable, "could not be read", notify_unreadable)
            _notify_last(summary.rejected, "were rejected by the server", notify_rejected)
            unread = sum(follower.unread_bytes for follower in followers)
            config.show_status(
                f"{summary.lines:,} lines, {(summary.lines - saved_lines) / elapsed:,.0f} lines/s, "
                f"{unread:,} bytes unread, {summary.accepted:,} accepted"
            )
            saved_at, saved_inodes, saved_lines = monotonic(), inodes, summary.lines
        has_news = [follower.poll() for follower in followers]
        sender.collect_results()
        if not any(has_news):
            sleep(_POLL_INTERVAL_SECONDS)


def _collect_positions(followers: list[LogFollower]) -> list[Position]:
    return [position for follower in followers for position in follower.positions()]


def _notify_last(rejected: RejectedLines, problem: str, notify: Callable[[str], None]) -> None:
    if rejected.last is not None:
        notify(
            f"{rejected.count:,} lines {problem}; the last is {rejected.last.log}, {rejected.last.location}: "
            f"{rejected.last.reason}"
        )


@contextmanager
def _handling_stop_signals() -> Iterator[None]:
    def stop(number: int, _: FrameType | None) -> None:
        raise _StopSignal(number)

    previous = {number: signal.signal(number, stop) for number in _EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)
