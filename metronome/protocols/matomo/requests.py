"""Parse Matomo's requests: one action in a query, a form or JSON, or many in a bulk.

Sources: https://developer.matomo.org/api-reference/tracking-api, and requests of Matomo's trackers and log importer.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from metronome.errors import Malformed, PayloadTooLarge
from metronome.protocol import (
    Request,
    bearer_token,
    content_charset,
    find_charset,
    json_type_name,
    parse_form,
    parse_json_object,
)

TOKEN_PARAMETER: Final = "token_auth"  # noqa: S105  # a parameter's name

MatomoParameters = Mapping[str, Any]
"""The parameters of one tracked action: text, or whatever JSON can hold."""

_CHARSET_PARAMETER: Final = "cs"
_ZERO_VALUES: Final = ("0", 0)
_WHITESPACE: Final = b" \t\r\n"
_BULK_EXAMPLE: Final = '{"requests":["?idsite=1&rec=1&url=…",…]}'


class TrackingRequest(NamedTuple):
    """The content of a request.

    Attributes:
        entries: the parameters of each action, or why they cannot be read.
        is_bulk: whether the request is a bulk.
        no_content: whether the sender wants neither an image nor JSON in the reply.

    """

    entries: Sequence[MatomoParameters | Malformed | PayloadTooLarge]
    is_bulk: bool
    no_content: bool


def parse_tracking_request(request: Request) -> TrackingRequest:
    """Split a request into tracked actions, without validating them.

    Raises:
        Malformed: the body cannot be read.
        PayloadTooLarge: it holds too many parameters or actions.

    """
    query = _parse_query(request.query)
    body = _parse_body(request.body, content_charset(request.headers))
    if "requests" not in body:
        parameters = {**body, **query}
        entries = [parameters] if parameters else []
        return TrackingRequest(entries, is_bulk=False, no_content=_declines_image(parameters))
    bulk = body["requests"]
    if type(bulk) is not list:
        raise Malformed(f"expected an array of requests, got {json_type_name(bulk)}: send {_BULK_EXAMPLE}")
    if len(bulk) > request.max_events:
        raise PayloadTooLarge(f"over {request.max_events} requests in the bulk: send fewer at once")
    return TrackingRequest(list(map(_parse_bulk_entry, bulk)), is_bulk=True, no_content=_declines_image(body))


def extract_token(request: Request) -> str:
    """Return the request's key from any place that trackers use; empty if there is none or it cannot be read.

    A bulk has one sender: the key of any entry is the key of the whole bulk.
    """
    token = bearer_token(request.headers)
    if token or (TOKEN_PARAMETER not in request.query and TOKEN_PARAMETER.encode() not in request.body):
        return token
    return next(filter(None, _iter_tokens(request)), "")


def looks_like_bulk(body: bytes) -> bool:
    """Return whether a body looks like a bulk, valid or not."""
    return body.lstrip(_WHITESPACE).startswith(b"{") and b'"requests"' in body


def parse_parameters(query: str, body: bytes) -> MatomoParameters:
    """Return the parameters of a query and of a form or JSON object; the query wins where both have one.

    Raises:
        Malformed: the body is invalid JSON.
        PayloadTooLarge: there are too many parameters.

    """
    return {**_parse_body(body), **_parse_query(query)}


def _iter_tokens(request: Request) -> Iterator[str]:
    try:
        yield _text_or_empty(_parse_query(request.query).get(TOKEN_PARAMETER))
        body = _parse_body(request.body)
        yield _text_or_empty(body.get(TOKEN_PARAMETER))
        bulk = body.get("requests")
        for value in bulk if type(bulk) is list else ():
            entry = _parse_bulk_entry(value)
            if not isinstance(entry, Malformed | PayloadTooLarge):
                yield _text_or_empty(entry.get(TOKEN_PARAMETER))
    except (Malformed, PayloadTooLarge):
        # Parsing the request reports the error.
        return


def _text_or_empty(value: object) -> str:
    return value if isinstance(value, str) else ""


def _declines_image(parameters: MatomoParameters) -> bool:
    send_image = parameters.get("send_image")
    return isinstance(send_image, str | int) and send_image in _ZERO_VALUES


def _parse_body(body: bytes, charset: str = "") -> MatomoParameters:
    if body.lstrip(_WHITESPACE).startswith((b"{", b"[")):
        return parse_json_object(body)
    return _parse_query(body, charset)


def _parse_bulk_entry(entry: object) -> MatomoParameters | Malformed | PayloadTooLarge:
    if type(entry) is dict:
        return entry
    if type(entry) is not str:
        return Malformed(f"expected a query, as in ?idsite=1&rec=1&url=…, or an object, got {json_type_name(entry)}")
    before, question_mark, query = entry.partition("?")
    try:
        return _parse_query((query if question_mark else before).partition("#")[0])
    except PayloadTooLarge as error:
        return error


def _parse_query(text: str | bytes, charset: str = "") -> dict[str, str]:
    parameters = dict(parse_form(text, charset))
    if _CHARSET_PARAMETER not in parameters:
        return parameters
    # Of the page. Trackers in browsers send UTF-8 all the same; others send text in it.
    return dict(parse_form(text, find_charset(parameters[_CHARSET_PARAMETER]) or charset))
