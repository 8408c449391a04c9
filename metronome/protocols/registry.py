"""Every address that events are taken at over HTTP, and the protocol that is spoken there."""

from typing import Final

from metronome.protocol import Endpoint
from metronome.protocols import elasticsearch
from metronome.protocols.matomo import api, tracker
from metronome.protocols.micro_metrics import tracking
from metronome.protocols.native import pixel, tick

TICK_ENDPOINT: Final = Endpoint("POST", "", "/tick", tick)


def _matomo_endpoints(prefix: str) -> tuple[Endpoint, ...]:
    trackers = (
        Endpoint(method, prefix, path, tracker, lenient=True, credentials=True)
        for path in ("/matomo.php", "/piwik.php")
        for method in ("GET", "POST")
    )
    calls = (Endpoint(method, prefix, path, api) for path in ("/", "/index.php") for method in ("GET", "POST"))
    return (*trackers, *calls)


ENDPOINTS: Final = (
    TICK_ENDPOINT,
    Endpoint("GET", "", "/tick.gif", pixel),
    Endpoint("POST", "", "/api/track", tracking.TRACK),
    Endpoint("POST", "", "/api/track/batch", tracking.BATCH),
    Endpoint("GET", "", "/t.gif", tracking.PIXEL),
    *_matomo_endpoints(""),
    # Matomo's importer puts its addresses behind its --url as that is: one that ends with a slash makes two.
    *_matomo_endpoints("/"),
    *elasticsearch.ENDPOINTS,
)
"""All endpoints, those with fewer variable parts first."""
