"""Syslog over TCP: where one message ends and the next begins (RFC 6587).

Each frame says for itself how it is bounded: one that begins with a number, a space and ``<`` is counted in octets,
any other ends with its line or with a NUL. Bytes go in as they come, and frames come out once they are whole.
"""

import re
from typing import Final

from metronome.errors import TooLarge

_COUNTED: Final = re.compile(rb"([1-9]\d{0,18}) <")
_MAYBE_COUNTED: Final = re.compile(rb"[1-9]\d{0,18} ?")
_END: Final = re.compile(rb"[\n\0]+")
"""Of a run of them each ends a line, and all but the first an empty one."""
_NUL_STAND_IN: Final = "\ufffd".encode()


class Frames:
    """Tells the frames of one connection apart.

    Args:
        max_bytes: how long a frame may be. Of a longer line the first so many bytes are a frame, and the rest of it
            is skipped.

    Attributes:
        cut: how many lines were longer.

    """

    def __init__(self, max_bytes: int) -> None:
        self.cut = 0
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._searched = 0
        self._skips = False

    def feed(self, data: bytes) -> tuple[list[bytes], TooLarge | None]:
        """Take what came, and return the frames that are whole now.

        Returns:
            The frames, none of them empty and none with a NUL in it; and, where the next one promises to be longer
            than it may, why nothing behind it can be read any more.

        """
        self._held += data
        frames: list[bytes] = []
        at = 0
        lost = None
        try:
            while (end := self._next(at, frames)) is not None:
                at = end
        except TooLarge as error:
            lost = error
        if at:
            del self._held[:at]
        return frames, lost

    def end(self) -> list[bytes]:
        """Return what is left once the sender has ended: a line without its end, but no part of what is counted."""
        rest = bytes(self._held)
        self._held.clear()
        if self._skips or _COUNTED.match(rest):
            return []
        return plain(rest)

    def _next(self, at: int, frames: list[bytes]) -> int | None:
        """Read the frame that begins at *at*, and return where the next begins; None if more has to come first."""
        held = self._held
        if at == len(held):
            return None
        if self._skips:
            return self._skip(at)
        counted = _COUNTED.match(held, at)
        if counted is not None:
            return self._next_counted(counted, frames)
        return None if _MAYBE_COUNTED.fullmatch(held, at) else self._next_line(at, frames)

    def _next_line(self, at: int, frames: list[bytes]) -> int | None:
        held = self._held
        end = _END.search(held, max(at, self._searched), at + self._max_bytes + 1)
        if end is not None:
            self._searched = 0
            frames += plain(bytes(held[at : end.start()]))
            return end.end()
        if len(held) - at > self._max_bytes:
            self._searched = 0
            self._skips = True
            self.cut += 1
            frames += plain(bytes(held[at : at + self._max_bytes]))
            return at + self._max_bytes
        # What is before it will be deleted, and need not be searched again.
        self._searched = len(held) - at
        return None

    def _next_counted(self, counted: re.Match[bytes], frames: list[bytes]) -> int | None:
        length = int(counted[1])
        if length > self._max_bytes:
            raise TooLarge(f"a message promises {length} bytes, and {self._max_bytes} are taken: send shorter ones")
        start = counted.end() - 1
        if len(self._held) < start + length:
            return None
        frames += plain(bytes(self._held[start : start + length]))
        return start + length

    def _skip(self, at: int) -> int:
        end = _END.search(self._held, at)
        self._skips = end is None
        return len(self._held) if end is None else end.end()


def plain(frame: bytes) -> list[bytes]:
    """Return a frame without what may end it and without NULs; nothing if nothing is left."""
    frame = frame.strip(b"\r\n\0")
    return [frame.replace(b"\0", _NUL_STAND_IN)] if frame else []
