"""Bytes as they come over a connection, cut into frames: one msgpack value each."""

from collections.abc import Iterator
from typing import Final

from msgpack import OutOfData, Unpacker

from metronome.dialects.forward.heads import least_size
from metronome.errors import Malformed, TooLarge

_HEARTBEAT: Final = b"\xc0"
_LOOK_FROM_BYTES: Final = 512
"""What is smaller is looked at as often as it grows; what is larger, when it has doubled."""


class Frames:
    """The frames of one connection.

    What is no msgpack or too large cannot be framed any more: `feed` raises once it has given what was whole before,
    and whoever feeds has to close the connection.

    Args:
        max_bytes: how large a frame may be.

    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._unpacker = Unpacker(max_buffer_size=0)
        self._held = bytearray()
        self._dropped = 0
        self._look_at = 0

    @property
    def is_partial(self) -> bool:
        """Whether a frame has begun that is not whole yet."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes and give the frames that they make whole; heartbeats (nil) are left out.

        Raises:
            Malformed: what follows is no msgpack.
            TooLarge: a frame is over the limit, or promises to be.

        """
        self._held += data
        self._unpacker.feed(data)
        begin = 0
        while True:
            try:
                self._unpacker.skip()
            except OutOfData:
                break
            except ValueError as error:
                raise Malformed(f"this is no msgpack: {str(error) or type(error).__name__}") from None
            end = self._unpacker.tell() - self._dropped
            if end - begin > self.max_bytes:
                raise self._too_large()
            frame = bytes(memoryview(self._held)[begin:end])
            begin = end
            if frame != _HEARTBEAT:
                yield frame
        if begin:
            del self._held[:begin]
            self._dropped += begin
            self._look_at = 0
        if len(self._held) >= self._look_at:
            self._look_at = 2 * len(self._held) if len(self._held) > _LOOK_FROM_BYTES else 0
            if self._held and least_size(self._held) > self.max_bytes:
                raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"a frame is over {self.max_bytes} bytes: send smaller chunks, or raise body_max_bytes")
