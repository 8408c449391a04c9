"""The event, and the Logstash document that it becomes.

An event is flat JSON with any parameters. Its document loses nothing of it and is refused by no
mapping: what fits stands at the top level under its own name, all else as text in ``params``, and
where anything had to be changed the untouched event in ``event.original``.

Every document begins with ``@timestamp`` and ``event_id``, in this order, so that a store can take
index and identity from its head without parsing the rest (`head_pattern`).
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from metronome.enrich.addresses import cut_address, read_address
from metronome.enrich.referers import normalise_referer
from metronome.errors import Malformed
from metronome.timestamps import read_stamp

TIME_NAMES: Final = ("@timestamp", "timestamp", "ts", "time")
REFERER_NAMES: Final = ("referer", "referrer", "urlref")
NUMBER_NAMES: Final = ("duration", "value")
"""Known fields that hold numbers: where a sender can only write text, it is read as a number."""

NAME_MAX_BYTES: Final = 1024
"""The longest ``id``, ``event`` and ``format``: Elasticsearch does not count longer ones."""
EVENT_ID_MAX_BYTES: Final = 512
"""The longest ``_id`` that Elasticsearch takes."""
TOP_LEVEL_MAX_FIELDS: Final = 100
"""A document's fields past this many go to ``params``: one event must not use up an index's mapping."""
PARAM_MAX_CHARACTERS: Final = 1024
PARAM_NAME_MAX_CHARACTERS: Final = 256

HEAD_PATTERN: Final = rb'\{"@timestamp":"(\d{4})-(\d\d)-(\d\d)T[0-9:.]+Z","event_id":("(?:[^"\\]|\\.)+")'
"""How each document begins: year, month and day of its UTC day, and its identity as JSON text."""

_RESERVED = frozenset({"@timestamp", "@version", "params", "event.original"})
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_LONG_MAX = 2**63
_NUL_STAND_IN = "\ufffd"
_UNNAMED_EVENT = "unknown"


class Event(NamedTuple):
    """One thing that happened, as a dialect read it.

    Attributes:
        fields: its parameters, under the names that the sender or the dialect gave them.
        original: the JSON that came in, where it can say more than *fields* (a number of thirty digits).

    """

    fields: Mapping[str, Any]
    original: bytes | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """What is known at the door when events come in.

    Attributes:
        arrival: the stamp that events without a time get.
        earliest: the oldest stamp that is taken, or None to take any.
        latest: the newest stamp that is taken.
        own_hosts: hosts whose referers do not count (see `own_hosts`).
        cut_addresses: whether ``clientip`` is cut so that it no longer names a household.

    """

    arrival: str
    earliest: str | None
    latest: str
    own_hosts: frozenset[str] = frozenset()
    cut_addresses: bool = True


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
    fields = event.fields
    doc: dict[str, Any] = {"@timestamp": "", "event_id": spare_id, "@version": "1"}
    odd: dict[str, Any] = {}
    for name, value in fields.items():
        if _is_plain(name) and _is_scalar(value):
            doc[name] = value
        else:
            odd[name] = value
    if len(doc) > TOP_LEVEL_MAX_FIELDS:
        _move_surplus(doc, odd)
    doc["@timestamp"] = _take_time(fields, doc, odd, door)
    _name_event(doc, odd)
    if "event_id" in fields:
        _identify(doc, spare_id)
    for name in REFERER_NAMES:
        if doc.get(name):
            _shorten_referer(doc, odd, name, door)
            break
    if "clientip" in doc:
        _read_clientip(doc, odd, door)
    for name in NUMBER_NAMES:
        if type(doc.get(name)) is str:
            _read_number(doc, name)
    if odd:
        doc["params"] = _params(odd)
        doc["event.original"] = _original(event)
    try:
        return orjson.dumps(doc)
    except TypeError:
        return orjson.dumps({_printable(name): _printable(value) for name, value in doc.items()})


@lru_cache(maxsize=16_384)
def _is_plain(name: str) -> bool:
    return _PLAIN_NAME.fullmatch(name) is not None and name not in _RESERVED


def _is_scalar(value: object) -> bool:
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int or kind is float:
        return -_LONG_MAX < value < _LONG_MAX  # type: ignore[operator]
    return False


def _move_surplus(doc: dict[str, Any], odd: dict[str, Any]) -> None:
    known = {"id", "event", "format", "event_id", "session", "visitor", "bot", *TIME_NAMES, *REFERER_NAMES}
    for name in list(doc)[TOP_LEVEL_MAX_FIELDS:]:
        if name not in known:
            odd[name] = doc.pop(name)


def _take_time(fields: Mapping[str, Any], doc: dict[str, Any], odd: dict[str, Any], door: Door) -> str:
    for name in TIME_NAMES:
        value = fields.get(name)
        if value is not None:
            break
    else:
        odd.pop("@timestamp", None)
        return door.arrival
    (odd if name in odd else doc).pop(name, None)
    stamp = read_stamp(value)
    if stamp > door.latest:
        message = f"{name} is {stamp}, more than a day ahead of this server's clock: send the time at which it happened"
        raise Malformed(message)
    if door.earliest is not None and stamp < door.earliest:
        message = (
            f"{name} is {stamp}, and events from before {door.earliest} are not taken here: "
            "set METRONOME_TICK_MAX_AGE to take older ones"
        )
        raise Malformed(message)
    return stamp


def _name_event(doc: dict[str, Any], odd: dict[str, Any]) -> None:
    item = doc.get("id")
    if item is not None and type(item) is not str:
        item = doc["id"] = _text(item)
    if not item:
        doc.pop("id", None)
    elif len(item) > NAME_MAX_BYTES or len(item.encode(errors="replace")) > NAME_MAX_BYTES:
        raise Malformed(_too_long("id", NAME_MAX_BYTES))
    form = doc.get("format")
    if form is not None:
        form = doc["format"] = _name("format", form).lower()
    if not form:
        doc.pop("format", None)
    event = doc.get("event")
    if type(event) is str and event and len(event) < NAME_MAX_BYTES // 4:
        pass
    elif event is None or event == "":
        doc["event"] = _UNNAMED_EVENT if odd.get("event") is not None else "download" if form else "view"
    else:
        doc["event"] = _name("event", event)
    if "bot" in doc and doc["bot"] in (None, False, "", 0, "0", "false"):
        del doc["bot"]


def _name(field: str, value: object) -> str:
    text = _text(value)
    if len(text.encode(errors="replace")) > NAME_MAX_BYTES:
        raise Malformed(_too_long(field, NAME_MAX_BYTES))
    return text


def _too_long(field: str, limit: int) -> str:
    return f"{field} is over {limit} bytes: shorten it, or send a hash of it and the whole under another name"


def _identify(doc: dict[str, Any], spare_id: str) -> None:
    given = doc.get("event_id")
    text = spare_id if given is None or given == "" else _text(given)
    if len(text.encode(errors="replace")) > EVENT_ID_MAX_BYTES:
        raise Malformed(_too_long("event_id", EVENT_ID_MAX_BYTES))
    doc["event_id"] = text


def _shorten_referer(doc: dict[str, Any], odd: dict[str, Any], name: str, door: Door) -> None:
    url = _text(doc.pop(name))
    short = normalise_referer(url, door.own_hosts)
    if "referer" in doc:
        odd["referer"] = doc.pop("referer")
    if short is not None and len(short) <= NAME_MAX_BYTES:
        doc["referer"] = short
    if short != url:
        if "referer_url" in doc:
            odd[name] = url
        else:
            doc["referer_url"] = url


def _read_clientip(doc: dict[str, Any], odd: dict[str, Any], door: Door) -> None:
    address = _text(doc.pop("clientip"))
    plain = cut_address(address) if door.cut_addresses else read_address(address)
    if plain is None:
        odd["clientip"] = address
    else:
        doc["clientip"] = plain


def _read_number(doc: dict[str, Any], name: str) -> None:
    try:
        number = float(doc[name])
    except ValueError:
        return
    if math.isfinite(number) and abs(number) < _LONG_MAX:
        doc[name] = int(number) if number.is_integer() else number


def _params(odd: Mapping[str, Any]) -> dict[str, str]:
    return {
        _param_name(name): _text(value).replace("\0", _NUL_STAND_IN)[:PARAM_MAX_CHARACTERS]
        for name, value in odd.items()
    }


def _param_name(name: str) -> str:
    cut = name.replace("\0", _NUL_STAND_IN)[:PARAM_NAME_MAX_CHARACTERS]
    return cut if cut.strip() else f"_{cut}"


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, default=str)


def _original(event: Event) -> str:
    if event.original is not None:
        return event.original.decode(errors="replace")
    return _text(dict(event.fields))


def _printable(value: object) -> Any:
    """Put U+FFFD in place of lone surrogates, which UTF-8 has no bytes for."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_printable(name): _printable(inner) for name, inner in value.items()}
    return value
