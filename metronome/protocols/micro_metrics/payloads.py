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

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge, describe_to_client
from metronome.protocol import Reply, Request, bearer_token, http_error_headers
from metronome.protocols.micro_metrics.dates import parse_javascript_date
from metronome.protocols.micro_metrics.documents import parse_pairs
from metronome.times import format_timestamp

KEY_PARAMETER: Final = "key"
"""The parameter in the address that may hold the key."""
_MAX_PARAMETERS: Final = 1000


def extract_request_key(request: Request) -> str:
    """Return the key of ``Authorization: Bearer …`` or of ``?key=…``, or nothing."""
    return bearer_token(request.headers) or dict(parse_query(request.query)).get(KEY_PARAMETER, "")


def parse_query(query: str) -> list[tuple[str, str]]:
    """Read the parameters of an address or a form, empty ones too; what is no UTF-8 becomes U+FFFD.

    Raises:
        PayloadTooLarge: there are more than anyone needs.

    """
    try:
        return parse_qsl(
            query.encode(errors="replace").decode(), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        raise PayloadTooLarge(f"there are over {_MAX_PARAMETERS} parameters: send fewer, or send JSON") from None


def error_body(error: MetronomeError) -> dict[str, Any]:
    """Describe an error in the protocol's own shape."""
    status = error.http_status
    return {"statusCode": status, "error": HTTPStatus(status).phrase, "message": describe_to_client(error)}


def error_reply(error: MetronomeError) -> Reply:
    """Answer with an error in the protocol's own shape."""
    return Reply(error.http_status, orjson.dumps(error_body(error)), "application/json", http_error_headers(error))


ALLOWED_FIELDS: Final = ("type", "tags", "fields", "data", "value", "userId", "userID", "sessionId", "createdOn")
"""All that an event may hold."""

TAGS_MAX: Final = 200
TAG_NAME_MAX_CHARACTERS: Final = 200
_DEFAULT_VALUE: Final = 1
_SHOWN_CHARACTERS: Final = 60


def parse_payload(payload: object, received_at: str, document_id: str) -> dict[str, Any]:
    """Read one event and return the document that is to be stored.

    Args:
        payload: a JSON object. ``type`` is a text; ``tags``, ``fields`` and ``data`` are objects or lists as
            `parse_pairs` reads them, ``value`` is anything, ``userId`` (or ``userID``) and ``sessionId`` are texts
            or numbers, ``createdOn`` a time as `parse_javascript_date` reads it. None and the empty text count as
            missing,
            but for ``value``, where None is a value.
        received_at: the stamp of an event that brings no time.
        document_id: its ``_id``.

    Returns:
        ``type``, ``tags``, ``fields``, ``data``, ``value``, where given ``userId`` and ``sessionId``,
        ``createdOn`` as a stamp, ``tagKeys`` and ``_id``.

    Raises:
        Malformed: it cannot be; the message says why.

    """
    if not isinstance(payload, dict):
        raise Malformed('an event is a JSON object with a type, as {"type":"pageview"}')
    unknown = [name for name in payload if name not in ALLOWED_FIELDS]
    if unknown:
        raise Malformed(f"{_format_names(unknown)} is not allowed: an event has {', '.join(ALLOWED_FIELDS)}")
    tags = _parse_group(payload, "tags")
    _check_tags(tags)
    tracked: dict[str, Any] = {
        "type": _parse_type(payload.get("type")),
        "tags": tags,
        "fields": _parse_group(payload, "fields"),
        "data": _parse_group(payload, "data"),
        "value": payload.get("value", _DEFAULT_VALUE),
    }
    for name, given in (("userId", _user_id(payload)), ("sessionId", payload.get("sessionId"))):
        if given is not None and given != "":
            tracked[name] = _parse_text_field(name, given)
    created = payload.get("createdOn")
    tracked["createdOn"] = (
        received_at if created is None or created == "" else format_timestamp(parse_javascript_date(created))
    )
    tracked["tagKeys"] = list(tags)
    tracked["_id"] = document_id
    return tracked


def parse_query_payload(query: str) -> dict[str, Any]:
    """Read an event from a query or a form: all is text there, but a ``value`` may be any JSON."""
    found: dict[str, Any] = {name: text for name, text in parse_query(query) if name != KEY_PARAMETER}
    if "value" in found:
        found["value"] = _parse_json_or_text(found["value"])
        if found["value"] == "":
            del found["value"]
    return found


def add_client_data(payload: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Add to an event's ``data`` what is known of whoever sent a request: address, program and referring page."""
    headers = request.headers
    seen = {
        "ip": request.client_ip,
        "userAgent": _replace_surrogates(headers.get("User-Agent", "")),
        "referrer": _replace_surrogates(headers.get("Referer", "")),
    }
    return {**payload, "data": {**_parse_group(payload, "data"), **{name: text for name, text in seen.items() if text}}}


def encode_document(document: Mapping[str, Any]) -> bytes:
    """Write a document as JSON.

    Raises:
        Malformed: it is nested too deeply.

    """
    try:
        return orjson.dumps(document)
    except TypeError as error:
        raise Malformed(f"the event cannot be kept as it is: {error}") from None


def _parse_type(value: object) -> str:
    if value is None or value == "":
        raise Malformed('"type" is required: say what kind of event it is, as {"type":"pageview"}')
    if not isinstance(value, str):
        raise Malformed('"type" must be a string')
    return value


def _parse_group(payload: Mapping[str, Any], name: str) -> dict[str, Any]:
    given = payload.get(name)
    if isinstance(given, dict):
        return given
    if given is None:
        return {}
    if isinstance(given, str):
        return dict(parse_pairs(given))
    raise Malformed(f'"{name}" must be an object, or a string as name:value,name2')


def _check_tags(tags: Mapping[str, Any]) -> None:
    if len(tags) > TAGS_MAX:
        raise Malformed(f'"tags" has over {TAGS_MAX} names: keep the others in "data"')
    if any(len(name) > TAG_NAME_MAX_CHARACTERS for name in tags):
        raise Malformed(f'"tags" has a name of over {TAG_NAME_MAX_CHARACTERS} characters: shorten it')


def _user_id(payload: Mapping[str, Any]) -> object:
    given = payload.get("userId")
    return payload.get("userID") if given is None or given == "" else given


def _parse_text_field(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise Malformed(f'"{name}" must be a string')


def _parse_json_or_text(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _format_names(names: list[str]) -> str:
    shown = ", ".join(f'"{name[:_SHOWN_CHARACTERS]}"' for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004  # those shown


def _replace_surrogates(text: str) -> str:
    return text.encode(errors="replace").decode()
