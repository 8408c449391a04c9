"""Folders and files: locks, durable writes, and the user's state folder."""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from metronome.errors import DataFolderLocked


def state_folder() -> Path:
    """Return the folder in which commands keep their progress for the current user; it may not exist yet.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return folder / "metronome"


def fsync_path(path: Path) -> None:
    """Flush a file's contents, or a folder's list of files, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


LOCK_FILE_NAME: Final = "lock"
_LOCK_TIMEOUT_SECONDS: Final = 5.0
"""A process that was just stopped may take a moment to exit."""


class FolderLock:
    """An exclusive lock on a folder, held until it is released or its process ends in any way.

    Args:
        folder: created if it does not exist.
        timeout_seconds: how long to wait for another process to release the lock.

    Raises:
        DataFolderLocked: another process holds the lock.

    """

    def __init__(self, folder: Path, timeout_seconds: float = _LOCK_TIMEOUT_SECONDS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder / LOCK_FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + timeout_seconds
        while not self._try_acquire():
            if time.monotonic() > deadline:
                os.close(self._descriptor)
                raise DataFolderLocked(f"another process uses the data folder {folder}")
            time.sleep(0.05)

    def _try_acquire(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Release the lock; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class OpenFile:
    """Notices that an open file is no longer the one at its path: what is written to it would be lost.

    Args:
        path: of the file, which exists and is open.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = self._read_identity()

    def is_in_place(self) -> bool:
        """Return whether the file is still at its path."""
        return self._read_identity() == self._identity

    def _read_identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino
