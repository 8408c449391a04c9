"""Reports as Metronome's own ``POST /tick`` takes them: lines of JSON, each with its ``event_id``."""

import json
from collections.abc import Mapping
from typing import Any, Final

from metronome.middleware.config import ClientConfig
from metronome.middleware.json import as_json
from metronome.middleware.response_policy import Answer, Verdict, later, refused

PATH: Final = "/tick"
_SUCCESS: Final = range(200, 300)
_SHOWN: Final = 200


class Native:
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

    begin, between, end = b"", b"\n", b""

    def __init__(self, config: ClientConfig) -> None:
        base = config.url.rstrip("/")
        self.url = base if base.endswith(PATH) else base + PATH
        self.headers: dict[str, str] = {"Content-Type": "application/x-ndjson"}
        if config.key:
            self.headers["Authorization"] = f"Bearer {config.key}"

    def encode(self, fields: Mapping[str, Any], identity: str) -> bytes:
        """Return an event as it goes out.

        Args:
            fields: of the event.
            identity: by which it is known when it is sent again, unless it brings one.

        """
        return as_json({"event_id": identity, **fields})

    def judge(self, answer: Answer, count: int) -> Verdict:
        """Say what an answer means for a batch of so many events."""
        if answer.status not in _SUCCESS:
            return refused(answer, count, self.url)
        try:
            found = json.loads(answer.body)
            taken, errors = int(found["accepted"]), [str(one["error"]) for one in found["rejected"]]
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            # Whatever took it, sending it again does no harm: each event has its identity.
            return later(f"{self.url} answers {answer.status} as no Metronome does: correct the url; it is tried again")
        reason = f"{self.url} refuses events: {errors[0][:_SHOWN]}" if errors else ""
        return Verdict(sent=taken, refused=len(errors), reason=reason)
