"""Matomo's requests: one in a query, a form or JSON, or many in a bulk.

Sources: https://developer.matomo.org/api-reference/tracking-api, and what Matomo's own trackers and its log
importer send.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import orjson

from metronome.errors import Malformed, TooLarge
from metronome.protocol import Request, bearer

TOKEN: Final = "token_auth"  # noqa: S105  # a parameter's name

Parameters = Mapping[str, Any]
"""What one thing to be tracked says: text, or whatever JSON can hold."""

_MAX_PARAMETERS: Final = 1000
_NO: Final = ("0", 0)
_WHITE: Final = b" \t\r\n"


class Found(NamedTuple):
    """What a request asks for.

    Attributes:
        things: what is to be tracked, each as its parameters, or why they cannot be read.
        bulk: whether they came as a bulk.
        silent: whether the sender wants no picture and no JSON back.

    """

    things: Sequence[Parameters | Malformed | TooLarge]
    bulk: bool
    silent: bool


def find(request: Request) -> Found:
    """Find what a request asks to be tracked.

    Returns:
        Nothing but what came: whether it can be tracked is not looked at.

    Raises:
        Malformed: the body cannot be read.
        TooLarge: it holds too many parameters, or too many things.

    """
    query = _from_text(request.query)
    body = _body(request.body)
    if "requests" not in body:
        both = {**body, **query}
        return Found([both] if both else [], bulk=False, silent=_is_no(both))
    things = body["requests"]
    if type(things) is not list:
        raise Malformed('the bulk is no list: send {"requests":["?idsite=1&rec=1&url=…",…]}')
    if len(things) > request.max_events:
        raise TooLarge(f"the bulk holds over {request.max_events} requests: send fewer at once")
    return Found([_thing(thing) for thing in things], bulk=True, silent=_is_no(body))


def token(request: Request) -> str:
    """Return the key that a request carries, wherever in it; nothing if there is none or it cannot be read.

    A bulk is one sender's: the key of any part is the key of the whole.
    """
    given = bearer(request.headers)
    if given or (TOKEN not in request.query and TOKEN.encode() not in request.body):
        return given
    return next(filter(None, _tokens(request)), "")


def is_bulk(body: bytes) -> bool:
    """Tell whether a body looks like that of a bulk, readable or not."""
    return body.lstrip(_WHITE).startswith(b"{") and b'"requests"' in body


def parameters(query: str, body: bytes) -> Parameters:
    """Read the parameters of a query and of a form or JSON object; the query's count where both have one.

    Raises:
        Malformed: the body is broken JSON.
        TooLarge: there are too many of them.

    """
    return {**_body(body), **_from_text(query)}


def _tokens(request: Request) -> Iterator[str]:
    try:
        yield _text(_from_text(request.query).get(TOKEN))
        body = _body(request.body)
        yield _text(body.get(TOKEN))
        things = body.get("requests")
        for thing in things if type(things) is list else ():
            found = _thing(thing)
            if not isinstance(found, Malformed | TooLarge):
                yield _text(found.get(TOKEN))
    except (Malformed, TooLarge):
        # Whoever reads the request says so.
        return


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_no(given: Parameters) -> bool:
    image = given.get("send_image")
    return isinstance(image, str | int) and image in _NO


def _body(body: bytes) -> Parameters:
    if not body.lstrip(_WHITE).startswith((b"{", b"[")):
        return _from_text(body.decode(errors="replace"))
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error}") from None
    if type(found) is not dict:
        raise Malformed('the body is JSON but no object: send one, or {"requests":["?idsite=1&rec=1&url=…",…]}')
    return found


def _thing(thing: object) -> Parameters | Malformed | TooLarge:
    if type(thing) is dict:
        return thing
    if type(thing) is not str:
        return Malformed("it is neither a query, as ?idsite=1&rec=1&url=…, nor an object")
    before, mark, query = thing.partition("?")
    try:
        return _from_text((query if mark else before).partition("#")[0])
    except TooLarge as error:
        return error


def _from_text(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    except ValueError:
        raise TooLarge(f"the request has over {_MAX_PARAMETERS} parameters: send fewer") from None
