"""One log that may grow: read as far as it has whole lines, and no line twice."""

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from metronome.cli.follow_positions import Inode, Position
from metronome.cli.log_batches import SAMPLE_LINES, Batch, Batcher, Plan
from metronome.cli.log_files import is_compressed
from metronome.cli.tally import Tally
from metronome.dialects.accesslog import LINE_MAX_BYTES, Log, detect_begun
from metronome.errors import Malformed, Misconfigured

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
