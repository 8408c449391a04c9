"""The protocols of other web analytics, for sites that change from them: Plausible, Umami and GoatCounter."""

from typing import Final

from metronome.protocol import Endpoint
from metronome.protocols.web_trackers import goatcounter, plausible, umami

ENDPOINTS: Final = (
    Endpoint("POST", "", "/api/event", plausible, ignore_invalid_key=True),
    Endpoint("POST", "", "/api/send", umami, ignore_invalid_key=True),
    Endpoint("GET", "", "/count", goatcounter.COUNT),
    # Its script calls navigator.sendBeacon, which sends the same query by POST.
    Endpoint("POST", "", "/count", goatcounter.COUNT),
    Endpoint("POST", "", "/api/v0/count", goatcounter.API),
)
