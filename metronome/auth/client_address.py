"""Who sent a request, where proxies stand between."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from aiohttp import web

from metronome.enrich.addresses import normalize_address

FORWARDED_HEADER: Final = "X-Forwarded-For"
_CACHE_SIZE: Final = 4096


class ClientAddress:
    """Tells the address that a request came from.

    Args:
        trusted_proxies: networks whose word on where a request came from is believed, as ``10.0.0.0/8``.

    """

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted_networks: list[IPv4Network | IPv6Network] = [
            ip_network(proxy, strict=False) for proxy in trusted_proxies
        ]
        self._is_trusted = lru_cache(_CACHE_SIZE)(self._is_in_trusted_network)

    def resolve_request(self, request: web.Request) -> str:
        """Return the address of whoever sent a request, or nothing where it is not known.

        What comes over a Unix socket, and so without an address, comes from a worker of our own, whose word counts.
        """
        if request.remote is None:
            # The line is gone already, and with it whose word this would be.
            return ""
        return self.resolve(request.remote, request.headers.getall(FORWARDED_HEADER, ()))

    def resolve(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address of whoever sent a request first.

        Each proxy appends whom it heard it from, so the last address that is no trusted proxy's is right.

        Args:
            peer: who sent it to this process; nothing for one that is trusted in any case.
            forwarded: the values of its ``X-Forwarded-For``, of which strangers can have written any.

        """
        last = normalize_address(peer) or peer
        if last and not self._is_trusted(last):
            return last
        if not forwarded:
            return last
        for given in reversed(",".join(forwarded).split(",")):
            address = normalize_address(given)
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
