"""Bytes as they come over a connection, cut into frames: one msgpack value each.

What the first bytes of a msgpack value say of it: its kind and how much follows.

Source of the format: the specification of MessagePack.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from msgpack import OutOfData, Unpacker

from metronome.errors import Malformed, PayloadTooLarge

_MAX_HEADS = 1000
"""So many values are looked at to learn how large a frame will be."""


class MsgpackKind(Enum):
    """What a value is, as far as it matters where it ends."""

    PLAIN = "nil, true, false or a number"
    TEXT = "text or bytes, which senders take for one another"
    EXT = "a value of a type of its own, as Fluentd's times"
    ARRAY = "an array"
    MAP = "a map"


class MsgpackHead(NamedTuple):
    """The head of a value.

    Attributes:
        kind: what the value is.
        start: where that begins which follows the head.
        size: how many values are in an array, how many pairs in a map, else how many bytes follow.

    """

    kind: MsgpackKind
    content_start: int
    size: int


def parse_head(data: bytes | bytearray, offset: int) -> MsgpackHead | None:
    """Read the head of the value that begins at *offset*, or return None if more bytes are needed for that."""
    if offset >= len(data):
        return None
    kind, width, size = _HEAD_FORMATS[data[offset]]
    start = offset + 1 + width
    if width:
        if start > len(data):
            return None
        size += int.from_bytes(data[offset + 1 : start], "big")
    return MsgpackHead(kind, start, size)


def min_frame_size(data: bytes | bytearray) -> int:
    """Return how many bytes the value that begins *data* has at the least, from what its heads promise."""
    at, promised = 0, 1
    for _ in range(_MAX_HEADS):
        head = parse_head(data, at) if promised else None
        if head is None:
            break
        kind, start, size = head
        promised -= 1
        if kind is MsgpackKind.ARRAY or kind is MsgpackKind.MAP:
            promised += size if kind is MsgpackKind.ARRAY else 2 * size
            at = start
        else:
            at = start + size
    return max(at, len(data)) + promised


def _build_head_formats() -> Iterator[tuple[MsgpackKind, int, int]]:
    """List, for each first byte, what it begins: the kind, how many bytes give a size, what is added to that."""
    plain, text, ext = MsgpackKind.PLAIN, MsgpackKind.TEXT, MsgpackKind.EXT
    yield from [(plain, 0, 0)] * 0x80
    yield from [(MsgpackKind.MAP, 0, size) for size in range(16)]
    yield from [(MsgpackKind.ARRAY, 0, size) for size in range(16)]
    yield from [(text, 0, size) for size in range(32)]
    yield from [(plain, 0, 0)] * 4
    yield from [(text, width, 0) for width in (1, 2, 4)]
    # An ext has the byte of its type before its own bytes.
    yield from [(ext, width, 1) for width in (1, 2, 4)]
    yield from [(plain, 0, size) for size in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)]
    yield from [(ext, 0, 1 + size) for size in (1, 2, 4, 8, 16)]
    yield from [(text, width, 0) for width in (1, 2, 4)]
    yield from [(MsgpackKind.ARRAY, width, 0) for width in (2, 4)]
    yield from [(MsgpackKind.MAP, width, 0) for width in (2, 4)]
    yield from [(plain, 0, 0)] * 0x20


_HEAD_FORMATS: Final = tuple(_build_head_formats())


_NIL_HEARTBEAT: Final = b"\xc0"
_SIZE_CHECK_MIN_BYTES: Final = 512
"""What is smaller is looked at as often as it grows; what is larger, when it has doubled."""


class ForwardFrameReader:
    """The frames of one connection.

    What is no msgpack or too large cannot be framed any more: `feed` raises once it has given what was whole before,
    and whoever feeds has to close the connection.

    Args:
        max_bytes: how large a frame may be.

    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._unpacker = Unpacker(max_buffer_size=0)
        self._buffer = bytearray()
        self._consumed_bytes = 0
        self._next_size_check = 0

    @property
    def is_partial(self) -> bool:
        """Whether a frame has begun that is not whole yet."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes and give the frames that they make whole; heartbeats (nil) are left out.

        Raises:
            Malformed: what follows is no msgpack.
            PayloadTooLarge: a frame is over the limit, or promises to be.

        """
        self._buffer += data
        self._unpacker.feed(data)
        begin = 0
        while True:
            try:
                self._unpacker.skip()
            except OutOfData:
                break
            except ValueError as error:
                raise Malformed(f"this is no msgpack: {str(error) or type(error).__name__}") from None
            end = self._unpacker.tell() - self._consumed_bytes
            if end - begin > self.max_bytes:
                raise self._too_large()
            frame = bytes(memoryview(self._buffer)[begin:end])
            begin = end
            if frame != _NIL_HEARTBEAT:
                yield frame
        if begin:
            del self._buffer[:begin]
            self._consumed_bytes += begin
            self._next_size_check = 0
        if len(self._buffer) >= self._next_size_check:
            self._next_size_check = 2 * len(self._buffer) if len(self._buffer) > _SIZE_CHECK_MIN_BYTES else 0
            if self._buffer and min_frame_size(self._buffer) > self.max_bytes:
                raise self._too_large()

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"a frame is over {self.max_bytes} bytes: send smaller chunks, or raise body_max_bytes")
