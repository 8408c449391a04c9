"""How far the logs that are followed have been taken, in a file that outlives the command.

A log is known by the hash of its first lines and by its inode; and what one server has taken, another has not. The
file only saves time: where it is lost or wrong, logs are read from their beginning, and nothing is counted twice.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Final, NamedTuple

import orjson

from metronome.cli.state_folder import state_folder
from metronome.errors import Misconfigured

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
