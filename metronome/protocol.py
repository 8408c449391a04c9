"""The port that every protocol stands behind: request in, events and reply out.

A dialect is pure: it opens no socket, reads no clock and keeps nothing between two calls.

The keys that requests carry in their ``Authorization``.

Errors as ``application/problem+json`` (RFC 9457), for protocols without an error shape of their own.
"""

import binascii
import typing
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import orjson

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge, Unauthorized, describe_to_client
from metronome.event import DEFAULT_INGEST_CONFIG, Event, IngestConfig
from metronome.scopes import Scope


def bearer_token(headers: Mapping[str, str]) -> str:
    """Return the key of ``Authorization: Bearer …``, or nothing."""
    return _authorization_parameter(headers, "bearer")


def basic_password(headers: Mapping[str, str]) -> str:
    """Return the password of ``Authorization: Basic …``, or nothing; the user may be any."""
    return _decode_base64(_authorization_parameter(headers, "basic")).partition(":")[2]


def elasticsearch_api_key(headers: Mapping[str, str]) -> str:
    """Return the key of Elasticsearch's ``Authorization: ApiKey …``, or nothing.

    It is sent as the base64 of ``id:key``, where the id may be any; the key alone will do as well.
    """
    given = _authorization_parameter(headers, "apikey")
    return _decode_base64(given).partition(":")[2] or given


def _authorization_parameter(headers: Mapping[str, str], scheme: str) -> str:
    given, _, parameter = headers.get("Authorization", "").partition(" ")
    return parameter.strip() if given.lower() == scheme else ""


def _decode_base64(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


FORM_MAX_FIELDS: Final = 1000


def parse_form(text: str) -> list[tuple[str, str]]:
    """Return the names and values of a query string or a form, in their order, empty values included.

    Raises:
        PayloadTooLarge: it has over `FORM_MAX_FIELDS` fields.

    """
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=FORM_MAX_FIELDS)
    except ValueError:
        raise PayloadTooLarge(f"over {FORM_MAX_FIELDS} parameters: send fewer") from None


def parse_json_object(text: bytes | str) -> dict[str, Any]:
    """Return the fields of a JSON object.

    Raises:
        Malformed: the text is not JSON or not an object.

    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"invalid JSON: {error}") from None
    if type(value) is not dict:
        raise Malformed(f"expected a JSON object, got {json_type_name(value)}")
    return value


def json_type_name(value: object) -> str:
    """Return what a parsed JSON value is, for error messages, such as ``an array``."""
    return _JSON_TYPE_NAMES.get(type(value), "null")


_JSON_TYPE_NAMES: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
}


ParsedEvent = Event | Malformed | PayloadTooLarge
"""One event of a request, or why it could not be read."""

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class ParsedRequest(NamedTuple):
    """What a request holds.

    Attributes:
        events: in their order, to be gone through once.
        batch: whether the sender asked for several events, and so expects to hear of each.
        notes: whatever the dialect's reply needs to know of what it read.

    """

    events: Iterable[ParsedEvent]
    is_batch: bool
    context: Any = None


class Request(NamedTuple):
    """What a dialect reads.

    Attributes:
        body: decoded, that is without its Content-Encoding; of a protocol over TCP or UDP, one frame.
        content_type: the media type in lower case, without parameters; may be empty.
        max_events: how many events one request may hold.
        method: of HTTP, in capitals.
        path: of HTTP, what follows the protocol's own prefix, percent-encoded as it came.
        query: of HTTP, as it came, without its question mark.
        headers: of HTTP; their names are found in any case.
        sender: the address of whoever sent it, or empty.
        arrival: when it came, as a stamp (see `metronome.times`).
        identities: new names for its events, one for each ``next``; None where the dialect needs none. A dialect
            names all its events or none.
        believed: whether the sender may say of any time and address that it happened then and there.
        config: of the server.

    """

    body: bytes
    content_type: str
    max_events: int
    method: str = "POST"
    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = _NO_HEADERS
    client_ip: str = ""
    received_at: str = ""
    event_ids: Iterator[str] | None = None
    is_trusted: bool = False
    config: IngestConfig = DEFAULT_INGEST_CONFIG


class IngestResult(NamedTuple):
    """What became of a request's events.

    Attributes:
        accepted: how many are on disk.
        rejected: why the others are not, by their position in the request, from 0.

    """

    accepted: int
    rejected: Mapping[int, Malformed | PayloadTooLarge]


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer.

    Attributes:
        status: of HTTP.
        body: of a protocol over TCP, what is written back.
        content_type: of HTTP.
        headers: of HTTP. Any origin may read the reply unless they say otherwise.

    """

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Protocol(typing.Protocol):
    """One protocol; a module with these functions is one.

    An address of a protocol that takes no events, such as a handshake's, has none in its readings.
    """

    def extract_key(self, request: Request) -> str:
        """Return the key that the request carries where the protocol has its place, or nothing."""

    def parse(self, request: Request) -> ParsedRequest:
        """Read a request's events; one that cannot be read fails no other.

        Raises:
            Malformed: nothing in the request can be read.
            PayloadTooLarge: it holds more events than it may.

        """

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Say what became of the events, in the protocol's own way. What is called accepted is on disk.

        Raises:
            Malformed, PayloadTooLarge: the protocol answers a single event that was rejected as an error.

        """

    def reply_error(self, request: Request, error: MetronomeError) -> Reply:
        """Say in the protocol's own way that nothing of a request was taken.

        Args:
            request: as far as it could be read: its body is empty where that failed.
            error: why. The protocol may have a better HTTP status for it than ``error.http_status``.

        """


RETRY_AFTER_SECONDS: Final = 5


def problem_reply(error: MetronomeError) -> Reply:
    """Return the ``application/problem+json`` (RFC 9457) that describes an error to a client."""
    name, status = type(error).__name__, error.http_status
    body = {
        "type": f"urn:metronome:error:{name}",
        "title": name,
        "status": status,
        "detail": describe_to_client(error),
    }
    return Reply(status, orjson.dumps(body), "application/problem+json", http_error_headers(error))


def http_error_headers(error: MetronomeError) -> dict[str, str]:
    """Return the headers that HTTP wants for an error, whatever the shape of the body."""
    headers = {}
    if error.retry:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="metronome"'
    return headers


class Endpoint(NamedTuple):
    """One address and what is spoken at it.

    Attributes:
        method: of HTTP, in capitals; ``*`` for any.
        prefix: what all addresses of the protocol begin with; it is no part of what the dialect sees.
        path: the rest, with ``{name}`` or ``{name:pattern}`` for what varies.
        dialect: reads and answers what is sent there.
        scope: what a key must allow here.
        lenient: whether a key that is unknown counts as none, since trackers bring the key of another system.
        credentials: whether pages of other origins send it with their cookies, as some trackers do; none is looked at.

    """

    method: str
    prefix: str
    path: str
    dialect: Protocol
    scope: Scope = Scope.TICK
    lenient: bool = False
    credentials: bool = False
