"""The IP address of a request's client, with proxies in between."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

from aiohttp import web

from metronome.enrich.addresses import normalize_address

FORWARDED_HEADER: Final = "X-Forwarded-For"
FORWARDED_SCHEME_HEADER: Final = "X-Forwarded-Proto"
_CACHE_SIZE: Final = 4096


class ClientAddress:
    """Finds the IP address of a request's client.

    Args:
        trusted_proxies: networks whose ``X-Forwarded-For`` is trusted, such as ``10.0.0.0/8``.

    """

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted_networks = [ip_network(proxy, strict=False) for proxy in trusted_proxies]
        self._is_trusted = lru_cache(_CACHE_SIZE)(self._is_in_trusted_network)

    def resolve_request(self, request: web.Request) -> str:
        """Return the IP address of a request's client, or an empty text if it is unknown.

        A request over a Unix socket has no address; it comes from a worker of this server, which is trusted.
        """
        if request.remote is None:
            # The client has disconnected: it is unknown who sent the headers.
            return ""
        return self.resolve(request.remote, request.headers.getall(FORWARDED_HEADER, ()))

    def resolve_scheme(self, request: web.Request) -> str:
        """Return the scheme that a request's client used: ``https`` if a trusted proxy says so, else ``http``."""
        peer = request.remote
        if peer is None or (peer and not self._is_trusted(normalize_address(peer) or peer)):
            return request.scheme
        last = request.headers.get(FORWARDED_SCHEME_HEADER, "").rpartition(",")[2].strip().lower()
        return last if last in {"http", "https"} else request.scheme

    def resolve(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the IP address of the first sender of a request.

        Each proxy appends the address of its peer, so the last address that is not a trusted proxy is the client's.

        Args:
            peer: the address of the connection; empty for a trusted one.
            forwarded: the values of ``X-Forwarded-For``, which a client may have forged.

        """
        last = normalize_address(peer) or peer
        if last and not self._is_trusted(last):
            return last
        if not forwarded:
            return last
        for entry in reversed(",".join(forwarded).split(",")):
            address = normalize_address(entry)
            if address is None:
                return last
            if not self._is_trusted(address):
                return address
            last = address
        return last

    def _is_in_trusted_network(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted_networks if network.version == parsed.version)
