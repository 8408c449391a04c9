"""The interface of protocols: a request comes in, events and a reply go out.

Also, what several protocols need: keys in the ``Authorization`` header, form and JSON bodies, and errors as
``application/problem+json`` (RFC 9457).
"""

import binascii
import codecs
import re
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
from metronome.fields import restore_bytes
from metronome.scopes import Scope


def bearer_token(headers: Mapping[str, str]) -> str:
    """Return the key of ``Authorization: Bearer …``, or an empty text."""
    return _authorization_parameter(headers, "bearer")


def basic_password(headers: Mapping[str, str]) -> str:
    """Return the password of ``Authorization: Basic …`` with any user, or an empty text."""
    return _decode_base64(_authorization_parameter(headers, "basic")).partition(":")[2]


def elasticsearch_api_key(headers: Mapping[str, str]) -> str:
    """Return the key of Elasticsearch's ``Authorization: ApiKey …``, or an empty text.

    Its parameter is the base64 of ``id:key`` with any ID, or the key alone.
    """
    parameter = _authorization_parameter(headers, "apikey")
    return _decode_base64(parameter).partition(":")[2] or parameter


def _authorization_parameter(headers: Mapping[str, str], scheme: str) -> str:
    actual_scheme, _, parameter = headers.get("Authorization", "").partition(" ")
    return parameter.strip() if actual_scheme.lower() == scheme else ""


def _decode_base64(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


FORM_MAX_FIELDS: Final = 1000


_CHARSET_PARAMETER: Final = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_CHARSET: Final = re.compile(
    r"(?:iso-?8859|windows|cp|koi8|latin|mac|ibm|tis|gb|big5|euc|shift|sjis|iso-?2022|ks|hz|utf)[a-z0-9_.:-]*"
    r"|(?:us-)?ascii",
    re.IGNORECASE,
)
"""Python has codecs that are no charsets, such as ``zip``."""
_UTF8_NAMES: Final = frozenset({"utf-8", "utf-8-sig"})
_LATIN1_NAMES: Final = frozenset({"iso8859-1", "ascii"})


def find_charset(name: str) -> str:
    """Return Python's name of a charset, or an empty text if it is UTF-8, unknown, or no charset."""
    try:
        codec = codecs.lookup(name).name if _CHARSET.fullmatch(name) else ""
    except (LookupError, ValueError):
        return ""
    # Browsers mean Windows' charset by these names, which has more characters.
    return "" if codec in _UTF8_NAMES else "cp1252" if codec in _LATIN1_NAMES else codec


def content_charset(headers: Mapping[str, str]) -> str:
    """Return the charset in the header ``Content-Type`` (see `find_charset`), or an empty text."""
    match = _CHARSET_PARAMETER.search(headers.get("Content-Type", ""))
    return find_charset(match[1]) if match else ""


def parse_form(text: str | bytes, charset: str = "") -> list[tuple[str, str]]:
    """Return the names and values of a query string or a form, in their order, empty values included.

    Args:
        text: percent-encoded. Text in UTF-8 is read as such whatever the charset is.
        charset: of names and values that are not UTF-8 (see `find_charset`). Without it, their bytes stay encoded.

    Raises:
        PayloadTooLarge: it has over `FORM_MAX_FIELDS` fields.

    """
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FORM_MAX_FIELDS, errors="surrogateescape")
    except ValueError:
        raise PayloadTooLarge(f"over {FORM_MAX_FIELDS} parameters: send fewer") from None
    if "%" not in text and text.isascii():
        return pairs
    return [(restore_bytes(name, charset), restore_bytes(value, charset)) for name, value in pairs]


JSON_MAX_VALUES: Final = 1_000_000
"""Maximum number of values in one JSON text: a million of the smallest ones take a tenth of a second."""
EVENT_MAX_VALUES: Final = 50_000
"""Maximum number of values in one event, however they are nested."""
_COUNTED_MIN_BYTES: Final = 32_768
"""A shorter text cannot hold many values."""


def load_json(text: bytes | str, max_values: int = JSON_MAX_VALUES) -> Any:
    """Return the value of a JSON text, unless parsing it would stop the process for long.

    Args:
        text: of any size.
        max_values: maximum number of elements and fields, in all arrays and objects.

    Raises:
        orjson.JSONDecodeError: the text is not JSON.
        PayloadTooLarge: it has too many values.

    """
    if len(text) > _COUNTED_MIN_BYTES and count_values(text) > max_values:
        raise PayloadTooLarge(f"the JSON has over {max_values:,} values: send fewer at once")
    return orjson.loads(text)


def count_values(text: bytes | str) -> int:
    """Return how many values a JSON text has at most; commas in its texts count as well."""
    if isinstance(text, str):
        text = text.encode(errors="replace")
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def parse_json_object(text: bytes | str) -> dict[str, Any]:
    """Return the fields of a JSON object.

    Raises:
        Malformed: the text is not JSON or not an object.
        PayloadTooLarge: it has too many values.

    """
    try:
        value = load_json(text)
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
"""An event of a request, or the error for one that could not be parsed."""

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class ParsedRequest(NamedTuple):
    """The contents of a request.

    Attributes:
        events: in order, to be iterated once.
        is_batch: whether the sender sent a batch, and expects a result for each of its events.
        context: what the protocol needs to build the reply.

    """

    events: Iterable[ParsedEvent]
    is_batch: bool
    context: Any = None


class Request(NamedTuple):
    """A request as a protocol parses it.

    Attributes:
        body: decoded from its Content-Encoding; one frame of a protocol over TCP or UDP.
        content_type: the media type in lower case, without parameters; may be empty.
        max_events: the maximum number of events.
        method: the HTTP method in capitals.
        path: the part of the URL's path after the protocol's prefix, percent-encoded.
        query: the query of the URL, without the question mark.
        headers: the HTTP headers; their names are case-insensitive.
        client_ip: the IP address of the client, or empty.
        received_at: the timestamp of receipt (see `metronome.times`).
        event_ids: yields IDs for the events; None if the protocol needs none. A protocol names all its events or none.
        is_trusted: whether the sender may set any time and IP address.
        config: the server's.

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
    """The outcome for a request's events.

    Attributes:
        accepted: the number of events on disk.
        rejected: the errors of all other events, by their position in the request, from 0.

    """

    accepted: int
    rejected: Mapping[int, Malformed | PayloadTooLarge]

    def raise_rejection(self) -> None:
        """Raise the error of the first rejected event, if there is one: a reply to a single event has its error."""
        for error in self.rejected.values():
            raise error


@dataclass(frozen=True, slots=True)
class Reply:
    """A protocol's reply to a request.

    Attributes:
        status: the HTTP status.
        body: of HTTP, or the bytes to write to a TCP connection.
        content_type: of HTTP.
        headers: of HTTP. Any origin may read the reply unless they say otherwise.

    """

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Protocol(typing.Protocol):
    """A protocol: parses requests into events, and builds replies. A module with these functions is one.

    A protocol is pure: it opens no socket, reads no clock and keeps no state between calls. Requests without events,
    such as handshakes, are parsed into no events.
    """

    def extract_key(self, request: Request) -> str:
        """Return the key that the request contains where the protocol specifies it, or an empty text."""

    def parse(self, request: Request) -> ParsedRequest:
        """Parse a request's events. One that is malformed does not affect the others.

        Raises:
            Malformed: the request cannot be parsed at all.
            PayloadTooLarge: it has too many events.

        """

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Return the reply to a request. Accepted events are on disk.

        Raises:
            Malformed, PayloadTooLarge: the only event was rejected, and the protocol reports that as an error.

        """

    def reply_error(self, request: Request, error: MetronomeError) -> Reply:
        """Return the reply to a request of which no event was accepted.

        Args:
            request: its body is empty if it could not be read.
            error: the reason. The protocol may have a better HTTP status for it than ``error.http_status``.

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
    """Return the HTTP headers of a response with this error, in whatever format its body is."""
    headers = {}
    if error.retry:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="metronome"'
    return headers


class Endpoint(NamedTuple):
    """A route of a protocol.

    Attributes:
        method: the HTTP method in capitals; ``*`` for any.
        prefix: the path that all routes of the protocol begin with; the protocol does not see it.
        path: the rest of the path, with ``{name}`` or ``{name:pattern}`` for variable parts.
        protocol: parses requests and builds replies.
        scope: the scope that a key needs.
        ignore_invalid_key: whether an unknown key counts as none, because trackers send the key of another system.
        key_in_body: whether the body may hold the key; otherwise the key is checked before the body is read.
        allow_credentials: whether pages of other origins may send cookies, as beacons always do. Cookies are ignored.

    """

    method: str
    prefix: str
    path: str
    protocol: Protocol
    scope: Scope = Scope.TICK
    ignore_invalid_key: bool = False
    key_in_body: bool = False
    allow_credentials: bool = True
