"""Network addresses, cut so that they no longer name a person."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final

ADDRESSES: Final = frozenset(
    {"remote_addr", "remote_ip", "client_ip", "x_real_ip", "realip_remote_addr", "x_forwarded_for"}
    | {"http_x_forwarded_for", "http_x_real_ip", "source.ip", "source.address", "client.ip", "client.address"}
    | {"related.ip"}
)
"""Fields of shippers' records that hold clients' addresses beside ``clientip``."""
TELLING: Final = ADDRESSES | {"message", "log", "MESSAGE"}
"""These, and those that may hold a line of an access log, which begins with an address."""

_LONGEST = 128
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PLAIN_IPV4 = re.compile(rf"({_BYTE}\.{_BYTE}\.{_BYTE}\.){_BYTE}", re.ASCII)
"""How most addresses are written: these are cut sooner than they are remembered."""
_LIKE_ADDRESSES = re.compile(
    r"(?:[0-9a-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{0,4})|\d{1,3}(?:\.\d{1,3}){3}",
    re.ASCII | re.IGNORECASE,
)
_LOGGED = re.compile(r"\s*(?:\S{1,255} )?[0-9a-f:.]{2,45} \S{1,64} \S{1,255} \[", re.ASCII | re.IGNORECASE)
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


def cut_addresses(text: str) -> str:
    """Cut each address in a text, such as the lists that proxies write: ``unknown, 192.0.2.7``."""
    return _LIKE_ADDRESSES.sub(lambda found: cut_address(found[0]) or found[0], text)


def addresses_cut(fields: Mapping[str, Any], names: Iterable[str], as_text: Callable[[Any], str]) -> dict[str, str]:
    """Return what has to take the place of fields so that no whole address is left in them.

    A line of an access log may be among them that cannot be read as one: its first words are looked at.

    Args:
        fields: of an event.
        names: those of them that are looked at, of `TELLING`.
        as_text: writes what is no text.

    """
    found: dict[str, str] = {}
    for name in names:
        value = fields[name]
        if name in ADDRESSES and value is not None:
            text = as_text(value)
            cut = cut_addresses(text)
        elif type(value) is str and (begin := _LOGGED.match(value)):
            text = value
            cut = cut_addresses(begin[0]) + value[begin.end() :]
        else:
            continue
        if cut != text:
            found[name] = cut
    return found


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
