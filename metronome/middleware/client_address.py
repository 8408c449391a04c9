"""Who a request to the host came from, where proxies stand between."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

from metronome.middleware.config import UNIX_SOCKET

_CACHE_SIZE: Final = 4096


class ClientAddressResolver:
    """Tells whom to believe of where a request came from.

    Args:
        proxies: those that are trusted (see `ClientConfig`).

    """

    def __init__(self, proxies: Iterable[str]) -> None:
        proxies = tuple(proxies)
        self._trusts_unix_socket = UNIX_SOCKET in proxies
        self._networks = [ip_network(proxy, strict=False) for proxy in proxies if proxy != UNIX_SOCKET]
        self._is_trusted_address = lru_cache(_CACHE_SIZE)(self._in_trusted_network)

    def is_trusted(self, peer_address: str) -> bool:
        """Tell whether a peer is a proxy whose word counts."""
        return self._is_trusted_address(peer_address) if peer_address else self._trusts_unix_socket

    def resolve(self, peer_address: str, forwarded_for: str) -> str:
        """Return the address of whoever sent a request first; nothing where it is not known.

        Each proxy appends whom it heard it from, so the last address that is no trusted proxy's is right.

        Args:
            peer_address: who sent it to this process; nothing over a Unix socket.
            forwarded_for: its ``X-Forwarded-For``, which strangers can have written.

        """
        last = _parse_address(peer_address) or ""
        if not forwarded_for or not self.is_trusted(peer_address):
            return last
        for given in reversed(forwarded_for.split(",")):
            address = _parse_address(given)
            if address is None:
                return last
            last = address
            if not self._is_trusted_address(address):
                return last
        return last

    def _in_trusted_network(self, address: str) -> bool:
        plain = _parse_address(address)
        if plain is None:
            return False
        parsed = ip_address(plain)
        return any(parsed in network for network in self._networks if network.version == parsed.version)


@lru_cache(_CACHE_SIZE)
def _parse_address(text: str) -> str | None:
    """Return an address as it is usually written: without brackets, port and zone; IPv4 in IPv6 as IPv4."""
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
