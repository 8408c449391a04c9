"""Referrers: their normalized form, by which reports group them, and referrer spam."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from metronome.enrich.caches import cached

_WEB_SCHEMES = ("http", "https")
_HOST_MAX_CHARACTERS = 256
_SCHEME_PATTERN = re.compile(r"[\0- ]*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LABEL = r"[^\s\0-\x1f/?#@:\[\]%.]+"
_IPV6_LITERAL = r"\[[0-9a-f:.]+\]"
_HOST_PATTERN = re.compile(rf"{_LABEL}(\.{_LABEL})*|{_IPV6_LITERAL}")
_BARE_HOST_PATTERN = re.compile(rf"({_LABEL}(\.{_LABEL})+\.?|{_IPV6_LITERAL})(:\d+)?(/.*)?", re.IGNORECASE | re.DOTALL)
_WWW_PREFIX = re.compile(r"(?:www\.)+(?=[^.]*\.)")

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
    host = _strip_www(f"[{host}]" if ":" in host else host)
    return None if _HOST_PATTERN.fullmatch(host) is None else (host, host + parts.path.rstrip("/"))


def normalize_own_hosts(hosts: tuple[str, ...]) -> frozenset[str]:
    """Return the hosts of the operator's sites in the form that `normalize_referrer` compares with."""
    return frozenset(_strip_www(host.strip().lower()) for host in hosts if host.strip())


def _strip_www(host: str) -> str:
    """Remove the dot of the root at the end, and ``www.`` unless that leaves a host without a dot."""
    host = host.rstrip(".")
    prefix = _WWW_PREFIX.match(host)
    return host if prefix is None else host[prefix.end() :]


def extract_host(url: str) -> str:
    """Return the host of a URL, in lower case and without ``www.``; empty if there is none.

    Args:
        url: with or without a scheme, such as a normalized referrer, or an app's
            (``android-app://com.linkedin.android``).

    """
    match = _HOST_IN_URL_PATTERN.match(url[:_HOST_MAX_CHARACTERS])
    return _strip_www(match[1].lower()) if match is not None else ""


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
