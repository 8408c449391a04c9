"""Metronome's own protocol, ``POST /tick``: lines of JSON, each with an ``event_id``."""

import json
import math
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from metronome.middleware.config import ClientConfig
from metronome.middleware.transport import SendOutcome, TargetResponse, evaluate_failure, retry_later

try:
    from orjson import dumps as _dumps
except ImportError:
    _dumps = None  # type: ignore[assignment]  # optional: ten times as fast

TICK_PATH: Final = "/tick"
_SUCCESS: Final = range(200, 300)
_MAX_REASON_CHARACTERS: Final = 200
_INTEGER_RANGE: Final = range(-(2**63), 2**64)
_MAX_DEPTH: Final = 20


class TickProtocol:
    """Metronome as a target; see `metronome.middleware.transport.TargetProtocol`.

    Args:
        config: the reporter's configuration.

    """

    body_prefix, separator, body_suffix = b"", b"\n", b""

    def __init__(self, config: ClientConfig) -> None:
        base = config.url.rstrip("/")
        self.url = base if base.endswith(TICK_PATH) else base + TICK_PATH
        self.headers: dict[str, str] = {"Content-Type": "application/x-ndjson"}
        if config.key:
            self.headers["Authorization"] = f"Bearer {config.key}"

    def encode(self, fields: Mapping[str, Any], event_id: str) -> bytes:
        """Return an event as a line of JSON; an ``event_id`` among its fields takes precedence."""
        return encode_json({"event_id": event_id, **fields})

    def evaluate_response(self, response: TargetResponse, count: int) -> SendOutcome:
        """Return the outcome of a batch of *count* events."""
        if response.status not in _SUCCESS:
            return evaluate_failure(response, count, self.url)
        try:
            result = json.loads(response.body)
            accepted, errors = int(result["accepted"]), [str(rejected["error"]) for rejected in result["rejected"]]
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            # A retry is safe whatever responded: Metronome deduplicates by event ID.
            return retry_later(f"{self.url} is not Metronome (status {response.status}): check the URL; retrying")
        reason = f"{self.url} rejects events: {errors[0][:_MAX_REASON_CHARACTERS]}" if errors else ""
        return SendOutcome(sent=accepted, rejected=len(errors), reason=reason)


def encode_json(value: Any) -> bytes:
    """Return any value as valid JSON; values without a JSON form become text."""
    if _dumps is not None:
        try:
            return _dumps(value)
        except TypeError:
            # An integer of more than 64 bits, a lone surrogate, or an object of the host's own.
            pass
    return json.dumps(_to_plain(value, 0), separators=(",", ":"), ensure_ascii=False).encode()


def _to_plain(value: Any, depth: int) -> Any:  # noqa: PLR0911  # one for each kind of value
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value in _INTEGER_RANGE else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return {_to_plain(str(name), depth): _to_plain(inner, depth + 1) for name, inner in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_to_plain(inner, depth + 1) for inner in value]
    return value.isoformat() if isinstance(value, date) else _to_plain(str(value), depth)
