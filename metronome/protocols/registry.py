"""All endpoints that accept events over HTTP."""

from typing import Final

from metronome.protocols import elasticsearch, matomo, native, otlp, web_trackers
from metronome.protocols.micro_metrics import tracking

ENDPOINTS: Final = (
    *native.ENDPOINTS,
    *tracking.ENDPOINTS,
    *matomo.ENDPOINTS,
    *web_trackers.ENDPOINTS,
    *otlp.ENDPOINTS,
    *elasticsearch.ENDPOINTS,
)
"""Those with variable parts come last, as the first route that matches a request is used."""
