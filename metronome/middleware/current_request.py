"""The request that is being handled: what is recorded of it, and what the host's code adds to it."""

import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple, Protocol

from metronome.middleware.config import UNIX_SOCKET

UNMATCHED: Final = "(unmatched)"
"""The route of a request that matched none: its path could be anything and would become an action of its own."""
TEXT_MAX_CHARACTERS: Final = 2048
"""Texts that a visitor controls are truncated to this length, because the queue keeps them in memory."""
SAFE_IN_PATHS: Final = "/:@!$&'()*+,;=-._~"
"""Characters that a path may contain unescaped (RFC 3986, section 3.3)."""
EVENT_STREAM_TYPE: Final = "text/event-stream"
ERROR_STATUS: Final = 500
_CACHE_SIZE: Final = 4096


class RequestRecord(NamedTuple):
    """One request to the host and its response.

    Attributes:
        started_at: when the request arrived, in seconds since 1970.
        duration_ms: how long the response took, or None if that was not measured.
        method: the HTTP method as sent.
        route: the pattern of the matched route, in the form of `metronome.middleware.paths`.
        status: the response's status, or None if there was no response.
        failed: whether the host raised an error.
        scheme: the scheme of the request to this process; WebSockets have ``ws`` or ``wss``.
        host: the requested host, with the port unless it is the scheme's default.
        path: percent-encoded, without the query.
        query: without the question mark.
        peer_address: the IP address of the connection; empty for a Unix socket.
        forwarded_for: the header ``X-Forwarded-For``.
        forwarded_proto: the header ``X-Forwarded-Proto``.
        referrer: the header ``Referer``.
        user_agent: the header ``User-Agent``.
        accept_language: the header ``Accept-Language``.
        opted_out: whether the request has ``Sec-GPC: 1`` or ``DNT: 1``.
        extra_fields: fields added by `describe_request`.

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
    """An event that the host's own code reports.

    Attributes:
        timestamp: in seconds since 1970.
        fields: the event's fields.
        request: the request during which it happened, if any.

    """

    timestamp: float
    fields: Mapping[str, Any]
    request: RequestRecord | None


class RecordSink(Protocol):
    """The part of `Reporter` that a request needs."""

    def report(self, record: RequestRecord | TrackedEvent) -> None:
        """Queue a record for delivery."""

    def count_error(self, error: Exception) -> None:
        """Count an error in reporting."""


class CurrentRequest:
    """A request while it is being handled; it is reported exactly once.

    Each framework has a subclass that reads its request in `snapshot`. Reporting never raises.

    Args:
        reporter: receives the record.
        report_on_start: whether to report when the response starts, without a duration, rather than when it ends.

    Attributes:
        extra_fields: fields added by `describe_request`.

    """

    __slots__ = (
        "_failed",
        "_is_reported",
        "_report_on_start",
        "_reporter",
        "_started_at",
        "_started_clock",
        "_status",
        "extra_fields",
    )

    def __init__(self, reporter: RecordSink, *, report_on_start: bool) -> None:
        self.extra_fields: dict[str, Any] | None = None
        self._reporter = reporter
        self._report_on_start = report_on_start
        self._started_at = time.time()
        self._started_clock = time.perf_counter()
        self._status: int | None = None
        self._failed = self._is_reported = False

    def snapshot(self, duration_ms: float | None = None) -> RequestRecord:
        """Return what is known of the request so far."""
        raise NotImplementedError

    def mark_failed(self) -> None:
        """Record that the host raised an error, which its server turns into status 500 if no response has started."""
        self._failed = True
        if self._status is None:
            self._status = ERROR_STATUS

    def report_start(self) -> None:
        """Report the request if it is one that is reported when its response starts."""
        if self._report_on_start and self._status is not None and not self._is_reported:
            self._report(None)

    def report_end(self) -> None:
        """Report the request unless that has been done."""
        if not self._is_reported:
            self._report(None if self._report_on_start else (time.perf_counter() - self._started_clock) * 1000)

    def _report(self, duration_ms: float | None) -> None:
        self._is_reported = True
        try:
            self._reporter.report(self.snapshot(duration_ms))
        except Exception as error:  # noqa: BLE001  # reporting must not break the host
            self._reporter.count_error(error)


CURRENT_REQUEST: Final[ContextVar[CurrentRequest | None]] = ContextVar("metronome_request", default=None)
"""Set by the middleware; the threads that a framework starts for a request share the object."""


def describe_request(**fields: Any) -> None:
    """Add fields to the report of the current request; later values win. Outside a request, do nothing.

    An ``id`` names the item: a successful ``GET`` then counts as a view, or as a download if there is a ``format``
    too. An ``event`` replaces the event's name.

    Args:
        fields: fields as ``POST /tick`` accepts them.

    """
    request = CURRENT_REQUEST.get()
    if request is not None:
        if request.extra_fields is None:
            request.extra_fields = fields
        else:
            request.extra_fields.update(fields)


class ClientAddressResolver:
    """Resolves the client's IP address behind trusted proxies.

    Args:
        proxies: trusted proxies, as `ClientConfig` accepts them.

    """

    def __init__(self, proxies: Iterable[str]) -> None:
        proxies = tuple(proxies)
        self._trusts_unix_socket = UNIX_SOCKET in proxies
        self._networks = [ip_network(proxy, strict=False) for proxy in proxies if proxy != UNIX_SOCKET]
        self._is_trusted_address = lru_cache(_CACHE_SIZE)(self._in_trusted_network)

    def is_trusted(self, peer_address: str) -> bool:
        """Return whether a peer is a trusted proxy."""
        return self._is_trusted_address(peer_address) if peer_address else self._trusts_unix_socket

    def resolve(self, peer_address: str, forwarded_for: str) -> str:
        """Return the client's IP address, or an empty text if it is unknown.

        Each proxy appends the address of its peer, so the last address that is not a trusted proxy's is the client's.

        Args:
            peer_address: the address of the connection; empty for a Unix socket.
            forwarded_for: the header ``X-Forwarded-For``, which clients can forge.

        """
        client = _parse_address(peer_address) or ""
        if not forwarded_for or not self.is_trusted(peer_address):
            return client
        for hop in reversed(forwarded_for.split(",")):
            address = _parse_address(hop)
            if address is None:
                return client
            client = address
            if not self._is_trusted_address(address):
                return client
        return client

    def _in_trusted_network(self, address: str) -> bool:
        plain = _parse_address(address)
        if plain is None:
            return False
        parsed = ip_address(plain)
        return any(parsed in network for network in self._networks if network.version == parsed.version)


@lru_cache(_CACHE_SIZE)
def _parse_address(text: str) -> str | None:
    """Return an IP address without brackets, port and zone, and IPv4 mapped into IPv6 as IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)
