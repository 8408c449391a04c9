"""The forward protocol as a dialect: one frame in, an acknowledgement out."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from metronome.errors import MetronomeError, PayloadTooLarge
from metronome.protocol import IngestResult, ParsedEvent, ParsedRequest, Reply, Request
from metronome.protocols.forward.entries import parse_entries
from metronome.protocols.forward.transport import (
    EntryEnds,
    ForwardMessage,
    decompress_message,
    encode_ack,
    find_entry_ends,
    parse_message,
)

_OK = 200


@dataclass(frozen=True, slots=True)
class ForwardProtocol:
    """Reads frames of all four modes (see `Dialect`).

    Attributes:
        max_bytes: how large a frame's entries may be when they are not compressed any more.
        event_max_bytes: how large a single document may be.

    """

    max_bytes: int
    event_max_bytes: int

    def extract_key(self, _: Request) -> str:
        """Return nothing: who sends is known before the first frame (see `Dialect.key`)."""
        return ""

    def parse(self, request: Request) -> ParsedRequest:
        """Read the events of a frame (see `Dialect.read`); the notes are its chunk's id."""
        transport = decompress_message(parse_message(request.body), self.max_bytes)
        return self.parse_message_entries(transport, find_entry_ends(transport.entries), request)

    def parse_message_entries(self, message: ForwardMessage, entry_ends: EntryEnds, request: Request) -> ParsedRequest:
        """Read the events of a frame that was taken apart already, and is not compressed (see `read`).

        Raises:
            PayloadTooLarge: it holds more events than it may.

        """
        ends, broken = entry_ends
        if len(ends) > request.max_events:
            raise PayloadTooLarge(
                f"the frame holds over {request.max_events} entries: send fewer at once, or raise batch_max_events"
            )
        events: Iterable[ParsedEvent] = parse_entries(message, ends, request.config, self.event_max_bytes)
        if broken is not None:
            events = chain(events, [broken])
        return ParsedRequest(events, is_batch=True, context=message.chunk_id)

    def reply(self, _: Request, parsed: ParsedRequest, __: IngestResult) -> Reply:
        """Acknowledge the chunk (see `Dialect.reply`), whatever became of single events: they would fail again."""
        return Reply(_OK, encode_ack(parsed.context))

    def reply_error(self, _: Request, error: MetronomeError) -> Reply:
        """Say nothing: the protocol has no word for it (see `Dialect.refuse`)."""
        return Reply(error.http_status)
