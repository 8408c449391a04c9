"""Convert payloads to tracked documents, these to events, and stored events back to documents.

A document's ``type`` becomes the event's name, and its value, if it is a number, the event's ``value``. Tags, fields
and data become one field for each name, such as ``tags.currency``, so that any number of names can be filtered and
grouped by. Nothing of them is lost: they are not top-level names, so the store keeps the whole event as well.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from metronome.enrich.addresses import normalize_address
from metronome.errors import Malformed
from metronome.event import Event
from metronome.fields import NAME_MAX_BYTES, VALUE_MAX_CHARACTERS
from metronome.items import ItemMatch, ItemPattern, url_path
from metronome.protocols.micro_metrics.dates import parse_javascript_date
from metronome.times import format_timestamp

ALLOWED_FIELDS: Final = ("type", "tags", "fields", "data", "value", "userId", "userID", "sessionId", "createdOn")
"""The fields of a payload."""
DOCUMENT_GROUPS: Final = ("tags", "fields", "data")
TAGS_MAX: Final = 200
TAG_NAME_MAX_CHARACTERS: Final = 200
PROTOCOL_MARKER: Final = ("protocol", "micrometrics")
"""The field that marks these events, and its value."""
OTHER_VALUE_FIELD: Final = "metric.value"
"""The field of a value that is not a number, or too large a number."""

_EVENT_FIELDS: Final = {"userId": "user", "sessionId": "session"}
"""Fields of an event by the fields of the document."""
_DEFAULT_VALUE: Final = 1
_PAIR: Final = re.compile(r"([^:=]*)(?:[:=](.*))?", re.DOTALL)
_TAG_KEYS_FIELD: Final = "tag.keys"
_ORIGINAL_FIELD: Final = "event.original"
_MAX_STORABLE_NUMBER: Final = 2**63
_NO_ITEM: Final = ItemMatch(None, None)
_QUOTED_MAX_CHARACTERS: Final = 60
_QUOTED_MAX_NAMES: Final = 3


def parse_payload(payload: object, received_at: str, document_id: str) -> dict[str, Any]:
    """Return the tracked document of a payload.

    Args:
        payload: a JSON object. ``type`` is a string; ``tags``, ``fields`` and ``data`` are objects or lists as
            `parse_pairs` reads them, ``value`` is any JSON, ``userId`` (or ``userID``) and ``sessionId`` are strings
            or numbers, ``createdOn`` is a time as `parse_javascript_date` reads it. None and the empty string count
            as missing, except that ``value`` may be either.
        received_at: the timestamp of a payload without ``createdOn``.
        document_id: the document's ``_id``.

    Returns:
        ``type``, ``tags``, ``fields``, ``data``, ``value``, ``userId`` and ``sessionId`` if the payload has them,
        ``createdOn`` as a timestamp, ``tagKeys`` and ``_id``.

    Raises:
        Malformed: the payload is invalid.

    """
    if not isinstance(payload, dict):
        raise Malformed('invalid event: expected a JSON object with a type, as {"type":"pageview"}')
    unknown = [name for name in payload if name not in ALLOWED_FIELDS]
    if unknown:
        raise Malformed(f"{_quote_names(unknown)} is not allowed: an event has {', '.join(ALLOWED_FIELDS)}")
    tags = parse_group(payload, "tags")
    if len(tags) > TAGS_MAX:
        raise Malformed(f'"tags" has over {TAGS_MAX} names: put some of them in "data"')
    if any(len(name) > TAG_NAME_MAX_CHARACTERS for name in tags):
        raise Malformed(f'"tags" has a name of over {TAG_NAME_MAX_CHARACTERS} characters: shorten it')
    document: dict[str, Any] = {
        "type": _parse_type(payload.get("type")),
        "tags": tags,
        "fields": parse_group(payload, "fields"),
        "data": parse_group(payload, "data"),
        "value": payload.get("value", _DEFAULT_VALUE),
    }
    user_id = payload.get("userId")
    if user_id is None or user_id == "":
        user_id = payload.get("userID")
    for name, value in (("userId", user_id), ("sessionId", payload.get("sessionId"))):
        if value is not None and value != "":
            document[name] = _parse_text_field(name, value)
    created = payload.get("createdOn")
    document["createdOn"] = (
        received_at if created is None or created == "" else format_timestamp(parse_javascript_date(created))
    )
    document["tagKeys"] = list(tags)
    document["_id"] = document_id
    return document


def parse_group(payload: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the names and values of ``tags``, ``fields`` or ``data``.

    Raises:
        Malformed: they are neither an object nor a string.

    """
    value = payload.get(name)
    if isinstance(value, dict):
        return value
    if value is None:
        return {}
    if isinstance(value, str):
        return dict(parse_pairs(value))
    raise Malformed(f'"{name}" must be an object, or a string as name:value,name2')


def parse_pairs(text: str) -> dict[str, str | bool]:
    """Parse a list of names and values such as ``currency:yen,units=cents,urgent``.

    A name alone has the value ``True``. The first colon or equals sign ends the name, so that a URL may be a value.
    The last of several values of one name counts, and a value without a name is ignored.
    """
    pairs: dict[str, str | bool] = {}
    for part in text.split(","):
        match = _PAIR.fullmatch(part)
        if match is not None and match[1]:
            pairs[match[1]] = True if match[2] is None else match[2]
    return pairs


def encode_document(document: Mapping[str, Any]) -> bytes:
    """Encode a document as JSON.

    Raises:
        Malformed: it is nested too deeply.

    """
    try:
        return orjson.dumps(document)
    except TypeError as error:
        raise Malformed(f"the event cannot be stored: {error}") from None


def build_event(document: Mapping[str, Any], item_pattern: ItemPattern, page_url: str = "") -> Event:
    """Return the event of a document.

    Args:
        document: from `parse_payload`.
        item_pattern: finds the item in the path of a URL.
        page_url: the URL of the page where the event happened, if it is known.

    """
    name, value = PROTOCOL_MARKER
    fields: dict[str, Any] = {
        "@timestamp": document["createdOn"],
        "event_id": document["_id"],
        "event": document["type"],
        name: value,
    }
    number = document["value"]
    fields["value" if _is_storable_number(number) else OTHER_VALUE_FIELD] = number
    for name, field in _EVENT_FIELDS.items():
        if name in document:
            fields[field] = document[name]
    fields.update(_item_fields(document, item_pattern, page_url))
    for group in DOCUMENT_GROUPS:
        fields.update({f"{group}.{name}": value for name, value in document[group].items()})
    if "clientip" in fields:
        # Only in this field are addresses anonymized.
        fields["clientip"] = document["data"]["ip"]
        del fields["data.ip"]
    fields.update({tag_keys_field(part): names for part, names in enumerate(_encode_tag_names(document["tagKeys"]))})
    return Event(fields)


def restore_document(stored: bytes) -> dict[str, Any]:
    """Return the tracked document of a stored event; its ``data.ip`` may be anonymized."""
    event = orjson.loads(stored)
    fields = _original_fields(event)
    groups: dict[str, dict[str, Any]] = {group: {} for group in DOCUMENT_GROUPS}
    for field, value in fields.items():
        group, dot, name = field.partition(".")
        if dot and group in groups:
            groups[group][name] = value
    if "clientip" in fields:
        groups["data"]["ip"] = fields["clientip"]
    document = {"type": event.get("event"), **groups}
    document["value"] = fields[OTHER_VALUE_FIELD] if OTHER_VALUE_FIELD in fields else fields.get("value")
    for name, field in _EVENT_FIELDS.items():
        if field in fields:
            document[name] = fields[field]
    document["createdOn"] = event.get("@timestamp")
    document["tagKeys"] = list(groups["tags"])
    document["_id"] = event.get("event_id")
    return document


def tag_keys_field(part: int) -> str:
    """Return the field that holds one part (the first is 0) of the names of an event's tags, as a JSON array."""
    return f"{_TAG_KEYS_FIELD}.{part}"


def _parse_type(value: object) -> str:
    if value is None or value == "":
        raise Malformed('"type" is required: send the kind of event, as {"type":"pageview"}')
    if not isinstance(value, str):
        raise Malformed('"type" must be a string')
    return value


def _parse_text_field(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise Malformed(f'"{name}" must be a string')


def _quote_names(names: list[str]) -> str:
    quoted = ", ".join(f'"{name[:_QUOTED_MAX_CHARACTERS]}"' for name in names[:_QUOTED_MAX_NAMES])
    return quoted + (f" and {len(names) - _QUOTED_MAX_NAMES} more" if len(names) > _QUOTED_MAX_NAMES else "")


def _original_fields(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stored event's fields as they were sent."""
    try:
        original = orjson.loads(event[_ORIGINAL_FIELD])
    except (KeyError, TypeError, ValueError):
        return event
    # An event of another protocol may have the marker, too.
    return original if isinstance(original, dict) else event


def _item_fields(document: Mapping[str, Any], item_pattern: ItemPattern, page_url: str) -> Iterator[tuple[str, str]]:
    """Yield the fields that reports on items use."""
    places = (document["tags"], document["data"])
    url = _first_text(places, "url") or page_url
    path = _first_text(places, "path") or (item_pattern.target(url) if item_pattern.match_url else url_path(url))
    item = item_pattern.match(path) if path else _NO_ITEM
    fields = {
        "id": _first_text(places, "id") or item.id,
        "format": (_first_text(places, "format") or item.format) if document["type"] == "download" else None,
        "url": url,
        "agent": _bounded_text(document["data"].get("userAgent")),
        # The referrer of a pixel's request is the page that the pixel is on.
        "referer": "" if page_url else _bounded_text(document["data"].get("referrer")),
    }
    yield from ((name, text) for name, text in fields.items() if text)
    address = document["data"].get("ip")
    if isinstance(address, str) and normalize_address(address) is not None:
        yield "clientip", address


def _is_storable_number(value: object) -> bool:
    """Return whether a value is a number that every store can aggregate."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_STORABLE_NUMBER


def _first_text(places: Iterable[Mapping[str, Any]], name: str) -> str:
    return next(filter(None, (_bounded_text(place.get(name)) for place in places)), "")


def _bounded_text(value: object) -> str:
    """Return a string, or an integer as one, if it is short enough for a name; otherwise an empty string."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and len(text.encode(errors="replace")) <= NAME_MAX_BYTES else ""


def _encode_tag_names(names: list[str]) -> Iterator[str]:
    """Yield the sorted names as JSON arrays, each short enough to be the value of a field."""
    part: list[str] = []
    for name in sorted(names):
        if part and len(orjson.dumps([*part, name]).decode()) > VALUE_MAX_CHARACTERS:
            yield orjson.dumps(part).decode()
            part = []
        part.append(name)
    if part:
        yield orjson.dumps(part).decode()
