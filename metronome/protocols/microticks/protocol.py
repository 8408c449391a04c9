"""The protocol of microticks: sessions of exhibits, and what is touched in them.

A consumer, that is an app, starts a session with its key and is given a token; with the token alone it sends events
and stops the session. Form fields or JSON come in, JSON goes out, and each reply says its ``status`` in its body too.
The names of fields, replies and errors are those of https://github.com/scriptotek/microticks; what becomes of them is
said in `metronome.protocols.microticks.sessions`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from metronome.errors import Forbidden, Malformed, MetronomeError, PayloadTooLarge, Unauthorized, describe_to_client
from metronome.event import Event
from metronome.protocol import IngestResult, ParsedRequest, Reply, Request, http_error_headers
from metronome.protocols.microticks.sessions import SESSION_NOT_FOUND, SessionAction
from metronome.times import parse_timestamp

INVALID_CONSUMER_KEY: Final = "Invalid consumer_key"
INACTIVE_CONSUMER: Final = "Consumer is not active."
MISSING_KEY: Final = 'Please specify an API key using the "key" query string parameter.'
WRONG_KEY: Final = "The key does not seem to be the right one."

_DESCRIPTIONS: Final[Mapping[str, str]] = {
    INVALID_CONSUMER_KEY: "no consumer that may send has this key: `metronome keys create NAME` makes one",
    INACTIVE_CONSUMER: "the consumer's key has expired or was revoked: `metronome keys create NAME` makes another",
    MISSING_KEY: "the lists need the key in METRONOME_MICROTICKS_KEY, or a Metronome key with the scope query",
    WRONG_KEY: "the key is neither what METRONOME_MICROTICKS_KEY holds nor one of Metronome's with the scope query",
}
_TOKEN_PATTERN: Final = re.compile(r"[0-9a-f]{32}")
_FORM_MAX_FIELDS: Final = 1000
_MULTIPART_CONTENT_TYPE: Final = "multipart/form-data"


class PreparedReplyProtocol:
    """A dialect for one request that was read and decided on: the event that it makes, and what it is answered.

    Args:
        event: what goes on disk before the answer; None for nothing.
        answer: what the reply says beside its status.

    """

    def __init__(self, event: Event | None = None, **answer: str) -> None:
        self._events = [] if event is None else [event]
        self._reply_fields = answer

    def extract_key(self, request: Request) -> str:
        """Return no key: it was looked at already (see `Dialect.key`)."""
        del request
        return ""

    def parse(self, request: Request) -> ParsedRequest:
        """Return the event (see `Dialect.read`)."""
        del request
        return ParsedRequest(self._events, is_batch=False)

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Answer with what was decided (see `Dialect.reply`)."""
        del request, parsed
        for error in result.rejected.values():
            raise error
        return success_reply(**self._reply_fields)

    def reply_error(self, request: Request, error: MetronomeError) -> Reply:
        """Describe the error (see `Dialect.refuse`)."""
        del request
        return error_reply(error)


def success_reply(**fields: str) -> Reply:
    """Answer that all is well, and what else there is to say."""
    return Reply(200, orjson.dumps({"status": 200, **fields}), "application/json")


def error_reply(error: MetronomeError) -> Reply:
    """Describe an error as microticks does: what is wrong with a key is 401."""
    status = 401 if isinstance(error, Forbidden) else error.http_status
    said = (error.public_message or str(error)).encode(errors="backslashreplace").decode()
    told = said if isinstance(error, Malformed) else describe_to_client(error)
    body = {"status": status, "error": said, "description": _DESCRIPTIONS.get(said, told)}
    return Reply(status, orjson.dumps(body), "application/json", http_error_headers(error))


def parse_fields(request: Request) -> dict[str, Any]:
    """Read the fields of a request: a form's, of which the first of each name counts, or those of a JSON object.

    Raises:
        Malformed: it is neither.
        PayloadTooLarge: there are too many.

    """
    body = request.body
    if request.content_type == _MULTIPART_CONTENT_TYPE:
        raise Malformed("the body is in parts: send it as application/x-www-form-urlencoded or as JSON")
    if body.lstrip()[:1] == b"{" or request.content_type.endswith("json"):
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"the body is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise Malformed("the body is JSON but no object: send an object")
        return found
    try:
        pairs = parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=_FORM_MAX_FIELDS)
    except ValueError:
        raise PayloadTooLarge(f"the form has over {_FORM_MAX_FIELDS} fields: send fewer") from None
    return dict(reversed(pairs))


def parse_consumer_key(fields: Mapping[str, Any]) -> str:
    """Return the key of the consumer.

    Raises:
        Unauthorized: there is none.

    """
    key = fields.get("consumer_key")
    if not isinstance(key, str) or not key:
        raise Unauthorized(INVALID_CONSUMER_KEY)
    return key


def parse_tick_timestamp(fields: Mapping[str, Any]) -> str:
    """Return the time ``ts`` as a stamp.

    Raises:
        Malformed: there is none, or it is no time.

    """
    value = _require_parameter(fields, "ts")
    if value == "":
        raise _missing_parameter("ts")
    try:
        return parse_timestamp(value)
    except Malformed as error:
        raise Malformed(f'"ts" is wrong: {error}') from None


def parse_token(fields: Mapping[str, Any]) -> str:
    """Return the token of the session.

    Raises:
        Malformed: there is none, or it cannot be one.

    """
    token = _require_parameter(fields, "token")
    if not isinstance(token, str) or _TOKEN_PATTERN.fullmatch(token) is None:
        raise Malformed(SESSION_NOT_FOUND)
    return token


def parse_action(fields: Mapping[str, Any]) -> SessionAction:
    """Read an event.

    Raises:
        Malformed: one of its fields is missing or cannot be.

    """
    action, data = _require_parameter(fields, "action"), _require_parameter(fields, "data")
    if action == "":
        raise _missing_parameter("action")
    if not isinstance(action, str):
        raise Malformed('"action" is no text: send one as click')
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
