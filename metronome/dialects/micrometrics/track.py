"""``POST /api/track``: one event, answered with the document that is stored of it."""

import orjson

from metronome.dialects.dialect import Outcome, Readings, Reply, Request
from metronome.dialects.micrometrics.answers import key_of, refusal
from metronome.dialects.micrometrics.documents import event_of
from metronome.dialects.micrometrics.payloads import encode, read_parameters, read_payload
from metronome.errors import Malformed, MetronomeError
from metronome.identities import own_identities

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
