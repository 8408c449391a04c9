"""Events, and the Logstash documents that are built from them.

An event is flat JSON with any fields. Its document loses nothing, and no mapping rejects it: fields that fit are at the
top level under their own names, all others are texts in ``params``, and if anything had to be changed, the unchanged
event is in ``event.original``.

Every document begins with ``@timestamp`` and ``event_id``, in this order, so that a store can read index and ID without
parsing the rest (`DOCUMENT_HEAD_PATTERN`).

Documents that come back, from the archive, are validated: every document that `build_document` builds is valid.
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
    PRIVATE_PROXIES,
    AddressFields,
    AddressRole,
    ProxyNetworks,
    address_role,
    anonymize_address,
    anonymize_fields,
    anonymize_original,
    anonymize_text,
    find_address_fields,
    has_addresses,
    normalize_address,
)
from metronome.enrich.enrichment import EMPTY_VALUES, ENRICH_KEPT_FIELD, ENRICH_VERSION_FIELD, NO_SALTS, Enrichment
from metronome.enrich.recent_visitors import RecentVisitors
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
from metronome.partial_requests import PART_FIELD, PartialRequests
from metronome.times import parse_timestamp

REPEATED_FIELDS: Final = "[repeated]"
"""The name under which a protocol lists repeated fields. It is not a top-level name, so the whole event is stored."""

TOP_LEVEL_MAX_FIELDS: Final = 100
"""Further fields of a document go to ``params``, so that one event cannot use up an index's mapping."""

DOCUMENT_HEAD_PATTERN: Final = rb'\{"@timestamp":"(\d{4})-(\d\d)-(\d\d)T[0-9:.]++Z","event_id":("(?:[^"\\]++|\\.)++")'
"""The beginning of each document: year, month and day of its UTC day, and its ID as a JSON string."""

_NO_FIELDS: Final[frozenset[str]] = frozenset()
_NOT_A_BOT = (None, False, "", 0, "0", "false")
_LONG_MAX = 2**63
_UNSIGNED_LONG_MAX = 2**64
"""JSON integers below this limit are parsed exactly."""
_NAME_SAFE_CHARACTERS = NAME_MAX_BYTES // 4
"""A text of this length is within `NAME_MAX_BYTES` in any case."""
_EVENT_ID_SAFE_CHARACTERS = EVENT_ID_MAX_BYTES // 4
_UNKNOWN_EVENT = "unknown"
_NESTED_TOO_DEEPLY = "the event is nested too deeply: send it with fewer levels"


class Event(NamedTuple):
    """An event as a protocol parsed it.

    Attributes:
        fields: under the names that the sender or the protocol gave them.
        original: the event as it was received, if that can be more exact than *fields* (a number of thirty digits), or
            a function that finds it when it is needed, given *fields*.

    """

    fields: Mapping[str, Any]
    original: bytes | Callable[[Mapping[str, Any]], bytes] | None = None


def exact_scalar_text(text: bytes, *names: str) -> str:
    """Return a number or boolean in a JSON text as it is written there: parsed, ``1.0`` and long numbers lose digits.

    Args:
        text: a valid JSON object.
        names: of the fields that lead to the value.

    """
    value: Any = json.loads(text, parse_int=str, parse_float=str)
    for name in names:
        value = value[name]
    return value if isinstance(value, str) else str(value).lower()


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
        keep_months: how many whole months before the current one are kept; older events are rejected, as the store
            could not tell whether it has had them before. None for all.
        event_max_bytes: the maximum size of a document.
        body_max_bytes: the maximum size of a decoded request body.
        batch_max_events: the maximum number of events in a request.
        anonymize_addresses: whether IP addresses are truncated.
        proxies: networks of proxies, which are never the client that a log names.
        enrichment: None to add nothing to events.
        honor_privacy_signals: whether requests with ``Sec-GPC`` or ``DNT`` are stored without a visitor.

    """

    item_pattern: ItemPattern = field(default_factory=ItemPattern)
    own_hosts: frozenset[str] = frozenset()
    max_age: timedelta | None = None
    keep_months: int | None = None
    event_max_bytes: int = sys.maxsize
    body_max_bytes: int = sys.maxsize
    batch_max_events: int = sys.maxsize
    anonymize_addresses: bool = True
    proxies: ProxyNetworks = PRIVATE_PROXIES
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
        partial_requests: finds requests for further parts of a file; None to count each request.
        recent_visitors: finds visitors who were there before midnight; None to begin anew with each day.
        kept_from: the timestamp before which no events are kept, or None to keep all.

    """

    received_at: str
    min_timestamp: str | None
    max_timestamp: str
    config: IngestConfig = DEFAULT_INGEST_CONFIG
    salts: Mapping[str, bytes] = field(default_factory=lambda: NO_SALTS)
    partial_requests: PartialRequests | None = None
    recent_visitors: RecentVisitors | None = None
    kept_from: str | None = None


def build_document(event: Event, context: DocumentContext, generated_id: str) -> bytes:
    """Encode an event as its Logstash document: a line of JSON, without the line feed.

    The same event with the same ``event_id`` and time is the same document, so that a resent event replaces itself.

    Args:
        event: the event.
        context: what depends on the time of receipt.
        generated_id: the ID if the event has none.

    Raises:
        Malformed: the timestamp is not valid or not accepted, or ``id``, ``event``, ``format``, ``bot`` or ``event_id``
            is too long.

    """
    layout = _FIELD_LAYOUTS[tuple(event.fields)]
    if not context.config.anonymize_addresses:
        return _encode_document(_build_fields(event, layout, context, generated_id))
    if layout.has_client_fields or has_addresses(event.fields, layout.address_fields, event.fields.get("clientip")):
        event = _anonymize_event(event)
        layout = _FIELD_LAYOUTS[tuple(event.fields)]
    return _encode_document(_build_fields(event, layout, context, generated_id))


def _build_fields(event: Event, layout: "_FieldLayout", context: DocumentContext, generated_id: str) -> dict[str, Any]:
    fields = event.fields
    odd: dict[str, Any] = {}
    if layout.all_top_level and _all_scalar(fields):
        doc = {"@timestamp": context.received_at, "event_id": generated_id, "@version": "1", **fields}
    else:
        doc = {"@timestamp": context.received_at, "event_id": generated_id, "@version": "1"}
        _split_fields(fields, doc, odd)
    if layout.timestamp_fields:
        doc["@timestamp"] = _extract_timestamp(layout.timestamp_fields, doc, odd, context)
    if layout.has_event_id:
        _set_event_id(doc, odd, generated_id, event)
    item, event_name = doc.get("id"), doc.get("event")
    if not (type(item) is str and 0 < len(item) <= _NAME_SAFE_CHARACTERS):
        _set_item_id(doc, item)
    if layout.has_format_or_bot or not (type(event_name) is str and 0 < len(event_name) <= _NAME_SAFE_CHARACTERS):
        _set_event_type(doc, odd)
    if layout.has_status:
        _set_part(doc, fields, context.partial_requests)
    _normalize_fields(doc, odd, layout, context)
    if layout.can_enrich and context.config.enrichment is not None:
        _enrich(doc, fields, layout, context, context.config.enrichment)
    if odd:
        doc["params"] = _encode_params(odd)
        doc["event.original"] = _original_text(event, context)
    return doc


def _normalize_fields(
    doc: dict[str, Any], odd: dict[str, Any], layout: "_FieldLayout", context: DocumentContext
) -> None:
    if layout.referrer_fields:
        _set_referrer(layout.referrer_fields, doc, odd, context)
    for name in layout.number_fields:
        if type(doc.get(name)) is str:
            doc[name] = _parse_number(doc[name])
    if layout.has_client_address:
        _normalize_client_address(doc, odd, context)


def _enrich(
    doc: dict[str, Any],
    fields: Mapping[str, Any],
    layout: "_FieldLayout",
    context: DocumentContext,
    enrichment: Enrichment,
) -> None:
    sender_fields = (
        frozenset([name for name in layout.enriched_fields if fields[name] not in EMPTY_VALUES])
        if layout.enriched_fields
        else _NO_FIELDS
    )
    enrichment.enrich(
        doc, sender_fields, fields.get("clientip"), context.received_at, context.salts, context.recent_visitors
    )


class _FieldLayout(NamedTuple):
    """What follows from the names of an event's fields, which most events of a sender share."""

    all_top_level: bool
    timestamp_fields: tuple[str, ...]
    referrer_fields: tuple[str, ...]
    has_event_id: bool
    has_format_or_bot: bool
    number_fields: tuple[str, ...]
    has_client_address: bool
    can_enrich: bool
    enriched_fields: tuple[str, ...]
    has_status: bool
    has_client_fields: bool
    address_fields: AddressFields


class _FieldLayoutCache(dict[tuple[str, ...], _FieldLayout]):
    """Recent layouts, in bounded memory whatever clients send."""

    MAX_LAYOUTS = 4096
    MAX_CHARACTERS = 2048

    def __missing__(self, names: tuple[str, ...]) -> _FieldLayout:
        name_set = frozenset(names)
        layout = _FieldLayout(
            all_top_level=len(names) <= TOP_LEVEL_MAX_FIELDS and all(map(is_top_level_name, name_set - {"@timestamp"})),
            timestamp_fields=tuple(name for name in TIMESTAMP_FIELDS if name in name_set),
            referrer_fields=tuple(name for name in REFERRER_FIELDS if name in name_set),
            has_event_id="event_id" in name_set,
            has_format_or_bot=not name_set.isdisjoint(("format", "bot")),
            number_fields=tuple(name for name in names if name in CONVERTED_NUMBERS),
            has_client_address="clientip" in name_set,
            # A document that is sent again was enriched before.
            can_enrich=name_set.isdisjoint((ENRICH_VERSION_FIELD, ENRICH_KEPT_FIELD))
            and not name_set.isdisjoint(INPUT_FIELDS),
            enriched_fields=tuple(name for name in names if name in ENRICHED_FIELDS),
            has_status="status" in name_set,
            has_client_fields=any(
                (name != "clientip" and address_role(name) is AddressRole.CLIENT) or anonymize_text(name) != name
                for name in names
            ),
            address_fields=find_address_fields(names),
        )
        if sum(map(len, names)) <= self.MAX_CHARACTERS:
            if len(self) >= self.MAX_LAYOUTS:
                self.clear()
            self[names] = layout
        return layout


_FIELD_LAYOUTS = _FieldLayoutCache()


def _anonymize_event(event: Event) -> Event:
    """Return the event without whole addresses but in ``clientip``, which the visitor's ID is computed from."""
    try:
        fields = anonymize_fields(event.fields)
    except RecursionError:
        raise Malformed(_NESTED_TOO_DEEPLY) from None
    if fields is None:
        return event
    return Event(fields, lambda _: anonymize_original(_whole_original(event), event.fields).encode(errors="replace"))


def _all_scalar(fields: Mapping[str, Any]) -> bool:
    for value in fields.values():
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if not ((kind is int or kind is float) and -_LONG_MAX < value < _LONG_MAX):
            return False
    return True


def _split_fields(fields: Mapping[str, Any], doc: dict[str, Any], odd: dict[str, Any]) -> None:
    """Put fields that fit at the top level into *doc*, and all others into *odd*."""
    remaining = TOP_LEVEL_MAX_FIELDS
    for name, value in fields.items():
        is_core = name in CORE_FIELDS
        fits = is_core or (remaining > 0 and is_top_level_name(name))
        if fits and _all_scalar({name: value}):
            doc[name] = value
            remaining -= not is_core
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
        # `@timestamp` keeps its place at the head.
        del doc[name]
    for other in names:
        if other in doc and not _all_scalar({other: doc[other]}):
            odd[other] = doc.pop(other)
    if stamp > context.max_timestamp:
        raise Malformed(f"{name} is {stamp}, more than a day ahead of the server's clock: send the time of the event")
    if context.kept_from is not None and stamp < context.kept_from:
        raise Malformed(too_old_message(name, stamp, context.kept_from))
    if context.min_timestamp is not None and stamp < context.min_timestamp:
        raise Malformed(
            f"{name} is {stamp}, before {context.min_timestamp}: raise tick_max_age to accept older events, or send a "
            "key with the scope import"
        )
    return stamp


def too_old_message(name: str, stamp: str, kept_from: str) -> str:
    """Return why an event is rejected that is older than those that are kept."""
    return f"{name} is {stamp}, before {kept_from}: METRONOME_KEEP_EVENTS keeps no events that are older"


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


def _restore_event_id(doc: dict[str, Any], odd: dict[str, Any], event: Event) -> None:
    """Set an ID that is a number as it was sent, if that is known: two long numbers may be the same float."""
    original = event.original(event.fields) if callable(event.original) else event.original
    if original is not None and original.lstrip().startswith(b"{"):
        odd.pop("event_id", None)
        doc["event_id"] = exact_scalar_text(original, "event_id")


def _set_part(doc: dict[str, Any], fields: Mapping[str, Any], partial_requests: PartialRequests | None) -> None:
    if partial_requests is not None and partial_requests.is_part(doc, fields.get("clientip")):
        doc["event"] = "request"
        doc[PART_FIELD] = True
        doc.pop("format", None)


def _set_event_id(doc: dict[str, Any], odd: dict[str, Any], generated_id: str, event: Event) -> None:
    if type(event.fields["event_id"]) is float:
        _restore_event_id(doc, odd, event)
    event_id = doc["event_id"]
    if type(event_id) is str and 0 < len(event_id) <= _EVENT_ID_SAFE_CHARACTERS:
        return
    doc["event_id"] = (
        generated_id if event_id is None or event_id == "" else _limited_text("event_id", event_id, EVENT_ID_MAX_BYTES)
    )


def _limited_text(name: str, value: object, limit: int) -> str:
    text = _to_text(value)
    if len(text) > limit or len(text.encode(errors="replace")) > limit:
        raise Malformed(
            f"{name} is over {limit} bytes: shorten it, or send its hash here and the whole text in another field"
        )
    return text


def _set_referrer(names: tuple[str, ...], doc: dict[str, Any], odd: dict[str, Any], context: DocumentContext) -> None:
    for name in names:
        referrer = doc.pop(name, None)
        if referrer is not None and referrer != "":
            break
    else:
        return
    url = _to_text(referrer)
    normalized = normalize_referrer(url, context.config.own_hosts)
    whole_url = doc.get("referer_url")
    if (
        normalized != url
        and whole_url is not None
        and normalize_referrer(_to_text(whole_url), context.config.own_hosts) == url
    ):
        # A document that is sent again: this was normalized from `referer_url`.
        normalized = url
    if normalized and normalized[0].isdigit() and context.config.anonymize_addresses:
        # Normalization may have found an address, such as that of 00.0.0.5.
        normalized = anonymize_text(normalized)
    if normalized is not None and len(normalized) <= NAME_MAX_BYTES:
        doc["referer"] = normalized
    else:
        # No alias may take its place when the document is sent again.
        odd.update({other: doc.pop(other) for other in names if other in doc})
    if normalized != url:
        (doc if whole_url is None else odd)["referer_url"] = url


def _normalize_client_address(doc: dict[str, Any], odd: dict[str, Any], context: DocumentContext) -> None:
    address = doc.pop("clientip", odd.pop("clientip", None))
    if address is not None:
        normalize = anonymize_address if context.config.anonymize_addresses else normalize_address
        normalized = normalize(_to_text(address))
        if normalized is None:
            odd["clientip"] = (
                anonymize_text(_to_text(address), AddressRole.CLIENT) if context.config.anonymize_addresses else address
            )
        else:
            doc["clientip"] = normalized


def _parse_number(text: str) -> str | int | float:
    try:
        number = float(text)
        if not math.isfinite(number) or abs(number) >= _LONG_MAX:
            return text
        # A float may lack the last digits of an integer.
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
        raise Malformed(_NESTED_TOO_DEEPLY) from None


def _original_text(event: Event, context: DocumentContext) -> str:
    text = _whole_original(event)
    if not context.config.anonymize_addresses:
        return text
    if "clientip" in event.fields:
        address = event.fields["clientip"]
        given = "" if address is None else _to_text(address)
        quoted = orjson.dumps(address).decode() if address == given and given.isascii() else ""
        is_whole = (anonymize_address(given) or anonymize_text(given, AddressRole.CLIENT)) != given
        if REPEATED_FIELDS in event.fields or (is_whole and (not quoted or text.count(quoted) != 1)):
            # The address is not in the original, or is there in a form that is not known.
            text = _to_text(dict(event.fields))
    return anonymize_original(text, event.fields)


def _whole_original(event: Event) -> str:
    original = event.original(event.fields) if callable(event.original) else event.original
    return _to_text(dict(event.fields)) if original is None else original.decode(errors="backslashreplace")


def _encode_document(doc: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(doc)
    except TypeError:
        return orjson.dumps({_replace_surrogates(name): _replace_surrogates(value) for name, value in doc.items()})


def _replace_surrogates(value: object) -> Any:
    """Replace lone surrogates, which UTF-8 cannot encode, by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_replace_surrogates(name): _replace_surrogates(inner) for name, inner in value.items()}
    return value


_DOCUMENT_HEAD: Final = re.compile(DOCUMENT_HEAD_PATTERN)
_MAX_FIELDS: Final = 250
"""At the top level: more than `TOP_LEVEL_MAX_FIELDS` and all core fields together."""
_CACHED_NAMES_MAX_CHARACTERS: Final = 2048
_NO_PARAMS: Final[dict[str, str]] = {}


def validate_document(line: bytes, max_timestamp: str) -> bytes:
    """Return a document as stores accept it: the same bytes for a document that `build_document` built.

    Args:
        line: a line of JSON, without the line feed.
        max_timestamp: the newest timestamp that is accepted.

    Raises:
        Malformed: it is not a valid document.

    """
    if _DOCUMENT_HEAD.match(line) is None:
        raise Malformed("not a document of Metronome: expected one that begins with @timestamp and event_id")
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"invalid JSON: {error}") from None
    _check_head(fields, max_timestamp)
    names = tuple(fields)
    is_short = sum(map(len, names)) <= _CACHED_NAMES_MAX_CHARACTERS
    invalid = (_find_invalid_name if is_short else _find_invalid_name.__wrapped__)(names)
    if invalid is not None:
        raise Malformed(invalid)
    for name, value in fields.items():
        kind = type(value)
        if kind is str or value is None or kind is bool or kind is float:
            continue
        if name != "params" and not (kind is int and -_LONG_MAX < value < _LONG_MAX):
            raise Malformed(f"invalid {name}: expected a text, a boolean or a number below 2^63")
    _check_texts(fields)
    return orjson.dumps(fields)


@lru_cache(maxsize=4096)
def _find_invalid_name(names: tuple[str, ...]) -> str | None:
    """Return what is wrong with the names of a document's fields, which most documents of a sender share."""
    if len(names) > _MAX_FIELDS:
        return f"the document has over {_MAX_FIELDS} fields"
    invalid = next((name for name in names if name not in RESERVED_FIELDS and not is_top_level_name(name)), None)
    return None if invalid is None else f"invalid field {invalid[:100]!r} at the document's top level"


def _check_head(fields: Mapping[str, Any], max_timestamp: str) -> None:
    timestamp, event_id = fields["@timestamp"], fields["event_id"]
    if type(timestamp) is not str or parse_timestamp(timestamp) != timestamp:
        raise Malformed("invalid @timestamp: expected the form 2015-01-22T09:30:00.000Z")
    if timestamp > max_timestamp:
        raise Malformed(f"@timestamp is {timestamp}, more than a day ahead of the server's clock")
    if type(event_id) is not str or not 0 < len(event_id.encode()) <= EVENT_ID_MAX_BYTES:
        raise Malformed(f"invalid event_id: expected a text of 1 to {EVENT_ID_MAX_BYTES} bytes")


def _check_texts(fields: Mapping[str, Any]) -> None:
    params = fields.get("params", _NO_PARAMS)
    if type(params) is not dict or not all(type(text) is str for text in params.values()):
        raise Malformed("invalid params: expected an object of texts")
    if type(fields.get("event.original", "")) is not str:
        raise Malformed("invalid event.original: expected a text")
    for name, limit in LENGTH_LIMITS:
        value = fields.get(name, "")
        if type(value) is not str or len(value) > limit or len(value.encode()) > limit:
            raise Malformed(f"invalid {name}: expected a text of at most {limit} bytes")


def generate_event_ids() -> Iterator[str]:
    """Yield unique event IDs: 80 random bits of this process, and a counter."""
    process = secrets.token_hex(10)
    return map(f"{process}-%08x".__mod__, count())


def idempotent_event_ids(idempotency_key: str, path_and_query: str, body: bytes) -> Iterator[str]:
    """Yield event IDs for a request with an idempotency key: the same ones if the request is repeated.

    Path, query and body count as well, because two senders may use the same key.

    Args:
        idempotency_key: the key that the sender repeats.
        path_and_query: of the request's URL.
        body: decoded.

    """
    return derive_event_ids(f"{idempotency_key}\n{path_and_query}\n".encode(errors="backslashreplace") + body)


def derive_event_ids(content: str | bytes) -> Iterator[str]:
    """Yield event IDs that follow from some content and the position in it.

    Args:
        content: what may be sent again, such as a chunk's ID or a whole request.

    """
    seed = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    return map(f"{hashlib.blake2b(seed, digest_size=16).hexdigest()}-%d".__mod__, count())
