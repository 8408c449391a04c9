"""The native protocol for pages without a script: one event in the address of a picture.

The page is told nothing but the picture, which always comes; what is wrong stands in a header, for developers.
"""

from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

from metronome.errors import MetronomeError
from metronome.event import Event
from metronome.fields import USER_AGENT_FIELDS
from metronome.protocol import IngestResult, ParsedEvent, ParsedRequest, Reply, Request, bearer_token
from metronome.protocols.native.tick import parse_form_event
from metronome.web.gif import gif_error_reply, gif_reply

_KEY_PARAMETER: Final = "key"


def extract_key(request: Request) -> str:
    """Return the key of the request, which an address may hold as ``extract_key`` (see `Dialect.key`)."""
    in_query = [unquote_plus(value) for name, _, value in _iter_query_parameters(request) if name == _KEY_PARAMETER]
    return bearer_token(request.headers) or (in_query[-1] if in_query else "")


def parse(request: Request) -> ParsedRequest:
    """Read the event of a ``GET /tick.gif`` (see `Dialect.read`)."""
    # The key must not stand in the store.
    told = "&".join(part for name, part, _ in _iter_query_parameters(request) if name != _KEY_PARAMETER)
    return ParsedRequest(
        [_add_browser_context(parse_form_event(told.encode(errors="replace")), request)], is_batch=False
    )


def reply(_: Request, __: ParsedRequest, result: IngestResult) -> Reply:
    """Answer with the picture (see `Dialect.reply`)."""
    for error in result.rejected.values():
        return gif_error_reply(error)
    return gif_reply()


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Answer with the picture all the same (see `Dialect.refuse`)."""
    return gif_error_reply(error)


def _iter_query_parameters(request: Request) -> Iterator[tuple[str, str, str]]:
    """Yield each parameter's name, the whole of it as it came, and its value as it came."""
    for part in request.query.split("&"):
        name, _, value = part.partition("=")
        yield unquote_plus(name), part, value


def _add_browser_context(event: ParsedEvent, request: Request) -> ParsedEvent:
    """Add to an event what a browser tells of itself, where its parameters do not: a picture's referer is its page."""
    if not isinstance(event, Event):
        return event
    headers = request.headers
    told = {"url": headers.get("Referer"), "agent": headers.get("User-Agent"), "clientip": request.client_ip}
    given = {name for name, value in event.fields.items() if value}
    if not given.isdisjoint(USER_AGENT_FIELDS):
        del told["agent"]
    added = {name: value for name, value in told.items() if value and name not in given}
    return Event({**event.fields, **added}, event.original) if added else event
