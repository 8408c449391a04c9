"""Tracked documents as events, and back.

A document's ``type`` is the event's name, and its value, where that is a number, the event's ``value``. Tags,
fields and data become one field for each name, as ``tags.currency``, so that they can be filtered and grouped by
however many names there are. Nothing is lost of them: that they are no plain names makes the store keep the
whole event beside them.

Lists of names and values as one text: ``currency:yen,units:cents,urgent``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from metronome.enrich.addresses import normalize_address
from metronome.event import Event
from metronome.fields import NAME_MAX_BYTES, VALUE_MAX_CHARACTERS
from metronome.items import ItemMatch, ItemPattern, url_path

PROTOCOL_MARKER: Final = ("protocol", "micrometrics")
"""The field, and its value, that tell these events from others."""
OTHER_VALUE_FIELD: Final = "metric.value"
"""The field of a value that is no number, or too large a one."""
DOCUMENT_GROUPS: Final = ("tags", "fields", "data")
_TAG_KEYS_FIELD: Final = "tag.keys"
_ORIGINAL_FIELD: Final = "event.original"
_MAX_STORABLE_NUMBER: Final = 2**63
_NO_ITEM: Final = ItemMatch(None, None)


def tag_keys_field(part: int) -> str:
    """Return the field that holds that part, from 0, of the names of an event's tags, as a JSON array."""
    return f"{_TAG_KEYS_FIELD}.{part}"


def build_event(document: Mapping[str, Any], item_pattern: ItemPattern, page_url: str = "") -> Event:
    """Make the event of a document.

    Args:
        document: the document (see `read_payload`).
        item_pattern: finds the item in the path of an address.
        page_url: the address of the page where it happened, if that is known, or nothing.

    """
    name, mark = PROTOCOL_MARKER
    fields: dict[str, Any] = {
        "@timestamp": document["createdOn"],
        "event_id": document["_id"],
        "event": document["type"],
        name: mark,
    }
    value = document["value"]
    fields["value" if _is_storable_number(value) else OTHER_VALUE_FIELD] = value
    for given, known in (("userId", "user"), ("sessionId", "session")):
        if given in document:
            fields[known] = document[given]
    data = document["data"]
    fields.update(_derive_item_fields(document, item_pattern, page_url))
    for group in DOCUMENT_GROUPS:
        fields.update({f"{group}.{inner}": one for inner, one in document[group].items()})
    if "clientip" in fields:
        # There it can be cut.
        fields["clientip"] = data["ip"]
        del fields["data.ip"]
    fields.update({tag_keys_field(at): text for at, text in enumerate(_encode_tag_names(document["tagKeys"]))})
    return Event(fields)


def restore_document(document: bytes) -> dict[str, Any]:
    """Return the tracked document of an event as the store has it; its ``data.ip`` is the address as it was kept."""
    doc = orjson.loads(document)
    source = _original_fields(doc)
    groups: dict[str, dict[str, Any]] = {group: {} for group in DOCUMENT_GROUPS}
    for name, value in source.items():
        group, dot, inner = name.partition(".")
        if dot and group in groups:
            groups[group][inner] = value
    if "clientip" in source:
        groups["data"]["ip"] = source["clientip"]
    tracked = {"type": doc.get("event"), **groups}
    tracked["value"] = source[OTHER_VALUE_FIELD] if OTHER_VALUE_FIELD in source else source.get("value")
    for given, known in (("userId", "user"), ("sessionId", "session")):
        if known in source:
            tracked[given] = source[known]
    tracked["createdOn"] = doc.get("@timestamp")
    tracked["tagKeys"] = list(groups["tags"])
    tracked["_id"] = doc.get("event_id")
    return tracked


def _original_fields(doc: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an event's fields as they came in."""
    try:
        original = orjson.loads(doc[_ORIGINAL_FIELD])
    except (KeyError, TypeError, ValueError):
        return doc
    # An event of another protocol may bear the mark, too.
    return original if isinstance(original, dict) else doc


def _derive_item_fields(
    document: Mapping[str, Any], item_pattern: ItemPattern, page_url: str
) -> Iterator[tuple[str, Any]]:
    """Yield what reports about items need to know: which item, where, and by whom."""
    places = (document["tags"], document["data"])
    url = _first_text(places, "url") or page_url
    path = _first_text(places, "path") or url_path(url)
    item = item_pattern.match(path) if path else _NO_ITEM
    known = {
        "id": _first_text(places, "id") or item.id,
        "format": (_first_text(places, "format") or item.format) if document["type"] == "download" else None,
        "url": url,
        "agent": _bounded_text(document["data"].get("userAgent")),
        # A pixel's own referrer is the page that it is on.
        "referer": "" if page_url else _bounded_text(document["data"].get("referrer")),
    }
    yield from ((name, text) for name, text in known.items() if text)
    address = document["data"].get("ip")
    if isinstance(address, str) and normalize_address(address) is not None:
        yield "clientip", address


def _is_storable_number(value: object) -> bool:
    """Tell whether a value is a number that every store can work with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_STORABLE_NUMBER


def _first_text(places: Iterable[Mapping[str, Any]], name: str) -> str:
    return next(filter(None, (_bounded_text(place.get(name)) for place in places)), "")


def _bounded_text(value: object) -> str:
    """Return a text, or a whole number's, that may be a name; else nothing."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and len(text.encode(errors="replace")) <= NAME_MAX_BYTES else ""


def _encode_tag_names(names: list[str]) -> Iterator[str]:
    """Yield the names of tags as JSON arrays, sorted, none too long to be asked for."""
    part: list[str] = []
    for name in sorted(names):
        if part and len(orjson.dumps([*part, name]).decode()) > VALUE_MAX_CHARACTERS:
            yield orjson.dumps(part).decode()
            part = []
        part.append(name)
    if part:
        yield orjson.dumps(part).decode()


_PAIR: Final = re.compile(r"([^:=]*)(?:[:=](.*))?", re.DOTALL)


def parse_pairs(text: str) -> dict[str, str | bool]:
    """Read a list of ``name:value``, ``name=value`` or just ``name``, which is then ``True``.

    The first colon or equals sign ends the name, so that an address may be a value. Of two with the same name the
    last one counts; one without a name does not.
    """
    pairs: dict[str, str | bool] = {}
    for part in text.split(","):
        match = _PAIR.fullmatch(part)
        if match is not None and match[1]:
            pairs[match[1]] = True if match[2] is None else match[2]
    return pairs
