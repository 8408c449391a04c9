"""Every address that events are taken at over HTTP, and the protocol that is spoken there."""

from typing import Final, NamedTuple

from metronome.dialects import hit, pixel, tick
from metronome.dialects.bulk.known import Known
from metronome.dialects.bulk.protocol import Elasticsearch
from metronome.dialects.dialect import Dialect
from metronome.dialects.matomo import api, tracker
from metronome.dialects.micrometrics import batch as track_batch
from metronome.dialects.micrometrics import pixel as track_pixel
from metronome.dialects.micrometrics import track
from metronome.keys import Scope


class Address(NamedTuple):
    """One address and what is spoken at it.

    Attributes:
        method: of HTTP, in capitals; ``*`` for any.
        prefix: what all addresses of the protocol begin with; it is no part of what the dialect sees.
        path: the rest, with ``{name}`` or ``{name:pattern}`` for what varies.
        dialect: reads and answers what is sent there.
        scope: what a key must allow here.
        lenient: whether a key that is unknown counts as none, since trackers bring the key of another system.
        credentials: whether pages of other origins send it with their cookies, as some trackers do; none is looked at.

    """

    method: str
    prefix: str
    path: str
    dialect: Dialect
    scope: Scope = Scope.TICK
    lenient: bool = False
    credentials: bool = False


TICK: Final = Address("POST", "", "/tick", tick)


def _matomo_addresses(prefix: str) -> tuple[Address, ...]:
    trackers = (
        Address(method, prefix, path, tracker, lenient=True, credentials=True)
        for path in ("/matomo.php", "/piwik.php")
        for method in ("GET", "POST")
    )
    calls = (Address(method, prefix, path, api) for path in ("/", "/index.php") for method in ("GET", "POST"))
    return (*trackers, *calls)


PROTOCOLS: Final = (
    TICK,
    Address("GET", "", "/tick.gif", pixel),
    Address("POST", "", "/api/track", track),
    Address("POST", "", "/api/track/batch", track_batch),
    Address("GET", "", "/t.gif", track_pixel),
    *_matomo_addresses(""),
    # Matomo's importer puts its addresses behind its --url as that is: one that ends with a slash makes two.
    *_matomo_addresses("/"),
)
"""All addresses that are the same everywhere, those with fewer variables first."""


def elasticsearch_addresses(known: Known) -> tuple[Address, ...]:
    """Return where Elasticsearch's protocol is spoken, by a process that remembers what it took lately."""
    dialect = Elasticsearch(known)
    return tuple(
        Address(method, "/es", path, dialect)
        for path in ("", r"/{path:[\s\S]*}")
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE")
    )


def hit_address(prefix: str) -> Address:
    """Return where true-micro-analytics is spoken: below a prefix that the operator chooses, or at the root."""
    return Address("GET", prefix, r"/{path:[\s\S]*}", hit)
