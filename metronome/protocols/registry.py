"""Every address that events are taken at over HTTP, and the protocol that is spoken there."""

from typing import Final

from metronome.protocol import Endpoint
from metronome.protocols import elasticsearch, matomo
from metronome.protocols.micro_metrics import tracking
from metronome.protocols.native import pixel, tick

TICK_ENDPOINT: Final = Endpoint("POST", "", "/tick", tick)


ENDPOINTS: Final = (
    TICK_ENDPOINT,
    Endpoint("GET", "", "/tick.gif", pixel),
    Endpoint("POST", "", "/api/track", tracking.TRACK),
    Endpoint("POST", "", "/api/track/batch", tracking.BATCH),
    Endpoint("GET", "", "/t.gif", tracking.PIXEL),
    *matomo.ENDPOINTS,
    *elasticsearch.ENDPOINTS,
)
"""All endpoints, those with fewer variable parts first."""
