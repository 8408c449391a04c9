"""The native protocol: flat JSON or forms at ``POST /tick``, and a tracking pixel."""

from typing import Final

from metronome.protocol import Endpoint
from metronome.protocols.native import pixel, tick

TICK_ENDPOINT: Final = Endpoint("POST", "", "/tick", tick)
ENDPOINTS: Final = (TICK_ENDPOINT, Endpoint("GET", "", "/tick.gif", pixel))
