"""The Matomo Tracking API, and the part of Matomo's Reporting API that its log importer uses."""

from typing import Final

from metronome.protocol import Endpoint
from metronome.protocols.matomo import api, tracker


def _endpoints(prefix: str) -> tuple[Endpoint, ...]:
    return (
        *(
            Endpoint(method, prefix, path, tracker, ignore_invalid_key=True, key_in_body=True)
            for path in ("/matomo.php", "/piwik.php")
            for method in ("GET", "POST")
        ),
        *(
            Endpoint(method, prefix, path, api, key_in_body=True, allow_credentials=False)
            for path in ("/", "/index.php")
            for method in ("GET", "POST")
        ),
    )


# Matomo's log importer appends the paths to its --url as it is: a URL with a trailing slash leads to two slashes.
ENDPOINTS: Final = (*_endpoints(""), *_endpoints("/"))
