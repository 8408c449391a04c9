"""``POST /api/track``: one event, answered with the document that is stored of it."""

import orjson

from metronome.errors import Malformed, MetronomeError
from metronome.event import own_identities
from metronome.protocol import Outcome, Readings, Reply, Request
from metronome.protocols.micro_metrics.documents import event_of
from metronome.protocols.micro_metrics.payloads import encode, key_of, read_parameters, read_payload, refusal

_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"


def key(request: Request) -> str:
    """Return the key of the request (see `Dialect.key`)."""
    return key_of(request)


def read(request: Request) -> Readings:
    """Read the event: a JSON object whatever its content type is, or a form (see `Dialect.read`)."""
    identity = next(request.identities or own_identities())
    tracked = read_payload(_found(request), request.arrival, identity)
    return Readings([event_of(tracked, request.site.rule)], batch=False, notes=encode(tracked))


def reply(_: Request, readings: Readings, outcome: Outcome) -> Reply:
    """Answer with the document (see `Dialect.reply`)."""
    for error in outcome.rejected.values():
        raise error
    return Reply(200, readings.notes, _JSON)


def refuse(_: Request, error: MetronomeError, status: int) -> Reply:
    """Describe the error (see `Dialect.refuse`)."""
    return refusal(error, status)


def _found(request: Request) -> object:
    if request.content_type == _FORM and not request.body.lstrip().startswith(b"{"):
        return read_parameters(request.body.decode(errors="replace"))
    try:
        return orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error}") from None
