"""Referers that are advertisements: visits that never were, made up so that somebody follows them back."""

from collections.abc import Iterable

from metronome.enrich.referers import referer_host


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
        referer: as `metronome.enrich.referers.normalise_referer` returns it, or any address.
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
