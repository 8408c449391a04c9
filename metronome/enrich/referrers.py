"""Referers, as the short names that answers group by.

Referers that are advertisements: visits that never were, made up so that somebody follows them back.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

_WEB_SCHEMES = ("http", "https")
_CACHED_MAX_CHARACTERS = 256
"""Longer ones are worked out each time: strangers must not fill the memory."""
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
    """Cut a referer down to its host and path: ``washingtonpost.com/articles/dc-news``.

    The host is in lower case, without port and ``www.``; the path without trailing slashes, query and
    fragment. A bare host with or without a path is taken as it were a web address, so that what this
    function returns, it returns again. Only a host without a dot (``intranet``) needs its ``http://``: alone it
    could be any word.

    Args:
        url: what the sender gave.
        own_hosts: hosts in lower case, without ``www.``, whose referers do not count.

    Returns:
        The short name, or None where there is none to count: no web address, or one's own.

    """
    return (
        _normalize_cached(url, own_hosts) if len(url) <= _CACHED_MAX_CHARACTERS else _normalize_uncached(url, own_hosts)
    )


def _normalize_uncached(url: str, own_hosts: frozenset[str]) -> str | None:
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
    if host in own_hosts or _HOST_PATTERN.fullmatch(host) is None:
        return None
    return host + parts.path.rstrip("/")


_normalize_cached = lru_cache(maxsize=32_768)(_normalize_uncached)


def normalize_own_hosts(hosts: tuple[str, ...]) -> frozenset[str]:
    """Bring the names of one's own hosts into the form that `normalize_referrer` compares with."""
    return frozenset(_strip_www(host.strip().lower()) for host in hosts if host.strip())


def _strip_www(host: str) -> str:
    """Take away the root's dot at the end, and ``www.`` where a host with a dot is left."""
    host = host.rstrip(".")
    prefix = _WWW_PREFIX.match(host)
    return host if prefix is None else host[prefix.end() :]


def extract_host(url: str) -> str:
    """Return the host of a referer, in lower case and without ``www.``.

    Args:
        url: as `normalize_referrer` returns it, or any address with or without a scheme, an app's too
            (``android-app://com.linkedin.android``).

    Returns:
        The host; nothing where there is none.

    """
    found = _HOST_IN_URL_PATTERN.match(url[:_CACHED_MAX_CHARACTERS])
    return _strip_www(found[1].lower()) if found is not None else ""


def parse_spam_hosts(lines: Iterable[str]) -> frozenset[str]:
    """Read a list of hosts, as Matomo's public referrer spam list is (https://github.com/matomo-org/referrer-spam-list).

    Args:
        lines: one host each, or its address; empty ones and what follows a ``#`` do not count.

    Returns:
        The hosts in lower case, without ``www.``.

    """
    hosts = (extract_host(line.partition("#")[0].strip()) for line in lines)
    return frozenset(host for host in hosts if host)


def is_referrer_spam(referrer: str, spam_hosts: frozenset[str]) -> bool:
    """Tell whether the host of a referer, or a domain that it belongs to, is among some.

    Args:
        referrer: as `metronome.enrich.referrers.normalise_referer` returns it, or any address.
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
