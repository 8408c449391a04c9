"""The native protocol for pages without a script: one event in the address of a picture.

The page is told nothing but the picture, which always comes; what is wrong stands in a header, for developers.
"""

from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

from metronome.enrich.enrichment import AGENT_NAMES
from metronome.errors import MetronomeError
from metronome.event import Event
from metronome.protocol import Outcome, Reading, Readings, Reply, Request, bearer
from metronome.protocols.native.tick import read_form
from metronome.web.gif import gif, gif_in_spite_of

_KEY: Final = "key"


def key(request: Request) -> str:
    """Return the key of the request, which an address may hold as ``key`` (see `Dialect.key`)."""
    in_query = [unquote_plus(value) for name, _, value in _parameters(request) if name == _KEY]
    return bearer(request.headers) or (in_query[-1] if in_query else "")


def read(request: Request) -> Readings:
    """Read the event of a ``GET /tick.gif`` (see `Dialect.read`)."""
    # The key must not stand in the store.
    told = "&".join(part for name, part, _ in _parameters(request) if name != _KEY)
    return Readings([_completed(read_form(told.encode(errors="replace")), request)], batch=False)


def reply(_: Request, __: Readings, outcome: Outcome) -> Reply:
    """Answer with the picture (see `Dialect.reply`)."""
    for error in outcome.rejected.values():
        return gif_in_spite_of(error)
    return gif()


def refuse(_: Request, error: MetronomeError, __: int) -> Reply:
    """Answer with the picture all the same (see `Dialect.refuse`)."""
    return gif_in_spite_of(error)


def _parameters(request: Request) -> Iterator[tuple[str, str, str]]:
    """Yield each parameter's name, the whole of it as it came, and its value as it came."""
    for part in request.query.split("&"):
        name, _, value = part.partition("=")
        yield unquote_plus(name), part, value


def _completed(reading: Reading, request: Request) -> Reading:
    """Add to an event what a browser tells of itself, where its parameters do not: a picture's referer is its page."""
    if not isinstance(reading, Event):
        return reading
    headers = request.headers
    told = {"url": headers.get("Referer"), "agent": headers.get("User-Agent"), "clientip": request.sender}
    given = {name for name, value in reading.fields.items() if value}
    if not given.isdisjoint(AGENT_NAMES):
        del told["agent"]
    added = {name: value for name, value in told.items() if value and name not in given}
    return Event({**reading.fields, **added}, reading.original) if added else reading
