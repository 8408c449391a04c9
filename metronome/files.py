"""Folders that one process at a time may work in.

Where commands keep, for the user who runs them, how far they have come.

What is on the disk, and stays there if the machine loses power.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from metronome.errors import DataFolderLocked


def state_folder() -> Path:
    """Return the folder, which need not be there yet.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return folder / "metronome"


def fsync_path(path: Path) -> None:
    """Return once the disk has a file's bytes, or a folder's list of files."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


_LOCK_TIMEOUT_SECONDS: Final = 5.0
"""How long a process that was just ended may take to go away."""


class FolderLock:
    """A lock on a folder, held until it is released or its process ends, however that happens.

    Args:
        folder: made if need be.
        timeout_seconds: how long another process may take to let go of it.

    Raises:
        DataFolderLocked: another process holds it, and did not end within a few seconds.

    """

    def __init__(self, folder: Path, timeout_seconds: float = _LOCK_TIMEOUT_SECONDS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + timeout_seconds
        while not self._try_acquire():
            if time.monotonic() > deadline:
                os.close(self._descriptor)
                raise DataFolderLocked(f"another process works in {folder}")
            time.sleep(0.05)

    def _try_acquire(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let others work there; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
