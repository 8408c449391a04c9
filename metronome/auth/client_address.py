"""The IP address of a request's client, with proxies in between."""

from collections.abc import Iterable, Sequence
from typing import Final

from aiohttp import web

from metronome.enrich.addresses import ProxyNetworks, client_of_connection, normalize_address

FORWARDED_HEADER: Final = "X-Forwarded-For"
FORWARDED_SCHEME_HEADER: Final = "X-Forwarded-Proto"


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
