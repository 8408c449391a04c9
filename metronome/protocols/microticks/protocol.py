"""The requests and replies of microticks.

A request has form fields or JSON. A reply is JSON, and has its ``status`` in the body, too. The names of fields, the
replies and the errors are those of https://github.com/scriptotek/microticks.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from metronome.errors import Forbidden, Malformed, MetronomeError, Unauthorized, describe_to_client
from metronome.protocol import Reply, http_error_headers, parse_form, parse_json_object
from metronome.protocols.microticks.sessions import SESSION_NOT_FOUND, SessionAction
from metronome.times import parse_timestamp

INVALID_CONSUMER_KEY: Final = "Invalid consumer_key"
INACTIVE_CONSUMER: Final = "Consumer is not active."
MISSING_KEY: Final = 'Please specify an API key using the "key" query string parameter.'
WRONG_KEY: Final = "The key does not seem to be the right one."

_DESCRIPTIONS: Final[Mapping[str, str]] = {
    INVALID_CONSUMER_KEY: "no active key with the scope tick: `metronome keys create NAME` creates one",
    INACTIVE_CONSUMER: "the consumer's key has expired or was revoked: `metronome keys create NAME` creates another",
    MISSING_KEY: "lists need the key in METRONOME_MICROTICKS_KEY or a Metronome key with the scope query",
    WRONG_KEY: "the key is neither the one in METRONOME_MICROTICKS_KEY nor a Metronome key with the scope query",
}
_TOKEN_PATTERN: Final = re.compile(r"[0-9a-f]{32}")
_JSON_CONTENT_TYPE: Final = "application/json"


def success_reply(**fields: str) -> Reply:
    """Return a reply with status 200 and these fields."""
    return Reply(200, orjson.dumps({"status": 200, **fields}), _JSON_CONTENT_TYPE)


def error_reply(error: MetronomeError) -> Reply:
    """Return the reply for an error as microticks does: every problem with a key is 401."""
    status = 401 if isinstance(error, Forbidden) else error.http_status
    message = (error.public_message or str(error)).encode(errors="backslashreplace").decode()
    description = message if isinstance(error, Malformed) else describe_to_client(error)
    body = {"status": status, "error": message, "description": _DESCRIPTIONS.get(message, description)}
    return Reply(status, orjson.dumps(body), _JSON_CONTENT_TYPE, http_error_headers(error))


def parse_fields(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the fields of a form, where the first value of each name counts, or of a JSON object.

    Raises:
        Malformed: the body is neither.
        PayloadTooLarge: the form has too many fields.

    """
    if body.lstrip()[:1] == b"{" or content_type.endswith("json"):
        return parse_json_object(body)
    return dict(reversed(parse_form(body)))


def parse_consumer_key(fields: Mapping[str, Any]) -> str:
    """Return the key of the consumer.

    Raises:
        Unauthorized: the request has none.

    """
    key = fields.get("consumer_key")
    if not isinstance(key, str) or not key:
        raise Unauthorized(INVALID_CONSUMER_KEY)
    return key


def parse_tick_timestamp(fields: Mapping[str, Any]) -> str:
    """Return the timestamp of ``ts``.

    Raises:
        Malformed: it is missing or invalid.

    """
    value = _require_parameter(fields, "ts")
    if value == "":
        raise _missing_parameter("ts")
    try:
        return parse_timestamp(value)
    except Malformed as error:
        raise Malformed(f'invalid "ts": {error}') from None


def parse_token(fields: Mapping[str, Any]) -> str:
    """Return the token of the session.

    Raises:
        Malformed: it is missing or invalid.

    """
    token = _require_parameter(fields, "token")
    if not isinstance(token, str) or _TOKEN_PATTERN.fullmatch(token) is None:
        raise Malformed(SESSION_NOT_FOUND)
    return token


def parse_action(fields: Mapping[str, Any]) -> SessionAction:
    """Return the action that a request describes.

    Raises:
        Malformed: one of its fields is missing or invalid.

    """
    action, data = _require_parameter(fields, "action"), _require_parameter(fields, "data")
    if action == "":
        raise _missing_parameter("action")
    if not isinstance(action, str):
        raise Malformed('invalid "action": expected a string such as click')
    return SessionAction(
        action, data if isinstance(data, str) else orjson.dumps(data).decode(), parse_tick_timestamp(fields)
    )


def _require_parameter(fields: Mapping[str, Any], name: str) -> Any:
    value = fields.get(name)
    if value is None:
        raise _missing_parameter(name)
    return value


def _missing_parameter(name: str) -> Malformed:
    return Malformed(f'No "{name}" parameter provided')
