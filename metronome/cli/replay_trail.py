"""Which objects of an archive a server has taken already, in a file that outlives a replay that was interrupted.

The file only saves time: without it all is sent again, and nothing is counted twice. It is deleted once a replay has
sent everything.
"""

from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from metronome.archives.stock import Holding
from metronome.cli.state_folder import state_folder
from metronome.errors import Misconfigured


class Trail:
    """The trail of one archive's replay to one server.

    Args:
        file: where it is kept; it need not exist.

    Raises:
        Misconfigured: it cannot be written.

    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._taken = set(file.read_bytes().splitlines()) if file.exists() else set()
            self._output: BinaryIO = file.open("ab")
        except OSError as error:
            raise Misconfigured(f"--progress {file} cannot be kept: {error.strerror}") from None

    def __contains__(self, holding: Holding) -> bool:
        """Tell whether the server has all of an object."""
        return _line(holding) in self._taken

    def add(self, holding: Holding) -> None:
        """Note that the server has all of an object.

        Raises:
            Misconfigured: it cannot be written.

        """
        try:
            self._output.write(_line(holding) + b"\n")
            self._output.flush()
        except OSError as error:
            raise Misconfigured(f"--progress {self.file} cannot be written: {error.strerror}") from None

    def forget(self) -> None:
        """Delete the file."""
        with suppress(OSError):
            self.file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return this trail, to be closed at the block's end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        with suppress(OSError):
            self._output.close()


def default_file(archive: str, url: str) -> Path:
    """Return where the trail is kept if nobody says otherwise: in the user's state folder."""
    name = blake2b(f"{archive.rstrip('/')} {url.rstrip('/')}".encode(), digest_size=8).hexdigest()
    return state_folder() / f"replay-{name}.txt"


def _line(holding: Holding) -> bytes:
    known = holding.listed.sha256 if holding.listed else str(holding.bytes)
    return f"{known} {holding.path}".encode()
