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
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from itertools import count
from typing import Any, Final, NamedTuple

import orjson

from metronome.enrich.addresses import (
    FIELDS_WITH_ADDRESSES,
    anonymize_address,
    anonymize_fields,
    anonymize_text,
    normalize_address,
)
from metronome.enrich.enrichment import EMPTY_VALUES, ENRICH_KEPT_FIELD, ENRICH_VERSION_FIELD, NO_SALTS, Enrichment
from metronome.enrich.referrers import normalize_referrer
from metronome.errors import Malformed
from metronome.fields import (
    CONVERTED_NUMBERS,
    CONVERTED_TEXTS,
    CORE_FIELDS,
    ENRICHED_FIELDS,
    EVENT_ID_MAX_BYTES,
    INPUT_FIELDS,
    LENGTH_LIMITS,
    NAME_MAX_BYTES,
    REFERRER_FIELDS,
    RESERVED_FIELDS,
    TIMESTAMP_FIELDS,
    is_top_level_name,
    param_name,
    param_value,
)
from metronome.items import ItemPattern
from metronome.times import parse_timestamp

REPEATED_FIELDS: Final = "[repeated]"
"""Under this name a dialect lists fields that were given twice: no plain one, so that the event is kept whole."""

TOP_LEVEL_MAX_FIELDS: Final = 100
"""A document's fields past this many go to ``params``: one event must not use up an index's mapping."""

DOCUMENT_HEAD_PATTERN: Final = rb'\{"@timestamp":"(\d{4})-(\d\d)-(\d\d)T[0-9:.]++Z","event_id":("(?:[^"\\]++|\\.)++")'
"""How each document begins: year, month and day of its UTC day, and its identity as JSON text."""

_NO_FIELDS: Final[frozenset[str]] = frozenset()
_NOT_A_BOT = (None, False, "", 0, "0", "false")
_LONG_MAX = 2**63
_UNSIGNED_LONG_MAX = 2**64
"""Whole numbers below this one are read digit by digit."""
_NAME_SAFE_CHARACTERS = NAME_MAX_BYTES // 4
"""So many characters are within `NAME_MAX_BYTES` in any case."""
_EVENT_ID_SAFE_CHARACTERS = EVENT_ID_MAX_BYTES // 4
_UNKNOWN_EVENT = "unknown"


class Event(NamedTuple):
    """One thing that happened, as a dialect read it.

    Attributes:
        fields: its parameters, under the names that the sender or the dialect gave them.
        original: what came in, where it can say more than *fields* (a number of thirty digits); or what finds it
            when it is asked for, with *fields*.

    """

    fields: Mapping[str, Any]
    original: bytes | Callable[[Mapping[str, Any]], bytes] | None = None


def mark_duplicates(fields: dict[str, Any], names: Iterable[str]) -> None:
    """Add to *fields* the list of fields that the sender gave more than once, if there are any.

    Args:
        fields: of the event, where the last value of each name counts; is changed.
        names: of all fields as they were sent, duplicates included.

    """
    duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
    if duplicates:
        fields[REPEATED_FIELDS] = duplicates


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """What is accepted on ingest, and how it is stored: the same for the life of the process.

    Attributes:
        item_pattern: finds the item in the path of a URL.
        own_hosts: hosts of the operator's sites, whose referrers are not stored (see
            `metronome.enrich.referrers.normalize_own_hosts`).
        max_age: the maximum age of an event from a sender without the scope ``import``; None for any age.
        event_max_bytes: the maximum size of a document.
        body_max_bytes: the maximum size of a decoded request body.
        batch_max_events: the maximum number of events in a request.
        anonymize_addresses: whether IP addresses are truncated.
        enrichment: None to add nothing to events.
        honor_privacy_signals: whether requests with ``Sec-GPC`` or ``DNT`` are stored without a visitor.

    """

    item_pattern: ItemPattern = field(default_factory=ItemPattern)
    own_hosts: frozenset[str] = frozenset()
    max_age: timedelta | None = None
    event_max_bytes: int = sys.maxsize
    body_max_bytes: int = sys.maxsize
    batch_max_events: int = sys.maxsize
    anonymize_addresses: bool = True
    enrichment: Enrichment | None = None
    honor_privacy_signals: bool = True


DEFAULT_INGEST_CONFIG: Final = IngestConfig()


@dataclass(frozen=True, slots=True)
class DocumentContext:
    """What documents get from the time at which their events are received.

    Attributes:
        received_at: the timestamp of events without one.
        min_timestamp: the oldest timestamp that is accepted, or None to accept any.
        max_timestamp: the newest timestamp that is accepted.
        config: how documents are built.
        salts: the salts of visitor IDs by UTC day; without one, events get no visitor.

    """

    received_at: str
    min_timestamp: str | None
    max_timestamp: str
    config: IngestConfig = DEFAULT_INGEST_CONFIG
    salts: Mapping[str, bytes] = field(default_factory=lambda: NO_SALTS)


def build_document(event: Event, context: DocumentContext, generated_id: str) -> bytes:
    """Encode an event as its Logstash document: one line of JSON, without a line's end.

    The same event with the same ``event_id`` and time gives the same document, so that a resend
    lands on itself.

    Args:
        event: what came in.
        context: what is known where it came in.
        generated_id: the identity of an event that brings none.

    Raises:
        Malformed: its time is none or is not taken, or its ``id``, ``event``, ``format`` or
            ``event_id`` is too long. The message says which and what to change.

    """
    shape = _FIELD_LAYOUTS[tuple(event.fields)]
    event = (
        _anonymize_event(event, shape.address_fields)
        if shape.address_fields and context.config.anonymize_addresses
        else event
    )
    fields = event.fields
    odd: dict[str, Any] = {}
    if shape.all_top_level and _all_scalar(fields):
        doc = {"@timestamp": context.received_at, "event_id": generated_id, "@version": "1", **fields}
    else:
        doc = {"@timestamp": context.received_at, "event_id": generated_id, "@version": "1"}
        _split_fields(fields, doc, odd)
    if shape.timestamp_fields:
        doc["@timestamp"] = _extract_timestamp(shape.timestamp_fields, doc, odd, context)
    if shape.has_event_id:
        _set_event_id(doc, generated_id)
    item, event_name = doc.get("id"), doc.get("event")
    if not (type(item) is str and 0 < len(item) <= _NAME_SAFE_CHARACTERS):
        _set_item_id(doc, item)
    if shape.has_format_or_bot or not (type(event_name) is str and 0 < len(event_name) <= _NAME_SAFE_CHARACTERS):
        _set_event_type(doc, odd)
    if shape.referrer_fields:
        _set_referrer(shape.referrer_fields, doc, odd, context)
    if shape.has_number_or_address:
        _convert_numbers_and_address(doc, odd, context)
    if shape.can_enrich and context.config.enrichment is not None:
        kept = (
            frozenset([name for name in shape.enriched_fields if fields[name] not in EMPTY_VALUES])
            if shape.enriched_fields
            else _NO_FIELDS
        )
        context.config.enrichment.enrich(doc, kept, fields.get("clientip"), context.received_at, context.salts)
    if odd:
        doc["params"] = _encode_params(odd)
        doc["event.original"] = _original_text(event, context)
    return _encode_document(doc)


class _FieldLayout(NamedTuple):
    """What an event's names alone say of it: events of one sender mostly have the same ones."""

    all_top_level: bool
    timestamp_fields: tuple[str, ...]
    referrer_fields: tuple[str, ...]
    has_event_id: bool
    has_format_or_bot: bool
    has_number_or_address: bool
    can_enrich: bool
    enriched_fields: tuple[str, ...]
    address_fields: tuple[str, ...]


class _FieldLayoutCache(dict[tuple[str, ...], _FieldLayout]):
    """The shapes seen lately, in bounded memory whatever strangers send."""

    MAX_LAYOUTS = 4096
    MAX_CHARACTERS = 2048

    def __missing__(self, names: tuple[str, ...]) -> _FieldLayout:
        here = frozenset(names)
        shape = _FieldLayout(
            all_top_level=len(names) <= TOP_LEVEL_MAX_FIELDS and all(map(is_top_level_name, here - {"@timestamp"})),
            timestamp_fields=tuple(name for name in TIMESTAMP_FIELDS if name in here),
            referrer_fields=tuple(name for name in REFERRER_FIELDS if name in here),
            has_event_id="event_id" in here,
            has_format_or_bot=not here.isdisjoint(("format", "bot")),
            has_number_or_address=not here.isdisjoint(("clientip", *CONVERTED_NUMBERS)),
            # What was enriched once is sent again: it stays as it is.
            can_enrich=here.isdisjoint((ENRICH_VERSION_FIELD, ENRICH_KEPT_FIELD)) and not here.isdisjoint(INPUT_FIELDS),
            enriched_fields=tuple(name for name in names if name in ENRICHED_FIELDS),
            address_fields=tuple(name for name in names if name in FIELDS_WITH_ADDRESSES),
        )
        if sum(map(len, names)) <= self.MAX_CHARACTERS:
            if len(self) >= self.MAX_LAYOUTS:
                self.clear()
            self[names] = shape
        return shape


_FIELD_LAYOUTS = _FieldLayoutCache()


def _anonymize_event(event: Event, names: tuple[str, ...]) -> Event:
    cut = anonymize_fields(event.fields, names, _to_text)
    return Event({**event.fields, **cut}) if cut else event  # What came in has them whole.


def _all_scalar(fields: Mapping[str, Any]) -> bool:
    for value in fields.values():
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if not ((kind is int or kind is float) and -_LONG_MAX < value < _LONG_MAX):
            return False
    return True


def _split_fields(fields: Mapping[str, Any], doc: dict[str, Any], odd: dict[str, Any]) -> None:
    """Put what may stand at a document's top level into *doc*, and the rest into *odd*."""
    room = TOP_LEVEL_MAX_FIELDS
    for name, value in fields.items():
        known = name in CORE_FIELDS
        plain = known or (room > 0 and is_top_level_name(name))
        if plain and _all_scalar({name: value}):
            doc[name] = value
            room -= not known
        elif name in TIMESTAMP_FIELDS:
            doc[name] = value
        elif name in CONVERTED_TEXTS and type(value) is int and abs(value) < _UNSIGNED_LONG_MAX:
            doc[name] = str(value)
        elif name == "@version" and value == doc[name]:
            continue
        else:
            odd[name] = value


def _extract_timestamp(
    names: tuple[str, ...], doc: dict[str, Any], odd: dict[str, Any], context: DocumentContext
) -> str:
    for name in names:
        value = doc.get(name)
        if value is not None:
            break
    else:
        return context.received_at
    stamp = parse_timestamp(value)
    if name != "@timestamp":
        # That one keeps its place at the head.
        del doc[name]
    for other in names:
        if other in doc and not _all_scalar({other: doc[other]}):
            odd[other] = doc.pop(other)
    if stamp > context.max_timestamp:
        raise Malformed(
            f"{name} is {stamp}, more than a day ahead of this server's clock: send the time at which it happened"
        )
    if context.min_timestamp is not None and stamp < context.min_timestamp:
        raise Malformed(
            f"{name} is {stamp}, and events from before {context.min_timestamp} are not taken here: "
            "raise tick_max_age to take older ones, or send a key with the scope import"
        )
    return stamp


def _set_item_id(doc: dict[str, Any], item: object) -> None:
    if item is None or item == "":
        doc.pop("id", None)
    else:
        doc["id"] = _limited_text("id", item, NAME_MAX_BYTES)


def _set_event_type(doc: dict[str, Any], odd: dict[str, Any]) -> None:
    form = doc.get("format")
    if form is not None and form != "":
        doc["format"] = _limited_text("format", _to_text(form).lower(), NAME_MAX_BYTES)
    else:
        doc.pop("format", None)
    event = doc.get("event")
    if event is None or event == "":
        doc["event"] = _UNKNOWN_EVENT if odd.get("event") is not None else "download" if "format" in doc else "view"
    elif type(event) is not str or len(event) > _NAME_SAFE_CHARACTERS:
        doc["event"] = _limited_text("event", event, NAME_MAX_BYTES)
    if "bot" in doc:
        if doc["bot"] in _NOT_A_BOT:
            del doc["bot"]
        else:
            doc["bot"] = _limited_text("bot", doc["bot"], NAME_MAX_BYTES)


def _set_event_id(doc: dict[str, Any], generated_id: str) -> None:
    given = doc["event_id"]
    if type(given) is str and 0 < len(given) <= _EVENT_ID_SAFE_CHARACTERS:
        return
    doc["event_id"] = (
        generated_id if given is None or given == "" else _limited_text("event_id", given, EVENT_ID_MAX_BYTES)
    )


def _limited_text(name: str, value: object, limit: int) -> str:
    text = _to_text(value)
    if len(text) > limit or len(text.encode(errors="replace")) > limit:
        raise Malformed(
            f"{name} is over {limit} bytes: shorten it, or send a hash of it and the whole under another name"
        )
    return text


def _set_referrer(names: tuple[str, ...], doc: dict[str, Any], odd: dict[str, Any], context: DocumentContext) -> None:
    for name in names:
        given = doc.pop(name, None)
        if given is not None and given != "":
            break
    else:
        return
    url = _to_text(given)
    short = normalize_referrer(url, context.config.own_hosts)
    whole = doc.get("referer_url")
    if short != url and whole is not None and normalize_referrer(_to_text(whole), context.config.own_hosts) == url:
        # A document that is sent again: this was made of the address beside it.
        short = url
    if short is not None and len(short) <= NAME_MAX_BYTES:
        doc["referer"] = short
    else:
        # None of the others may take its place when the document is sent again.
        odd.update({other: doc.pop(other) for other in names if other in doc})
    if short != url:
        (doc if whole is None else odd)["referer_url"] = url


def _convert_numbers_and_address(doc: dict[str, Any], odd: dict[str, Any], context: DocumentContext) -> None:
    for name in CONVERTED_NUMBERS:
        if type(doc.get(name)) is str:
            doc[name] = _parse_number(doc[name])
    address = doc.pop("clientip", odd.pop("clientip", None))
    if address is not None:
        plain = (anonymize_address if context.config.anonymize_addresses else normalize_address)(_to_text(address))
        if plain is None:
            odd["clientip"] = anonymize_text(_to_text(address)) if context.config.anonymize_addresses else address
        else:
            doc["clientip"] = plain


def _parse_number(text: str) -> str | int | float:
    try:
        number = float(text)
        if not math.isfinite(number) or abs(number) >= _LONG_MAX:
            return text
        # Of a whole number, a float may lack the last digits.
        return int(number if "." in text or "e" in text.lower() else text) if number.is_integer() else number
    except ValueError:
        return text


def _encode_params(odd: Mapping[str, Any]) -> dict[str, str]:
    return {param_name(name): param_value(_to_text(value)) for name, value in odd.items()}


def _to_text(value: object) -> str:
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


def _original_text(event: Event, context: DocumentContext) -> str:
    original = event.original(event.fields) if callable(event.original) else event.original
    address = event.fields.get("clientip")
    if context.config.anonymize_addresses and "clientip" in event.fields:
        # What is cut must not stand here whole, not even in a field that was given twice.
        text, twice = "" if address is None else _to_text(address), REPEATED_FIELDS in event.fields
        cut = anonymize_address(text) or anonymize_text(text)
        if cut != text or twice:
            quoted = orjson.dumps(address) if address == text and text.isascii() else b""
            if original is None or twice or not quoted or original.count(quoted) != 1:
                return _to_text({**event.fields, "clientip": address if address is None else cut})
            original = original.replace(quoted, orjson.dumps(cut))
    return _to_text(dict(event.fields)) if original is None else original.decode(errors="replace")


def _encode_document(doc: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(doc)
    except TypeError:
        return orjson.dumps({_replace_surrogates(name): _replace_surrogates(value) for name, value in doc.items()})


def _replace_surrogates(value: object) -> Any:
    """Put U+FFFD in place of lone surrogates, which UTF-8 has no bytes for."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_replace_surrogates(name): _replace_surrogates(inner) for name, inner in value.items()}
    return value


_DOCUMENT_HEAD: Final = re.compile(DOCUMENT_HEAD_PATTERN)
_MAX_FIELDS: Final = 250
"""At the top level: more than a door's limit, the known fields and those of enrichment are together."""
_CACHED_NAMES_MAX_CHARACTERS: Final = 2048
_NO_PARAMS: Final[dict[str, str]] = {}


def validate_document(line: bytes, max_timestamp: str) -> bytes:
    """Return a document as a store takes it: the same bytes, if it was made at a door.

    Args:
        line: a line of JSON, without its end.
        max_timestamp: the newest stamp that is taken.

    Raises:
        Malformed: it is none; the message says why.

    """
    if _DOCUMENT_HEAD.match(line) is None:
        raise Malformed("it is no document of Metronome: these begin with @timestamp and event_id")
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"it is no JSON: {error}") from None
    _check_head(fields, max_timestamp)
    names = tuple(fields)
    stranger = (
        _invalid_names_message(names)
        if sum(map(len, names)) <= _CACHED_NAMES_MAX_CHARACTERS
        else _invalid_names_message.__wrapped__(names)
    )
    if stranger is not None:
        raise Malformed(stranger)
    for name, value in fields.items():
        kind = type(value)
        if kind is str or value is None or kind is bool or kind is float:
            continue
        if kind is not int or not -_LONG_MAX < value < _LONG_MAX:
            _check_params_value(name, value)
    _check_texts(fields)
    return orjson.dumps(fields)


@lru_cache(maxsize=4096)
def _invalid_names_message(names: tuple[str, ...]) -> str | None:
    """Say what is wrong with a document's names; None for nothing: documents of one sender mostly have the same."""
    if len(names) > _MAX_FIELDS:
        return f"it has over {_MAX_FIELDS} fields, and no door makes so many"
    wrong = next((name for name in names if name not in RESERVED_FIELDS and not is_top_level_name(name)), None)
    return None if wrong is None else f"{wrong[:100]!r} may not stand at a document's top level"


def _check_head(fields: Mapping[str, Any], max_timestamp: str) -> None:
    stamp, identity = fields["@timestamp"], fields["event_id"]
    if type(stamp) is not str or parse_timestamp(stamp) != stamp:
        raise Malformed("@timestamp is not written as 2015-01-22T09:30:00.000Z")
    if stamp > max_timestamp:
        raise Malformed(f"@timestamp is {stamp}, more than a day ahead of this server's clock")
    if type(identity) is not str or not 0 < len(identity.encode()) <= EVENT_ID_MAX_BYTES:
        raise Malformed(f"event_id is no text of 1 to {EVENT_ID_MAX_BYTES} bytes")


def _check_params_value(name: str, value: object) -> None:
    """Look at a value that is neither a text nor a number of the usual size."""
    if name != "params":
        raise Malformed(f"{name} is neither a text nor a number that a document may have")
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        raise Malformed("params is no object of texts")


def _check_texts(fields: Mapping[str, Any]) -> None:
    if type(fields.get("params", _NO_PARAMS)) is not dict:
        raise Malformed("params is no object of texts")
    if type(fields.get("event.original", "")) is not str:
        raise Malformed("event.original is no text")
    for name, limit in LENGTH_LIMITS:
        value = fields.get(name, "")
        if type(value) is not str or len(value) > limit or len(value.encode()) > limit:
            raise Malformed(f"{name} is no text of at most {limit} bytes")


def generate_event_ids() -> Iterator[str]:
    """Name events for ever uniquely: by 80 random bits of this process, in order within it."""
    process = secrets.token_hex(10)
    return map(f"{process}-%08x".__mod__, count())


def idempotent_event_ids(idempotency_key: str, path_and_query: str, body: bytes) -> Iterator[str]:
    """Name the events of a request that may come again with its idempotency key.

    Two senders may well use the same key: only the same request is the same.

    Args:
        idempotency_key: what the sender says again.
        path_and_query: the request's path and query.
        body: its body, decoded.

    """
    return derive_event_ids(f"{idempotency_key}\n{path_and_query}\n".encode(errors="backslashreplace") + body)


def derive_event_ids(content: str | bytes) -> Iterator[str]:
    """Name the events of something that may come again, by what it is and their position in it.

    Args:
        content: a chunk's id, or the whole of a request.

    """
    seed = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    return map(f"{hashlib.blake2b(seed, digest_size=16).hexdigest()}-%d".__mod__, count())
