"""Network addresses, cut so that they no longer name a person."""

from functools import lru_cache
from ipaddress import ip_address, ip_network

_KEPT_BITS = {4: 24, 6: 48}


@lru_cache(maxsize=65_536)
def cut_address(address: str) -> str | None:
    """Return an address without the part that names a single household: its /24, or its /48 for IPv6.

    Returns:
        The cut address, or None where *address* is none.

    """
    plain = read_address(address)
    if plain is None:
        return None
    bits = _KEPT_BITS[ip_address(plain).version]
    return str(ip_network(f"{plain}/{bits}", strict=False).network_address)


@lru_cache(maxsize=65_536)
def read_address(address: str) -> str | None:
    """Return an address in its usual form, or None where *address* is none."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
