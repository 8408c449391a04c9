"""Network addresses, cut so that they no longer name a person."""

import re
from functools import lru_cache
from ipaddress import ip_address, ip_network

_LONGEST = 128
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PLAIN_IPV4 = re.compile(rf"({_BYTE}\.{_BYTE}\.{_BYTE}\.){_BYTE}", re.ASCII)
"""How most addresses are written: these are cut sooner than they are remembered."""
_KEPT_BITS = {4: 24, 6: 48}


def cut_address(address: str) -> str | None:
    """Return an address without the part that names a single household: its /24, or its /48 for IPv6.

    Returns:
        The cut address, or None where *address* is none.

    """
    plain = _PLAIN_IPV4.fullmatch(address)
    if plain is not None:
        return plain[1] + "0"
    return _cut(address) if len(address) <= _LONGEST else None


@lru_cache(maxsize=32_768)
def _cut(address: str) -> str | None:
    plain = _read(address)
    if plain is None:
        return None
    bits = _KEPT_BITS[ip_address(plain).version]
    return str(ip_network(f"{plain}/{bits}", strict=False).network_address)


def read_address(address: str) -> str | None:
    """Return an address in its usual form, or None where *address* is none."""
    if _PLAIN_IPV4.fullmatch(address) is not None:
        return address
    return _read(address) if len(address) <= _LONGEST else None


@lru_cache(maxsize=32_768)
def _read(address: str) -> str | None:
    # Proxies write lists of addresses, the client's first, and some add its port.
    first = address.partition(",")[0].strip()
    if first.startswith("["):
        first = first[1:].partition("]")[0]
    elif first.count(":") == 1:
        first = first.partition(":")[0]
    try:
        parsed = ip_address(first.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
