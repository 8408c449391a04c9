"""Every address that events are taken at over HTTP, and the protocol that is spoken there."""

from typing import Final

from metronome.protocol import Address
from metronome.protocols.elasticsearch.known import Known
from metronome.protocols.elasticsearch.protocol import Elasticsearch
from metronome.protocols.matomo import api, tracker
from metronome.protocols.micro_metrics import batch as track_batch
from metronome.protocols.micro_metrics import pixel as track_pixel
from metronome.protocols.micro_metrics import track
from metronome.protocols.native import pixel, tick

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
