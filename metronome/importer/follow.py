"""Follows logs as they grow, and sends each hit as soon as it is there, until it is told to stop.

How far the logs that are followed have been taken, in a file that outlives the command.

A log is known by the hash of its first lines and by its inode; and what one server has taken, another has not. The
file only saves time: where it is lost or wrong, logs are read from their beginning, and nothing is counted twice.

One log that may grow: read as far as it has whole lines, and no line twice.

Where a log's earlier parts are after it was rotated: beside it, renamed, copied or compressed.

What is written at one path, through all rotations: nothing is left out, and nothing read without need.
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
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from metronome.errors import ConfigurationError, Malformed
from metronome.files import state_folder
from metronome.importer.batches import SAMPLE_LINES, ImportConfig, LogBatch, LogBatcher, iterate_batches
from metronome.importer.files import STANDARD_INPUT, LogFile, is_compressed
from metronome.importer.summary import ImportSummary, RejectedLines
from metronome.protocols.access_logs.reader import LINE_MAX_BYTES, AccessLog, detect_growing_format
from metronome.server_client import BatchSender, SendResult

_MAX_AGE_SECONDS: Final = 90 * 86_400
_VERSION: Final = 1

Inode = tuple[int, int]
"""A file's device and number on it."""


class Position(NamedTuple):
    """How far a log has been taken.

    Attributes:
        url: the server that has it.
        path: where the log was found, absolute.
        fingerprint: of its first lines, in hexadecimal; empty where there were none yet.
        inode: of the file.
        offset: how many bytes from the beginning the server has acknowledged.
        changed: when the file was written to last, as far as was seen, in nanoseconds since 1970.

    """

    url: str
    path: str
    fingerprint: str
    inode: Inode
    offset: int
    changed: int


_PositionKey = tuple[str, str, str, Inode]


class PositionStore:
    """The positions of the logs that are followed, and those of others in the same file.

    Args:
        file: where they are kept; it need not exist.

    Raises:
        ConfigurationError: its folder cannot be made.

    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._removed: set[_PositionKey] = set()
        self._saved: dict[_PositionKey, Position] = {}
        self._current: dict[_PositionKey, Position] = {}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--positions {file} cannot be kept: {error.strerror}") from None
        self._loaded = self._read()

    def for_path(self, url: str, path: Path) -> list[Position]:
        """Return the positions of what was followed at that place."""
        return [one for one in self._loaded.values() if (one.url, one.path) == (url, str(path))]

    def acknowledged_offset(self, url: str, fingerprint: bytes, inode: Inode | None = None) -> int:
        """Return up to which offset a server has a log, in this file or in any; 0 where nothing is known."""
        return max(
            (
                one.offset
                for one in self._loaded.values()
                if (one.url, one.fingerprint) == (url, fingerprint.hex()) and inode in (None, one.inode)
            ),
            default=0,
        )

    def remove(self, position: Position) -> None:
        """Forget a log that was taken to its end."""
        self._removed.add(_position_key(position))
        self._loaded.pop(_position_key(position), None)

    def save(self, positions: Iterable[Position]) -> None:
        """Write the file anew, if a position has changed.

        Raises:
            ConfigurationError: it cannot be written.

        """
        self._current = {_position_key(one): one for one in positions}
        self._removed -= self._current.keys()
        if self._current == self._saved and not self._removed:
            return
        # Another command may keep its positions in the same file.
        oldest = (time() - _MAX_AGE_SECONDS) * 1e9
        others = {key: one for key, one in self._read().items() if one.changed > oldest}
        kept = {key: one for key, one in others.items() if key not in self._removed and key not in self._saved}
        lines = [orjson.dumps(one._asdict()) for one in (kept | self._current).values()]
        text = b'{"version":%d,"logs":[\n%b\n]}\n' % (_VERSION, b",\n".join(lines))
        new = self._file.with_name(f"{self._file.name}.{os.getpid()}.new")
        try:
            new.write_bytes(text)
            new.replace(self._file)
        except OSError as error:
            raise ConfigurationError(f"--positions {self._file} cannot be written: {error.strerror}") from None
        self._saved = self._current
        self._removed = set()

    def _read(self) -> dict[_PositionKey, Position]:
        found = {}
        with suppress(OSError, ValueError, LookupError, TypeError):
            for entry in orjson.loads(self._file.read_bytes())["logs"]:
                device, number = entry["inode"]
                texts = (str(entry["url"]), str(entry["path"]), str(entry["fingerprint"]))
                position = Position(*texts, (int(device), int(number)), int(entry["offset"]), int(entry["changed"]))
                found[_position_key(position)] = position
        return found


def default_positions_file() -> Path:
    """Return where positions are kept if nobody says otherwise: in the user's state folder."""
    return state_folder() / "positions.json"


def _position_key(position: Position) -> _PositionKey:
    return position.url, position.path, position.fingerprint, position.inode


_BLOCK_BYTES: Final = 1 << 18
_FIRST_BYTES: Final = 1024
"""So many bytes of a log's beginning tell that it is still the same: what is cut off and grows anew differs there."""
_SAMPLE_BYTES: Final = 1 << 22
_MAX_BATCH_DELAY_SECONDS: Final = 1.0
"""For so long at the most an event waits for others to be sent with it."""

OffsetLookup = Callable[[bytes, Inode], int]
"""Tells of a log's fingerprint and inode up to which offset it is known already."""


class FollowedLog:
    """A log that is open, and what of it was read and acknowledged.

    Args:
        path: where it is now; it may be renamed later.
        config: how it is to be read.
        summary: counts each line.
        find_offset: tells where to begin.
        send: takes the batches.

    Attributes:
        inode: the file's.
        changed: when it was written to last, as far as was read, in nanoseconds since 1970.
        truncated: whether the file has lost what was read of it, and is another log now.
        complaint: why none of it can be read, or None.
        offset: how many of its bytes were read as whole lines.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigurationError: it cannot be followed.

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
        found = os.fstat(self._file)
        self.inode: Inode = (found.st_dev, found.st_ino)
        self.modified_ns = found.st_mtime_ns
        self.truncated = False
        self.read_error: str | None = None
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
        """What tells it from others, or None where it has not begun yet."""
        return None if self._log is None else self._log.fingerprint

    @property
    def is_acknowledged(self) -> bool:
        """Whether nothing that was read waits for the server."""
        return not self._in_flight and not self._batcher

    @property
    def unread_bytes(self) -> int:
        """How many bytes there are that have not been read."""
        return 0 if self.truncated else max(0, os.fstat(self._file).st_size - self._read_offset)

    @property
    def is_deleted(self) -> bool:
        """Whether the file has no name any more."""
        return os.fstat(self._file).st_nlink == 0

    def position(self, url: str, path: Path) -> Position:
        """Return how far the server has acknowledged it."""
        if self.is_acknowledged:
            self._acknowledged = self.offset
        name = "" if self._log is None else self._log.fingerprint.hex()
        return Position(url, str(path), name, self.inode, self._acknowledged, self.modified_ns)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def identify(self) -> None:
        """Read as much as is needed to know which log it is, if there is as much."""
        if self._batcher is None and self._read_block():
            self._identify_log()

    def read(self) -> bool:
        """Read a block, send what makes full batches, and tell whether there was anything new."""
        fetched = self._read_block()
        if self._batcher is None and not (fetched and self._identify_log()):
            return fetched
        return self._process_lines() or fetched

    def flush(self, *, is_quiet: bool) -> None:
        """Send what was read, if nothing more comes now or it has waited for long enough."""
        if self._batcher and (is_quiet or monotonic() - self._waiting_since >= _MAX_BATCH_DELAY_SECONDS):
            self._send_batch(self._batcher)

    def finish(self) -> None:
        """Take the last line as it is: nobody will end it any more. Of what was cut off, a copy has the whole line."""
        if self._batcher is not None and self._partial_line.strip() and not self.truncated:
            self._partial_line += b"\n"
            self._process_lines()
        self.flush(is_quiet=True)

    @property
    def _read_offset(self) -> int:
        return self.offset + len(self._partial_line) + self._skipped_bytes

    def _read_block(self) -> bool:
        """Read a block, and tell whether it was one."""
        if self.truncated:
            return False
        block = b"" if self.read_error else os.pread(self._file, _BLOCK_BYTES, self._read_offset)
        # Only afterwards it is certain that the block was of the same log.
        found = os.fstat(self._file)
        if (
            found.st_size < self._read_offset + len(block)
            or os.pread(self._file, len(self._first_bytes), 0) != self._first_bytes
        ):
            self.truncated = True
            return False
        self.modified_ns = found.st_mtime_ns
        self._partial_line += block
        if self._batcher is None and not self.read_error:
            self._first_bytes = self._partial_line[:_FIRST_BYTES]
        return bool(block)

    def _identify_log(self) -> bool:
        """Find out from the first lines which log it is, and go to where it is to be read from."""
        sample = [line for line in self._partial_line.split(b"\n")[:-1] if line.strip()][:SAMPLE_LINES]
        is_enough = len(sample) == SAMPLE_LINES or len(self._partial_line) >= _SAMPLE_BYTES
        try:
            log_format = self._config.log_format or detect_growing_format(sample)
        except Malformed as error:
            if is_enough:
                self.read_error = f"{self._path}: {error}; it is followed again when it is replaced"
                self._partial_line, self._skipped_bytes = b"", self._skipped_bytes + len(self._partial_line)
            return False
        if not (is_enough or self._config.can_identify(sample, log_format)):
            return False
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
        # Counted before it is taken: whoever is interrupted between has not sent it, and does not take it for sent.
        self._in_flight += 1
        self._send(batcher.take_batch(partial(self._batch_acknowledged, self.offset)))

    def _batch_acknowledged(self, offset: int) -> None:
        self._in_flight -= 1
        self._acknowledged = max(self._acknowledged, offset)


def _open_log_file(path: Path) -> int:
    try:
        # Without waiting: a pipe is told from a file before somebody writes to it.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be followed: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ConfigurationError(f"{path} cannot be followed: it is no file")
    if is_compressed(os.pread(file, 4, 0)):
        os.close(file)
        raise ConfigurationError(
            f"{path} cannot be followed: it is compressed, so nobody writes to it; leave out --follow"
        )
    return file


class RotatedLog(NamedTuple):
    """A file that may hold an earlier part of a log.

    Attributes:
        path: where it is.
        inode: which file it is.
        changed: when it was written to last, in nanoseconds since 1970.

    """

    path: Path
    inode: Inode
    modified_ns: int


def read_inode(path: Path) -> Inode | None:
    """Return which file is at *path*, or None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def list_rotated_logs(
    path: Path, modified_since_ns: int, known_inodes: frozenset[Inode] = frozenset()
) -> list[RotatedLog]:
    """List what the log at *path* was rotated to lately, the oldest first.

    Args:
        path: where the log is written.
        modified_since_ns: when something new was seen in it last, in nanoseconds since 1970: older files hold
        nothing more.
        known_inodes: files that it was before, whatever they are called now.

    Returns:
        The files beside it that are named as rotated logs are, ``access.log.1`` or ``access-20250517.log``, and
        these; where a file is there plain and compressed, the plain one.

    """
    name = re.compile(rf"{re.escape(path.name)}[.-](?:\d|old|bak).*|{re.escape(path.stem)}[.-]\d{{6,}}.*", re.DOTALL)
    found = []
    for file in path.parent.iterdir():
        if file == path:
            continue
        try:
            status = file.stat(follow_symlinks=False)
        except OSError:
            # It is being renamed or compressed at this moment.
            continue
        inode = status.st_dev, status.st_ino
        is_part = inode in known_inodes or name.fullmatch(file.name) is not None
        if is_part and stat.S_ISREG(status.st_mode) and status.st_mtime_ns >= modified_since_ns:
            found.append(RotatedLog(file, inode, status.st_mtime_ns))
    names = {one.path.name for one in found}
    whole = [one for one in found if one.path.suffix not in {".gz", ".zst"} or one.path.stem not in names]
    return sorted(whole, key=lambda one: one.modified_ns)


CLOSE_INACTIVE_SECONDS: Final = 600.0
"""For so long after its last line a log that was renamed stays open: servers write on until they are told to reopen."""
CLOSE_REMOVED_SECONDS: Final = 30.0
"""Likewise for one that was deleted, and holds space on the disk until it is closed."""


class FollowTarget(NamedTuple):
    """Where what is followed goes.

    Attributes:
        url: the server.
        send: takes a batch.
        finish: returns once the server has answered for all batches.
        tell: tells the operator a sentence.

    """

    url: str
    send: Callable[[LogBatch], None]
    flush: Callable[[], None]
    notify: Callable[[str], None]


@dataclass(slots=True)
class _RetiredLog:
    """A log that is written at its path no more, and when that was; never, if it was so when it was found."""

    log: FollowedLog
    retired_at: float = -math.inf
    is_finished: bool = False


class LogFollower:
    """The logs that are at one path, one after another.

    Args:
        path: where they are written.
        config: how they are to be read.
        summary: counts each line.
        positions: how far they were taken before.
        target: where they go.

    Raises:
        ConfigurationError: what is there cannot be followed, or there is no such folder.

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
            raise ConfigurationError(f"{path} cannot be followed: there is no such folder")
        self._current = self._open_log(self._path)
        if self._current is None:
            target.notify(f"{path} is not there yet: it is followed as soon as it is")

    @property
    def unread_bytes(self) -> int:
        """How many bytes have not been read yet."""
        return sum(log.unread_bytes for log in self._logs)

    def start(self) -> None:
        """Finish what was rotated away since it was followed last."""
        log = self._current
        if log is not None:
            log.identify()
        here = None if log is None else log.position(self._target.url, self._path)
        lost = [
            one
            for one in self._positions.for_path(self._target.url, self._path)
            if here is None or (one.inode, one.fingerprint) != (here.inode, here.fingerprint)
        ]
        if lost:
            self._last_modified_ns = min(one.changed for one in lost)
            self._catch_up(frozenset(one.inode for one in lost))
            for position in lost:
                self._positions.remove(position)

    def poll(self) -> bool:
        """Read a block of each log, see whether another is written now, and tell whether there was anything new."""
        news = False
        for log in self._logs:
            has_more = log.read()
            log.flush(is_quiet=not has_more)
            self._notify_once(log.read_error)
            news = news or has_more
        self._close_finished_logs()
        return self._switch_log() or news

    def positions(self) -> list[Position]:
        """Return how far the server has acknowledged each log that is open."""
        return [log.position(self._target.url, self._path) for log in self._logs]

    def close(self) -> None:
        """Close all files."""
        for log in self._logs:
            log.close()

    @property
    def _logs(self) -> list[FollowedLog]:
        return [one.log for one in self._retired] + ([] if self._current is None else [self._current])

    def _switch_log(self) -> bool:
        """Take the log that is at the path now, if it is another one; tell whether it is."""
        old = self._current
        inode = read_inode(self._path)
        if inode == (None if old is None else old.inode) and not (old and old.truncated):
            return False
        if old is not None:
            if inode is None and not old.truncated:
                # It is being rotated at this moment, and is read on until there is another.
                return False
            self._retired.append(_RetiredLog(old, monotonic()))
            self._last_modified_ns = old.modified_ns
        self._current = self._open_log(self._path)
        # There may have been several rotations since the last look, if the server was away.
        self._catch_up()
        return True

    def _close_finished_logs(self) -> None:
        """Close the logs that nobody writes to any more, once the server has them to their ends."""
        for one in [*self._retired]:
            log = one.log
            linger = 0.0 if log.truncated else CLOSE_REMOVED_SECONDS if log.is_deleted else CLOSE_INACTIVE_SECONDS
            is_quiet = log.truncated or min(monotonic() - one.retired_at, time() - log.modified_ns / 1e9) >= linger
            if not is_quiet or (log.unread_bytes and log.read_error is None):
                one.is_finished = False
                continue
            if not one.is_finished:
                log.finish()
                one.is_finished = True
            if log.is_acknowledged:
                log.close()
                self._retired.remove(one)

    def _catch_up(self, inodes: frozenset[Inode] = frozenset()) -> None:
        """Take up what the log was rotated to since something new was seen in it last."""
        if self._last_modified_ns is None:
            return
        imported: set[tuple[Inode, int]] = set()
        while news := self._pending_files(list_rotated_logs(self._path, self._last_modified_ns, inodes), imported):
            for file in news:
                log = self._open_rotated(file)
                # What is at that name now is another file if it is being rotated further: then it is looked for anew.
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
        held = {log.inode for log in self._logs if not log.truncated}
        return [file for file in files if file.inode not in held and (file.inode, file.modified_ns) not in imported]

    def _open_rotated(self, file: RotatedLog) -> FollowedLog | None:
        """Open an earlier part of the log; None if it has gone, or is compressed."""
        try:
            return self._open_log(file.path, self._offset_of_any_copy)
        except ConfigurationError:
            return None

    def _import_file(self, part: RotatedLog) -> bool:
        """Send what a file holds that nobody writes to, and tell whether it is that file still."""
        try:
            with LogFile(str(part.path)) as file:
                if file.inode != part.inode:
                    return False
                for batch in iterate_batches(file, self._config, self._summary, self._offset_of_any_copy):
                    self._target.send(batch)
                if file.read_error is not None:
                    self._target.notify(f"{file.read_error}; the whole lines before that were taken")
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
        read = [log.offset for log in self._logs if log.fingerprint == fingerprint]
        return max([self._positions.acknowledged_offset(self._target.url, fingerprint), *read])

    def _notify_once(self, read_error: str | None) -> None:
        if read_error is not None and read_error != self._last_notified:
            self._last_notified = read_error
            self._target.notify(read_error)


_POLL_INTERVAL_SECONDS: Final = 0.25
_SAVE_INTERVAL_SECONDS: Final = 1.0
_NOTIFY_INTERVAL_SECONDS: Final = 60.0
_STOP_TIMEOUT_SECONDS: Final = 2.0
"""For so long what is on its way may be answered after the command was told to stop."""
_EXIT_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 0}


class FollowConfig(NamedTuple):
    """What is followed, and where it goes.

    Attributes:
        files: the paths at which the logs are written.
        plan: how they are to be read.
        url: the server.
        key: is shown to the server, if it asks for one.
        positions: the file that says how far the logs were taken before.
        tell: tells the operator a sentence.

    """

    files: list[str]
    plan: ImportConfig
    url: str
    key: str | None
    positions: Path
    notify: Callable[[str], None]


class _StopSignal(BaseException):
    """Somebody wants the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = _EXIT_CODES[signal.Signals(number)]


def follow_logs(config: FollowConfig, summary: ImportSummary) -> int:
    """Follow logs until SIGINT or SIGTERM.

    Args:
        config: what is followed, and where it goes.
        summary: counts each line.

    Returns:
        The exit status.

    Raises:
        ConfigurationError: a log cannot be followed, positions cannot be kept, or there is no Metronome at the address.
        RequestError: the server refuses to take anything of the kind; the message has its reason.

    """
    if STANDARD_INPUT in config.files:
        raise ConfigurationError(
            "standard input cannot be followed: it is read to its end anyway, so leave out --follow"
        )
    try:
        with _handling_stop_signals():
            _follow_until_stopped(config, PositionStore(config.positions), summary)
    except _StopSignal as stop:
        return stop.exit_code


def _follow_until_stopped(config: FollowConfig, positions: PositionStore, summary: ImportSummary) -> NoReturn:
    def count(answer: SendResult[LogBatch]) -> None:
        summary.accepted += answer.accepted
        for place, reason in answer.rejected:
            summary.rejected.add(answer.batch.log, place, reason)
        answer.batch.on_acknowledged()

    with BatchSender(config.url, count, math.inf, config.key, _rate_limited(config.notify)) as sender:
        wire = FollowTarget(config.url.rstrip("/"), sender.send, sender.flush, config.notify)
        trails: list[LogFollower] = []
        try:
            trails.extend(
                LogFollower(path, config.plan, summary, positions, wire) for path in dict.fromkeys(config.files)
            )
            for trail in trails:
                trail.start()
            _poll_logs(trails, sender, positions, summary, config.notify)
        except _StopSignal:
            _ignore_signals()
            sender.drain(_STOP_TIMEOUT_SECONDS)
            raise
        finally:
            positions.save(_collect_positions(trails))
            for trail in trails:
                trail.close()


def _poll_logs(
    followers: list[LogFollower],
    sender: BatchSender[LogBatch],
    positions: PositionStore,
    summary: ImportSummary,
    notify: Callable[[str], None],
) -> NoReturn:
    saved, logs = -math.inf, list[Inode]()
    unreadable, rejected = _rate_limited(notify), _rate_limited(notify)
    with _show_status_line(followers, summary) as show:
        while True:
            found = _collect_positions(followers)
            is_due = monotonic() - saved >= _SAVE_INTERVAL_SECONDS
            if is_due or [one.inode for one in found] != logs:
                # That a log is followed must be known before it can be rotated away.
                positions.save(found)
                saved, logs = monotonic(), [one.inode for one in found]
                _notify_last(summary.unreadable, "could not be read", unreadable)
                _notify_last(summary.rejected, "were rejected by the server", rejected)
            show()
            news = [trail.poll() for trail in followers]
            sender.collect_results()
            if not any(news):
                sleep(_POLL_INTERVAL_SECONDS)


def _collect_positions(followers: list[LogFollower]) -> list[Position]:
    return [position for trail in followers for position in trail.positions()]


def _notify_last(rejected: RejectedLines, problem: str, notify: Callable[[str], None]) -> None:
    if rejected.last is not None:
        notify(
            f"{rejected.count:,} lines {problem}; the last is {rejected.last.log}, {rejected.last.location}: "
            f"{rejected.last.reason}"
        )


def _rate_limited(notify: Callable[[str], None]) -> Callable[[str], None]:
    """Return what tells once a minute at the most, and nothing that was told just before."""
    last = ("", -math.inf)

    def told(sentence: str) -> None:
        nonlocal last
        if monotonic() - last[1] >= _NOTIFY_INTERVAL_SECONDS:
            last = (sentence, monotonic())
            notify(sentence)

    return told


@contextmanager
def _show_status_line(followers: list[LogFollower], summary: ImportSummary) -> Iterator[Callable[[], None]]:
    """Show a line in a terminal: lines, their rate, and how much has not been read yet."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.fields[lines]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("follow", total=None, lines="")
        before, since = summary.lines, monotonic()
        rate = 0.0

        def show() -> None:
            nonlocal before, since, rate
            now = monotonic()
            if now - since < _SAVE_INTERVAL_SECONDS:
                return
            rate = (summary.lines - before) / (now - since)
            before, since = summary.lines, now
            behind = sum(trail.unread_bytes for trail in followers)
            shown = (
                f"{summary.lines:,} lines, {rate:,.0f} lines/s, {behind:,} bytes behind, {summary.accepted:,} accepted"
            )
            progress.update(task, lines=shown)

        yield show


@contextmanager
def _handling_stop_signals() -> Iterator[None]:
    def stop(number: int, _: FrameType | None) -> None:
        raise _StopSignal(number)

    before = {number: signal.signal(number, stop) for number in _EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)
