"""Syslog over TCP: where one message ends and the next begins (RFC 6587).

Each frame says for itself how it is bounded: one that begins with a number, a space and ``<`` is counted in octets,
any other ends with its line or with a NUL. Bytes go in as they come, and frames come out once they are whole.
"""

import re
from typing import Final

from metronome.errors import PayloadTooLarge

_OCTET_COUNT_PATTERN: Final = re.compile(rb"([1-9]\d{0,18}) <")
_PARTIAL_OCTET_COUNT_PATTERN: Final = re.compile(rb"[1-9]\d{0,18} ?")
_LINE_END_PATTERN: Final = re.compile(rb"[\n\0]+")
"""Of a run of them each ends a line, and all but the first an empty one."""
_NUL_REPLACEMENT: Final = "\ufffd".encode()


class SyslogFrameReader:
    """Tells the frames of one connection apart.

    Args:
        max_bytes: how long a frame may be. Of a longer line the first so many bytes are a frame, and the rest of it
            is skipped.

    Attributes:
        cut: how many lines were longer.

    """

    def __init__(self, max_bytes: int) -> None:
        self.truncated_lines = 0
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched_bytes = 0
        self._is_skipping_line = False

    def feed(self, data: bytes) -> tuple[list[bytes], PayloadTooLarge | None]:
        """Take what came, and return the frames that are whole now.

        Returns:
            The frames, none of them empty and none with a NUL in it; and, where the next one promises to be longer
            than it may, why nothing behind it can be read any more.

        """
        self._buffer += data
        frames: list[bytes] = []
        at = 0
        lost = None
        try:
            while (end := self._read_next(at, frames)) is not None:
                at = end
        except PayloadTooLarge as error:
            lost = error
        if at:
            del self._buffer[:at]
        return frames, lost

    def finish(self) -> list[bytes]:
        """Return what is left once the sender has ended: a line without its end, but no part of what is counted."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        if self._is_skipping_line or _OCTET_COUNT_PATTERN.match(rest):
            return []
        return strip_frame(rest)

    def _read_next(self, offset: int, frames: list[bytes]) -> int | None:
        """Read the frame that begins at *offset*, and return where the next begins; None if more has to come first."""
        held = self._buffer
        if offset == len(held):
            return None
        if self._is_skipping_line:
            return self._skip_line(offset)
        counted = _OCTET_COUNT_PATTERN.match(held, offset)
        if counted is not None:
            return self._read_counted(counted, frames)
        return None if _PARTIAL_OCTET_COUNT_PATTERN.fullmatch(held, offset) else self._read_line(offset, frames)

    def _read_line(self, offset: int, frames: list[bytes]) -> int | None:
        held = self._buffer
        end = _LINE_END_PATTERN.search(held, max(offset, self._searched_bytes), offset + self._max_bytes + 1)
        if end is not None:
            self._searched_bytes = 0
            frames += strip_frame(bytes(held[offset : end.start()]))
            return end.end()
        if len(held) - offset > self._max_bytes:
            self._searched_bytes = 0
            self._is_skipping_line = True
            self.truncated_lines += 1
            frames += strip_frame(bytes(held[offset : offset + self._max_bytes]))
            return offset + self._max_bytes
        # What is before it will be deleted, and need not be searched again.
        self._searched_bytes = len(held) - offset
        return None

    def _read_counted(self, counted: re.Match[bytes], frames: list[bytes]) -> int | None:
        length = int(counted[1])
        if length > self._max_bytes:
            raise PayloadTooLarge(
                f"a message promises {length} bytes, and {self._max_bytes} are taken: send shorter ones"
            )
        start = counted.end() - 1
        if len(self._buffer) < start + length:
            return None
        frames += strip_frame(bytes(self._buffer[start : start + length]))
        return start + length

    def _skip_line(self, offset: int) -> int:
        end = _LINE_END_PATTERN.search(self._buffer, offset)
        self._is_skipping_line = end is None
        return len(self._buffer) if end is None else end.end()


def strip_frame(frame: bytes) -> list[bytes]:
    """Return a frame without what may end it and without NULs; nothing if nothing is left."""
    frame = frame.strip(b"\r\n\0")
    return [frame.replace(b"\0", _NUL_REPLACEMENT)] if frame else []
