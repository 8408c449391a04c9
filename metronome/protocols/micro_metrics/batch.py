"""``POST /api/track/batch``: several events, answered with what is stored of each.

An event that cannot be taken fails no other: its place in the answer has its error, in the shape that an error
of the protocol has.
"""

from typing import Final

import orjson

from metronome.errors import Malformed, MetronomeError, TooLarge
from metronome.event import own_identities
from metronome.protocol import Outcome, Reading, Readings, Reply, Request
from metronome.protocols.micro_metrics.documents import event_of
from metronome.protocols.micro_metrics.payloads import encode, failure, key_of, read_payload, refusal

_MALFORMED: Final = 400
_TOO_LARGE: Final = 413


def key(request: Request) -> str:
    """Return the key of the request (see `Dialect.key`)."""
    return key_of(request)


def read(request: Request) -> Readings:
    """Read the events of ``{"events":[…]}`` (see `Dialect.read`)."""
    found = _events(request.body)
    if len(found) > request.max_events:
        raise TooLarge(f'"events" holds over {request.max_events} events: send fewer, or raise batch_max_events')
    identities = request.identities or own_identities()
    readings: list[Reading] = []
    documents: list[bytes] = []
    for one in found:
        identity = next(identities)
        try:
            tracked = read_payload(one, request.arrival, identity)
            document = encode(tracked)
            readings.append(event_of(tracked, request.site.rule))
            documents.append(document)
        except Malformed as error:
            documents.append(b"")
            readings.append(error)
    return Readings(readings, batch=True, notes=documents)


def reply(_: Request, readings: Readings, outcome: Outcome) -> Reply:
    """Answer with the documents, and with errors in their places (see `Dialect.reply`)."""
    parts: list[bytes] = list(readings.notes)
    for index, error in outcome.rejected.items():
        parts[index] = orjson.dumps(failure(error, _TOO_LARGE if isinstance(error, TooLarge) else _MALFORMED))
    return Reply(200, b"[" + b",".join(parts) + b"]", "application/json")


def refuse(_: Request, error: MetronomeError, status: int) -> Reply:
    """Describe the error (see `Dialect.refuse`)."""
    return refusal(error, status)


def _events(body: bytes) -> list[object]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("events"), list):
        raise Malformed('"events" is required: send {"events":[{"type":"pageview"}]}')
    if len(found) > 1:
        raise Malformed('only "events" is allowed here: send {"events":[{"type":"pageview"}]}')
    events: list[object] = found["events"]
    return events
