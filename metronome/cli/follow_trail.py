"""What is written at one path, through all rotations: nothing is left out, and nothing read without need."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Final, NamedTuple

from metronome.cli.follow_log import GrowingLog, Known
from metronome.cli.follow_positions import Inode, Position, Positions
from metronome.cli.follow_rotation import Rotated, inode_at, rotated
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
