"""Folders and files: locks, durable writes, and the user's state folder."""

import fcntl
import grp
import os
import stat
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from metronome.errors import ConfigurationError, DataFolderLocked


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
_OWN_ENTRIES: Final = (LOCK_FILE_NAME, "state.sqlite*", "metronome*", "segments*", "spool", "dead")
"""What Metronome writes in its data folder, which may hold other files as well."""
_PRIVATE_UMASK: Final = 0o077
_GROUP_UMASK: Final = 0o027


def make_new_files_private(group: str = "") -> None:
    """Let only the current user, and optionally a group, read the files that this process creates from now on.

    Args:
        group: its name, or empty for none. Files belong to it in a folder that `protect_data_folder` has prepared.

    """
    os.umask(_GROUP_UMASK if group else _PRIVATE_UMASK)


def protect_data_folder(folder: Path, group: str = "") -> list[Path]:
    """Create a data folder that only the current user, and optionally a group, can read, with all that is in it.

    Files get the mode 0600 and folders 0700, or 0640 and 0750 for the group, and so do those that this process creates
    from now on. Folders pass on their group, unless it is the process's own.

    Args:
        folder: the data folder.
        group: its name, or empty for none.

    Returns:
        The files and folders that others can still read, since they belong to another user.

    Raises:
        ConfigurationError: the group does not exist, or this process may not give files to it.

    """
    make_new_files_private(group)
    folder.mkdir(parents=True, exist_ok=True)
    group_id = _find_group(group) if group else None
    inherit = stat.S_ISGID if group_id not in (None, os.getegid()) else 0
    mask = _GROUP_UMASK if group else _PRIVATE_UMASK
    readable = []
    for path in chain((folder,), _iterate_own_files(folder)):
        status = path.stat(follow_symlinks=False)
        mode = (0o777 | inherit if stat.S_ISDIR(status.st_mode) else 0o666) & ~mask
        if stat.S_ISLNK(status.st_mode) or (status.st_mode & stat.S_ISVTX):
            continue
        try:
            if group_id is not None and status.st_gid != group_id:
                os.chown(path, -1, group_id)
            if stat.S_IMODE(status.st_mode) != mode or group_id not in (None, status.st_gid):
                path.chmod(mode)
        except PermissionError:
            if group_id is not None and status.st_uid == os.geteuid():
                raise ConfigurationError(
                    f"cannot give {path} to the group {group!r} of METRONOME_DATA_GROUP: run Metronome as a user of "
                    "that group, or with it as its own group (`Group=` of systemd)"
                ) from None
            if stat.S_IMODE(status.st_mode) & mask:
                readable.append(path)
    return readable


def _find_group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigurationError(
            f"invalid METRONOME_DATA_GROUP {name!r}: no such group on this machine; create it, or name another one"
        ) from None


def _iterate_own_files(folder: Path) -> Iterator[Path]:
    for entry in chain.from_iterable(map(folder.glob, _OWN_ENTRIES)):
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from entry.rglob("*")


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

    @property
    def was_missing(self) -> bool:
        """Whether there was no file at the path when this was created."""
        return self._identity is None

    def is_in_place(self) -> bool:
        """Return whether the file is still at its path."""
        return self._identity is not None and self._read_identity() == self._identity

    def _read_identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino
