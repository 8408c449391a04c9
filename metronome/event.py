"""The event, and the Logstash document that it becomes.

An event is flat JSON with any parameters. Its document loses nothing of it and is refused by no
mapping: what fits stands at the top level under its own name, all else as text in ``params``, and
where anything had to be changed the untouched event in ``event.original``.

Every document begins with ``@timestamp`` and ``event_id``, in this order, so that a store can take
index and identity from its head without parsing the rest (`head_pattern`).

Documents that come back as documents: from the archive, where they were put as the door made them.

They go into the store as they are. So each is looked at first: whatever `metronome.event.document` makes passes
unchanged, and what no door has made is refused.

Names for events that bring none, so that each is known again wherever it goes.
"""

import hashlib
import json
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any, Final, NamedTuple

import orjson

from metronome.enrich.addresses import TELLING, addresses_cut, cut_address, cut_addresses, read_address
from metronome.enrich.enrichment import INPUTS, KEPT_NAME, MADE, NOTHING, VERSION_NAME, Enrichment
from metronome.enrich.referrers import normalise_referer
from metronome.errors import Malformed
from metronome.times import read_stamp

TIME_NAMES: Final = ("@timestamp", "timestamp", "ts", "time")
REFERER_NAMES: Final = ("referer", "referrer", "urlref")
NUMBER_NAMES: Final = ("duration", "value")
"""Known fields that hold numbers: where a sender can only write text, it is read as a number."""

REPEATED: Final = "[repeated]"
"""Under this name a dialect lists fields that were given twice: no plain one, so that the event is kept whole."""

NAME_MAX_BYTES: Final = 1024
"""The longest ``id``, ``event`` and ``format``: Elasticsearch does not count longer ones."""
EVENT_ID_MAX_BYTES: Final = 512
"""The longest ``_id`` that Elasticsearch takes."""
TOP_LEVEL_MAX_FIELDS: Final = 100
"""A document's fields past this many go to ``params``: one event must not use up an index's mapping."""
PARAM_MAX_CHARACTERS: Final = 1024
PARAM_NAME_MAX_CHARACTERS: Final = 256

HEAD_PATTERN: Final = rb'\{"@timestamp":"(\d{4})-(\d\d)-(\d\d)T[0-9:.]++Z","event_id":("(?:[^"\\]++|\\.)++")'
"""How each document begins: year, month and day of its UTC day, and its identity as JSON text."""

_RESERVED = frozenset({"@timestamp", "@version", "params", "event.original"})
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_NAMING = frozenset({"id", "event", "format", "event_id", "session", "visitor", "bot"})
"""Known fields that are texts, if need be those of a number."""
_KNOWN = frozenset({*_NAMING, *TIME_NAMES, *REFERER_NAMES, "referer_url", *MADE, VERSION_NAME, KEPT_NAME})
_NONE: Final[frozenset[str]] = frozenset()
_NO_BOT = (None, False, "", 0, "0", "false")
_LONG_MAX = 2**63
_LONGER_MAX = 2**64
"""Whole numbers below this one are read digit by digit."""
_SURELY_SHORT = NAME_MAX_BYTES // 4
"""So many characters are within `NAME_MAX_BYTES` in any case."""
_SURELY_SHORT_ID = EVENT_ID_MAX_BYTES // 4
_NUL_STAND_IN, _UNNAMED_EVENT = "\ufffd", "unknown"


class Event(NamedTuple):
    """One thing that happened, as a dialect read it.

    Attributes:
        fields: its parameters, under the names that the sender or the dialect gave them.
        original: what came in, where it can say more than *fields* (a number of thirty digits); or what finds it
            when it is asked for, with *fields*.

    """

    fields: Mapping[str, Any]
    original: bytes | Callable[[Mapping[str, Any]], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """What is known at the door when events come in.

    Attributes:
        arrival: the stamp that events without a time get.
        earliest: the oldest stamp that is taken, or None to take any.
        latest: the newest stamp that is taken.
        own_hosts: hosts whose referers do not count (see `own_hosts`).
        cut_addresses: whether ``clientip`` is cut so that it no longer names a household.
        enrichment: what is added to events, or None to add nothing.
        salts: what visitors are named with, by UTC days; nobody is named without.

    """

    arrival: str
    earliest: str | None
    latest: str
    own_hosts: frozenset[str] = frozenset()
    cut_addresses: bool = True
    enrichment: Enrichment | None = None
    salts: Mapping[str, bytes] = field(default_factory=dict)


def document(event: Event, door: Door, spare_id: str) -> bytes:
    """Encode an event as its Logstash document: one line of JSON, without a line's end.

    The same event with the same ``event_id`` and time gives the same document, so that a resend
    lands on itself.

    Args:
        event: what came in.
        door: what is known where it came in.
        spare_id: the identity of an event that brings none.

    Raises:
        Malformed: its time is none or is not taken, or its ``id``, ``event``, ``format`` or
            ``event_id`` is too long. The message says which and what to change.

    """
    shape = _SHAPES[tuple(event.fields)]
    event = _with_addresses_cut(event, shape.addressed) if shape.addressed and door.cut_addresses else event
    fields = event.fields
    odd: dict[str, Any] = {}
    if shape.plain and _all_scalar(fields):
        doc = {"@timestamp": door.arrival, "event_id": spare_id, "@version": "1", **fields}
    else:
        doc = {"@timestamp": door.arrival, "event_id": spare_id, "@version": "1"}
        _set_apart(fields, doc, odd)
    if shape.times:
        doc["@timestamp"] = _take_time(shape.times, doc, odd, door)
    if shape.identified:
        _identify(doc, spare_id)
    item, event_name = doc.get("id"), doc.get("event")
    if not (type(item) is str and 0 < len(item) <= _SURELY_SHORT):
        _name_item(doc, item)
    if shape.classified or not (type(event_name) is str and 0 < len(event_name) <= _SURELY_SHORT):
        _classify(doc, odd)
    if shape.referers:
        _shorten_referer(shape.referers, doc, odd, door)
    if shape.measured:
        _read_measures(doc, odd, door)
    if shape.telling and door.enrichment is not None:
        kept = frozenset([name for name in shape.made if fields[name] not in NOTHING]) if shape.made else _NONE
        door.enrichment.add(doc, kept, fields.get("clientip"), door.arrival, door.salts)
    if odd:
        doc["params"] = _params(odd)
        doc["event.original"] = _original(event, door)
    return _encode(doc)


def is_plain(name: str) -> bool:
    """Tell whether a field of that name may stand at a document's top level; else it is in ``params``."""
    return _PLAIN_NAME.fullmatch(name) is not None and name not in _RESERVED


def param_name(name: str) -> str:
    """Return how a field is called in ``params``."""
    cut = name.replace("\0", _NUL_STAND_IN)[:PARAM_NAME_MAX_CHARACTERS]
    return cut if cut.strip() else f"_{cut}"


def param_value(text: str) -> str:
    """Return what of a field's text stands in ``params``."""
    return text.replace("\0", _NUL_STAND_IN)[:PARAM_MAX_CHARACTERS]


class _Shape(NamedTuple):
    """What an event's names alone say of it: events of one sender mostly have the same ones."""

    plain: bool
    times: tuple[str, ...]
    referers: tuple[str, ...]
    identified: bool
    classified: bool
    measured: bool
    telling: bool
    made: tuple[str, ...]
    addressed: tuple[str, ...]


class _Shapes(dict[tuple[str, ...], _Shape]):
    """The shapes seen lately, in bounded memory whatever strangers send."""

    MAX_SHAPES = 4096
    MAX_CHARACTERS = 2048

    def __missing__(self, names: tuple[str, ...]) -> _Shape:
        here = frozenset(names)
        shape = _Shape(
            plain=len(names) <= TOP_LEVEL_MAX_FIELDS and all(map(is_plain, here - {"@timestamp"})),
            times=tuple(name for name in TIME_NAMES if name in here),
            referers=tuple(name for name in REFERER_NAMES if name in here),
            identified="event_id" in here,
            classified=not here.isdisjoint(("format", "bot")),
            measured=not here.isdisjoint(("clientip", *NUMBER_NAMES)),
            # What was enriched once is sent again: it stays as it is.
            telling=here.isdisjoint((VERSION_NAME, KEPT_NAME)) and not here.isdisjoint((*INPUTS, *REFERER_NAMES)),
            made=tuple(name for name in names if name in MADE),
            addressed=tuple(name for name in names if name in TELLING),
        )
        if sum(map(len, names)) <= self.MAX_CHARACTERS:
            if len(self) >= self.MAX_SHAPES:
                self.clear()
            self[names] = shape
        return shape


_SHAPES = _Shapes()


def _with_addresses_cut(event: Event, names: tuple[str, ...]) -> Event:
    cut = addresses_cut(event.fields, names, _text)
    return Event({**event.fields, **cut}) if cut else event  # What came in has them whole.


def _all_scalar(fields: Mapping[str, Any]) -> bool:
    for value in fields.values():
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if not ((kind is int or kind is float) and -_LONG_MAX < value < _LONG_MAX):
            return False
    return True


def _set_apart(fields: Mapping[str, Any], doc: dict[str, Any], odd: dict[str, Any]) -> None:
    """Put what may stand at a document's top level into *doc*, and the rest into *odd*."""
    room = TOP_LEVEL_MAX_FIELDS
    for name, value in fields.items():
        known = name in _KNOWN
        plain = known or (room > 0 and is_plain(name))
        if plain and _all_scalar({name: value}):
            doc[name] = value
            room -= not known
        elif name in TIME_NAMES:
            doc[name] = value
        elif name in _NAMING and type(value) is int and abs(value) < _LONGER_MAX:
            doc[name] = str(value)
        elif name == "@version" and value == doc[name]:
            continue
        else:
            odd[name] = value


def _take_time(names: tuple[str, ...], doc: dict[str, Any], odd: dict[str, Any], door: Door) -> str:
    for name in names:
        value = doc.get(name)
        if value is not None:
            break
    else:
        return door.arrival
    stamp = read_stamp(value)
    if name != "@timestamp":
        # That one keeps its place at the head.
        del doc[name]
    for other in names:
        if other in doc and not _all_scalar({other: doc[other]}):
            odd[other] = doc.pop(other)
    if stamp > door.latest:
        raise Malformed(
            f"{name} is {stamp}, more than a day ahead of this server's clock: send the time at which it happened"
        )
    if door.earliest is not None and stamp < door.earliest:
        raise Malformed(
            f"{name} is {stamp}, and events from before {door.earliest} are not taken here: "
            "raise tick_max_age to take older ones, or send a key with the scope import"
        )
    return stamp


def _name_item(doc: dict[str, Any], item: object) -> None:
    if item is None or item == "":
        doc.pop("id", None)
    else:
        doc["id"] = _short_text("id", item, NAME_MAX_BYTES)


def _classify(doc: dict[str, Any], odd: dict[str, Any]) -> None:
    form = doc.get("format")
    if form is not None and form != "":
        doc["format"] = _short_text("format", _text(form).lower(), NAME_MAX_BYTES)
    else:
        doc.pop("format", None)
    event = doc.get("event")
    if event is None or event == "":
        doc["event"] = _UNNAMED_EVENT if odd.get("event") is not None else "download" if "format" in doc else "view"
    elif type(event) is not str or len(event) > _SURELY_SHORT:
        doc["event"] = _short_text("event", event, NAME_MAX_BYTES)
    if "bot" in doc:
        if doc["bot"] in _NO_BOT:
            del doc["bot"]
        else:
            doc["bot"] = _short_text("bot", doc["bot"], NAME_MAX_BYTES)


def _identify(doc: dict[str, Any], spare_id: str) -> None:
    given = doc["event_id"]
    if type(given) is str and 0 < len(given) <= _SURELY_SHORT_ID:
        return
    doc["event_id"] = spare_id if given is None or given == "" else _short_text("event_id", given, EVENT_ID_MAX_BYTES)


def _short_text(name: str, value: object, limit: int) -> str:
    text = _text(value)
    if len(text) > limit or len(text.encode(errors="replace")) > limit:
        raise Malformed(
            f"{name} is over {limit} bytes: shorten it, or send a hash of it and the whole under another name"
        )
    return text


def _shorten_referer(names: tuple[str, ...], doc: dict[str, Any], odd: dict[str, Any], door: Door) -> None:
    for name in names:
        given = doc.pop(name, None)
        if given is not None and given != "":
            break
    else:
        return
    url = _text(given)
    short = normalise_referer(url, door.own_hosts)
    whole = doc.get("referer_url")
    if short != url and whole is not None and normalise_referer(_text(whole), door.own_hosts) == url:
        # A document that is sent again: this was made of the address beside it.
        short = url
    if short is not None and len(short) <= NAME_MAX_BYTES:
        doc["referer"] = short
    else:
        # None of the others may take its place when the document is sent again.
        odd.update({other: doc.pop(other) for other in names if other in doc})
    if short != url:
        (doc if whole is None else odd)["referer_url"] = url


def _read_measures(doc: dict[str, Any], odd: dict[str, Any], door: Door) -> None:
    for name in NUMBER_NAMES:
        if type(doc.get(name)) is str:
            doc[name] = _number(doc[name])
    address = doc.pop("clientip", odd.pop("clientip", None))
    if address is not None:
        plain = (cut_address if door.cut_addresses else read_address)(_text(address))
        if plain is None:
            odd["clientip"] = cut_addresses(_text(address)) if door.cut_addresses else address
        else:
            doc["clientip"] = plain


def _number(text: str) -> str | int | float:
    try:
        number = float(text)
        if not math.isfinite(number) or abs(number) >= _LONG_MAX:
            return text
        # Of a whole number, a float may lack the last digits.
        return int(number if "." in text or "e" in text.lower() else text) if number.is_integer() else number
    except ValueError:
        return text


def _params(odd: Mapping[str, Any]) -> dict[str, str]:
    return {param_name(name): param_value(_text(value)) for name, value in odd.items()}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        pass
    try:
        return json.dumps(value, default=str)
    except RecursionError:
        raise Malformed("the event is nested too deeply to be read: send it with fewer levels") from None


def _original(event: Event, door: Door) -> str:
    original = event.original(event.fields) if callable(event.original) else event.original
    address = event.fields.get("clientip")
    if door.cut_addresses and "clientip" in event.fields:
        # What is cut must not stand here whole, not even in a field that was given twice.
        text, twice = "" if address is None else _text(address), REPEATED in event.fields
        cut = cut_address(text) or cut_addresses(text)
        if cut != text or twice:
            quoted = orjson.dumps(address) if address == text and text.isascii() else b""
            if original is None or twice or not quoted or original.count(quoted) != 1:
                return _text({**event.fields, "clientip": address if address is None else cut})
            original = original.replace(quoted, orjson.dumps(cut))
    return _text(dict(event.fields)) if original is None else original.decode(errors="replace")


def _encode(doc: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(doc)
    except TypeError:
        return orjson.dumps({_printable(name): _printable(value) for name, value in doc.items()})


def _printable(value: object) -> Any:
    """Put U+FFFD in place of lone surrogates, which UTF-8 has no bytes for."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_printable(name): _printable(inner) for name, inner in value.items()}
    return value


_HEAD: Final = re.compile(HEAD_PATTERN)
_MOST_FIELDS: Final = 250
"""At the top level: more than a door's limit, the known fields and those of enrichment are together."""
_REMEMBERED_CHARACTERS: Final = 2048
_DOCUMENTS_LONG_MAX: Final = 2**63
_NAMED: Final = tuple((name, NAME_MAX_BYTES) for name in ("id", "event", "format", "bot"))
_OURS: Final = frozenset({"@timestamp", "@version", "params", "event.original"})
_NOTHING: Final[dict[str, str]] = {}


def checked_document(line: bytes, latest: str) -> bytes:
    """Return a document as a store takes it: the same bytes, if it was made at a door.

    Args:
        line: a line of JSON, without its end.
        latest: the newest stamp that is taken.

    Raises:
        Malformed: it is none; the message says why.

    """
    if _HEAD.match(line) is None:
        raise Malformed("it is no document of Metronome: these begin with @timestamp and event_id")
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"it is no JSON: {error}") from None
    _check_head(fields, latest)
    names = tuple(fields)
    stranger = _stranger(names) if sum(map(len, names)) <= _REMEMBERED_CHARACTERS else _stranger.__wrapped__(names)
    if stranger is not None:
        raise Malformed(stranger)
    for name, value in fields.items():
        kind = type(value)
        if kind is str or value is None or kind is bool or kind is float:
            continue
        if kind is not int or not -_DOCUMENTS_LONG_MAX < value < _DOCUMENTS_LONG_MAX:
            _check_odd(name, value)
    _check_texts(fields)
    return orjson.dumps(fields)


@lru_cache(maxsize=4096)
def _stranger(names: tuple[str, ...]) -> str | None:
    """Say what is wrong with a document's names; None for nothing: documents of one sender mostly have the same."""
    if len(names) > _MOST_FIELDS:
        return f"it has over {_MOST_FIELDS} fields, and no door makes so many"
    wrong = next((name for name in names if name not in _OURS and not is_plain(name)), None)
    return None if wrong is None else f"{wrong[:100]!r} may not stand at a document's top level"


def _check_head(fields: Mapping[str, Any], latest: str) -> None:
    stamp, identity = fields["@timestamp"], fields["event_id"]
    if type(stamp) is not str or read_stamp(stamp) != stamp:
        raise Malformed("@timestamp is not written as 2015-01-22T09:30:00.000Z")
    if stamp > latest:
        raise Malformed(f"@timestamp is {stamp}, more than a day ahead of this server's clock")
    if type(identity) is not str or not 0 < len(identity.encode()) <= EVENT_ID_MAX_BYTES:
        raise Malformed(f"event_id is no text of 1 to {EVENT_ID_MAX_BYTES} bytes")


def _check_odd(name: str, value: object) -> None:
    """Look at a value that is neither a text nor a number of the usual size."""
    if name != "params":
        raise Malformed(f"{name} is neither a text nor a number that a document may have")
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        raise Malformed("params is no object of texts")


def _check_texts(fields: Mapping[str, Any]) -> None:
    if type(fields.get("params", _NOTHING)) is not dict:
        raise Malformed("params is no object of texts")
    if type(fields.get("event.original", "")) is not str:
        raise Malformed("event.original is no text")
    for name, limit in _NAMED:
        value = fields.get(name, "")
        if type(value) is not str or len(value) > limit or len(value.encode()) > limit:
            raise Malformed(f"{name} is no text of at most {limit} bytes")


def own_identities() -> Iterator[str]:
    """Name events for ever uniquely: by 80 random bits of this process, in order within it."""
    process = secrets.token_hex(10)
    return map(f"{process}-%08x".__mod__, count())


def identities_again(key: str, address: str, body: bytes) -> Iterator[str]:
    """Name the events of a request that may come again with its idempotency key.

    Two senders may well use the same key: only the same request is the same.

    Args:
        key: what the sender says again.
        address: the request's path and query.
        body: its body, decoded.

    """
    return identities_of(f"{key}\n{address}\n".encode(errors="backslashreplace") + body)


def identities_of(content: str | bytes) -> Iterator[str]:
    """Name the events of something that may come again, by what it is and their position in it.

    Args:
        content: a chunk's id, or the whole of a request.

    """
    seed = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    return map(f"{hashlib.blake2b(seed, digest_size=16).hexdigest()}-%d".__mod__, count())
