"""Split syslog over TCP into messages (RFC 6587).

Both ways of framing may be mixed: a frame that begins with a number, a space and ``<`` is counted in octets, any other
one ends at a line feed or a NUL.
"""

import re
from typing import Final

from metronome.errors import PayloadTooLarge

_OCTET_COUNT_PATTERN: Final = re.compile(rb"([1-9]\d{0,18}) <")
_PARTIAL_OCTET_COUNT_PATTERN: Final = re.compile(rb"[1-9]\d{0,18} ?")
_LINE_END_PATTERN: Final = re.compile(rb"[\n\0]+")
"""The end of a line and of any empty lines after it."""
_NUL_REPLACEMENT: Final = "\ufffd".encode()


class SyslogFrameReader:
    """Split the bytes of one connection into frames.

    Args:
        max_bytes: the maximum size of a frame; a longer line is truncated.

    Attributes:
        truncated_lines: the number of truncated lines.

    """

    def __init__(self, max_bytes: int) -> None:
        self.truncated_lines = 0
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched_bytes = 0
        self._is_skipping_line = False

    @property
    def held_bytes(self) -> int:
        """The number of bytes that wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> tuple[list[bytes], PayloadTooLarge | None]:
        """Add received bytes and return the frames that are now complete.

        Returns:
            The frames, which are not empty and contain no NUL; and an error if the next frame is over the limit, after
            which nothing can be read any more.

        """
        self._buffer += data
        frames: list[bytes] = []
        begin = 0
        too_large = None
        try:
            while (end := self._read_next(begin, frames)) is not None:
                begin = end
        except PayloadTooLarge as error:
            too_large = error
        if begin:
            del self._buffer[:begin]
        return frames, too_large

    def finish(self) -> list[bytes]:
        """Return the last line of a connection that has ended, if it lacks only its end."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        if self._is_skipping_line or _OCTET_COUNT_PATTERN.match(rest):
            return []
        return strip_frame(rest)

    def _read_next(self, offset: int, frames: list[bytes]) -> int | None:
        """Read the frame that begins at *offset* and return where the next begins; None if it is incomplete."""
        buffer = self._buffer
        if offset == len(buffer):
            return None
        if self._is_skipping_line:
            return self._skip_line(offset)
        counted = _OCTET_COUNT_PATTERN.match(buffer, offset)
        if counted is not None:
            return self._read_counted(counted, frames)
        return None if _PARTIAL_OCTET_COUNT_PATTERN.fullmatch(buffer, offset) else self._read_line(offset, frames)

    def _read_line(self, offset: int, frames: list[bytes]) -> int | None:
        buffer = self._buffer
        end = _LINE_END_PATTERN.search(buffer, max(offset, self._searched_bytes), offset + self._max_bytes + 1)
        if end is not None:
            self._searched_bytes = 0
            frames += strip_frame(bytes(buffer[offset : end.start()]))
            return end.end()
        if len(buffer) - offset > self._max_bytes:
            self._searched_bytes = 0
            self._is_skipping_line = True
            self.truncated_lines += 1
            frames += strip_frame(bytes(buffer[offset : offset + self._max_bytes]))
            return offset + self._max_bytes
        # Relative to the frame, which will be at the start of the buffer.
        self._searched_bytes = len(buffer) - offset
        return None

    def _read_counted(self, counted: re.Match[bytes], frames: list[bytes]) -> int | None:
        length = int(counted[1])
        if length > self._max_bytes:
            raise PayloadTooLarge(
                f"a message of {length} bytes is over the limit of {self._max_bytes} bytes: send shorter ones"
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
    """Return a frame without line ends around it and without NULs; nothing if it is empty."""
    frame = frame.strip(b"\r\n\0")
    return [frame.replace(b"\0", _NUL_REPLACEMENT)] if frame else []
