"""Referers, as the short names that answers group by.

Referers that are advertisements: visits that never were, made up so that somebody follows them back.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

_WEB = ("http", "https")
_REMEMBERED_CHARACTERS = 256
"""Longer ones are worked out each time: strangers must not fill the memory."""
_SCHEME = re.compile(r"[\0- ]*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LABEL = r"[^\s\0-\x1f/?#@:\[\]%.]+"
_ADDRESS = r"\[[0-9a-f:.]+\]"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*|{_ADDRESS}")
_BARE = re.compile(rf"({_LABEL}(\.{_LABEL})+\.?|{_ADDRESS})(:\d+)?(/.*)?", re.IGNORECASE | re.DOTALL)
_WWW = re.compile(r"(?:www\.)+(?=[^.]*\.)")

_HOST_OF_ANY = re.compile(r"(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:[^/?#@\s]*@)?(\[[0-9a-f:.]+\]|[^/?#:@\s]+)", re.IGNORECASE)


def normalise_referer(url: str, own_hosts: frozenset[str]) -> str | None:
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
    return _remembered(url, own_hosts) if len(url) <= _REMEMBERED_CHARACTERS else _normalise(url, own_hosts)


def _normalise(url: str, own_hosts: frozenset[str]) -> str | None:
    try:
        parts = urlsplit(url if _SCHEME.match(url) else f"http://{url}" if _BARE.fullmatch(url) else "")
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in _WEB or not host:
        return None
    host = _plain(f"[{host}]" if ":" in host else host)
    if host in own_hosts or _HOST.fullmatch(host) is None:
        return None
    return host + parts.path.rstrip("/")


_remembered = lru_cache(maxsize=32_768)(_normalise)


def own_hosts(hosts: tuple[str, ...]) -> frozenset[str]:
    """Bring the names of one's own hosts into the form that `normalise_referer` compares with."""
    return frozenset(_plain(host.strip().lower()) for host in hosts if host.strip())


def _plain(host: str) -> str:
    """Take away the root's dot at the end, and ``www.`` where a host with a dot is left."""
    host = host.rstrip(".")
    prefix = _WWW.match(host)
    return host if prefix is None else host[prefix.end() :]


def referer_host(referer: str) -> str:
    """Return the host of a referer, in lower case and without ``www.``.

    Args:
        referer: as `normalise_referer` returns it, or any address with or without a scheme, an app's too
            (``android-app://com.linkedin.android``).

    Returns:
        The host; nothing where there is none.

    """
    found = _HOST_OF_ANY.match(referer[:_REMEMBERED_CHARACTERS])
    return _plain(found[1].lower()) if found is not None else ""


def read_spam_hosts(lines: Iterable[str]) -> frozenset[str]:
    """Read a list of hosts, as Matomo's public referrer spam list is (https://github.com/matomo-org/referrer-spam-list).

    Args:
        lines: one host each, or its address; empty ones and what follows a ``#`` do not count.

    Returns:
        The hosts in lower case, without ``www.``.

    """
    hosts = (referer_host(line.partition("#")[0].strip()) for line in lines)
    return frozenset(host for host in hosts if host)


def is_spam(referer: str, hosts: frozenset[str]) -> bool:
    """Tell whether the host of a referer, or a domain that it belongs to, is among some.

    Args:
        referer: as `metronome.enrich.referrers.normalise_referer` returns it, or any address.
        hosts: as `read_spam_hosts` returns them.

    """
    if not hosts:
        return False
    host = referer_host(referer)
    while host:
        if host in hosts:
            return True
        host = host.partition(".")[2]
    return False
