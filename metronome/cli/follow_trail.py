"""What is written at one path, through all rotations: nothing is left out, and nothing read without need."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from metronome.cli.follow_log import GrowingLog
from metronome.cli.follow_positions import Inode, Position, Positions
from metronome.cli.follow_rotation import inode_at, rotated
from metronome.cli.log_batches import Batch, Plan, batches
from metronome.cli.log_files import LogFile
from metronome.cli.tally import Tally
from metronome.errors import Malformed, Misconfigured

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
    """A log that is written at its path no more, and since when nothing came."""

    log: GrowingLog
    quiet_since: float
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
        lost = [
            one
            for one in self._positions.of_path(self._wire.url, self._path)
            if log is None
            or log.fingerprint is None
            or (one.inode, one.fingerprint) != (log.inode, log.fingerprint.hex())
        ]
        if lost:
            self._catch_up(min(one.changed for one in lost), frozenset(one.inode for one in lost))
            self._wire.finish()
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
        found = (log.position(self._wire.url, self._path) for log in self._logs)
        return [position for position in found if position is not None]

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
        if old is None:
            self._current = None if inode is None else self._open(self._path)
            return self._current is not None
        if not old.truncated and inode in {None, old.inode}:
            return False
        self._retired.append(_Retired(old, monotonic()))
        self._current = None
        # There may have been several rotations meanwhile, if the server was away.
        self._catch_up(old.changed, frozenset())
        self._wire.finish()
        self._current = self._open(self._path)
        return True

    def _let_go(self) -> None:
        """Close the logs that nobody writes to any more, once the server has them to their ends."""
        now = monotonic()
        for one in [*self._retired]:
            log = one.log
            if log.behind and log.complaint is None:
                one.quiet_since, one.has_ended = now, False
            linger = 0.0 if log.truncated else DELETED_LINGER_SECONDS if log.is_deleted else LINGER_SECONDS
            if now - one.quiet_since < linger:
                continue
            if not one.has_ended:
                log.end()
                one.has_ended = True
            if log.is_acknowledged:
                log.close()
                self._retired.remove(one)

    def _catch_up(self, since: int, inodes: frozenset[Inode]) -> None:
        """Read what the log was rotated to since then; a file that it was itself is read on as a log that may grow."""
        for file in rotated(self._path, since, inodes):
            if file.inode in {log.inode for log in self._logs if not log.truncated}:
                continue
            if file.inode not in inodes or not self._read_on(file.path):
                self._import(file.path)

    def _read_on(self, path: Path) -> bool:
        try:
            log = self._open(path)
        except Misconfigured:
            # Another file has got its number.
            return False
        if log is not None:
            log.identify()
            self._retired.append(_Retired(log, monotonic()))
        return log is not None

    def _import(self, path: Path) -> None:
        try:
            with LogFile(str(path)) as file:
                for batch in batches(file, self._plan, self._tally, self._known_anywhere):
                    self._wire.send(batch)
        except (Malformed, OSError) as error:
            self._wire.tell(f"{path}: {error}")

    def _open(self, path: Path) -> GrowingLog | None:
        try:
            return GrowingLog(path, self._plan, self._tally, self._known, self._wire.send)
        except FileNotFoundError:
            return None

    def _known(self, fingerprint: bytes, inode: Inode) -> int:
        return self._positions.known(self._wire.url, fingerprint, inode)

    def _known_anywhere(self, fingerprint: bytes) -> int:
        read = [log.offset for log in self._logs if log.fingerprint == fingerprint]
        return max([self._positions.known(self._wire.url, fingerprint), *read])

    def _tell_once(self, complaint: str | None) -> None:
        if complaint is not None and complaint != self._told:
            self._told = complaint
            self._wire.tell(complaint)
