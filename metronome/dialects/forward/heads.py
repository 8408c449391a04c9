"""What the first bytes of a msgpack value say of it: its kind and how much follows.

Source of the format: the specification of MessagePack.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

_MAX_HEADS = 1000
"""So many values are looked at to learn how large a frame will be."""


class Kind(Enum):
    """What a value is, as far as it matters where it ends."""

    PLAIN = "nil, true, false or a number"
    TEXT = "text or bytes, which senders take for one another"
    EXT = "a value of a type of its own, as Fluentd's times"
    ARRAY = "an array"
    MAP = "a map"


class Head(NamedTuple):
    """The head of a value.

    Attributes:
        kind: what the value is.
        start: where that begins which follows the head.
        size: how many values are in an array, how many pairs in a map, else how many bytes follow.

    """

    kind: Kind
    start: int
    size: int


def read_head(data: bytes | bytearray, at: int) -> Head | None:
    """Read the head of the value that begins at *at*, or return None if more bytes are needed for that."""
    if at >= len(data):
        return None
    kind, width, size = _FORMS[data[at]]
    start = at + 1 + width
    if width:
        if start > len(data):
            return None
        size += int.from_bytes(data[at + 1 : start], "big")
    return Head(kind, start, size)


def least_size(data: bytes | bytearray) -> int:
    """Return how many bytes the value that begins *data* has at the least, from what its heads promise."""
    at, promised = 0, 1
    for _ in range(_MAX_HEADS):
        head = read_head(data, at) if promised else None
        if head is None:
            break
        kind, start, size = head
        promised -= 1
        if kind is Kind.ARRAY or kind is Kind.MAP:
            promised += size if kind is Kind.ARRAY else 2 * size
            at = start
        else:
            at = start + size
    return max(at, len(data)) + promised


def _forms() -> Iterator[tuple[Kind, int, int]]:
    """List, for each first byte, what it begins: the kind, how many bytes give a size, what is added to that."""
    plain, text, ext = Kind.PLAIN, Kind.TEXT, Kind.EXT
    yield from [(plain, 0, 0)] * 0x80
    yield from [(Kind.MAP, 0, size) for size in range(16)]
    yield from [(Kind.ARRAY, 0, size) for size in range(16)]
    yield from [(text, 0, size) for size in range(32)]
    yield from [(plain, 0, 0)] * 4
    yield from [(text, width, 0) for width in (1, 2, 4)]
    # An ext has the byte of its type before its own bytes.
    yield from [(ext, width, 1) for width in (1, 2, 4)]
    yield from [(plain, 0, size) for size in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)]
    yield from [(ext, 0, 1 + size) for size in (1, 2, 4, 8, 16)]
    yield from [(text, width, 0) for width in (1, 2, 4)]
    yield from [(Kind.ARRAY, width, 0) for width in (2, 4)]
    yield from [(Kind.MAP, width, 0) for width in (2, 4)]
    yield from [(plain, 0, 0)] * 0x20


_FORMS: Final = tuple(_forms())
