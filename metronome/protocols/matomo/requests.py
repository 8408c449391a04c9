"""Matomo's requests: one in a query, a form or JSON, or many in a bulk.

Sources: https://developer.matomo.org/api-reference/tracking-api, and what Matomo's own trackers and its log
importer send.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import orjson

from metronome.errors import Malformed, PayloadTooLarge
from metronome.protocol import Request, bearer_token

TOKEN_PARAMETER: Final = "token_auth"  # noqa: S105  # a parameter's name

MatomoParameters = Mapping[str, Any]
"""What one thing to be tracked says: text, or whatever JSON can hold."""

_MAX_PARAMETERS: Final = 1000
_ZERO_VALUES: Final = ("0", 0)
_WHITESPACE: Final = b" \t\r\n"


class TrackingRequest(NamedTuple):
    """What a request asks for.

    Attributes:
        things: what is to be tracked, each as its parameters, or why they cannot be read.
        bulk: whether they came as a bulk.
        silent: whether the sender wants no picture and no JSON back.

    """

    entries: Sequence[MatomoParameters | Malformed | PayloadTooLarge]
    is_bulk: bool
    no_content: bool


def parse_tracking_request(request: Request) -> TrackingRequest:
    """Find what a request asks to be tracked.

    Returns:
        Nothing but what came: whether it can be tracked is not looked at.

    Raises:
        Malformed: the body cannot be read.
        PayloadTooLarge: it holds too many parameters, or too many things.

    """
    query = _parse_query(request.query)
    body = _parse_body(request.body)
    if "requests" not in body:
        both = {**body, **query}
        return TrackingRequest([both] if both else [], is_bulk=False, no_content=_declines_image(both))
    things = body["requests"]
    if type(things) is not list:
        raise Malformed('the bulk is no list: send {"requests":["?idsite=1&rec=1&url=…",…]}')
    if len(things) > request.max_events:
        raise PayloadTooLarge(f"the bulk holds over {request.max_events} requests: send fewer at once")
    return TrackingRequest(
        [_parse_bulk_entry(thing) for thing in things], is_bulk=True, no_content=_declines_image(body)
    )


def extract_token(request: Request) -> str:
    """Return the key that a request carries, wherever in it; nothing if there is none or it cannot be read.

    A bulk is one sender's: the key of any part is the key of the whole.
    """
    given = bearer_token(request.headers)
    if given or (TOKEN_PARAMETER not in request.query and TOKEN_PARAMETER.encode() not in request.body):
        return given
    return next(filter(None, _iter_tokens(request)), "")


def looks_like_bulk(body: bytes) -> bool:
    """Tell whether a body looks like that of a bulk, readable or not."""
    return body.lstrip(_WHITESPACE).startswith(b"{") and b'"requests"' in body


def parse_parameters(query: str, body: bytes) -> MatomoParameters:
    """Read the parameters of a query and of a form or JSON object; the query's count where both have one.

    Raises:
        Malformed: the body is broken JSON.
        PayloadTooLarge: there are too many of them.

    """
    return {**_parse_body(body), **_parse_query(query)}


def _iter_tokens(request: Request) -> Iterator[str]:
    try:
        yield _text_or_empty(_parse_query(request.query).get(TOKEN_PARAMETER))
        body = _parse_body(request.body)
        yield _text_or_empty(body.get(TOKEN_PARAMETER))
        things = body.get("requests")
        for thing in things if type(things) is list else ():
            found = _parse_bulk_entry(thing)
            if not isinstance(found, Malformed | PayloadTooLarge):
                yield _text_or_empty(found.get(TOKEN_PARAMETER))
    except (Malformed, PayloadTooLarge):
        # Whoever reads the request says so.
        return


def _text_or_empty(value: object) -> str:
    return value if isinstance(value, str) else ""


def _declines_image(given: MatomoParameters) -> bool:
    image = given.get("send_image")
    return isinstance(image, str | int) and image in _ZERO_VALUES


def _parse_body(body: bytes) -> MatomoParameters:
    if not body.lstrip(_WHITESPACE).startswith((b"{", b"[")):
        return _parse_query(body.decode(errors="replace"))
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error}") from None
    if type(found) is not dict:
        raise Malformed('the body is JSON but no object: send one, or {"requests":["?idsite=1&rec=1&url=…",…]}')
    return found


def _parse_bulk_entry(entry: object) -> MatomoParameters | Malformed | PayloadTooLarge:
    if type(entry) is dict:
        return entry
    if type(entry) is not str:
        return Malformed("it is neither a query, as ?idsite=1&rec=1&url=…, nor an object")
    before, mark, query = entry.partition("?")
    try:
        return _parse_query((query if mark else before).partition("#")[0])
    except PayloadTooLarge as error:
        return error


def _parse_query(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    except ValueError:
        raise PayloadTooLarge(f"the request has over {_MAX_PARAMETERS} parameters: send fewer") from None
