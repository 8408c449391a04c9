"""Frames and messages of the forward protocol.

A connection carries frames, each of them one msgpack value. A frame that carries events is a message, in one of four
modes; `parse_message` brings all of them to the same form: a tag, packed entries and options. The entries of Forward
mode lie in the frame as those of PackedForward mode do, and a frame in Message mode holds one entry without the header
of its array.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple

from msgpack import OutOfData, Unpacker

from metronome.errors import Malformed, PayloadTooLarge

_NIL: Final = b"\xc0"
_ENTRY_HEADER: Final = b"\x92"
_ARRAY_TYPES: Final = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})
_MAP_TYPES: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_TEXT_TYPES: Final = frozenset({*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB})
"""The first bytes of text and of binary data; old libraries send either for the other."""
_HEADER_BYTES: Final = {0xC4: 2, 0xD9: 2, 0xC5: 3, 0xDA: 3, 0xDC: 3, 0xC6: 5, 0xDB: 5, 0xDD: 5}
"""The length of the header of an array or a text by its first byte, where it is not 1."""
_MESSAGE_MODE_LENGTH: Final = 3
_MESSAGE_LENGTHS: Final = range(2, 5)
_MAX_OPTIONS: Final = 64
_UNCOMPRESSED: Final = frozenset({"", "text"})
_READ_BYTES: Final = 64 * 1024
_UNPACKER_MAX_BYTES: Final = 1024 * 1024
"""An unpacker is replaced after this many bytes: its buffer never shrinks below the largest frame."""


class ForwardFrameReader:
    """Split the bytes of one connection into frames.

    Args:
        max_bytes: the maximum size of a frame.

    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._unpacker = _new_stream_unpacker()
        self._buffer = bytearray()
        self._consumed_bytes = 0

    @property
    def is_partial(self) -> bool:
        """Whether a part of the next frame has arrived."""
        return bool(self._buffer)

    @property
    def held_bytes(self) -> int:
        """The number of bytes in memory: the unpacker has a copy of its own."""
        return 2 * len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add received bytes and yield the frames that are now complete, except heartbeats (nil).

        After an error the start of the next frame is unknown: the caller has to close the connection.

        Raises:
            Malformed: the next bytes are not msgpack.
            PayloadTooLarge: a frame is over the limit.

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
                raise Malformed(f"invalid msgpack: {str(error) or type(error).__name__}") from None
            end = self._unpacker.tell() - self._consumed_bytes
            self._check_size(end - begin)
            frame = bytes(memoryview(self._buffer)[begin:end])
            begin = end
            if frame != _NIL:
                yield frame
        if begin:
            del self._buffer[:begin]
            self._consumed_bytes += begin
        self._check_size(len(self._buffer))
        if not self._buffer and self._consumed_bytes > _UNPACKER_MAX_BYTES:
            self._unpacker = _new_stream_unpacker()
            self._consumed_bytes = 0

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise PayloadTooLarge(
                f"a frame is over {self.max_bytes} bytes: send smaller chunks, or raise body_max_bytes"
            )


class ForwardMessage(NamedTuple):
    """A frame that carries events.

    Attributes:
        tag: the tag of all entries.
        entries: the entries, one after the other, each an array of time and record.
        chunk_id: the ID that the message is acknowledged by, as the msgpack value that was received; empty if the
            client wants no acknowledgement.
        compression: how the entries are compressed, or empty.

    """

    tag: str
    entries: bytes
    chunk_id: bytes = b""
    compression: str = ""


class EntryEnds(NamedTuple):
    """Where entries end, counted from the start of the first one.

    Attributes:
        offsets: the end of each entry.
        error: why the bytes after the last entry are not an entry, if there are any.

    """

    offsets: list[int]
    error: Malformed | None


def parse_message(frame: bytes) -> ForwardMessage:
    """Parse a complete frame.

    Raises:
        Malformed: it is msgpack, but not a message.

    """
    unpacker = _new_unpacker(frame)
    try:
        return _parse_message(frame, unpacker)
    except (OutOfData, ValueError, IndexError):
        raise Malformed(
            "invalid frame: expected an array of a tag, entries (or a time and a record) and options"
        ) from None


def encode_ack(chunk_id: bytes) -> bytes:
    """Return the acknowledgement of a chunk, with its ID byte for byte; empty without an ID."""
    return b"\x81\xa3ack" + chunk_id if chunk_id else b""


def split_message(message: ForwardMessage, max_entries: int) -> Iterator[tuple[int, ForwardMessage, EntryEnds]]:
    """Split an uncompressed message into parts of at most *max_entries* entries.

    The parts are found lazily: a frame may hold millions of one-byte entries.

    Yields:
        The index of the part's first entry, the part, and where its entries end. Only the last part has the chunk ID
        and the bytes that are not an entry.

    """
    entries = message.entries
    unpacker = _new_unpacker(entries)
    first = begin = 0
    while True:
        ends = _find_next_ends(unpacker, begin, len(entries), max_entries)
        end = begin + (ends.offsets[-1] if ends.offsets else 0)
        if ends.error is not None or end == len(entries):
            break
        yield first, message._replace(entries=entries[begin:end], chunk_id=b""), ends
        first, begin = first + max_entries, end
    yield first, message._replace(entries=entries[begin:]) if begin else message, ends


def merge_messages(messages: Iterable[ForwardMessage]) -> Iterator[ForwardMessage]:
    """Join consecutive messages that have the same tag and want no acknowledgement.

    Loggers send each event as a frame of its own.
    """
    for (tag, is_single), group in groupby(
        messages, lambda message: (message.tag, bool(message.chunk_id or message.compression))
    ):
        if is_single:
            yield from group
        else:
            yield ForwardMessage(tag, b"".join([message.entries for message in group]))


def _new_stream_unpacker() -> Unpacker:
    # Not limited by the unpacker: one read may hold the end of a frame and the start of the next.
    return Unpacker(read_size=_READ_BYTES, max_buffer_size=0)


def _new_unpacker(data: bytes) -> Unpacker:
    unpacker = Unpacker(max_buffer_size=max(1, len(data)))
    unpacker.feed(data)
    return unpacker


def _parse_message(frame: bytes, unpacker: Unpacker) -> ForwardMessage:
    length = unpacker.read_array_header()
    if length not in _MESSAGE_LENGTHS:
        raise ValueError
    name = _read_raw(frame, unpacker)
    if name[0] not in _TEXT_TYPES:
        raise Malformed("invalid tag: expected a string")
    tag = _content(name).decode(errors="backslashreplace")
    begin = unpacker.tell()
    value_type = frame[begin]
    unpacker.skip()
    is_packed = value_type in _TEXT_TYPES
    if is_packed or value_type in _ARRAY_TYPES:
        entries = frame[begin + _HEADER_BYTES.get(value_type, 1) : unpacker.tell()]
        option_count = length - len(("tag", "entries"))
    elif value_type not in _MAP_TYPES and length >= _MESSAGE_MODE_LENGTH:
        unpacker.skip()
        entries = _ENTRY_HEADER + frame[begin : unpacker.tell()]
        option_count = length - _MESSAGE_MODE_LENGTH
    else:
        raise Malformed("invalid frame: expected entries, or a time and a record, after the tag")
    chunk_id, compression = _read_options(frame, unpacker) if option_count else (b"", "")
    return ForwardMessage(tag, entries, chunk_id, compression if is_packed else "")


def _read_options(frame: bytes, unpacker: Unpacker) -> tuple[bytes, str]:
    """Return the chunk ID, as it is encoded in the frame, and the compression of the entries."""
    chunk_id, compression = b"", ""
    if frame[unpacker.tell()] not in _MAP_TYPES:
        return chunk_id, compression
    for _ in range(min(unpacker.read_map_header(), _MAX_OPTIONS)):
        name = _read_raw(frame, unpacker)
        value = _read_raw(frame, unpacker)
        match _content(name):
            case b"chunk" if value != _NIL:
                chunk_id = value
            case b"compressed" if value != _NIL:
                text = _content(value).decode(errors="backslashreplace")
                compression = "" if text in _UNCOMPRESSED else text
    return chunk_id, compression


def _read_raw(frame: bytes, unpacker: Unpacker) -> bytes:
    """Return the next value as it is encoded in the frame."""
    begin = unpacker.tell()
    unpacker.skip()
    return frame[begin : unpacker.tell()]


def _content(value: bytes) -> bytes:
    """Return an encoded text without its header."""
    return value[_HEADER_BYTES.get(value[0], 1) :]


def _find_next_ends(unpacker: Unpacker, begin: int, size: int, max_entries: int) -> EntryEnds:
    """Find the ends of the next entries, counted from *begin*; *size* is where the last entry ends."""
    ends: list[int] = []
    skip, tell, add = unpacker.skip, unpacker.tell, ends.append
    try:
        for _ in range(max_entries):
            skip()
            add(tell() - begin)
    except OutOfData:
        if begin + (ends[-1] if ends else 0) < size:
            return EntryEnds(ends, Malformed(f"entry {len(ends)} is incomplete"))
    except ValueError as error:
        return EntryEnds(
            ends, Malformed(f"entry {len(ends)} is not valid msgpack: {str(error) or type(error).__name__}")
        )
    return EntryEnds(ends, None)
