"""Who a request to the host came from, where proxies stand between."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

from metronome.middleware.config import UNIX

_REMEMBERED: Final = 4096


class Peers:
    """Tells whom to believe of where a request came from.

    Args:
        proxies: those that are trusted (see `ClientConfig`).

    """

    def __init__(self, proxies: Iterable[str]) -> None:
        proxies = tuple(proxies)
        self._unix = UNIX in proxies
        self._networks = [ip_network(proxy, strict=False) for proxy in proxies if proxy != UNIX]
        self._is_network_s = lru_cache(_REMEMBERED)(self._lies_in_a_network)

    def is_trusted(self, peer: str) -> bool:
        """Tell whether a peer is a proxy whose word counts."""
        return self._is_network_s(peer) if peer else self._unix

    def address(self, peer: str, forwarded: str) -> str:
        """Return the address of whoever sent a request first; nothing where it is not known.

        Each proxy appends whom it heard it from, so the last address that is no trusted proxy's is right.

        Args:
            peer: who sent it to this process; nothing over a Unix socket.
            forwarded: its ``X-Forwarded-For``, which strangers can have written.

        """
        last = _read(peer) or ""
        if not forwarded or not self.is_trusted(peer):
            return last
        for given in reversed(forwarded.split(",")):
            address = _read(given)
            if address is None:
                return last
            last = address
            if not self._is_network_s(address):
                return last
        return last

    def _lies_in_a_network(self, address: str) -> bool:
        plain = _read(address)
        if plain is None:
            return False
        parsed = ip_address(plain)
        return any(parsed in network for network in self._networks if network.version == parsed.version)


@lru_cache(_REMEMBERED)
def _read(text: str) -> str | None:
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
