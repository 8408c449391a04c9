"""Where a log's earlier parts are after it was rotated: beside it, renamed, copied or compressed."""

import re
import stat
from pathlib import Path
from typing import NamedTuple

from metronome.cli.follow_positions import Inode


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
