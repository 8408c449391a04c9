"""IP addresses: their normalized form, which of several is the client's, and anonymization.

Where addresses are anonymized, no document holds one whole, in any field. `address_role` says for every field of every
protocol and log format what its addresses are.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from operator import itemgetter
from typing import Any, Final, NamedTuple

from metronome.enrich.caches import CACHED_MAX_CHARACTERS, cached

_ADDRESS_MAX_CHARACTERS = 128
_LIST_MAX_CHARACTERS = 2048
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
IPV4_PATTERN: Final = rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}"
_PLAIN_IPV4 = re.compile(rf"({_OCTET}\.{_OCTET}\.{_OCTET}\.){_OCTET}", re.ASCII)
"""The usual form: truncating such an address takes less time than a cache."""
_NETWORK_BITS = {4: 24, 6: 48}
_ENTRY_PATTERN = re.compile(r'\A[\s"+]*+(\[[^\]]*\]|[^\s"\[\]]*+)', re.ASCII)
_FORWARDED_FOR_PATTERN = re.compile(r'\bfor\s*=\s*("[^"]*"|[^\s;,"]+)', re.ASCII | re.IGNORECASE)
_UNKNOWN_ENTRY_PATTERN = re.compile(r"-?|unknown|_[\w.-]+", re.ASCII | re.IGNORECASE)


def set_client(fields: dict[str, Any], client: str) -> None:
    """Set ``clientip`` if *client* is an IP address, otherwise ``clienthost``; neither for a hyphen."""
    if client != "-":
        fields["clientip" if normalize_address(client) else "clienthost"] = client


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


def split_addresses(text: str) -> list[str]:
    """Return the addresses of a list as proxies write it, without ports; empty if the text is no such list.

    Entries that stand for an address that is not known (``unknown``, ``-``, ``_hidden``) are left out. The value of a
    ``Forwarded`` header (RFC 7239) is such a list, too.
    """
    if not text or text == "-" or len(text) > _LIST_MAX_CHARACTERS:
        return []
    parts = text.split(",")
    if "=" in text:
        parts = [part[1].strip('"') for part in _FORWARDED_FOR_PATTERN.finditer(text)]
    addresses = []
    for part in parts:
        entry = _ENTRY_PATTERN.match(part)
        address = normalize_address(part.strip(' \t"+')) if entry is not None else None
        if address is not None:
            addresses.append(address)
        elif entry is None or _UNKNOWN_ENTRY_PATTERN.fullmatch(entry[1]) is None:
            return []
    return addresses


@lru_cache(maxsize=4096)
def client_network(address: str) -> str:
    """Return what counts as one client in limits: an IPv4 address, or the /64 of an IPv6 address.

    Args:
        address: in its usual form; any other text is returned unchanged.

    """
    if ":" not in address:
        return address
    try:
        return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))
    except ValueError:
        return address


class ProxyNetworks:
    """Networks of proxies.

    Args:
        networks: such as ``10.0.0.0/8``.

    """

    def __init__(self, networks: Iterable[str]) -> None:
        self.networks = tuple(networks)
        self._parsed = [ip_network(network, strict=False) for network in self.networks]
        self.contains = lru_cache(4096)(self._contains)
        """Return whether an address, in its usual form, is in one of the networks."""

    def _contains(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._parsed if network.version == parsed.version)


PRIVATE_NETWORKS: Final = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)
"""Networks that are not reachable from the Internet: in a log, their addresses are those of proxies."""
PRIVATE_PROXIES: Final = ProxyNetworks(PRIVATE_NETWORKS)


def client_of_connection(peer: str, forwarded: Sequence[str], proxies: ProxyNetworks) -> str:
    """Return the client of a request to this server.

    An address is trusted if it was reported by a trusted proxy. Each proxy appends the address of its peer, so the
    last address that is not a trusted proxy is the client's: what comes before it may have been forged.

    Args:
        peer: the address of the connection; empty for a trusted one.
        forwarded: the values of ``X-Forwarded-For``.
        proxies: those that are trusted.

    """
    last = normalize_address(peer) or peer
    if (last and not proxies.contains(last)) or not forwarded:
        return last
    for entry in reversed(",".join(forwarded).split(",")):
        address = normalize_address(entry)
        if address is None:
            return last
        if not proxies.contains(address):
            return address
        last = address
    return last


def client_of_record(addresses: Sequence[str], peer: str, proxies: ProxyNetworks, *, needs_trusted_peer: bool) -> str:
    """Return the client of a request that another server has logged.

    The operator of that server has chosen to log what was forwarded, so its proxies are trusted, and the first address
    that is not a proxy's is the client's. Where the server logs it in any case, as NGINX does by default, only the word
    of a proxy counts.

    Args:
        addresses: those that were forwarded, in their order.
        peer: the address of the connection, or empty.
        proxies: private networks and those that are trusted.
        needs_trusted_peer: whether *addresses* count only if the peer is a proxy.

    """
    if needs_trusted_peer and not (peer and proxies.contains(normalize_address(peer) or peer)):
        return peer
    for address in addresses:
        if not proxies.contains(address):
            return address
    if needs_trusted_peer:
        return peer
    return addresses[0] if addresses else peer


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


class AddressRole(Enum):
    """What the addresses in a field are."""

    CLIENT = "client"
    """Of clients, in whatever spelling: all are truncated, also within host names and numbers."""
    ANY = "any"
    """Of anybody: all are truncated, unless they look like a version or a part of a file's name."""
    SERVER = "server"
    """Of machines of the operator: only those that are reachable from the Internet are truncated."""
    NAME = "name"
    """The field identifies something: only the client's own address is truncated."""


_CLIENT_NAMES: Final = re.compile(
    r"(?:^|_)(?:ip|ips|ipaddr|ipaddress|ip_?address|address|addr|remote|forwarded|forwarded_for|xff)$"
    r"|client|visitor_ip|remote_|forwarded|real_?ip|connecting_ip|user_ip|related_ip|source_|src_|xff|peer"
)
_SERVER_NAMES: Final = re.compile(
    r"^(?:host|host_name|hostname|host_ip|s_ip|s_computername|computer|machine|vhost|authority|log_syslog_hostname)$"
    r"|server|upstream|backend|service|destination|(?:^|_)dest_|(?:^|_)dst_|target|origin_|node|observer|agent_ip"
    r"|(?:^|_)local_?(?:addr|ip)|(?:^|_)listen|elb"
)
_NAME_NAMES: Final = frozenset({"id", "event_id", "event", "format"})
_VERSION_NAMES: Final = re.compile(r"(?:^|_)(?:version|release|build|firmware|revision|oid)$")
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
_CAMEL_CASE: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NAME_MAX_CHARACTERS: Final = 128


@cached(_NAME_MAX_CHARACTERS, 4096)
def address_role(name: str) -> AddressRole:
    """Return what the addresses in a field of that name are, whatever protocol or log format it comes from.

    Spelling does not matter: ``X-Forwarded-For``, ``http_x_forwarded_for`` and ``xForwardedFor`` are alike.
    """
    if name in _NAME_NAMES:
        return AddressRole.NAME
    plain = _SEPARATORS.sub("_", _CAMEL_CASE.sub("_", name[:_NAME_MAX_CHARACTERS]).lower()).strip("_")
    if _VERSION_NAMES.search(plain):
        return AddressRole.NAME
    if _SERVER_NAMES.search(plain) and "forwarded" not in plain and "client" not in plain:
        return AddressRole.SERVER
    return AddressRole.CLIENT if _CLIENT_NAMES.search(plain) else AddressRole.ANY


_COLON: Final = r"(?::|%3[Aa])"
_AFTER_ESCAPE: Final = r"(?<=%[0-9A-Fa-f]{2})"
"""Also in a form or a query, where other characters are percent-encoded."""
_HEX: Final = r"[0-9A-Fa-f]{1,4}"
_IPV6: Final = rf"(?:{_HEX})?+(?:{_COLON}(?:{_HEX}(?![0-9A-Fa-f]|\.\d))?+){{2,8}}(?:{IPV4_PATTERN})?+"
# A version follows a slash (Firefox/3.6.0.12) or a letter (v1.2.3.4), or is followed by a file's extension.
_ANY_IPV4_PATTERN: Final = re.compile(
    rf"(?:(?<![A-Za-z0-9.])(?<!\w/)|{_AFTER_ESCAPE}){IPV4_PATTERN}(?![A-Za-z0-9]|\.\w)", re.ASCII
)
_ANY_IPV6_PATTERN: Final = re.compile(rf"(?:(?<![\w:.])|(?<=[g-zG-Z_]:)|{_AFTER_ESCAPE}){_IPV6}(?!\w|\.\w)", re.ASCII)
_CLIENT_PATTERN: Final = re.compile(
    rf"(?<![0-9A-Fa-f:]){_IPV6}|(?<![\d]){_OCTET}([._-]){_OCTET}\1{_OCTET}\1{_OCTET}(?!\d)", re.ASCII
)
# A pattern that begins with a fixed character is searched for ten times as fast as others.
_LIKELY_IPV4: Final = re.compile(r"\.\d{1,3}\.\d{1,3}\.[1-9]", re.ASCII)
_LIKELY_IPV6: Final = re.compile(r":[0-9A-Fa-f]{0,4}:", re.ASCII)


class AddressFields(NamedTuple):
    """The fields of an event that can hold addresses.

    The names of fields are the same for many events, so that this is made once for each set of names.

    Attributes:
        roles: their names, and what their addresses are.
        values: returns their values.
        template: puts these into one text.

    """

    roles: tuple[tuple[str, AddressRole], ...]
    values: Callable[[Mapping[str, Any]], Any]
    template: str


def find_address_fields(names: Iterable[str]) -> AddressFields:
    """Return which of an event's fields can hold addresses."""
    checked = [name for name in names if name not in _FIELDS_WITHOUT_ADDRESSES]
    values = itemgetter(*checked) if checked else _no_values
    return AddressFields(
        tuple((name, address_role(name)) for name in checked), values, "\n".join(["%s"] * len(checked))
    )


def _no_values(_: Mapping[str, Any]) -> tuple[()]:
    return ()


_FIELDS_WITHOUT_ADDRESSES: Final = frozenset({"@timestamp", "clientip", "status", "bytes"})


def has_addresses(fields: Mapping[str, Any], address_fields: AddressFields, client: object) -> bool:
    """Return whether a field may hold a whole address.

    Args:
        fields: of an event.
        address_fields: those to check.
        client: the client's address.

    """
    # One search over all values excludes nearly all events. Objects and lists are written with brackets.
    try:
        text = address_fields.template % address_fields.values(fields)
    except RecursionError:
        return True
    # Names of hosts have it with hyphens.
    if client and type(client) is str and client.replace(".", "-") in text:
        return True
    if not (
        "%3" in text
        or "[" in text
        or "{" in text
        or _LIKELY_IPV4.search(text) is not None
        or _LIKELY_IPV6.search(text) is not None
    ):
        return False
    for name, role in address_fields.roles:
        value = fields[name]
        kind = type(value)
        if kind is dict or kind is list or (kind is str and _has_address(value, role, client)):
            return True
    return False


def _has_address(text: str, role: AddressRole, client: object) -> bool:
    if (text.count(".") >= _IPV4_DOTS and _LIKELY_IPV4.search(text) is not None) or text.count(":") >= _IPV6_MIN_COLONS:
        if _is_truncated(text, role) or (type(client) is str and client in text):
            return True
    elif "%3" in text and _is_truncated(text, role):
        return True
    # Perhaps the client's own, in another spelling.
    return role is AddressRole.NAME and _may_have_ipv6(text) and _ANY_IPV6_PATTERN.search(text) is not None


@cached(CACHED_MAX_CHARACTERS, 4096)
def _is_truncated(text: str, role: AddressRole) -> bool:
    """Return whether `anonymize_text` changes a text; user agents with versions such as 3.6.0.12 repeat."""
    return anonymize_text(text, role) != text


def anonymize_text(text: str, role: AddressRole = AddressRole.ANY) -> str:
    """Return a text with the addresses truncated that *role* says must be; those of this machine stay."""
    if role is AddressRole.NAME or len(text) < _SHORTEST_ADDRESS:
        return text
    if role is AddressRole.CLIENT:
        return _CLIENT_PATTERN.sub(_truncate_any_match, text)
    truncate = _truncate_public_match if role is AddressRole.SERVER else _truncate_match
    if text.count(".") >= _IPV4_DOTS and _LIKELY_IPV4.search(text) is not None:
        text = _ANY_IPV4_PATTERN.sub(truncate, text)
    if _may_have_ipv6(text):
        text = _ANY_IPV6_PATTERN.sub(truncate, text)
    return text


_SHORTEST_ADDRESS: Final = len("a::1")
_IPV4_DOTS: Final = 3
_IPV6_MIN_COLONS: Final = 2
_NOTHING: Final = ProxyNetworks(())
_LOCAL: Final = ProxyNetworks(("127.0.0.0/8", "::1/128", "0.0.0.0/32", "::/128"))
_ENCODED_COLON: Final = re.compile("%3a", re.IGNORECASE)


def _truncate_any_match(match: re.Match[str]) -> str:
    return _truncate_found(match[0], _NOTHING.contains)


def _truncate_match(match: re.Match[str]) -> str:
    return _truncate_found(match[0], _LOCAL.contains)


def _truncate_public_match(match: re.Match[str]) -> str:
    return _truncate_found(match[0], PRIVATE_PROXIES.contains)


def _truncate_found(found: str, is_kept: Callable[[str], bool]) -> str:
    """Return the network of an address that was found in a text, or the same text if it is no address."""
    plain = _ENCODED_COLON.sub(":", found)
    begin = end = ""
    if ":" in plain:
        # A name and a colon may be before it, as in ip:2001:db8::7; and in a sentence, a colon may follow.
        if plain.startswith(":") and not plain.startswith("::"):
            begin, plain = ":", plain[1:]
        if plain.endswith(":") and not plain.endswith("::"):
            end, plain = ":", plain[:-1]
    address = normalize_address(plain.replace("-", ".").replace("_", "."))
    network = None if address is None or is_kept(address) else anonymize_address(address)
    if network is None or network == plain:
        return found
    separator = next((mark for mark in "-_" if mark in found), ".")
    network = begin + network.replace(".", separator) + end
    return network if ":" in found else network.replace(":", "%3A")


def anonymize_fields(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an event's fields without whole addresses, but for ``clientip``; None if there are none.

    The client's own address is truncated in all fields, also in the item.

    Args:
        fields: of an event, which may be nested.

    """
    own = _own_addresses(fields)
    changes: dict[str, Any] = {}
    has_address_in_name = False
    for name, value in fields.items():
        kind = type(value)
        if name != "clientip" and (kind is str or kind is dict or kind is list):
            cleaned = _anonymize_value(value, address_role(name), own)
            if name == "event_id" and kind is str and cleaned != value:
                # Truncated, the IDs of different clients' events could be the same.
                cleaned = blake2b(value.encode(errors="surrogatepass"), digest_size=16).hexdigest()
            if cleaned is not value and cleaned != value:
                changes[name] = cleaned
        has_address_in_name = has_address_in_name or _clean_name(name) != name
    if has_address_in_name:
        return {_clean_name(name): changes.get(name, value) for name, value in fields.items()}
    return {**fields, **changes} if changes else None


def anonymize_original(text: str, fields: Mapping[str, Any]) -> str:
    """Return an event's original text without whole addresses.

    Args:
        text: as it was received.
        fields: of the event, with whole addresses.

    """
    for name, value in fields.items():
        if type(value) is str and len(value) >= _SHORTEST_ADDRESS and address_role(name) is AddressRole.CLIENT:
            text = text.replace(value, anonymize_text(value, AddressRole.CLIENT))
    return anonymize_text(text)


def _own_addresses(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the client's addresses as they are written in its fields, and IPv4 as in names of hosts."""
    own: tuple[str, ...] = ()
    for name, value in fields.items():
        if type(value) is str and address_role(name) is AddressRole.CLIENT:
            plain = _PLAIN_IPV4.fullmatch(value)
            if plain is not None:
                if not value.startswith("127.") and plain[1] + "0" != value:
                    own += (value, value.replace(".", "-"))
                continue
            for address in split_addresses(value):
                if not _LOCAL.contains(address) and anonymize_address(address) != address:
                    own += (address, value) if normalize_address(value) == address != value else (address,)
    return own


def _anonymize_value(value: Any, role: AddressRole, own: tuple[str, ...], level: int = 0) -> Any:
    kind = type(value)
    if kind is str:
        text = anonymize_text(value, role)
        for address in own:
            if address in text:
                text = re.sub(rf"(?<![\w.:]){re.escape(address)}(?!\w)", _truncate_match, text)
        return _truncate_other_spellings(text, own) if own and _may_have_ipv6(text) else text
    if kind not in (dict, list):
        return value
    if level >= _MAX_LEVELS:
        json_text = json.dumps(value, ensure_ascii=False, default=str)
        cleaned = anonymize_text(json_text)
        return value if cleaned == json_text else json.loads(cleaned)
    if kind is list:
        return [_anonymize_value(inner, role, own, level + 1) for inner in value]
    return {
        _clean_name(name): _anonymize_value(
            inner, role if role is AddressRole.CLIENT else address_role(str(name)), own, level + 1
        )
        for name, inner in value.items()
    }


def _truncate_other_spellings(text: str, own: tuple[str, ...]) -> str:
    """Return a text with the client's addresses truncated that it has in another spelling of IPv6."""
    normalized = {normalize_address(address) for address in own}
    return _ANY_IPV6_PATTERN.sub(
        lambda match: _truncate_found(match[0], lambda address: address not in normalized), text
    )


def _may_have_ipv6(text: str) -> bool:
    return text.count(":") + text.count("%3") >= _IPV6_MIN_COLONS


_MAX_LEVELS: Final = 32
"""Deeper values are anonymized as text."""


def _clean_name(name: Any) -> Any:
    if type(name) is not str or not (":" in name or name.count(".") >= _IPV4_DOTS):
        return name
    return anonymize_text(name)
