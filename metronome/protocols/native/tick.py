"""The native protocol at ``POST /tick``: flat JSON, as an object, an array, lines (NDJSON), or a form.

The first bytes of a body decide between JSON and lines, not its content type: ``sendBeacon`` sends ``text/plain``. A
form needs its content type, and a single line with the content type of NDJSON is answered as a batch.

Events of a page in a browser get the user agent and the IP address of the request. Such requests have an ``Origin``,
which browsers send with each POST; the user agent of a back end says nothing about visitors.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, Final

import orjson

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge
from metronome.event import Event, mark_duplicates
from metronome.fields import USER_AGENT_FIELDS
from metronome.protocol import (
    EVENT_MAX_VALUES,
    IngestResult,
    ParsedEvent,
    ParsedRequest,
    Reply,
    Request,
    bearer_token,
    content_charset,
    count_values,
    json_type_name,
    load_json,
    parse_form,
    problem_reply,
)

FORM_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
NDJSON_CONTENT_TYPES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
_WHITESPACE: Final = b" \t\r\n"
_MAX_SAFE_INTEGER: Final = 2.0**53
"""A float from here on may be a whole number that has lost digits."""
_LARGE_EVENT_BYTES: Final = 32_768
_NO_CONTENT_REPLY: Final = Reply(204)
_CLIENT_FIELDS: Final = (*USER_AGENT_FIELDS, "clientip")
"""An event with one of these describes another client than the sender of the request."""


def extract_key(request: Request) -> str:
    """Return the bearer token (see `Protocol.extract_key`)."""
    return bearer_token(request.headers)


def parse(request: Request) -> ParsedRequest:
    """Parse the events of a request (see `Protocol.parse`)."""
    parsed = _parse_body(request)
    browser_fields = _browser_fields(request) if "Origin" in request.headers else None
    if not browser_fields:
        return parsed
    return parsed._replace(events=map(partial(_add_browser_fields, browser_fields), parsed.events))


def _parse_body(request: Request) -> ParsedRequest:
    body = request.body
    if request.content_type == FORM_CONTENT_TYPE and not body.lstrip(_WHITESPACE).startswith((b"{", b"[")):
        return ParsedRequest([parse_form_event(body, content_charset(request.headers))], is_batch=False)
    if request.content_type in NDJSON_CONTENT_TYPES:
        return ParsedRequest(_parse_ndjson(body, request.max_events), is_batch=True)
    try:
        value = load_json(body)
    except orjson.JSONDecodeError as error:
        return ParsedRequest(_parse_invalid_json(body, request.max_events, error), is_batch=True)
    if type(value) is dict:
        return ParsedRequest([_event_from_object(value, body)], is_batch=False)
    if type(value) is list:
        return ParsedRequest(_parse_array(value, body, request.max_events), is_batch=True)
    raise Malformed(f"expected a JSON object, an array of objects, or lines of objects, got {json_type_name(value)}")


def reply(_: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
    """Reply to a single event with 204 or its error, to a batch with its result (see `Protocol.reply`)."""
    if parsed.is_batch:
        rejected = [{"index": index, "error": str(error)} for index, error in sorted(result.rejected.items())]
        body = orjson.dumps({"accepted": result.accepted, "rejected": rejected})
        return Reply(200, body, "application/json")
    result.raise_rejection()
    return _NO_CONTENT_REPLY


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Describe the error (see `Protocol.reply_error`)."""
    return problem_reply(error)


def parse_form_event(text: bytes, charset: str = "") -> ParsedEvent:
    """Parse a form or query such as ``id=a&event=view``; return the error if it is invalid."""
    try:
        pairs = parse_form(text, charset)
    except PayloadTooLarge as error:
        return error
    if not pairs or b"=" not in text:
        return Malformed("no field in the form: send id=…&event=…")
    return _build_event(dict(pairs), [name for name, _ in pairs], text)


def _build_event(fields: dict[str, Any], names: list[str], text: bytes) -> Event:
    """Build an event from fields of which the sender may have repeated some: the last value counts."""
    if len(names) != len(fields):
        mark_duplicates(fields, names)
    return Event(fields, text)


def _browser_fields(request: Request) -> dict[str, str]:
    """Return the fields that describe the request's client; headers may hold bytes that are not text."""
    agent = request.headers.get("User-Agent", "").encode(errors="replace").decode()
    return {name: text for name, text in (("agent", agent), ("clientip", request.client_ip)) if text}


def _add_browser_fields(browser_fields: dict[str, str], event: ParsedEvent) -> ParsedEvent:
    if type(event) is not Event or any(map(event.fields.get, _CLIENT_FIELDS)):
        return event
    return Event({**event.fields, **browser_fields}, partial(_original_with_fields, event, browser_fields))


def _original_with_fields(event: Event, browser_fields: dict[str, str], _: Mapping[str, Any]) -> bytes:
    """Return an event's text with the added fields and otherwise unchanged."""
    text = event.original(event.fields) if callable(event.original) else event.original
    if text is None or not event.fields or not text.lstrip(_WHITESPACE).startswith(b"{"):
        # The fields of a form are text, which JSON preserves.
        return orjson.dumps({**event.fields, **browser_fields})
    return text.rstrip(_WHITESPACE).removesuffix(b"}") + b"," + orjson.dumps(browser_fields)[1:]


def _event_from_object(fields: dict[str, Any], text: bytes) -> ParsedEvent:
    if text.count(b'":') == len(fields):
        return Event(fields, text)
    return _event_with_duplicates(fields, text)


def _event_with_duplicates(fields: dict[str, Any], text: bytes) -> ParsedEvent:
    """Build an event and mark its duplicate fields, of which the JSON parser returns the last only."""
    if len(text) > _LARGE_EVENT_BYTES and count_values(text) > EVENT_MAX_VALUES:
        # It is rejected, or has long texts: looking for duplicate names would take a second.
        return Event(fields, text)
    names: list[str] = []

    def note_names(pairs: list[tuple[str, Any]]) -> None:
        # Called for inner objects first: after the last call, the names are those of the outer object.
        names[:] = [name for name, _ in pairs]

    try:
        json.JSONDecoder(object_pairs_hook=note_names, parse_int=float).decode(text.decode())
    except (ValueError, RecursionError):
        return Event(fields, text)
    return _build_event(fields, names, text)


def _parse_ndjson(body: bytes, max_events: int) -> Iterator[ParsedEvent]:
    lines = body.split(b"\n")
    if len(lines) > max_events and sum(1 for line in lines if line.strip(_WHITESPACE)) > max_events:
        raise PayloadTooLarge(f"over {max_events} lines: send fewer at once, or raise batch_max_events")
    return _iter_ndjson(lines)


def _iter_ndjson(lines: list[bytes]) -> Iterator[ParsedEvent]:
    """Parse lines one by one as the caller iterates: a batch is never in memory as objects as a whole."""
    for line in lines:
        try:
            value = load_json(line, EVENT_MAX_VALUES)
        except orjson.JSONDecodeError as error:
            if line.strip(_WHITESPACE):
                yield _invalid_json(error)
            continue
        except PayloadTooLarge as error:
            yield error
            continue
        if type(value) is not dict:
            yield _not_an_object(value)
        elif line.count(b'":') == len(value):
            yield Event(value, line)
        else:
            yield _event_with_duplicates(value, line)


def _parse_array(elements: list[Any], body: bytes, max_events: int) -> Iterable[ParsedEvent]:
    if len(elements) > max_events:
        raise _too_many_events(max_events)
    if body.count(b'":') == sum([len(element) for element in elements if type(element) is dict]):
        texts = _ElementTexts(elements, body)
        return [Event(element, texts) if type(element) is dict else _not_an_object(element) for element in elements]
    return _parse_elements(body, max_events)


def _parse_invalid_json(body: bytes, max_events: int, error: ValueError) -> Iterable[ParsedEvent]:
    """Parse a body that is not JSON as a whole: lines, or an array with an invalid element."""
    start = body.lstrip(_WHITESPACE)
    if start.startswith(b"["):
        return _parse_elements(body, max_events)
    if start.startswith(b"{") and b"\n" in start.rstrip(_WHITESPACE):
        events = _parse_ndjson(body, max_events)
        first_events: list[ParsedEvent] = []
        for event in events:
            first_events.append(event)
            if type(event) is Event:
                return chain(first_events, events)
    raise _invalid_json(error)


def _parse_elements(body: bytes, max_events: int) -> Iterator[ParsedEvent]:
    """Parse the elements of an array one by one, so that an invalid element does not affect the others.

    The array is split at once, since an error in it rejects the request; elements are parsed as the caller iterates.
    """
    return map(_parse_element, list(_split_array(body, max_events)))


def _split_array(body: bytes, max_events: int) -> Iterator[bytes]:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"invalid UTF-8: {error.reason} at byte {error.start}") from None
    decoder = json.JSONDecoder(parse_int=float, strict=False)
    offset = _skip_whitespace(text, text.index("[") + 1)
    count = 0
    while text[offset : offset + 1] != "]" or count == 0:
        if text[offset : offset + 1] == "]":
            break
        try:
            _, end = decoder.raw_decode(text, offset)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"invalid JSON array: {error}") from None
        count += 1
        if count > max_events:
            raise _too_many_events(max_events)
        yield text[offset:end].encode()
        offset = _skip_whitespace(text, end)
        if text[offset : offset + 1] == ",":
            offset = _skip_whitespace(text, offset + 1)
        elif text[offset : offset + 1] != "]":
            raise Malformed(f"invalid JSON array: expected ',' or ']' at character {offset}")
    if text[offset + 1 :].strip():
        raise Malformed(f"invalid JSON array: text after its end at character {offset + 1}")


class _ElementTexts:
    """The texts of an array's elements; the array is split only if one of them is needed."""

    def __init__(self, elements: list[Any], body: bytes) -> None:
        self._elements = elements
        self._body = body
        self._texts: dict[int, bytes] = {}

    def __call__(self, fields: Mapping[str, Any]) -> bytes:
        """Return the text of an element, or an equivalent one."""
        if all(map(_is_lossless, fields.values())):
            return orjson.dumps(fields)
        if not self._texts:
            self._texts = dict(zip(map(id, self._elements), _split_array(self._body, len(self._elements)), strict=True))
        return self._texts[id(fields)]


def _is_lossless(value: object) -> bool:
    return type(value) not in (float, list) or (isinstance(value, float) and abs(value) < _MAX_SAFE_INTEGER)


def _parse_element(text: bytes) -> ParsedEvent:
    try:
        value = load_json(text, EVENT_MAX_VALUES)
    except orjson.JSONDecodeError as error:
        return _invalid_json(error)
    except PayloadTooLarge as error:
        return error
    return _event_from_object(value, text) if type(value) is dict else _not_an_object(value)


def _skip_whitespace(text: str, offset: int) -> int:
    while text[offset : offset + 1] and text[offset] in " \t\r\n":
        offset += 1
    return offset


def _invalid_json(error: ValueError) -> Malformed:
    return Malformed(f"invalid JSON: {error}; numbers must be finite, and text UTF-8 without lone surrogates")


def _not_an_object(value: object) -> Malformed:
    return Malformed(f"expected a JSON object as event, got {json_type_name(value)}")


def _too_many_events(max_events: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"over {max_events} events: send fewer at once, or raise batch_max_events")
