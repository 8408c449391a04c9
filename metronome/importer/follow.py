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

from metronome.errors import Malformed, Misconfigured
from metronome.files import state_folder
from metronome.importer.batches import SAMPLE_LINES, Batch, Batcher, Plan, batches
from metronome.importer.files import STANDARD_INPUT, LogFile, is_compressed
from metronome.importer.summary import Notes, Tally
from metronome.protocols.access_logs.reader import LINE_MAX_BYTES, Log, detect_begun
from metronome.server_client import Answer, Sender

_KEPT_SECONDS: Final = 90 * 86_400
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


_Key = tuple[str, str, str, Inode]


class Positions:
    """The positions of the logs that are followed, and those of others in the same file.

    Args:
        file: where they are kept; it need not exist.

    Raises:
        Misconfigured: its folder cannot be made.

    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._gone: set[_Key] = set()
        self._saved: dict[_Key, Position] = {}
        self._own: dict[_Key, Position] = {}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(f"--positions {file} cannot be kept: {error.strerror}") from None
        self._found = self._read()

    def of_path(self, url: str, path: Path) -> list[Position]:
        """Return the positions of what was followed at that place."""
        return [one for one in self._found.values() if (one.url, one.path) == (url, str(path))]

    def known(self, url: str, fingerprint: bytes, inode: Inode | None = None) -> int:
        """Return up to which offset a server has a log, in this file or in any; 0 where nothing is known."""
        return max(
            (
                one.offset
                for one in self._found.values()
                if (one.url, one.fingerprint) == (url, fingerprint.hex()) and inode in (None, one.inode)
            ),
            default=0,
        )

    def drop(self, position: Position) -> None:
        """Forget a log that was taken to its end."""
        self._gone.add(_key(position))
        self._found.pop(_key(position), None)

    def save(self, positions: Iterable[Position]) -> None:
        """Write the file anew, if a position has changed.

        Raises:
            Misconfigured: it cannot be written.

        """
        self._own = {_key(one): one for one in positions}
        self._gone -= self._own.keys()
        if self._own == self._saved and not self._gone:
            return
        # Another command may keep its positions in the same file.
        oldest = (time() - _KEPT_SECONDS) * 1e9
        others = {key: one for key, one in self._read().items() if one.changed > oldest}
        kept = {key: one for key, one in others.items() if key not in self._gone and key not in self._saved}
        lines = [orjson.dumps(one._asdict()) for one in (kept | self._own).values()]
        text = b'{"version":%d,"logs":[\n%b\n]}\n' % (_VERSION, b",\n".join(lines))
        new = self._file.with_name(f"{self._file.name}.{os.getpid()}.new")
        try:
            new.write_bytes(text)
            new.replace(self._file)
        except OSError as error:
            raise Misconfigured(f"--positions {self._file} cannot be written: {error.strerror}") from None
        self._saved = self._own
        self._gone = set()

    def _read(self) -> dict[_Key, Position]:
        found = {}
        with suppress(OSError, ValueError, LookupError, TypeError):
            for entry in orjson.loads(self._file.read_bytes())["logs"]:
                device, number = entry["inode"]
                texts = (str(entry["url"]), str(entry["path"]), str(entry["fingerprint"]))
                position = Position(*texts, (int(device), int(number)), int(entry["offset"]), int(entry["changed"]))
                found[_key(position)] = position
        return found


def default_file() -> Path:
    """Return where positions are kept if nobody says otherwise: in the user's state folder."""
    return state_folder() / "positions.json"


def _key(position: Position) -> _Key:
    return position.url, position.path, position.fingerprint, position.inode


_BLOCK_BYTES: Final = 1 << 18
_HEAD_BYTES: Final = 1024
"""So many bytes of a log's beginning tell that it is still the same: what is cut off and grows anew differs there."""
_SAMPLE_BYTES: Final = 1 << 22
_LONGEST_WAIT_SECONDS: Final = 1.0
"""For so long at the most an event waits for others to be sent with it."""

Known = Callable[[bytes, Inode], int]
"""Tells of a log's fingerprint and inode up to which offset it is known already."""


class GrowingLog:
    """A log that is open, and what of it was read and acknowledged.

    Args:
        path: where it is now; it may be renamed later.
        plan: how it is to be read.
        tally: counts each line.
        known: tells where to begin.
        send: takes the batches.

    Attributes:
        inode: the file's.
        changed: when it was written to last, as far as was read, in nanoseconds since 1970.
        truncated: whether the file has lost what was read of it, and is another log now.
        complaint: why none of it can be read, or None.
        offset: how many of its bytes were read as whole lines.

    Raises:
        FileNotFoundError: there is no such file.
        Misconfigured: it cannot be followed.

    """

    def __init__(self, path: Path, plan: Plan, tally: Tally, known: Known, send: Callable[[Batch], None]) -> None:
        self._path = path
        self._plan = plan
        self._tally = tally
        self._known = known
        self._send = send
        self._file = _open(path)
        found = os.fstat(self._file)
        self.inode: Inode = (found.st_dev, found.st_ino)
        self.changed = found.st_mtime_ns
        self.truncated = False
        self.complaint: str | None = None
        self.offset = 0
        self._head = b""
        self._rest = b""
        self._dropped = 0
        self._log: Log | None = None
        self._batcher: Batcher | None = None
        self._waiting_since = 0.0
        self._acknowledged = 0
        self._flying = 0

    @property
    def fingerprint(self) -> bytes | None:
        """What tells it from others, or None where it has not begun yet."""
        return None if self._log is None else self._log.fingerprint

    @property
    def is_acknowledged(self) -> bool:
        """Whether nothing that was read waits for the server."""
        return not self._flying and not self._batcher

    @property
    def behind(self) -> int:
        """How many bytes there are that have not been read."""
        return 0 if self.truncated else max(0, os.fstat(self._file).st_size - self._next)

    @property
    def is_deleted(self) -> bool:
        """Whether the file has no name any more."""
        return os.fstat(self._file).st_nlink == 0

    def position(self, url: str, path: Path) -> Position:
        """Return how far the server has acknowledged it."""
        if self.is_acknowledged:
            self._acknowledged = self.offset
        name = "" if self._log is None else self._log.fingerprint.hex()
        return Position(url, str(path), name, self.inode, self._acknowledged, self.changed)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def identify(self) -> None:
        """Read as much as is needed to know which log it is, if there is as much."""
        if self._batcher is None and self._fetch():
            self._begin()

    def read(self) -> bool:
        """Read a block, send what makes full batches, and tell whether there was anything new."""
        fetched = self._fetch()
        if self._batcher is None and not (fetched and self._begin()):
            return fetched
        return self._take_lines() or fetched

    def flush(self, *, is_quiet: bool) -> None:
        """Send what was read, if nothing more comes now or it has waited for long enough."""
        if self._batcher and (is_quiet or monotonic() - self._waiting_since >= _LONGEST_WAIT_SECONDS):
            self._send_batch(self._batcher)

    def end(self) -> None:
        """Take the last line as it is: nobody will end it any more. Of what was cut off, a copy has the whole line."""
        if self._batcher is not None and self._rest.strip() and not self.truncated:
            self._rest += b"\n"
            self._take_lines()
        self.flush(is_quiet=True)

    @property
    def _next(self) -> int:
        return self.offset + len(self._rest) + self._dropped

    def _fetch(self) -> bool:
        """Read a block, and tell whether it was one."""
        if self.truncated:
            return False
        block = b"" if self.complaint else os.pread(self._file, _BLOCK_BYTES, self._next)
        # Only afterwards it is certain that the block was of the same log.
        found = os.fstat(self._file)
        if found.st_size < self._next + len(block) or os.pread(self._file, len(self._head), 0) != self._head:
            self.truncated = True
            return False
        self.changed = found.st_mtime_ns
        self._rest += block
        if self._batcher is None and not self.complaint:
            self._head = self._rest[:_HEAD_BYTES]
        return bool(block)

    def _begin(self) -> bool:
        """Find out from the first lines which log it is, and go to where it is to be read from."""
        sample = [line for line in self._rest.split(b"\n")[:-1] if line.strip()][:SAMPLE_LINES]
        is_enough = len(sample) == SAMPLE_LINES or len(self._rest) >= _SAMPLE_BYTES
        try:
            log_format = self._plan.log_format or detect_begun(sample)
        except Malformed as error:
            if is_enough:
                self.complaint = f"{self._path}: {error}; it is followed again when it is replaced"
                self._rest, self._dropped = b"", self._dropped + len(self._rest)
            return False
        if not (is_enough or self._plan.has_begun(sample, log_format)):
            return False
        self._log = self._plan.log(sample, log_format)
        self._batcher = Batcher(str(self._path), self._log, self._plan.batch_events, self._tally, "byte")
        self._go_on_from(self._known(self._log.fingerprint, self.inode))
        return True

    def _go_on_from(self, offset: int) -> None:
        if (
            self._log is None
            or not 0 < offset <= self._next + self.behind
            or os.pread(self._file, 1, offset - 1) != b"\n"
        ):
            return
        if self._log.log_format.directives:
            with os.fdopen(os.dup(self._file), "rb") as file:
                file.seek(0)
                while file.tell() < offset and (line := file.readline(LINE_MAX_BYTES)):
                    self._log.pass_by(line)
        self.offset = self._acknowledged = offset
        self._rest, self._dropped = b"", 0

    def _take_lines(self) -> bool:
        batcher = self._batcher
        if batcher is None:
            return False
        *lines, rest = self._rest.split(b"\n")
        for line in lines:
            if not batcher:
                self._waiting_since = monotonic()
            is_full = bool(line.strip()) and batcher.add(self.offset, line, self.offset)
            self.offset += len(line) + self._dropped + 1
            self._dropped = 0
            if is_full:
                self._send_batch(batcher)
        if len(rest) > LINE_MAX_BYTES:
            self._dropped += len(rest) - LINE_MAX_BYTES - 1
            rest = rest[: LINE_MAX_BYTES + 1]
        self._rest = rest
        return bool(lines)

    def _send_batch(self, batcher: Batcher) -> None:
        # Counted before it is taken: whoever is interrupted between has not sent it, and does not take it for sent.
        self._flying += 1
        self._send(batcher.take(partial(self._landed, self.offset)))

    def _landed(self, offset: int) -> None:
        self._flying -= 1
        self._acknowledged = max(self._acknowledged, offset)


def _open(path: Path) -> int:
    try:
        # Without waiting: a pipe is told from a file before somebody writes to it.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Misconfigured(f"{path} cannot be followed: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Misconfigured(f"{path} cannot be followed: it is no file")
    if is_compressed(os.pread(file, 4, 0)):
        os.close(file)
        raise Misconfigured(f"{path} cannot be followed: it is compressed, so nobody writes to it; leave out --follow")
    return file


class Rotated(NamedTuple):
    """A file that may hold an earlier part of a log.

    Attributes:
        path: where it is.
        inode: which file it is.
        changed: when it was written to last, in nanoseconds since 1970.

    """

    path: Path
    inode: Inode
    changed: int


def inode_at(path: Path) -> Inode | None:
    """Return which file is at *path*, or None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def rotated(path: Path, since: int, inodes: frozenset[Inode] = frozenset()) -> list[Rotated]:
    """List what the log at *path* was rotated to lately, the oldest first.

    Args:
        path: where the log is written.
        since: when something new was seen in it last, in nanoseconds since 1970: older files hold nothing more.
        inodes: files that it was before, whatever they are called now.

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
        is_part = inode in inodes or name.fullmatch(file.name) is not None
        if is_part and stat.S_ISREG(status.st_mode) and status.st_mtime_ns >= since:
            found.append(Rotated(file, inode, status.st_mtime_ns))
    names = {one.path.name for one in found}
    whole = [one for one in found if one.path.suffix not in {".gz", ".zst"} or one.path.stem not in names]
    return sorted(whole, key=lambda one: one.changed)


LINGER_SECONDS: Final = 600.0
"""For so long after its last line a log that was renamed stays open: servers write on until they are told to reopen."""
DELETED_LINGER_SECONDS: Final = 30.0
"""Likewise for one that was deleted, and holds space on the disk until it is closed."""


class Wire(NamedTuple):
    """Where what is followed goes.

    Attributes:
        url: the server.
        send: takes a batch.
        finish: returns once the server has answered for all batches.
        tell: tells the operator a sentence.

    """

    url: str
    send: Callable[[Batch], None]
    finish: Callable[[], None]
    tell: Callable[[str], None]


@dataclass(slots=True)
class _Retired:
    """A log that is written at its path no more, and when that was; never, if it was so when it was found."""

    log: GrowingLog
    since: float = -math.inf
    has_ended: bool = False


class Trail:
    """The logs that are at one path, one after another.

    Args:
        path: where they are written.
        plan: how they are to be read.
        tally: counts each line.
        positions: how far they were taken before.
        wire: where they go.

    Raises:
        Misconfigured: what is there cannot be followed, or there is no such folder.

    """

    def __init__(self, path: str, plan: Plan, tally: Tally, positions: Positions, wire: Wire) -> None:
        self._path = Path(path).absolute()
        self._plan = plan
        self._tally = tally
        self._positions = positions
        self._wire = wire
        self._retired: list[_Retired] = []
        self._since: int | None = None
        self._told = ""
        if not self._path.parent.is_dir():
            raise Misconfigured(f"{path} cannot be followed: there is no such folder")
        self._current = self._open(self._path)
        if self._current is None:
            wire.tell(f"{path} is not there yet: it is followed as soon as it is")

    @property
    def behind(self) -> int:
        """How many bytes have not been read yet."""
        return sum(log.behind for log in self._logs)

    def start(self) -> None:
        """Finish what was rotated away since it was followed last."""
        log = self._current
        if log is not None:
            log.identify()
        here = None if log is None else log.position(self._wire.url, self._path)
        lost = [
            one
            for one in self._positions.of_path(self._wire.url, self._path)
            if here is None or (one.inode, one.fingerprint) != (here.inode, here.fingerprint)
        ]
        if lost:
            self._since = min(one.changed for one in lost)
            self._catch_up(frozenset(one.inode for one in lost))
            for position in lost:
                self._positions.drop(position)

    def poll(self) -> bool:
        """Read a block of each log, see whether another is written now, and tell whether there was anything new."""
        news = False
        for log in self._logs:
            has_more = log.read()
            log.flush(is_quiet=not has_more)
            self._tell_once(log.complaint)
            news = news or has_more
        self._let_go()
        return self._turn() or news

    def positions(self) -> list[Position]:
        """Return how far the server has acknowledged each log that is open."""
        return [log.position(self._wire.url, self._path) for log in self._logs]

    def close(self) -> None:
        """Close all files."""
        for log in self._logs:
            log.close()

    @property
    def _logs(self) -> list[GrowingLog]:
        return [one.log for one in self._retired] + ([] if self._current is None else [self._current])

    def _turn(self) -> bool:
        """Take the log that is at the path now, if it is another one; tell whether it is."""
        old = self._current
        inode = inode_at(self._path)
        if inode == (None if old is None else old.inode) and not (old and old.truncated):
            return False
        if old is not None:
            if inode is None and not old.truncated:
                # It is being rotated at this moment, and is read on until there is another.
                return False
            self._retired.append(_Retired(old, monotonic()))
            self._since = old.changed
        self._current = self._open(self._path)
        # There may have been several rotations since the last look, if the server was away.
        self._catch_up()
        return True

    def _let_go(self) -> None:
        """Close the logs that nobody writes to any more, once the server has them to their ends."""
        for one in [*self._retired]:
            log = one.log
            linger = 0.0 if log.truncated else DELETED_LINGER_SECONDS if log.is_deleted else LINGER_SECONDS
            is_quiet = log.truncated or min(monotonic() - one.since, time() - log.changed / 1e9) >= linger
            if not is_quiet or (log.behind and log.complaint is None):
                one.has_ended = False
                continue
            if not one.has_ended:
                log.end()
                one.has_ended = True
            if log.is_acknowledged:
                log.close()
                self._retired.remove(one)

    def _catch_up(self, inodes: frozenset[Inode] = frozenset()) -> None:
        """Take up what the log was rotated to since something new was seen in it last."""
        if self._since is None:
            return
        imported: set[tuple[Inode, int]] = set()
        while news := self._not_taken(rotated(self._path, self._since, inodes), imported):
            for file in news:
                log = self._open_rotated(file)
                # What is at that name now is another file if it is being rotated further: then it is looked for anew.
                if log is not None and log.inode == file.inode:
                    log.identify()
                    self._retired.append(_Retired(log))
                elif log is not None:
                    log.close()
                elif self._import(file):
                    imported.add((file.inode, file.changed))
        if imported:
            self._wire.finish()

    def _not_taken(self, files: list[Rotated], imported: set[tuple[Inode, int]]) -> list[Rotated]:
        held = {log.inode for log in self._logs if not log.truncated}
        return [file for file in files if file.inode not in held and (file.inode, file.changed) not in imported]

    def _open_rotated(self, file: Rotated) -> GrowingLog | None:
        """Open an earlier part of the log; None if it has gone, or is compressed."""
        try:
            return self._open(file.path, self._known_anywhere)
        except Misconfigured:
            return None

    def _import(self, part: Rotated) -> bool:
        """Send what a file holds that nobody writes to, and tell whether it is that file still."""
        try:
            with LogFile(str(part.path)) as file:
                if file.inode != part.inode:
                    return False
                for batch in batches(file, self._plan, self._tally, self._known_anywhere):
                    self._wire.send(batch)
                if file.damage is not None:
                    self._wire.tell(f"{file.damage}; the whole lines before that were taken")
        except FileNotFoundError:
            return False
        except (Malformed, OSError) as error:
            self._wire.tell(f"{part.path}: {error}")
        return True

    def _open(self, path: Path, known: Known | None = None) -> GrowingLog | None:
        try:
            return GrowingLog(path, self._plan, self._tally, known or self._known, self._wire.send)
        except FileNotFoundError:
            return None

    def _known(self, fingerprint: bytes, inode: Inode) -> int:
        return self._positions.known(self._wire.url, fingerprint, inode)

    def _known_anywhere(self, fingerprint: bytes, _: Inode | None = None) -> int:
        read = [log.offset for log in self._logs if log.fingerprint == fingerprint]
        return max([self._positions.known(self._wire.url, fingerprint), *read])

    def _tell_once(self, complaint: str | None) -> None:
        if complaint is not None and complaint != self._told:
            self._told = complaint
            self._wire.tell(complaint)


_POLL_SECONDS: Final = 0.25
_SAVE_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 2.0
"""For so long what is on its way may be answered after the command was told to stop."""
_EXITS: Final = {signal.SIGINT: 130, signal.SIGTERM: 0}


class Following(NamedTuple):
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
    plan: Plan
    url: str
    key: str | None
    positions: Path
    tell: Callable[[str], None]


class _Stopped(BaseException):
    """Somebody wants the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = _EXITS[signal.Signals(number)]


def follow(following: Following, tally: Tally) -> int:
    """Follow logs until SIGINT or SIGTERM.

    Args:
        following: what is followed, and where it goes.
        tally: counts each line.

    Returns:
        The exit status.

    Raises:
        Misconfigured: a log cannot be followed, positions cannot be kept, or there is no Metronome at the address.
        CallerError: the server refuses to take anything of the kind; the message has its reason.

    """
    if STANDARD_INPUT in following.files:
        raise Misconfigured("standard input cannot be followed: it is read to its end anyway, so leave out --follow")
    try:
        with _stoppable():
            _run(following, Positions(following.positions), tally)
    except _Stopped as stop:
        return stop.exit_code


def _run(following: Following, positions: Positions, tally: Tally) -> NoReturn:
    def count(answer: Answer[Batch]) -> None:
        tally.accepted += answer.accepted
        for place, reason in answer.rejected:
            tally.rejected.add(answer.batch.log, place, reason)
        answer.batch.done()

    with Sender(following.url, count, math.inf, following.key, _seldom(following.tell)) as sender:
        wire = Wire(following.url.rstrip("/"), sender.send, sender.finish, following.tell)
        trails: list[Trail] = []
        try:
            trails.extend(
                Trail(path, following.plan, tally, positions, wire) for path in dict.fromkeys(following.files)
            )
            for trail in trails:
                trail.start()
            _go_on(trails, sender, positions, tally, following.tell)
        except _Stopped:
            _ignore_signals()
            sender.settle(_STOP_SECONDS)
            raise
        finally:
            positions.save(_positions(trails))
            for trail in trails:
                trail.close()


def _go_on(
    trails: list[Trail], sender: Sender[Batch], positions: Positions, tally: Tally, tell: Callable[[str], None]
) -> NoReturn:
    saved, logs = -math.inf, list[Inode]()
    unreadable, rejected = _seldom(tell), _seldom(tell)
    with _status(trails, tally) as show:
        while True:
            found = _positions(trails)
            is_due = monotonic() - saved >= _SAVE_SECONDS
            if is_due or [one.inode for one in found] != logs:
                # That a log is followed must be known before it can be rotated away.
                positions.save(found)
                saved, logs = monotonic(), [one.inode for one in found]
                _tell_last(tally.unreadable, "could not be read", unreadable)
                _tell_last(tally.rejected, "were rejected by the server", rejected)
            show()
            news = [trail.poll() for trail in trails]
            sender.collect()
            if not any(news):
                sleep(_POLL_SECONDS)


def _positions(trails: list[Trail]) -> list[Position]:
    return [position for trail in trails for position in trail.positions()]


def _tell_last(notes: Notes, what: str, tell: Callable[[str], None]) -> None:
    if notes.last is not None:
        tell(f"{notes.count:,} lines {what}; the last is {notes.last.log}, {notes.last.place}: {notes.last.reason}")


def _seldom(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return what tells once a minute at the most, and nothing that was told just before."""
    last = ("", -math.inf)

    def told(sentence: str) -> None:
        nonlocal last
        if monotonic() - last[1] >= _TELL_SECONDS:
            last = (sentence, monotonic())
            tell(sentence)

    return told


@contextmanager
def _status(trails: list[Trail], tally: Tally) -> Iterator[Callable[[], None]]:
    """Show a line in a terminal: lines, their rate, and how much has not been read yet."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.fields[lines]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("follow", total=None, lines="")
        before, since = tally.lines, monotonic()
        rate = 0.0

        def show() -> None:
            nonlocal before, since, rate
            now = monotonic()
            if now - since < _SAVE_SECONDS:
                return
            rate = (tally.lines - before) / (now - since)
            before, since = tally.lines, now
            behind = sum(trail.behind for trail in trails)
            shown = f"{tally.lines:,} lines, {rate:,.0f} lines/s, {behind:,} bytes behind, {tally.accepted:,} accepted"
            progress.update(task, lines=shown)

        yield show


@contextmanager
def _stoppable() -> Iterator[None]:
    def stop(number: int, _: FrameType | None) -> None:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in _EXITS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _EXITS:
        signal.signal(number, signal.SIG_IGN)
