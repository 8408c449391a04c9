"""The native protocol for pages without a script, at ``GET /tick.gif``: one event in the URL of an image.

The reply is always the image. Errors are in a header, for developers.
"""

from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

from metronome.errors import MetronomeError
from metronome.event import Event
from metronome.fields import USER_AGENT_FIELDS, restore_bytes
from metronome.protocol import IngestResult, ParsedEvent, ParsedRequest, Reply, Request, bearer_token
from metronome.protocols.native.tick import parse_form_event
from metronome.web.gif import gif_error_reply, gif_reply

_KEY_PARAMETER: Final = "key"


def extract_key(request: Request) -> str:
    """Return the bearer token or the parameter ``key`` (see `Protocol.extract_key`)."""
    keys = [unquote_plus(value) for name, _, value in _iter_query_parameters(request) if name == _KEY_PARAMETER]
    return bearer_token(request.headers) or (keys[-1] if keys else "")


def parse(request: Request) -> ParsedRequest:
    """Parse the event of a request (see `Protocol.parse`)."""
    # The key must not be stored.
    query = "&".join(part for name, part, _ in _iter_query_parameters(request) if name != _KEY_PARAMETER)
    event = _add_browser_fields(parse_form_event(restore_bytes(query).encode(errors="replace")), request)
    return ParsedRequest([event], is_batch=False)


def reply(_: Request, __: ParsedRequest, result: IngestResult) -> Reply:
    """Reply with the image (see `Protocol.reply`)."""
    for error in result.rejected.values():
        return gif_error_reply(error)
    return gif_reply()


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Reply with the image and the error in a header (see `Protocol.reply_error`)."""
    return gif_error_reply(error)


def _iter_query_parameters(request: Request) -> Iterator[tuple[str, str, str]]:
    """Yield each parameter as its decoded name, the undecoded ``name=value``, and the undecoded value."""
    for part in request.query.split("&"):
        name, _, value = part.partition("=")
        yield unquote_plus(name), part, value


def _add_browser_fields(event: ParsedEvent, request: Request) -> ParsedEvent:
    """Add fields from the request that the parameters do not set; the Referer of an image is its page."""
    if not isinstance(event, Event):
        return event
    headers = request.headers
    browser_fields = {"url": headers.get("Referer"), "agent": headers.get("User-Agent"), "clientip": request.client_ip}
    names = {name for name, value in event.fields.items() if value}
    if not names.isdisjoint(USER_AGENT_FIELDS):
        del browser_fields["agent"]
    new_fields = {name: value for name, value in browser_fields.items() if value and name not in names}
    return Event({**event.fields, **new_fields}, event.original) if new_fields else event
