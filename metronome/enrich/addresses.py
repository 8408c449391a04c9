"""Network addresses, cut so that they no longer name a person."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final

ADDRESS_FIELDS: Final = frozenset(
    {"remote_addr", "remote_ip", "client_ip", "x_real_ip", "realip_remote_addr", "x_forwarded_for"}
    | {"http_x_forwarded_for", "http_x_real_ip", "source.ip", "source.address", "client.ip", "client.address"}
    | {"related.ip"}
)
"""Fields of shippers' records that hold clients' addresses beside ``clientip``."""
FIELDS_WITH_ADDRESSES: Final = ADDRESS_FIELDS | {"message", "log", "MESSAGE"}
"""These, and those that may hold a line of an access log, which begins with an address."""

_ADDRESS_MAX_CHARACTERS = 128
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PLAIN_IPV4 = re.compile(rf"({_OCTET}\.{_OCTET}\.{_OCTET}\.){_OCTET}", re.ASCII)
"""How most addresses are written: these are cut sooner than they are remembered."""
_ADDRESS_PATTERN = re.compile(
    r"(?:[0-9a-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{0,4})|\d{1,3}(?:\.\d{1,3}){3}",
    re.ASCII | re.IGNORECASE,
)
_LOG_LINE_PATTERN = re.compile(r"\s*(?:\S{1,255} )?[0-9a-f:.]{2,45} \S{1,64} \S{1,255} \[", re.ASCII | re.IGNORECASE)
_NETWORK_BITS = {4: 24, 6: 48}


def set_client(fields: dict[str, Any], client: str) -> None:
    """Set ``clientip`` if *client* is an IP address, otherwise ``clienthost``; neither for a hyphen."""
    if client != "-":
        fields["clientip" if normalize_address(client) else "clienthost"] = client


def anonymize_address(address: str) -> str | None:
    """Return an address without the part that names a single household: its /24, or its /48 for IPv6.

    Returns:
        The cut address, or None where *address* is none.

    """
    plain = _PLAIN_IPV4.fullmatch(address)
    if plain is not None:
        return plain[1] + "0"
    return _anonymize_cached(address) if len(address) <= _ADDRESS_MAX_CHARACTERS else None


@lru_cache(maxsize=32_768)
def _anonymize_cached(address: str) -> str | None:
    plain = _normalize_cached(address)
    if plain is None:
        return None
    bits = _NETWORK_BITS[ip_address(plain).version]
    return str(ip_network(f"{plain}/{bits}", strict=False).network_address)


def anonymize_text(text: str) -> str:
    """Cut each address in a text, such as the lists that proxies write: ``unknown, 192.0.2.7``."""
    return _ADDRESS_PATTERN.sub(lambda found: anonymize_address(found[0]) or found[0], text)


def anonymize_fields(fields: Mapping[str, Any], names: Iterable[str], to_text: Callable[[Any], str]) -> dict[str, str]:
    """Return what has to take the place of fields so that no whole address is left in them.

    A line of an access log may be among them that cannot be read as one: its first words are looked at.

    Args:
        fields: of an event.
        names: those of them that are looked at, of `FIELDS_WITH_ADDRESSES`.
        to_text: writes what is no text.

    """
    found: dict[str, str] = {}
    for name in names:
        value = fields[name]
        if name in ADDRESS_FIELDS and value is not None:
            text = to_text(value)
            cut = anonymize_text(text)
        elif type(value) is str and (begin := _LOG_LINE_PATTERN.match(value)):
            text = value
            cut = anonymize_text(begin[0]) + value[begin.end() :]
        else:
            continue
        if cut != text:
            found[name] = cut
    return found


def normalize_address(address: str) -> str | None:
    """Return an address in its usual form, or None where *address* is none."""
    if _PLAIN_IPV4.fullmatch(address) is not None:
        return address
    return _normalize_cached(address) if len(address) <= _ADDRESS_MAX_CHARACTERS else None


@lru_cache(maxsize=32_768)
def _normalize_cached(address: str) -> str | None:
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
