"""Referrers: their normalized form, by which reports group them, and referrer spam.

Addresses of the same page are normalized to the same text, by RFC 3986 (section 6.2.2) and the URL standard: hosts in
the ASCII form of international names, IP addresses in their shortest form, and paths without dot segments, encoded
where URLs must be and nowhere else.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, unquote, urlsplit

import idna

from metronome.enrich.caches import cached

_WEB_SCHEMES = ("http", "https")
_HOST_MAX_CHARACTERS = 256
_SCHEME_PATTERN = re.compile(r"[\0- ]*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LABEL = r"[^\s\0-\x1f/?#@:\[\]%.]+"
_IPV6_LITERAL = r"\[[0-9a-f:.]+\]"
_HOST_PATTERN = re.compile(rf"{_LABEL}(\.{_LABEL})*|{_IPV6_LITERAL}")
_BARE_HOST_PATTERN = re.compile(rf"({_LABEL}(\.{_LABEL})+\.?|{_IPV6_LITERAL})(:\d+)?(/.*)?", re.IGNORECASE | re.DOTALL)
_WWW_PREFIX = re.compile(r"(?:www\.)+(?=[^.]*\.)")

_ENCODED_PATTERN = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED_PATTERN = re.compile(r"[A-Za-z0-9._~-]")
_SAFE_IN_PATH = "!$%&'()*+,/:;=@[]^|~"
_DOT_SEGMENT_PATTERN = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")
_PLAIN_HOST_PATTERN = re.compile(r"[a-z0-9_.-]*[a-z_-]", re.ASCII)
_IPV4_PART_PATTERN = re.compile(r"0x[0-9a-f]*|\d+", re.ASCII)
_IPV4_MAX_PARTS = 4

_SITE_SCHEMES = frozenset({"http", "https", "android-app", "ios-app"})
"""The schemes whose hosts are sites or apps."""
_NO_SITE_PATTERN = re.compile(r"([a-z][a-z0-9+-]*):(?!\d)(//)?", re.IGNORECASE)
"""A scheme; what precedes a port has a dot or is followed by digits."""
_HOST_IN_URL_PATTERN = re.compile(
    r"(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:[^/?#@\s]*@)?(\[[0-9a-f:.]+\]|[^/?#:@\s]+)", re.IGNORECASE
)


def normalize_referrer(url: str, own_hosts: frozenset[str]) -> str | None:
    """Return the host and path of a referrer: ``washingtonpost.com/articles/dc-news``.

    The host is in lower case, without port and ``www.``; the path is without trailing slashes. Query and fragment are
    removed. A host without a scheme, with or without a path, is read as a URL, so that normalizing twice changes
    nothing. Only a host without a dot (``intranet``) needs its ``http://``, because alone it could be any word.

    Args:
        url: what the sender gave.
        own_hosts: hosts of the operator's sites, in lower case, without ``www.``.

    Returns:
        None if *url* is not the URL of a web page, or has one of the own hosts.

    """
    host_and_path = _split_referrer(url)
    if host_and_path is None or host_and_path[0] in own_hosts:
        return None
    return host_and_path[1]


@cached()
def _split_referrer(url: str) -> tuple[str, str] | None:
    """Return the host of a referrer, and its normalized form; None if it is not the URL of a web page."""
    try:
        parts = urlsplit(
            url if _SCHEME_PATTERN.match(url) else f"http://{url}" if _BARE_HOST_PATTERN.fullmatch(url) else ""
        )
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in _WEB_SCHEMES or not host:
        return None
    host = _strip_www(_normalize_host(f"[{host}]" if ":" in host else host))
    return None if _HOST_PATTERN.fullmatch(host) is None else (host, host + _normalize_path(parts.path))


def _normalize_host(host: str) -> str:
    """Return a host in its usual form, in lower case; unchanged if it is invalid.

    Args:
        host: an IPv6 address is in brackets.

    """
    host = host.lower()
    if _PLAIN_HOST_PATTERN.fullmatch(host):
        return host
    try:
        if host.startswith("["):
            return f"[{IPv6Address(host[1:-1]).compressed}]"
        host = unquote(host, errors="strict")
        if not host.isascii():
            host = idna.encode(host, uts46=True, transitional=False).decode()
        address = _parse_ipv4(host)
    except (ValueError, UnicodeError):
        return host
    return host if address is None else str(address)


def _parse_ipv4(host: str) -> IPv4Address | None:
    """Parse an IPv4 address in any form of the URL standard, such as ``0x7f.1``; None if it is not one."""
    parts = host.removesuffix(".").split(".")
    if len(parts) > _IPV4_MAX_PARTS or not all(map(_IPV4_PART_PATTERN.fullmatch, parts)):
        return None
    numbers = [
        int(part[2:] or "0", 16) if part.startswith("0x") else int(part, 8 if part[0] == "0" else 10) for part in parts
    ]
    *first, last = numbers
    if any(number > 255 for number in first) or last >= 256 ** (5 - len(numbers)):  # noqa: PLR2004  # bytes
        return None
    return IPv4Address(sum(number << (24 - 8 * at) for at, number in enumerate(first)) + last)


def _normalize_path(path: str) -> str:
    path = path.replace("\\", "/")
    if "%" in path:
        path = _ENCODED_PATTERN.sub(_normalize_encoded, path)
    path = quote(path, safe=_SAFE_IN_PATH, errors="replace")
    if _DOT_SEGMENT_PATTERN.search(path):
        segments: list[str] = []
        for segment in path.split("/")[1:]:
            if segment == "..":
                del segments[-1:]
            elif segment != ".":
                segments.append(segment)
        path = "".join(f"/{segment}" for segment in segments)
    return path.rstrip("/")


def _normalize_encoded(encoded: re.Match[str]) -> str:
    character = chr(int(encoded[1], 16))
    return character if _UNRESERVED_PATTERN.fullmatch(character) else encoded[0].upper()


def normalize_own_hosts(hosts: tuple[str, ...]) -> frozenset[str]:
    """Return the hosts of the operator's sites in the form that `normalize_referrer` compares with."""
    return frozenset(_strip_www(_normalize_host(host.strip())) for host in hosts if host.strip())


def _strip_www(host: str) -> str:
    """Remove the dot of the root at the end, and ``www.`` unless that leaves a host without a dot."""
    host = host.rstrip(".")
    prefix = _WWW_PREFIX.match(host)
    return host if prefix is None else host[prefix.end() :]


def extract_host(url: str) -> str:
    """Return the host of a URL, normalized and without ``www.``; empty if there is none, or if the URL is no site's.

    Args:
        url: with or without a scheme, such as a normalized referrer, or an app's
            (``android-app://com.linkedin.android``).

    """
    url = url[:_HOST_MAX_CHARACTERS].lstrip()
    scheme = _NO_SITE_PATTERN.match(url)
    if scheme is not None and not (scheme[1].lower() in _SITE_SCHEMES and scheme[2] and url[scheme.end() :].strip("/")):
        # Of other schemes, such as file, data, about and those of extensions, nothing is a site.
        return ""
    match = _HOST_IN_URL_PATTERN.match(url)
    if match is None or (scheme is not None and match.start(1) < scheme.end()):
        return ""
    # The name of an app may be a number, but is never an IP address.
    is_app = scheme is not None and scheme[1].lower() not in _WEB_SCHEMES
    return _strip_www(match[1].lower() if is_app else _normalize_host(match[1]))


def parse_spam_hosts(lines: Iterable[str]) -> frozenset[str]:
    """Parse a list of hosts, such as https://github.com/matomo-org/referrer-spam-list.

    Args:
        lines: a host or URL each; empty lines and what follows a ``#`` are ignored.

    Returns:
        The hosts in lower case, without ``www.``.

    """
    hosts = (extract_host(line.partition("#")[0].strip()) for line in lines)
    return frozenset(host for host in hosts if host)


def is_referrer_spam(referrer: str, spam_hosts: frozenset[str]) -> bool:
    """Return whether a referrer's host, or a domain that it belongs to, is in a list of spam hosts.

    Referrer spam is visits that never happened, invented to make somebody open the referring page.

    Args:
        referrer: a URL, or as `normalize_referrer` returns it.
        spam_hosts: as `parse_spam_hosts` returns them.

    """
    if not spam_hosts:
        return False
    host = extract_host(referrer)
    while host:
        if host in spam_hosts:
            return True
        host = host.partition(".")[2]
    return False
