"""Reports as Metronome's own ``POST /tick`` takes them: lines of JSON, each with its ``event_id``."""

import json
from collections.abc import Mapping
from typing import Any, Final

from metronome.middleware.config import ClientConfig
from metronome.middleware.json import encode_json
from metronome.middleware.response_policy import SendOutcome, TargetResponse, evaluate_failure, retry_later

TICK_PATH: Final = "/tick"
_SUCCESS: Final = range(200, 300)
_MAX_REASON_CHARACTERS: Final = 200


class TickProtocol:
    """Speaks to Metronome.

    Args:
        config: where it is.

    Attributes:
        url: where batches go.
        headers: what goes with each.
        begin: what stands before a batch's first event.
        between: what stands between two.
        end: what stands behind the last.

    """

    body_prefix, separator, body_suffix = b"", b"\n", b""

    def __init__(self, config: ClientConfig) -> None:
        base = config.url.rstrip("/")
        self.url = base if base.endswith(TICK_PATH) else base + TICK_PATH
        self.headers: dict[str, str] = {"Content-Type": "application/x-ndjson"}
        if config.key:
            self.headers["Authorization"] = f"Bearer {config.key}"

    def encode(self, fields: Mapping[str, Any], event_id: str) -> bytes:
        """Return an event as it goes out.

        Args:
            fields: of the event.
            event_id: by which it is known when it is sent again, unless it brings one.

        """
        return encode_json({"event_id": event_id, **fields})

    def evaluate_response(self, response: TargetResponse, count: int) -> SendOutcome:
        """Say what an answer means for a batch of so many events."""
        if response.status not in _SUCCESS:
            return evaluate_failure(response, count, self.url)
        try:
            found = json.loads(response.body)
            taken, errors = int(found["accepted"]), [str(one["error"]) for one in found["rejected"]]
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            # Whatever took it, sending it again does no harm: each event has its identity.
            return retry_later(
                f"{self.url} answers {response.status} as no Metronome does: correct the url; it is tried again"
            )
        reason = f"{self.url} refuses events: {errors[0][:_MAX_REASON_CHARACTERS]}" if errors else ""
        return SendOutcome(sent=taken, rejected=len(errors), reason=reason)
