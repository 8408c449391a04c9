"""A frame that carries events, whichever of the four modes it is in: tag, packed entries, options.

All modes come to the same: the entries of Forward mode lie in the frame as those of PackedForward mode, and a
Message is one entry without its array's head.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

from msgpack import OutOfData, Unpacker, packb

from metronome.errors import Malformed
from metronome.protocols.forward.frames import Head, Kind, read_head
from metronome.web.bodies import decode

_ENTRY: Final = b"\x92"
_NIL: Final = b"\xc0"
_MESSAGE_VALUES: Final = 3
_VALUES: Final = range(2, 5)
_MAX_OPTIONS: Final = 64
_PLAIN: Final = frozenset({"", "text"})
_SPOKEN: Final = frozenset({"gzip", "zstd"})
_PART_BYTES: Final = 16
"""Fluentd's buffer compresses what it takes at once, if need be a single entry, as a part of its own."""


Ends = tuple[list[int], Malformed | None]
"""Where each entry ends, and why what follows the last is none."""


class Transport(NamedTuple):
    """What a frame carries.

    Attributes:
        tag: what its events are called.
        entries: the entries, one behind the other, each an array of time and record.
        chunk: the id that the frame is acknowledged by, as the msgpack value that came; empty if none is wanted.
        encoding: what the entries are compressed with, or empty.

    """

    tag: str
    entries: bytes
    chunk: bytes = b""
    encoding: str = ""


def read_transport(frame: bytes) -> Transport:
    """Read a frame that is whole.

    Raises:
        Malformed: it is msgpack, but carries no events.

    """
    outer = _head(frame, 0)
    if outer.kind is not Kind.ARRAY or outer.size not in _VALUES:
        raise Malformed("a frame is an array of a tag, entries (or a time and a record) and options, and this is none")
    name = _head(frame, outer.start)
    if name.kind is not Kind.TEXT:
        raise Malformed("the first of a frame is its tag, a text")
    at = name.start + name.size
    tag = frame[name.start : at].decode(errors="backslashreplace")
    second = _head(frame, at)
    packed = second.kind is Kind.TEXT
    if packed:
        behind, read = second.start + second.size, 2
        entries = frame[second.start : behind]
    elif second.kind is Kind.ARRAY:
        behind, read = (len(frame) if outer.size == len(("tag", "entries")) else _end(frame, at)), 2
        entries = frame[second.start : behind]
    else:
        if second.kind is Kind.MAP or outer.size < _MESSAGE_VALUES:
            raise Malformed("behind the tag come entries, or a time and a record")
        record = second.start + second.size
        behind, read = (len(frame) if outer.size == _MESSAGE_VALUES else _end(frame, record)), _MESSAGE_VALUES
        entries = _ENTRY + frame[at:behind]
    chunk, encoding = _options(frame, behind) if outer.size > read else (b"", "")
    return Transport(tag, entries, chunk, encoding if packed else "")


def plain(transport: Transport, max_bytes: int) -> Transport:
    """Return a transport whose entries are not compressed.

    Args:
        transport: one whose entries may be.
        max_bytes: how large they may become.

    Raises:
        Malformed: they are not what the transport says.
        TooLarge: they are larger.

    """
    if not transport.encoding:
        return transport
    if transport.encoding not in _SPOKEN:
        raise Malformed(f"compressed is {transport.encoding[:40]!r}: send {', '.join(sorted(_SPOKEN))} or text")
    return transport._replace(
        entries=decode(transport.entries, transport.encoding, max_bytes, _PART_BYTES), encoding=""
    )


def frame_of(transport: Transport) -> bytes:
    """Write a transport as a frame in PackedForward mode."""
    options = {"compressed": transport.encoding} if transport.encoding else {}
    head = b"\x93" + packb(transport.tag) + b"\xc6" + len(transport.entries).to_bytes(4, "big")
    chunk = b"\xa5chunk" + transport.chunk if transport.chunk else b""
    size = len(options) + bool(chunk)
    return b"".join((head, transport.entries, bytes([0x80 | size]), chunk, packb(options)[1:]))


def acknowledgement(chunk: bytes) -> bytes:
    """Write the answer to a chunk: its id, byte for byte; nothing if it has none."""
    return b"\x81\xa3ack" + chunk if chunk else b""


def entry_ends(entries: bytes) -> Ends:
    """Find where each entry ends, and why what follows them is none."""
    return _next_ends(_unpacker(entries), 0, len(entries), len(entries))


def parts(transport: Transport, max_entries: int) -> Iterator[tuple[int, Transport, Ends]]:
    """Cut a transport that is not compressed into such as hold so many entries at the most.

    Each is looked for as it is asked for: a frame may be of millions of bytes that are an entry each.

    Args:
        transport: what is cut.
        max_entries: how many a part may have.

    Yields:
        The number of the first entry of a part, the part, and where its entries end. Only the last has the chunk's
        id, and what is no entry.

    """
    entries = transport.entries
    unpacker = _unpacker(entries)
    first = begin = 0
    while True:
        ends, broken = _next_ends(unpacker, begin, len(entries), max_entries)
        end = begin + (ends[-1] if ends else 0)
        if broken is not None or end == len(entries):
            break
        yield first, transport._replace(entries=entries[begin:end], chunk=b""), (ends, None)
        first, begin = first + max_entries, end
    yield first, transport._replace(entries=entries[begin:]) if begin else transport, (ends, broken)


def joined(transports: Iterable[Transport]) -> Iterator[Transport]:
    """Join neighbours of one tag that want no acknowledgement: loggers send each event as a frame of its own."""
    for (tag, alone), group in groupby(transports, lambda one: (one.tag, bool(one.chunk or one.encoding))):
        if alone:
            yield from group
        else:
            yield Transport(tag, b"".join([one.entries for one in group]))


def _unpacker(entries: bytes) -> Unpacker:
    unpacker = Unpacker(max_buffer_size=max(1, len(entries)))
    unpacker.feed(entries)
    return unpacker


def _next_ends(unpacker: Unpacker, begin: int, size: int, most: int) -> Ends:
    """Find where the next entries end, counted from *begin* on; *size* is where there are no more."""
    ends: list[int] = []
    skip, tell, add = unpacker.skip, unpacker.tell, ends.append
    try:
        for _ in range(most):
            skip()
            add(tell() - begin)
    except OutOfData:
        if begin + (ends[-1] if ends else 0) < size:
            return ends, Malformed(f"entry {len(ends)} breaks off")
    except ValueError as error:
        return ends, Malformed(f"entry {len(ends)} is no msgpack: {str(error) or type(error).__name__}")
    return ends, None


def _options(frame: bytes, at: int) -> tuple[bytes, str]:
    """Return the chunk's id, as it stands there, and what the entries are compressed with."""
    head = _head(frame, at)
    chunk, encoding = b"", ""
    if head.kind is not Kind.MAP:
        return chunk, encoding
    at = head.start
    for _ in range(min(head.size, _MAX_OPTIONS)):
        value = _end(frame, at)
        end = _end(frame, value)
        name = _head(frame, at)
        match frame[name.start : value]:
            case b"chunk" if frame[value:end] != _NIL:
                chunk = frame[value:end]
            case b"compressed" if frame[value:end] != _NIL:
                text = frame[_head(frame, value).start : end].decode(errors="backslashreplace")
                encoding = "" if text in _PLAIN else text
        at = end
    return chunk, encoding


def _head(frame: bytes, at: int) -> Head:
    head = read_head(frame, at)
    if head is None:
        raise Malformed("the frame breaks off")
    return head


def _end(frame: bytes, at: int) -> int:
    """Return where the value ends that begins at *at*."""
    head = _head(frame, at)
    if head.kind is not Kind.ARRAY and head.kind is not Kind.MAP:
        return head.start + head.size
    unpacker = Unpacker(max_buffer_size=len(frame))
    unpacker.feed(memoryview(frame)[at:])
    try:
        unpacker.skip()
    except (OutOfData, ValueError):
        raise Malformed("the frame breaks off") from None
    return at + int(unpacker.tell())
