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

from metronome.enrich.enrichment import AGENT_NAMES
from metronome.errors import Malformed, MetronomeError, TooLarge
from metronome.event import REPEATED, Event
from metronome.protocol import Outcome, Reading, Readings, Reply, Request, bearer, problem

_MAX_FIELDS: Final = 1000


def read_form(text: bytes) -> Reading:
    """Read an event that is written as a form."""
    try:
        pairs = parse_qsl(text.decode(errors="replace"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return TooLarge(f"the form has over {_MAX_FIELDS} fields: send fewer, or send JSON")
    if not pairs or b"=" not in text:
        return Malformed("the form holds no field: send id=…&event=…")
    return marked(dict(pairs), [name for name, _ in pairs], text)


def marked(found: Mapping[str, Any], names: Sequence[str], text: bytes) -> Event:
    """Make an event of fields of which some may have been given twice: the last one counts, the text keeps all.

    Args:
        found: the fields.
        names: those of all fields that were given, in their order.
        text: what they were read from.

    """
    if len(names) == len(found):
        return Event(found, text)
    return Event({**found, REPEATED: sorted(name for name, times in Counter(names).items() if times > 1)}, text)


FORM = "application/x-www-form-urlencoded"
LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
_WHITE = b" \t\r\n"
_EXACT_MAX = 2.0**53
"""A float from here on may be a whole number that has lost its last digits."""
_DONE = Reply(204)
_OF_THE_SENDER = (*AGENT_NAMES, "clientip")
"""An event that has one of these speaks of somebody else than the request does."""


def key(request: Request) -> str:
    """Return the key of the request (see `Dialect.key`)."""
    return bearer(request.headers)


def read(request: Request) -> Readings:
    """Read the events of a ``POST /tick`` (see `Dialect.read`)."""
    readings = _read(request)
    told = _told_by_a_browser(request) if "Origin" in request.headers else None
    return readings._replace(events=map(partial(_completed, told), readings.events)) if told else readings


def _read(request: Request) -> Readings:
    body = request.body
    if request.content_type == FORM and not body.lstrip(_WHITE).startswith((b"{", b"[")):
        return Readings([read_form(body)], batch=False)
    if request.content_type in LINES:
        return Readings(_from_lines(body, request.max_events), batch=True)
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return Readings(_from_broken(body, request.max_events, error), batch=True)
    if type(found) is dict:
        return Readings([_event(found, body)], batch=False)
    if type(found) is list:
        return Readings(_from_array(found, body, request.max_events), batch=True)
    raise Malformed("the body is JSON but holds no event: send an object, an array of objects, or lines of objects")


def reply(_: Request, readings: Readings, outcome: Outcome) -> Reply:
    """Answer a single event with 204, or its error; a batch with what became of each (see `Dialect.reply`)."""
    if readings.batch:
        rejected = [{"index": index, "error": str(error)} for index, error in sorted(outcome.rejected.items())]
        answer = orjson.dumps({"accepted": outcome.accepted, "rejected": rejected})
        return Reply(200, answer, "application/json")
    for error in outcome.rejected.values():
        raise error
    return _DONE


def refuse(_: Request, error: MetronomeError, status: int) -> Reply:
    """Describe the error (see `Dialect.refuse`)."""
    return problem(error, status)


def _told_by_a_browser(request: Request) -> dict[str, str]:
    """Return what a browser's request says of who sent it; a header may hold bytes that are no text."""
    agent = request.headers.get("User-Agent", "").encode(errors="replace").decode()
    return {name: text for name, text in (("agent", agent), ("clientip", request.sender)) if text}


def _completed(told: dict[str, str], reading: Reading) -> Reading:
    if type(reading) is not Event or any(map(reading.fields.get, _OF_THE_SENDER)):
        return reading
    return Event({**reading.fields, **told}, partial(_with_the_told, reading, told))


def _with_the_told(event: Event, told: dict[str, str], _: Mapping[str, Any]) -> bytes:
    """Return the text of an event with what was added to it, and nothing else changed."""
    text = event.original(event.fields) if callable(event.original) else event.original
    if text is None or not event.fields or not text.lstrip(_WHITE).startswith(b"{"):
        # A form's fields are texts: nothing is lost of them.
        return orjson.dumps({**event.fields, **told})
    return text.rstrip(_WHITE).removesuffix(b"}") + b"," + orjson.dumps(told)[1:]


def _event(found: dict[str, Any], text: bytes) -> Reading:
    if text.count(b'":') == len(found):
        return Event(found, text)
    return _looked_at_closely(found, text)


def _looked_at_closely(found: dict[str, Any], text: bytes) -> Reading:
    """Keep what parsing an object loses: of two fields of one name, the parser gives the last only."""
    names: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        # Called innermost first: what it holds after the last call are the outer object's names.
        names[:] = [name for name, _ in pairs]

    try:
        json.JSONDecoder(object_pairs_hook=note, parse_int=float).decode(text.decode())
    except (ValueError, RecursionError):
        return Event(found, text)
    return marked(found, names, text)


def _from_lines(body: bytes, max_events: int) -> Iterator[Reading]:
    lines = body.split(b"\n")
    if len(lines) > max_events and sum(1 for line in lines if line.strip(_WHITE)) > max_events:
        raise TooLarge(f"the body holds over {max_events} lines: send fewer at once, or raise batch_max_events")
    return _read_lines(lines)


def _read_lines(lines: list[bytes]) -> Iterator[Reading]:
    """Read line by line as they are asked for: a batch is never there as objects all at once."""
    for line in lines:
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if line.strip(_WHITE):
                yield _no_json(error)
            continue
        if type(found) is not dict:
            yield _no_object(found)
        elif line.count(b'":') == len(found):
            yield Event(found, line)
        else:
            yield _looked_at_closely(found, line)


def _from_array(found: list[Any], body: bytes, max_events: int) -> Sequence[Reading]:
    if len(found) > max_events:
        raise _too_many(max_events)
    if body.count(b'":') == sum([len(inner) for inner in found if type(inner) is dict]):
        texts = _Texts(found, body)
        return [Event(inner, texts) if type(inner) is dict else _no_object(inner) for inner in found]
    return list(_one_by_one(body, max_events))


def _from_broken(body: bytes, max_events: int, error: ValueError) -> Iterable[Reading]:
    """Read what is no JSON as a whole: lines, or an array in which an element is broken."""
    start = body.lstrip(_WHITE)
    if start.startswith(b"["):
        return list(_one_by_one(body, max_events))
    if start.startswith(b"{") and b"\n" in start.rstrip(_WHITE):
        readings = _from_lines(body, max_events)
        before: list[Reading] = []
        for reading in readings:
            before.append(reading)
            if type(reading) is Event:
                return chain(before, readings)
    raise _no_json(error)


def _one_by_one(body: bytes, max_events: int) -> Iterator[Reading]:
    """Read an array by its elements' own texts, so that a broken element fails no other."""
    return map(_element, _split(body, max_events))


def _split(body: bytes, max_events: int) -> Iterator[bytes]:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is no UTF-8: {error.reason} at byte {error.start}") from None
    decoder = json.JSONDecoder(parse_int=float, strict=False)
    at = _skip_white(text, text.index("[") + 1)
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
            raise _too_many(max_events)
        yield text[at:end].encode()
        at = _skip_white(text, end)
        if text[at : at + 1] == ",":
            at = _skip_white(text, at + 1)
        elif text[at : at + 1] != "]":
            raise Malformed(f"the body is no JSON array: ',' or ']' is missing at character {at}")
    if text[at + 1 :].strip():
        raise Malformed(f"the body goes on behind its array, at character {at + 1}")


class _Texts:
    """The texts of an array's elements, told apart only if one of them is needed."""

    def __init__(self, found: list[Any], body: bytes) -> None:
        self._found = found
        self._body = body
        self._texts: dict[int, bytes] = {}

    def __call__(self, fields: Mapping[str, Any]) -> bytes:
        """Return the text that an element was read from, or one that says the same."""
        if all(map(_is_exact, fields.values())):
            return orjson.dumps(fields)
        if not self._texts:
            self._texts = dict(zip(map(id, self._found), _split(self._body, len(self._found)), strict=True))
        return self._texts[id(fields)]


def _is_exact(value: object) -> bool:
    return type(value) not in (float, list) or (isinstance(value, float) and abs(value) < _EXACT_MAX)


def _element(text: bytes) -> Reading:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _no_json(error)
    return _event(found, text) if type(found) is dict else _no_object(found)


def _skip_white(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\r\n":
        at += 1
    return at


def _no_json(error: ValueError) -> Malformed:
    return Malformed(f"not JSON: {error}; numbers are finite, texts UTF-8 without lone surrogates")


def _no_object(found: object) -> Malformed:
    return Malformed(f"an event is a JSON object, and this is {type(found).__name__}")


def _too_many(max_events: int) -> TooLarge:
    return TooLarge(f"the body holds over {max_events} events: send fewer at once, or raise batch_max_events")
