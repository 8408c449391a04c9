"""The port that every protocol over HTTP stands behind: request in, events and reply out.

A dialect is pure: it opens no socket, reads no clock and keeps nothing between two calls.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from metronome.errors import Malformed, TooLarge
from metronome.event import Event

Reading = Event | Malformed | TooLarge
"""One event of a request, or why it could not be read."""


class Readings(NamedTuple):
    """What a request holds.

    Attributes:
        events: in their order, to be gone through once.
        batch: whether the sender asked for several events, and so expects to hear of each.

    """

    events: Iterable[Reading]
    batch: bool


class Request(NamedTuple):
    """What a dialect reads.

    Attributes:
        body: decoded, that is without its Content-Encoding.
        content_type: the media type in lower case, without parameters; may be empty.
        max_events: how many events one request may hold.

    """

    body: bytes
    content_type: str
    max_events: int


class Outcome(NamedTuple):
    """What became of a request's events.

    Attributes:
        accepted: how many are on disk.
        rejected: why the others are not, by their position in the request, from 0.

    """

    accepted: int
    rejected: Mapping[int, Malformed | TooLarge]


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer once the events are on disk."""

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialect(Protocol):
    """One protocol; a module with these two functions is one."""

    def read(self, request: Request) -> Readings:
        """Read a request's events; one that cannot be read fails no other.

        Raises:
            Malformed: nothing in the request can be read.
            TooLarge: it holds more events than it may.

        """

    def reply(self, readings: Readings, outcome: Outcome) -> Reply:
        """Say what became of the events, in the protocol's own way.

        Raises:
            Malformed, TooLarge: the protocol answers a single event that was rejected as an error.

        """
