"""Who sent a request, where proxies stand between."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from aiohttp import web

from metronome.enrich.addresses import read_address

FORWARDED: Final = "X-Forwarded-For"


class Senders:
    """Tells the address that a request came from.

    Args:
        proxies: networks whose word on where a request came from is believed, as ``10.0.0.0/8``.

    """

    def __init__(self, proxies: Iterable[str]) -> None:
        self._proxies: list[IPv4Network | IPv6Network] = [ip_network(proxy, strict=False) for proxy in proxies]

    def address(self, request: web.Request) -> str:
        """Return the address of whoever sent a request, or nothing where it is not known.

        Each proxy appends whom it heard it from, so the last address that is no trusted proxy's is right. What comes
        over a Unix socket comes from a worker of our own.
        """
        last = request.remote or ""
        if last and not self._is_trusted(last):
            return last
        for given in reversed(",".join(request.headers.getall(FORWARDED, ())).split(",")):
            address = read_address(given.strip())
            if address is None:
                return last
            if not self._is_trusted(address):
                return address
            last = address
        return last

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies if network.version == parsed.version)
