"""What is seen of one request to the host, whichever framework it came through.

The request that is being handled, as far as the host's own code may speak of it.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

UNMATCHED: Final = "(unmatched)"
"""The route of a request that no route is for: its path could be anything, and would be counted as such."""
TEXT_MAX_CHARACTERS: Final = 2048
"""So much is kept of what a visitor may write at any length: what waits in the queue must not fill the memory."""
SAFE_IN_PATHS: Final = "/:@!$&'()*+,;=-._~"
"""What stands in a path as it is (RFC 3986, section 3.3)."""
EVENT_STREAM_TYPE: Final = "text/event-stream"


class RequestRecord(NamedTuple):
    """One request, as it came to the host, and how it was answered.

    Attributes:
        started: when it came, in seconds since 1970.
        milliseconds: how long it took, or None where that says nothing of the server.
        method: as it was sent.
        route: the pattern that it matched, in the form of `metronome.middleware.paths`.
        status: what it was answered with, or None where it never was.
        failed: whether the host raised an error.
        scheme: ``http`` or ``https``, as it came to this process.
        host: whom it was sent to, with the port where it is not the usual one.
        path: percent-encoded, without the query.
        query: without the question mark.
        peer: the address that it came from; nothing over a Unix socket.
        forwarded: its ``X-Forwarded-For``.
        forwarded_scheme: its ``X-Forwarded-Proto``.
        referer: its ``Referer``.
        agent: its ``User-Agent``.
        lang: its ``Accept-Language``.
        signalled: whether it asks not to be followed, by ``Sec-GPC`` or ``DNT``.
        described: what the host says of it itself, by `metronome.middleware.current_request.describe_request`.

    """

    started_at: float
    duration_ms: float | None
    method: str
    route: str
    status: int | None
    failed: bool
    scheme: str
    host: str
    path: str
    query: str
    peer_address: str
    forwarded_for: str
    forwarded_proto: str
    referrer: str
    user_agent: str
    accept_language: str
    opted_out: bool
    extra_fields: Mapping[str, Any] | None


class TrackedEvent(NamedTuple):
    """Something that the host says has happened.

    Attributes:
        at: when, in seconds since 1970.
        fields: of the event.
        during: the request in which it happened, if it did in one.

    """

    timestamp: float
    fields: Mapping[str, Any]
    request: RequestRecord | None


class CurrentRequest:
    """A request while it is handled.

    Args:
        snapshot: returns what is seen of it by now.

    Attributes:
        described: what the host has said of it.

    """

    __slots__ = ("extra_fields", "snapshot")

    def __init__(self, snapshot: Callable[[], RequestRecord]) -> None:
        self.snapshot = snapshot
        self.extra_fields: dict[str, Any] | None = None


CURRENT_REQUEST: Final[ContextVar[CurrentRequest | None]] = ContextVar("metronome_request", default=None)
"""Is set by the middleware; threads that a framework starts for a request see the same object."""


def describe_request(**fields: Any) -> None:
    """Say more of the request that is being handled: what stands here goes out with its report.

    With an ``id``, the request is of that item: a ``GET`` that went well counts as a view, or as a download where
    there is a ``format`` too. An ``event`` names what happened itself. Outside a request nothing happens.

    Args:
        fields: of the event, as `POST /tick` takes them; those said later win.

    """
    handled = CURRENT_REQUEST.get()
    if handled is not None:
        if handled.extra_fields is None:
            handled.extra_fields = fields
        else:
            handled.extra_fields.update(fields)
