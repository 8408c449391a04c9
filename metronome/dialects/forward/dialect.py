"""The forward protocol as a dialect: one frame in, an acknowledgement out."""

from dataclasses import dataclass

from metronome.dialects.dialect import Outcome, Readings, Reply, Request
from metronome.dialects.forward.entries import read_entries
from metronome.dialects.forward.transport import acknowledgement, entry_ends, plain, read_transport
from metronome.errors import MetronomeError, TooLarge

_DONE = 200


@dataclass(frozen=True, slots=True)
class Forward:
    """Reads frames of all four modes (see `Dialect`).

    Attributes:
        max_bytes: how large a frame's entries may be when they are not compressed any more.
        event_max_bytes: how large a single document may be.

    """

    max_bytes: int
    event_max_bytes: int

    def key(self, _: Request) -> str:
        """Return nothing: who sends is known before the first frame (see `Dialect.key`)."""
        return ""

    def read(self, request: Request) -> Readings:
        """Read the events of a frame (see `Dialect.read`); the notes are its chunk's id."""
        transport = plain(read_transport(request.body), self.max_bytes)
        # No entry has less than three bytes.
        if len(transport.entries) > 3 * request.max_events:
            ends, _ = entry_ends(transport.entries)
            if len(ends) > request.max_events:
                raise TooLarge(
                    f"the frame holds over {request.max_events} entries: send fewer at once, or raise batch_max_events"
                )
        events = read_entries(transport.tag, transport.entries, request.site, self.event_max_bytes)
        return Readings(events, batch=True, notes=transport.chunk)

    def reply(self, _: Request, readings: Readings, __: Outcome) -> Reply:
        """Acknowledge the chunk (see `Dialect.reply`), whatever became of single events: they would fail again."""
        return Reply(_DONE, acknowledgement(readings.notes))

    def refuse(self, _: Request, __: MetronomeError, status: int) -> Reply:
        """Say nothing: the protocol has no word for it (see `Dialect.refuse`)."""
        return Reply(status)
