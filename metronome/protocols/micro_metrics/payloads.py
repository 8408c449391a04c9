"""What senders write, as the document that is to be stored.

What the addresses of micro-metrics have in common: where the key lies, and how errors look.

Errors have the shape of the web framework that micro-metrics is made with:
``{"statusCode":400,"error":"Bad Request","message":"…"}``.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from metronome.errors import Malformed, MetronomeError, TooLarge
from metronome.protocol import Reply, Request, bearer, headers_of, sentence
from metronome.protocols.micro_metrics.dates import read_date
from metronome.protocols.micro_metrics.documents import read_pairs
from metronome.times import stamp_of

KEY: Final = "key"
"""The parameter in the address that may hold the key."""
_PARAMETERS_MAX: Final = 1000


def key_of(request: Request) -> str:
    """Return the key of ``Authorization: Bearer …`` or of ``?key=…``, or nothing."""
    return bearer(request.headers) or dict(read_query(request.query)).get(KEY, "")


def read_query(query: str) -> list[tuple[str, str]]:
    """Read the parameters of an address or a form, empty ones too; what is no UTF-8 becomes U+FFFD.

    Raises:
        TooLarge: there are more than anyone needs.

    """
    try:
        return parse_qsl(
            query.encode(errors="replace").decode(), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX
        )
    except ValueError:
        raise TooLarge(f"there are over {_PARAMETERS_MAX} parameters: send fewer, or send JSON") from None


def failure(error: MetronomeError, status: int) -> dict[str, Any]:
    """Describe an error in the protocol's own shape."""
    return {"statusCode": status, "error": HTTPStatus(status).phrase, "message": sentence(error)}


def refusal(error: MetronomeError, status: int) -> Reply:
    """Answer with an error in the protocol's own shape."""
    return Reply(status, orjson.dumps(failure(error, status)), "application/json", headers_of(error))


FIELDS: Final = ("type", "tags", "fields", "data", "value", "userId", "userID", "sessionId", "createdOn")
"""All that an event may hold."""

TAGS_MAX: Final = 200
TAG_NAME_MAX_CHARACTERS: Final = 200
_DEFAULT_VALUE: Final = 1
_SHOWN: Final = 60


def read_payload(found: object, arrival: str, identity: str) -> dict[str, Any]:
    """Read one event and return the document that is to be stored.

    Args:
        found: a JSON object. ``type`` is a text; ``tags``, ``fields`` and ``data`` are objects or lists as
            `read_pairs` reads them, ``value`` is anything, ``userId`` (or ``userID``) and ``sessionId`` are texts
            or numbers, ``createdOn`` a time as `read_date` reads it. None and the empty text count as missing,
            but for ``value``, where None is a value.
        arrival: the stamp of an event that brings no time.
        identity: its ``_id``.

    Returns:
        ``type``, ``tags``, ``fields``, ``data``, ``value``, where given ``userId`` and ``sessionId``,
        ``createdOn`` as a stamp, ``tagKeys`` and ``_id``.

    Raises:
        Malformed: it cannot be; the message says why.

    """
    if not isinstance(found, dict):
        raise Malformed('an event is a JSON object with a type, as {"type":"pageview"}')
    unknown = [name for name in found if name not in FIELDS]
    if unknown:
        raise Malformed(f"{_list(unknown)} is not allowed: an event has {', '.join(FIELDS)}")
    tags = _object(found, "tags")
    _check_tags(tags)
    tracked: dict[str, Any] = {
        "type": _type(found.get("type")),
        "tags": tags,
        "fields": _object(found, "fields"),
        "data": _object(found, "data"),
        "value": found.get("value", _DEFAULT_VALUE),
    }
    for name, given in (("userId", _user(found)), ("sessionId", found.get("sessionId"))):
        if given is not None and given != "":
            tracked[name] = _text(name, given)
    created = found.get("createdOn")
    tracked["createdOn"] = arrival if created is None or created == "" else stamp_of(read_date(created))
    tracked["tagKeys"] = list(tags)
    tracked["_id"] = identity
    return tracked


def read_parameters(query: str) -> dict[str, Any]:
    """Read an event from a query or a form: all is text there, but a ``value`` may be any JSON."""
    found: dict[str, Any] = {name: text for name, text in read_query(query) if name != KEY}
    if "value" in found:
        found["value"] = _any(found["value"])
        if found["value"] == "":
            del found["value"]
    return found


def with_sender(found: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Add to an event's ``data`` what is known of whoever sent a request: address, program and referring page."""
    headers = request.headers
    seen = {
        "ip": request.sender,
        "userAgent": _printable(headers.get("User-Agent", "")),
        "referrer": _printable(headers.get("Referer", "")),
    }
    return {**found, "data": {**_object(found, "data"), **{name: text for name, text in seen.items() if text}}}


def encode(tracked: Mapping[str, Any]) -> bytes:
    """Write a document as JSON.

    Raises:
        Malformed: it is nested too deeply.

    """
    try:
        return orjson.dumps(tracked)
    except TypeError as error:
        raise Malformed(f"the event cannot be kept as it is: {error}") from None


def _type(given: object) -> str:
    if given is None or given == "":
        raise Malformed('"type" is required: say what kind of event it is, as {"type":"pageview"}')
    if not isinstance(given, str):
        raise Malformed('"type" must be a string')
    return given


def _object(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    given = found.get(name)
    if isinstance(given, dict):
        return given
    if given is None:
        return {}
    if isinstance(given, str):
        return dict(read_pairs(given))
    raise Malformed(f'"{name}" must be an object, or a string as name:value,name2')


def _check_tags(tags: Mapping[str, Any]) -> None:
    if len(tags) > TAGS_MAX:
        raise Malformed(f'"tags" has over {TAGS_MAX} names: keep the others in "data"')
    if any(len(name) > TAG_NAME_MAX_CHARACTERS for name in tags):
        raise Malformed(f'"tags" has a name of over {TAG_NAME_MAX_CHARACTERS} characters: shorten it')


def _user(found: Mapping[str, Any]) -> object:
    given = found.get("userId")
    return found.get("userID") if given is None or given == "" else given


def _text(name: str, given: object) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return str(given)
    raise Malformed(f'"{name}" must be a string')


def _any(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _list(names: list[str]) -> str:
    shown = ", ".join(f'"{name[:_SHOWN]}"' for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004  # those shown


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode()
