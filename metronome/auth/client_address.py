"""The IP address of a request's client, with proxies in between, and whether it is a program on this machine."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from metronome.enrich.addresses import ProxyNetworks, client_network, client_of_connection, normalize_address
from metronome.errors import Forbidden

FORWARDED_HEADER: Final = "X-Forwarded-For"
FORWARDED_SCHEME_HEADER: Final = "X-Forwarded-Proto"
LOCAL_CLIENT_HEADER: Final = "Metronome-Local-Client"
"""Sent by workers to the main process, which believes it on its Unix socket only: whether a client is local."""
_YES: Final = "yes"
_HOST_MAX_CHARACTERS: Final = 64


class ClientAddress:
    """Finds the IP address of a request's client (see `metronome.enrich.addresses.client_of_connection`).

    Args:
        trusted_proxies: networks whose ``X-Forwarded-For`` is trusted, such as ``10.0.0.0/8``.

    """

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._proxies = ProxyNetworks(trusted_proxies)

    def resolve_request(self, request: web.Request) -> str:
        """Return the IP address of a request's client, or an empty text if it is unknown.

        A request over a Unix socket has no address; it comes from a worker of this server, which is trusted.
        """
        if request.remote is None:
            # The client has disconnected: it is unknown who sent the headers.
            return ""
        return self.resolve(request.remote, request.headers.getall(FORWARDED_HEADER, ()))

    def limited_client(self, request: web.Request) -> str:
        """Return what the limits of a request's client count by: its address or network; empty for this machine."""
        client = request.remote or ""
        if FORWARDED_HEADER in request.headers:
            client = self.resolve_request(request)
        return "" if not client or is_loopback_host(client) else client_network(client)

    def is_local(self, request: web.Request) -> bool:
        """Return whether a request comes from a program on this machine, and not from a page of another site.

        See `is_local_client`. A request from a worker is local if the worker says so.
        """
        peer = request.remote
        if peer == "":
            return request.headers.get(LOCAL_CLIENT_HEADER) == _YES
        return is_local_client(peer, request.headers)

    def describe_local(self, request: web.Request) -> dict[str, str]:
        """Return the header by which a worker says whether a request is local."""
        return {LOCAL_CLIENT_HEADER: _YES} if self.is_local(request) else {}

    def resolve_scheme(self, request: web.Request) -> str:
        """Return the scheme that a request's client used: ``https`` if a trusted proxy says so, else ``http``."""
        peer = request.remote
        if peer is None or (peer and not self._proxies.contains(normalize_address(peer) or peer)):
            return request.scheme
        last = request.headers.get(FORWARDED_SCHEME_HEADER, "").rpartition(",")[2].strip().lower()
        return last if last in {"http", "https"} else request.scheme

    def resolve(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the IP address of the first sender of a request.

        Args:
            peer: the address of the connection; empty for a trusted one.
            forwarded: the values of ``X-Forwarded-For``, which a client may have forged.

        """
        return client_of_connection(peer, forwarded, self._proxies)


def is_local_client(peer: str | None, headers: Mapping[str, str]) -> bool:
    """Return whether an HTTP request comes from a program on this machine, and not from a page of another site.

    The address of the connection does not tell: a proxy on this machine has a loopback address, too, and so has a
    browser that opens another site's page. So the request must not have been forwarded, must name this machine as its
    host (another site's name may resolve to 127.0.0.1: DNS rebinding), and must not be of another site's page.

    Args:
        peer: the IP address of the connection; None if it is closed.
        headers: of the request.

    """
    if peer is None or not is_loopback_host(peer) or not _is_loopback_authority(headers.get("Host", "")):
        return False
    if headers.get("Sec-Fetch-Site") == "cross-site" or not _is_local_origin(headers.get("Origin", "")):
        return False
    # Of each event that this machine sends while there are no keys: a loop would take twice as long.
    return not (
        FORWARDED_HEADER in headers
        or "Forwarded" in headers
        or "X-Real-IP" in headers
        or "X-Forwarded-Host" in headers
        or "Via" in headers
    )


def check_same_origin(request: web.Request) -> None:
    """Check that no page of another site sent a request that changes something.

    Browsers send ``Sec-Fetch-Site`` over TLS and on localhost, and ``Origin`` with every POST. Other programs send
    neither, and no cookies of somebody else.

    Raises:
        Forbidden: another site's page sent it.

    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        is_same = site in {"same-origin", "none"}
    else:
        origin = request.headers.get(hdrs.ORIGIN)
        is_same = origin is None or _host_of(origin) == request.host.lower()
    if not is_same:
        raise Forbidden(
            "the request comes from another site's page, or a proxy replaces the Host header: open this server's own "
            "page, and let the proxy pass Host on unchanged"
        )


@lru_cache(maxsize=4096)
def is_loopback_host(host: str) -> bool:
    """Return whether a host name or an IP address means this machine, wherever it is looked up (RFC 6761)."""
    host = host.lower().removesuffix(".")
    if len(host) > _HOST_MAX_CHARACTERS:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@lru_cache(maxsize=4096)
def _is_loopback_authority(authority: str) -> bool:
    try:
        parts = urlsplit(f"//{authority}")
        return parts.netloc == authority and "@" not in authority and is_loopback_host(parts.hostname or "")
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def _is_local_origin(origin: str) -> bool:
    if not origin:
        return True
    try:
        return is_loopback_host(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
