"""What a client is told: where to report to, what, and how hard to try."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final, Literal
from urllib.parse import urlsplit

UNIX_SOCKET: Final = "unix"
"""Stands among the trusted proxies for whoever comes over a Unix socket, and so without an address."""

_SCHEMES: Final = frozenset({"http", "https"})
_PROTOCOLS: Final = ("metronome", "matomo")
_MODES: Final = ("response", "request")
_AT_LEAST_ONE: Final = ("site", "queue_max", "batch_max_events", "batch_max_bytes")
_POSITIVE: Final = ("flush_interval_seconds", "timeout_seconds", "retry_timeout_seconds", "shutdown_timeout_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Where a client reports to, what, and how hard it tries.

    Attributes:
        url: Metronome's address, as ``https://stats.example.org``; or Matomo's, with or without ``/matomo.php``.
        protocol: what is spoken there: ``metronome`` (``POST /tick``) or ``matomo`` (its Tracking API, in bulks).
        key: for Metronome a key with the scope ``tick``, for Matomo a ``token_auth``; empty for none.
        site: Matomo's number of the site (``idsite``).
        dimensions: which field of an event is which of Matomo's custom dimensions, as ``{"plan": 1}``.
        mode: ``response`` reports a request when its response has ended, with the time that took; ``request`` as
            soon as the response begins, without it. WebSockets and server-sent events are reported so in any case.
        skip: paths that are not reported, with all below them, as ``/health``.
        skip_if: says of a method and a path whether they are not reported.
        item_pattern: a regular expression over the path with the named groups ``id`` and, for downloads, ``format``,
            as Metronome's own ``METRONOME_ITEM_PATTERN``; without it, a request is of an item where the host says so.
        keep_query: whether the query stays in reported URLs.
        trusted_proxies: networks whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed, as ``10.0.0.0/8``;
            ``unix`` is for proxies that come over a Unix socket.
        honour_privacy_signals: whether to omit everything that identifies a visitor when a request has ``Sec-GPC: 1``
            or ``DNT: 1``.
        queue_max: how many reports wait at most; what comes then is dropped and counted.
        batch_max_events: how many reports go out in one request at most.
        batch_max_bytes: how large such a request is at most.
        flush_interval_seconds: how long the first report of a batch waits for others.
        timeout_seconds: how long an answer may take.
        retry_timeout_seconds: how long a batch is sent again to a target that is busy or away, before it is dropped.
        shutdown_timeout_seconds: how long the host's end waits at most until all is sent.

    Raises:
        ValueError: a value cannot be; the message says which and what to write.

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
        """Refuse what would only be found out while requests come in."""
        _check_url(self.url)
        _check_one_of("protocol", self.protocol, _PROTOCOLS)
        _check_one_of("mode", self.mode, _MODES)
        if not (self.key.isascii() and self.key.isprintable()):
            raise ValueError("the key holds what cannot stand in a header: copy it again")
        for name in (*_AT_LEAST_ONE, *_POSITIVE):
            if not getattr(self, name) >= (1 if name in _AT_LEAST_ONE else 0):
                raise ValueError(f"{name} is {getattr(self, name)}: give a larger one")
        for name in ("skip", "trusted_proxies"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is one text: write a tuple, as ({getattr(self, name)!r},)")  # noqa: TRY004  # one kind of error for all values
        for proxy in self.trusted_proxies:
            _check_network(proxy)
        if self.item_pattern is not None:
            _check_pattern(self.item_pattern)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        right = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        right = False
    if not right or not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{url!r} is no web address: write it as https://stats.example.org")


def _check_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: write one of {', '.join(allowed)}")


def _check_network(proxy: str) -> None:
    if proxy == UNIX_SOCKET:
        return
    try:
        ip_network(proxy, strict=False)
    except ValueError:
        raise ValueError(f"{proxy!r} is no network: write 10.0.0.0/8, 127.0.0.1 or {UNIX_SOCKET}") from None


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"item_pattern is no regular expression: {error}") from None
    if "id" not in groups:
        raise ValueError("item_pattern needs a group named id, as in ^/datasets/(?P<id>[^/]+)")
