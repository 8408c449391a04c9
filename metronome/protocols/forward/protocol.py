"""The forward protocol as a dialect: one frame in, an acknowledgement out."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from metronome.errors import MetronomeError, TooLarge
from metronome.protocol import Outcome, Reading, Readings, Reply, Request
from metronome.protocols.forward.entries import read_entries
from metronome.protocols.forward.transport import Ends, Transport, acknowledgement, entry_ends, plain, read_transport

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
        return self.read_carried(transport, entry_ends(transport.entries), request)

    def read_carried(self, transport: Transport, entries: Ends, request: Request) -> Readings:
        """Read the events of a frame that was taken apart already, and is not compressed (see `read`).

        Raises:
            TooLarge: it holds more events than it may.

        """
        ends, broken = entries
        if len(ends) > request.max_events:
            raise TooLarge(
                f"the frame holds over {request.max_events} entries: send fewer at once, or raise batch_max_events"
            )
        events: Iterable[Reading] = read_entries(transport, ends, request.site, self.event_max_bytes)
        if broken is not None:
            events = chain(events, [broken])
        return Readings(events, batch=True, notes=transport.chunk)

    def reply(self, _: Request, readings: Readings, __: Outcome) -> Reply:
        """Acknowledge the chunk (see `Dialect.reply`), whatever became of single events: they would fail again."""
        return Reply(_DONE, acknowledgement(readings.notes))

    def refuse(self, _: Request, __: MetronomeError, status: int) -> Reply:
        """Say nothing: the protocol has no word for it (see `Dialect.refuse`)."""
        return Reply(status)
