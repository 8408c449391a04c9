"""Convert frames to events as the listener does, without a connection."""

from msgpack import packb

from metronome.event import IngestConfig
from metronome.protocol import ParsedEvent
from metronome.protocols.forward.entries import NO_GROUP, group_after, parse_entries
from metronome.protocols.forward.listener import decompress_message
from metronome.protocols.forward.messages import ForwardMessage, parse_message, split_message

MAX_BYTES = 16 * 2**20
CONFIG = IngestConfig(event_max_bytes=2**20)


def parse_frame(frame: bytes, max_entries: int = 100) -> list[ParsedEvent]:
    """Return the events of a frame, in parts of at most *max_entries*."""
    message = decompress_message(parse_message(frame), MAX_BYTES)
    events: list[ParsedEvent] = []
    group = NO_GROUP
    for _, part, ends in split_message(message, max_entries):
        events += parse_entries(part, ends, CONFIG, group)
        group = group_after(part, ends, group)
    return events


def encode_packed_forward(message: ForwardMessage) -> bytes:
    """Encode a message as a frame in PackedForward mode."""
    options = {"compressed": message.compression} if message.compression else {}
    head = b"\x93" + packb(message.tag) + b"\xc6" + len(message.entries).to_bytes(4, "big")
    chunk = b"\xa5chunk" + message.chunk_id if message.chunk_id else b""
    size = len(options) + bool(chunk)
    return b"".join((head, message.entries, bytes([0x80 | size]), chunk, packb(options)[1:]))
