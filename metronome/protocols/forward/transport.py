"""A frame that carries events, whichever of the four modes it is in: tag, packed entries, options.

All modes come to the same: the entries of Forward mode lie in the frame as those of PackedForward mode, and a
Message is one entry without its array's head.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

from msgpack import OutOfData, Unpacker, packb

from metronome.errors import Malformed
from metronome.protocols.forward.frames import MsgpackHead, MsgpackKind, parse_head
from metronome.web.bodies import decompress

_ENTRY_HEADER: Final = b"\x92"
_NIL: Final = b"\xc0"
_MESSAGE_MODE_LENGTH: Final = 3
_MESSAGE_LENGTHS: Final = range(2, 5)
_MAX_OPTIONS: Final = 64
_UNCOMPRESSED: Final = frozenset({"", "text"})
_COMPRESSIONS: Final = frozenset({"gzip", "zstd"})
_BYTES_PER_MEMBER: Final = 16
"""Fluentd's buffer compresses what it takes at once, if need be a single entry, as a part of its own."""


EntryEnds = tuple[list[int], Malformed | None]
"""Where each entry ends, and why what follows the last is none."""


class ForwardMessage(NamedTuple):
    """What a frame carries.

    Attributes:
        tag: what its events are called.
        entries: the entries, one behind the other, each an array of time and record.
        chunk: the id that the frame is acknowledged by, as the msgpack value that came; empty if none is wanted.
        encoding: what the entries are compressed with, or empty.

    """

    tag: str
    entries: bytes
    chunk_id: bytes = b""
    compression: str = ""


def parse_message(frame: bytes) -> ForwardMessage:
    """Read a frame that is whole.

    Raises:
        Malformed: it is msgpack, but carries no events.

    """
    outer = _require_head(frame, 0)
    if outer.kind is not MsgpackKind.ARRAY or outer.size not in _MESSAGE_LENGTHS:
        raise Malformed("a frame is an array of a tag, entries (or a time and a record) and options, and this is none")
    name = _require_head(frame, outer.content_start)
    if name.kind is not MsgpackKind.TEXT:
        raise Malformed("the first of a frame is its tag, a text")
    at = name.content_start + name.size
    tag = frame[name.content_start : at].decode(errors="backslashreplace")
    second = _require_head(frame, at)
    packed = second.kind is MsgpackKind.TEXT
    if packed:
        behind, read = second.content_start + second.size, 2
        entries = frame[second.content_start : behind]
    elif second.kind is MsgpackKind.ARRAY:
        behind, read = (len(frame) if outer.size == len(("tag", "entries")) else _value_end(frame, at)), 2
        entries = frame[second.content_start : behind]
    else:
        if second.kind is MsgpackKind.MAP or outer.size < _MESSAGE_MODE_LENGTH:
            raise Malformed("behind the tag come entries, or a time and a record")
        record = second.content_start + second.size
        behind, read = (
            (len(frame) if outer.size == _MESSAGE_MODE_LENGTH else _value_end(frame, record)),
            _MESSAGE_MODE_LENGTH,
        )
        entries = _ENTRY_HEADER + frame[at:behind]
    chunk, encoding = _parse_options(frame, behind) if outer.size > read else (b"", "")
    return ForwardMessage(tag, entries, chunk, encoding if packed else "")


def decompress_message(message: ForwardMessage, max_bytes: int) -> ForwardMessage:
    """Return a transport whose entries are not compressed.

    Args:
        message: one whose entries may be.
        max_bytes: how large they may become.

    Raises:
        Malformed: they are not what the transport says.
        PayloadTooLarge: they are larger.

    """
    if not message.compression:
        return message
    if message.compression not in _COMPRESSIONS:
        raise Malformed(f"compressed is {message.compression[:40]!r}: send {', '.join(sorted(_COMPRESSIONS))} or text")
    return message._replace(
        entries=decompress(message.entries, message.compression, max_bytes, _BYTES_PER_MEMBER), compression=""
    )


def encode_packed_forward(message: ForwardMessage) -> bytes:
    """Write a transport as a frame in PackedForward mode."""
    options = {"compressed": message.compression} if message.compression else {}
    head = b"\x93" + packb(message.tag) + b"\xc6" + len(message.entries).to_bytes(4, "big")
    chunk = b"\xa5chunk" + message.chunk_id if message.chunk_id else b""
    size = len(options) + bool(chunk)
    return b"".join((head, message.entries, bytes([0x80 | size]), chunk, packb(options)[1:]))


def encode_ack(chunk_id: bytes) -> bytes:
    """Write the answer to a chunk: its id, byte for byte; nothing if it has none."""
    return b"\x81\xa3ack" + chunk_id if chunk_id else b""


def find_entry_ends(entries: bytes) -> EntryEnds:
    """Find where each entry ends, and why what follows them is none."""
    return _find_next_ends(_new_unpacker(entries), 0, len(entries), len(entries))


def split_message(message: ForwardMessage, max_entries: int) -> Iterator[tuple[int, ForwardMessage, EntryEnds]]:
    """Cut a transport that is not compressed into such as hold so many entries at the most.

    Each is looked for as it is asked for: a frame may be of millions of bytes that are an entry each.

    Args:
        message: what is cut.
        max_entries: how many a part may have.

    Yields:
        The number of the first entry of a part, the part, and where its entries end. Only the last has the chunk's
        id, and what is no entry.

    """
    entries = message.entries
    unpacker = _new_unpacker(entries)
    first = begin = 0
    while True:
        ends, broken = _find_next_ends(unpacker, begin, len(entries), max_entries)
        end = begin + (ends[-1] if ends else 0)
        if broken is not None or end == len(entries):
            break
        yield first, message._replace(entries=entries[begin:end], chunk_id=b""), (ends, None)
        first, begin = first + max_entries, end
    yield first, message._replace(entries=entries[begin:]) if begin else message, (ends, broken)


def merge_messages(messages: Iterable[ForwardMessage]) -> Iterator[ForwardMessage]:
    """Join neighbours of one tag that want no acknowledgement: loggers send each event as a frame of its own."""
    for (tag, alone), group in groupby(messages, lambda one: (one.tag, bool(one.chunk_id or one.compression))):
        if alone:
            yield from group
        else:
            yield ForwardMessage(tag, b"".join([one.entries for one in group]))


def _new_unpacker(entries: bytes) -> Unpacker:
    unpacker = Unpacker(max_buffer_size=max(1, len(entries)))
    unpacker.feed(entries)
    return unpacker


def _find_next_ends(unpacker: Unpacker, begin: int, size: int, max_entries: int) -> EntryEnds:
    """Find where the next entries end, counted from *begin* on; *size* is where there are no more."""
    ends: list[int] = []
    skip, tell, add = unpacker.skip, unpacker.tell, ends.append
    try:
        for _ in range(max_entries):
            skip()
            add(tell() - begin)
    except OutOfData:
        if begin + (ends[-1] if ends else 0) < size:
            return ends, Malformed(f"entry {len(ends)} breaks off")
    except ValueError as error:
        return ends, Malformed(f"entry {len(ends)} is no msgpack: {str(error) or type(error).__name__}")
    return ends, None


def _parse_options(frame: bytes, offset: int) -> tuple[bytes, str]:
    """Return the chunk's id, as it stands there, and what the entries are compressed with."""
    head = _require_head(frame, offset)
    chunk, encoding = b"", ""
    if head.kind is not MsgpackKind.MAP:
        return chunk, encoding
    offset = head.content_start
    for _ in range(min(head.size, _MAX_OPTIONS)):
        value = _value_end(frame, offset)
        end = _value_end(frame, value)
        name = _require_head(frame, offset)
        match frame[name.content_start : value]:
            case b"chunk" if frame[value:end] != _NIL:
                chunk = frame[value:end]
            case b"compressed" if frame[value:end] != _NIL:
                text = frame[_require_head(frame, value).content_start : end].decode(errors="backslashreplace")
                encoding = "" if text in _UNCOMPRESSED else text
        offset = end
    return chunk, encoding


def _require_head(frame: bytes, offset: int) -> MsgpackHead:
    head = parse_head(frame, offset)
    if head is None:
        raise Malformed("the frame breaks off")
    return head


def _value_end(frame: bytes, offset: int) -> int:
    """Return where the value ends that begins at *offset*."""
    head = _require_head(frame, offset)
    if head.kind is not MsgpackKind.ARRAY and head.kind is not MsgpackKind.MAP:
        return head.content_start + head.size
    unpacker = Unpacker(max_buffer_size=len(frame))
    unpacker.feed(memoryview(frame)[offset:])
    try:
        unpacker.skip()
    except (OutOfData, ValueError):
        raise Malformed("the frame breaks off") from None
    return offset + int(unpacker.tell())
