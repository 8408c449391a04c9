"""The configuration of a reporter."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final, Literal
from urllib.parse import urlsplit

UNIX_SOCKET: Final = "unix"
"""The trusted proxy that stands for connections over a Unix socket, which have no address."""

_SCHEMES: Final = frozenset({"http", "https"})
_PROTOCOLS: Final = ("metronome", "matomo")
_MODES: Final = ("response", "request")
_MINIMUMS: Final = {
    "site": 1,
    "queue_max": 1,
    "batch_max_events": 1,
    "batch_max_bytes": 1,
    "flush_interval_seconds": 0,
    "timeout_seconds": 0,
    "retry_timeout_seconds": 0,
    "shutdown_timeout_seconds": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Where a reporter sends, what it reports, and how it queues and retries.

    Attributes:
        url: URL of Metronome, as ``https://stats.example.org``, or of Matomo, with or without ``/matomo.php``.
        protocol: ``metronome`` (``POST /tick``) or ``matomo`` (Matomo's Tracking API, in bulk requests).
        key: for Metronome a key with the scope ``tick``, for Matomo a ``token_auth``; empty for none.
        site: Matomo's site ID (``idsite``).
        dimensions: maps event fields to Matomo's custom dimensions, as ``{"plan": 1}``.
        mode: ``response`` reports a request when its response has ended, with its duration; ``request`` as soon as
            the response starts, without one. WebSockets and server-sent events are always reported at the start.
        skip: paths that are not reported, including everything below them, as ``/health``.
        skip_if: returns whether to skip a request, given its method and path.
        item_pattern: a regular expression over the path with the named groups ``id`` and optionally ``format``, as
            in ``METRONOME_ITEM_PATTERN``. Without it, only `describe_request` assigns requests to items.
        keep_query: whether reported URLs include the query.
        trusted_proxies: networks whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are trusted, as ``10.0.0.0/8``;
            ``unix`` means proxies that connect over a Unix socket.
        honour_privacy_signals: whether to omit everything that identifies the visitor if a request has
            ``Sec-GPC: 1`` or ``DNT: 1``.
        queue_max: maximum number of queued reports; further ones are dropped and counted.
        batch_max_events: maximum number of reports per request to the target.
        batch_max_bytes: maximum size of such a request in bytes.
        flush_interval_seconds: how long the first report of a batch waits for more.
        timeout_seconds: timeout of a request to the target.
        retry_timeout_seconds: how long to retry a batch before it is dropped.
        shutdown_timeout_seconds: how long the host's shutdown may wait for the queue to drain.

    Raises:
        ValueError: a value is invalid.

    """

    url: str
    protocol: Literal["metronome", "matomo"] = "metronome"
    key: str = field(default="", repr=False)
    site: int = 1
    dimensions: Mapping[str, int] = field(default_factory=dict)
    mode: Literal["response", "request"] = "response"
    skip: tuple[str, ...] = ()
    skip_if: Callable[[str, str], bool] | None = None
    item_pattern: str | None = None
    keep_query: bool = True
    trusted_proxies: tuple[str, ...] = ()
    honour_privacy_signals: bool = True
    queue_max: int = 10_000
    batch_max_events: int = 500
    batch_max_bytes: int = 1_000_000
    flush_interval_seconds: float = 1.0
    timeout_seconds: float = 10.0
    retry_timeout_seconds: float = 600.0
    shutdown_timeout_seconds: float = 5.0

    def __post_init__(self) -> None:
        """Validate the values, which would otherwise fail in the background, while requests come in."""
        _check_url(self.url)
        _check_choice("protocol", self.protocol, _PROTOCOLS)
        _check_choice("mode", self.mode, _MODES)
        if not (self.key.isascii() and self.key.isprintable()):
            raise ValueError("invalid key: it contains characters that an HTTP header cannot hold")
        for name, minimum in _MINIMUMS.items():
            value = getattr(self, name)
            # NaN is not at least anything.
            if not value >= minimum:
                raise ValueError(f"invalid {name} {value!r}: expected {minimum} or more")
        for name in ("skip", "trusted_proxies"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"invalid {name} {value!r}: expected a tuple, as ({value!r},)")  # noqa: TRY004  # all invalid values raise ValueError
        for proxy in self.trusted_proxies:
            _check_proxy(proxy)
        if self.item_pattern is not None:
            _check_item_pattern(self.item_pattern)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        is_valid = False
    if not is_valid or not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"invalid url {url!r}: expected one such as https://stats.example.org")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"invalid {name} {value!r}: expected one of {', '.join(choices)}")


def _check_proxy(proxy: str) -> None:
    if proxy == UNIX_SOCKET:
        return
    try:
        ip_network(proxy, strict=False)
    except ValueError:
        raise ValueError(
            f"invalid trusted proxy {proxy!r}: expected a network such as 10.0.0.0/8, an IP address or {UNIX_SOCKET!r}"
        ) from None


def _check_item_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"invalid item_pattern {pattern!r}: {error}") from None
    if "id" not in groups:
        raise ValueError(f"invalid item_pattern {pattern!r}: expected a group named id, as in ^/datasets/(?P<id>[^/]+)")
