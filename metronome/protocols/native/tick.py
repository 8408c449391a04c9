"""The native protocol: flat JSON, alone, in an array, as lines (NDJSON), or as a form.

What a body holds is told from its first bytes, whatever its content type says: ``sendBeacon`` sends
``text/plain``. Only a form must call itself one, and a single line that calls itself NDJSON is answered as a batch.

A page in a browser speaks for who looks at it, so its events get the agent and the address of the request. It is
known by its ``Origin``, which browsers send with each POST; what a back end sends with says nothing of people.

Flat fields as browsers write them, in a form's body or in an address: ``id=a&event=view``.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge
from metronome.event import REPEATED_FIELDS, Event
from metronome.fields import USER_AGENT_FIELDS
from metronome.protocol import IngestResult, ParsedEvent, ParsedRequest, Reply, Request, bearer_token, problem_reply

_FORM_MAX_FIELDS: Final = 1000


def parse_form_event(text: bytes) -> ParsedEvent:
    """Read an event that is written as a form."""
    try:
        pairs = parse_qsl(text.decode(errors="replace"), keep_blank_values=True, max_num_fields=_FORM_MAX_FIELDS)
    except ValueError:
        return PayloadTooLarge(f"the form has over {_FORM_MAX_FIELDS} fields: send fewer, or send JSON")
    if not pairs or b"=" not in text:
        return Malformed("the form holds no field: send id=…&event=…")
    return build_event_marking_duplicates(dict(pairs), [name for name, _ in pairs], text)


def build_event_marking_duplicates(fields: Mapping[str, Any], field_names: Sequence[str], original: bytes) -> Event:
    """Make an event of fields of which some may have been given twice: the last one counts, the text keeps all.

    Args:
        fields: the fields.
        field_names: those of all fields that were given, in their order.
        original: what they were read from.

    """
    if len(field_names) == len(fields):
        return Event(fields, original)
    return Event(
        {**fields, REPEATED_FIELDS: sorted(name for name, times in Counter(field_names).items() if times > 1)}, original
    )


FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
NDJSON_CONTENT_TYPES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
_WHITESPACE = b" \t\r\n"
_MAX_SAFE_INTEGER = 2.0**53
"""A float from here on may be a whole number that has lost its last digits."""
_NO_CONTENT_REPLY = Reply(204)
_CLIENT_FIELDS = (*USER_AGENT_FIELDS, "clientip")
"""An event that has one of these speaks of somebody else than the request does."""


def extract_key(request: Request) -> str:
    """Return the key of the request (see `Dialect.key`)."""
    return bearer_token(request.headers)


def parse(request: Request) -> ParsedRequest:
    """Read the events of a ``POST /tick`` (see `Dialect.read`)."""
    readings = _parse_body(request)
    told = _browser_fields(request) if "Origin" in request.headers else None
    return readings._replace(events=map(partial(_add_browser_fields, told), readings.events)) if told else readings


def _parse_body(request: Request) -> ParsedRequest:
    body = request.body
    if request.content_type == FORM_CONTENT_TYPE and not body.lstrip(_WHITESPACE).startswith((b"{", b"[")):
        return ParsedRequest([parse_form_event(body)], is_batch=False)
    if request.content_type in NDJSON_CONTENT_TYPES:
        return ParsedRequest(_parse_ndjson(body, request.max_events), is_batch=True)
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return ParsedRequest(_parse_invalid_json(body, request.max_events, error), is_batch=True)
    if type(found) is dict:
        return ParsedRequest([_event_from_object(found, body)], is_batch=False)
    if type(found) is list:
        return ParsedRequest(_parse_array(found, body, request.max_events), is_batch=True)
    raise Malformed("the body is JSON but holds no event: send an object, an array of objects, or lines of objects")


def reply(_: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
    """Answer a single event with 204, or its error; a batch with what became of each (see `Dialect.reply`)."""
    if parsed.is_batch:
        rejected = [{"index": index, "error": str(error)} for index, error in sorted(result.rejected.items())]
        answer = orjson.dumps({"accepted": result.accepted, "rejected": rejected})
        return Reply(200, answer, "application/json")
    result.raise_rejection()
    return _NO_CONTENT_REPLY


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Describe the error (see `Dialect.refuse`)."""
    return problem_reply(error)


def _browser_fields(request: Request) -> dict[str, str]:
    """Return what a browser's request says of who sent it; a header may hold bytes that are no text."""
    agent = request.headers.get("User-Agent", "").encode(errors="replace").decode()
    return {name: text for name, text in (("agent", agent), ("clientip", request.client_ip)) if text}


def _add_browser_fields(browser_fields: dict[str, str], event: ParsedEvent) -> ParsedEvent:
    if type(event) is not Event or any(map(event.fields.get, _CLIENT_FIELDS)):
        return event
    return Event({**event.fields, **browser_fields}, partial(_original_with_fields, event, browser_fields))


def _original_with_fields(event: Event, browser_fields: dict[str, str], _: Mapping[str, Any]) -> bytes:
    """Return the text of an event with what was added to it, and nothing else changed."""
    text = event.original(event.fields) if callable(event.original) else event.original
    if text is None or not event.fields or not text.lstrip(_WHITESPACE).startswith(b"{"):
        # A form's fields are texts: nothing is lost of them.
        return orjson.dumps({**event.fields, **browser_fields})
    return text.rstrip(_WHITESPACE).removesuffix(b"}") + b"," + orjson.dumps(browser_fields)[1:]


def _event_from_object(fields: dict[str, Any], text: bytes) -> ParsedEvent:
    if text.count(b'":') == len(fields):
        return Event(fields, text)
    return _event_with_duplicates(fields, text)


def _event_with_duplicates(fields: dict[str, Any], text: bytes) -> ParsedEvent:
    """Keep what parsing an object loses: of two fields of one name, the parser gives the last only."""
    names: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        # Called innermost first: what it holds after the last call are the outer object's names.
        names[:] = [name for name, _ in pairs]

    try:
        json.JSONDecoder(object_pairs_hook=note, parse_int=float).decode(text.decode())
    except (ValueError, RecursionError):
        return Event(fields, text)
    return build_event_marking_duplicates(fields, names, text)


def _parse_ndjson(body: bytes, max_events: int) -> Iterator[ParsedEvent]:
    lines = body.split(b"\n")
    if len(lines) > max_events and sum(1 for line in lines if line.strip(_WHITESPACE)) > max_events:
        raise PayloadTooLarge(f"the body holds over {max_events} lines: send fewer at once, or raise batch_max_events")
    return _iter_ndjson(lines)


def _iter_ndjson(lines: list[bytes]) -> Iterator[ParsedEvent]:
    """Read line by line as they are asked for: a batch is never there as objects all at once."""
    for line in lines:
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if line.strip(_WHITESPACE):
                yield _invalid_json(error)
            continue
        if type(found) is not dict:
            yield _not_an_object(found)
        elif line.count(b'":') == len(found):
            yield Event(found, line)
        else:
            yield _event_with_duplicates(found, line)


def _parse_array(elements: list[Any], body: bytes, max_events: int) -> Sequence[ParsedEvent]:
    if len(elements) > max_events:
        raise _too_many_events(max_events)
    if body.count(b'":') == sum([len(inner) for inner in elements if type(inner) is dict]):
        texts = _ElementTexts(elements, body)
        return [Event(inner, texts) if type(inner) is dict else _not_an_object(inner) for inner in elements]
    return list(_parse_elements(body, max_events))


def _parse_invalid_json(body: bytes, max_events: int, error: ValueError) -> Iterable[ParsedEvent]:
    """Read what is no JSON as a whole: lines, or an array in which an element is broken."""
    start = body.lstrip(_WHITESPACE)
    if start.startswith(b"["):
        return list(_parse_elements(body, max_events))
    if start.startswith(b"{") and b"\n" in start.rstrip(_WHITESPACE):
        readings = _parse_ndjson(body, max_events)
        before: list[ParsedEvent] = []
        for reading in readings:
            before.append(reading)
            if type(reading) is Event:
                return chain(before, readings)
    raise _invalid_json(error)


def _parse_elements(body: bytes, max_events: int) -> Iterator[ParsedEvent]:
    """Read an array by its elements' own texts, so that a broken element fails no other."""
    return map(_parse_element, _split_array(body, max_events))


def _split_array(body: bytes, max_events: int) -> Iterator[bytes]:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is no UTF-8: {error.reason} at byte {error.start}") from None
    decoder = json.JSONDecoder(parse_int=float, strict=False)
    at = _skip_whitespace(text, text.index("[") + 1)
    count = 0
    while text[at : at + 1] != "]" or count == 0:
        if text[at : at + 1] == "]":
            break
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"the body is no JSON array: {error}") from None
        count += 1
        if count > max_events:
            raise _too_many_events(max_events)
        yield text[at:end].encode()
        at = _skip_whitespace(text, end)
        if text[at : at + 1] == ",":
            at = _skip_whitespace(text, at + 1)
        elif text[at : at + 1] != "]":
            raise Malformed(f"the body is no JSON array: ',' or ']' is missing at character {at}")
    if text[at + 1 :].strip():
        raise Malformed(f"the body goes on behind its array, at character {at + 1}")


class _ElementTexts:
    """The texts of an array's elements, told apart only if one of them is needed."""

    def __init__(self, found: list[Any], body: bytes) -> None:
        self._elements = found
        self._body = body
        self._texts: dict[int, bytes] = {}

    def __call__(self, fields: Mapping[str, Any]) -> bytes:
        """Return the text that an element was read from, or one that says the same."""
        if all(map(_is_lossless, fields.values())):
            return orjson.dumps(fields)
        if not self._texts:
            self._texts = dict(zip(map(id, self._elements), _split_array(self._body, len(self._elements)), strict=True))
        return self._texts[id(fields)]


def _is_lossless(value: object) -> bool:
    return type(value) not in (float, list) or (isinstance(value, float) and abs(value) < _MAX_SAFE_INTEGER)


def _parse_element(text: bytes) -> ParsedEvent:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _invalid_json(error)
    return _event_from_object(found, text) if type(found) is dict else _not_an_object(found)


def _skip_whitespace(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\r\n":
        at += 1
    return at


def _invalid_json(error: ValueError) -> Malformed:
    return Malformed(f"not JSON: {error}; numbers are finite, texts UTF-8 without lone surrogates")


def _not_an_object(value: object) -> Malformed:
    return Malformed(f"an event is a JSON object, and this is {type(value).__name__}")


def _too_many_events(max_events: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body holds over {max_events} events: send fewer at once, or raise batch_max_events")
