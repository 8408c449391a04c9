"""IP addresses: their normalized form, and anonymization."""

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final

from metronome.enrich.caches import cached

ADDRESS_FIELDS: Final = frozenset(
    {"remote_addr", "remote_ip", "client_ip", "x_real_ip", "realip_remote_addr", "x_forwarded_for"}
    | {"http_x_forwarded_for", "http_x_real_ip", "source.ip", "source.address", "client.ip", "client.address"}
    | {"related.ip"}
)
"""Fields of shippers' records that contain client addresses, in addition to ``clientip``."""
FIELDS_WITH_ADDRESSES: Final = ADDRESS_FIELDS | {"message", "log", "MESSAGE"}
"""These, and those that may contain a line of an access log, which begins with an address."""

_ADDRESS_MAX_CHARACTERS = 128
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PLAIN_IPV4 = re.compile(rf"({_OCTET}\.{_OCTET}\.{_OCTET}\.){_OCTET}", re.ASCII)
"""The usual form: truncating such an address takes less time than a cache."""
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
    """Return the network of an address, its /24, or its /48 for IPv6; None if the address is not valid.

    The remaining bits can identify a household.
    """
    plain = _PLAIN_IPV4.fullmatch(address)
    if plain is not None:
        return plain[1] + "0"
    return _anonymize_unusual(address)


@cached(_ADDRESS_MAX_CHARACTERS)
def _anonymize_unusual(address: str) -> str | None:
    normalized = _normalize_unusual(address)
    if normalized is None:
        return None
    bits = _NETWORK_BITS[ip_address(normalized).version]
    return str(ip_network(f"{normalized}/{bits}", strict=False).network_address)


def anonymize_text(text: str) -> str:
    """Anonymize each address in a text, such as the lists that proxies write: ``unknown, 192.0.2.7``."""
    return _ADDRESS_PATTERN.sub(lambda found: anonymize_address(found[0]) or found[0], text)


def anonymize_fields(fields: Mapping[str, Any], names: Iterable[str], to_text: Callable[[Any], str]) -> dict[str, str]:
    """Return replacements for fields that contain whole addresses.

    Of a field that may contain a line of an access log, only the beginning of the line is replaced.

    Args:
        fields: the fields of an event.
        names: the fields to check, of `FIELDS_WITH_ADDRESSES`.
        to_text: converts a value that is not a text.

    """
    replacements: dict[str, str] = {}
    for name in names:
        value = fields[name]
        if name in ADDRESS_FIELDS and value is not None:
            text = to_text(value)
            anonymized = anonymize_text(text)
        elif type(value) is str and (begin := _LOG_LINE_PATTERN.match(value)):
            text = value
            anonymized = anonymize_text(begin[0]) + value[begin.end() :]
        else:
            continue
        if anonymized != text:
            replacements[name] = anonymized
    return replacements


def normalize_address(address: str) -> str | None:
    """Return an address in its usual form; None if it is not valid."""
    if _PLAIN_IPV4.fullmatch(address) is not None:
        return address
    return _normalize_unusual(address)


@cached(_ADDRESS_MAX_CHARACTERS)
def _normalize_unusual(address: str) -> str | None:
    if len(address) > _ADDRESS_MAX_CHARACTERS:
        return None
    # Proxies write lists of addresses, beginning with the client's, and some append its port.
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
