"""The port that every protocol stands behind: request in, events and reply out.

A dialect is pure: it opens no socket, reads no clock and keeps nothing between two calls.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from metronome.dialects.site import Site
from metronome.errors import Malformed, MetronomeError, TooLarge
from metronome.event import Event

Reading = Event | Malformed | TooLarge
"""One event of a request, or why it could not be read."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_SITE: Final = Site()


class Readings(NamedTuple):
    """What a request holds.

    Attributes:
        events: in their order, to be gone through once.
        batch: whether the sender asked for several events, and so expects to hear of each.
        notes: whatever the dialect's reply needs to know of what it read.

    """

    events: Iterable[Reading]
    batch: bool
    notes: Any = None


class Request(NamedTuple):
    """What a dialect reads.

    Attributes:
        body: decoded, that is without its Content-Encoding; of a protocol over TCP or UDP, one frame.
        content_type: the media type in lower case, without parameters; may be empty.
        max_events: how many events one request may hold.
        method: of HTTP, in capitals.
        path: of HTTP, what follows the protocol's own prefix, percent-encoded as it came.
        query: of HTTP, as it came, without its question mark.
        headers: of HTTP; their names are found in any case.
        sender: the address of whoever sent it, or empty.
        arrival: when it came, as a stamp (see `metronome.timestamps`).
        identities: new names for its events, one for each ``next``; None where the dialect needs none. A dialect
            names all its events or none.
        believed: whether the sender may say of any time and address that it happened then and there.
        site: what the operator says of what they publish.

    """

    body: bytes
    content_type: str
    max_events: int
    method: str = "POST"
    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = _NOTHING
    sender: str = ""
    arrival: str = ""
    identities: Iterator[str] | None = None
    believed: bool = False
    site: Site = _SITE


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
    """What to answer.

    Attributes:
        status: of HTTP.
        body: of a protocol over TCP, what is written back.
        content_type: of HTTP.
        headers: of HTTP. Any origin may read the reply unless they say otherwise.

    """

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialect(Protocol):
    """One protocol; a module with these functions is one.

    An address of a protocol that takes no events, such as a handshake's, has none in its readings.
    """

    def key(self, request: Request) -> str:
        """Return the key that the request carries where the protocol has its place, or nothing."""

    def read(self, request: Request) -> Readings:
        """Read a request's events; one that cannot be read fails no other.

        Raises:
            Malformed: nothing in the request can be read.
            TooLarge: it holds more events than it may.

        """

    def reply(self, request: Request, readings: Readings, outcome: Outcome) -> Reply:
        """Say what became of the events, in the protocol's own way. What is called accepted is on disk.

        Raises:
            Malformed, TooLarge: the protocol answers a single event that was rejected as an error.

        """

    def refuse(self, request: Request, error: MetronomeError, status: int) -> Reply:
        """Say in the protocol's own way that nothing of a request was taken.

        Args:
            request: as far as it could be read: its body is empty where that failed.
            error: why.
            status: the HTTP status of the error; a protocol may have a better one.

        """
