"""``GET /t.gif``: one event in the address of a picture, for pages and mails. Whatever happens, the picture comes."""

from metronome.errors import MetronomeError
from metronome.event import own_identities
from metronome.protocol import Outcome, Readings, Reply, Request
from metronome.protocols.micro_metrics.documents import event_of
from metronome.protocols.micro_metrics.payloads import encode, key_of, read_parameters, read_payload, with_sender
from metronome.web.gif import gif, gif_in_spite_of


def key(request: Request) -> str:
    """Return the key of the request (see `Dialect.key`)."""
    return key_of(request)


def read(request: Request) -> Readings:
    """Read the event, and add who asked for the picture, and on which page (see `Dialect.read`)."""
    found = with_sender(read_parameters(request.query), request)
    tracked = read_payload(found, request.arrival, next(request.identities or own_identities()))
    encode(tracked)
    page = tracked["data"].get("referrer", "") if request.headers.get("Referer") else ""
    return Readings([event_of(tracked, request.site.rule, page)], batch=False)


def reply(_: Request, __: Readings, outcome: Outcome) -> Reply:
    """Answer with the picture (see `Dialect.reply`)."""
    for error in outcome.rejected.values():
        raise error
    return gif()


def refuse(_: Request, error: MetronomeError, __: int) -> Reply:
    """Answer with the picture all the same; a header says what was wrong (see `Dialect.refuse`)."""
    return gif_in_spite_of(error)
