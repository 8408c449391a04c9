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
from urllib.parse import urlsplit

import orjson

from metronome.enrich.addresses import read_address
from metronome.event import NAME_MAX_BYTES, PARAM_MAX_CHARACTERS, Event
from metronome.items import Hit, ItemRule

MARK: Final = ("protocol", "micrometrics")
"""The field, and its value, that tell these events from others."""
ANY_VALUE: Final = "metric.value"
"""The field of a value that is no number, or too large a one."""
GROUPS: Final = ("tags", "fields", "data")
_TAG_KEYS: Final = "tag.keys"
_ORIGINAL: Final = "event.original"
_SHOWN: Final = 200
_MEASURES_BELOW: Final = 2**63
_NO_HIT: Final = Hit("", None, None)


def tag_keys_field(part: int) -> str:
    """Return the field that holds that part, from 0, of the names of an event's tags, as a JSON array."""
    return f"{_TAG_KEYS}.{part}"


def event_of(tracked: Mapping[str, Any], rule: ItemRule, page: str = "") -> Event:
    """Make the event of a document.

    Args:
        tracked: the document (see `read_payload`).
        rule: finds the item in the path of an address.
        page: the address of the page where it happened, if that is known, or nothing.

    """
    name, mark = MARK
    fields: dict[str, Any] = {
        "@timestamp": tracked["createdOn"],
        "event_id": tracked["_id"],
        "event": tracked["type"],
        name: mark,
    }
    value = tracked["value"]
    fields["value" if _is_measure(value) else ANY_VALUE] = value
    for given, known in (("userId", "user"), ("sessionId", "session")):
        if given in tracked:
            fields[known] = tracked[given]
    data = tracked["data"]
    fields.update(_derived(tracked, rule, page))
    for group in GROUPS:
        fields.update({f"{group}.{inner}": one for inner, one in tracked[group].items()})
    if "clientip" in fields:
        # There it can be cut.
        fields["clientip"] = data["ip"]
        del fields["data.ip"]
    fields.update({tag_keys_field(at): text for at, text in enumerate(_tag_keys(tracked["tagKeys"]))})
    return Event(fields)


def tracked_of(document: bytes) -> dict[str, Any]:
    """Return the tracked document of an event as the store has it; its ``data.ip`` is the address as it was kept."""
    doc = orjson.loads(document)
    source = _whole(doc)
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name, value in source.items():
        group, dot, inner = name.partition(".")
        if dot and group in groups:
            groups[group][inner] = value
    if "clientip" in source:
        groups["data"]["ip"] = source["clientip"]
    tracked = {"type": doc.get("event"), **groups}
    tracked["value"] = source[ANY_VALUE] if ANY_VALUE in source else source.get("value")
    for given, known in (("userId", "user"), ("sessionId", "session")):
        if known in source:
            tracked[given] = source[known]
    tracked["createdOn"] = doc.get("@timestamp")
    tracked["tagKeys"] = list(groups["tags"])
    tracked["_id"] = doc.get("event_id")
    return tracked


def _whole(doc: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an event's fields as they came in."""
    try:
        original = orjson.loads(doc[_ORIGINAL])
    except (KeyError, TypeError, ValueError):
        return doc
    # An event of another protocol may bear the mark, too.
    return original if isinstance(original, dict) else doc


def _derived(tracked: Mapping[str, Any], rule: ItemRule, page: str) -> Iterator[tuple[str, Any]]:
    """Yield what reports about items need to know: which item, where, and by whom."""
    places = (tracked["tags"], tracked["data"])
    url = _first(places, "url") or page
    path = _first(places, "path") or _path_of(url)
    # Whatever the event is called, it tells of a page that was there.
    hit = rule.hit("GET", _SHOWN, path) if path else _NO_HIT
    known = {
        "id": _first(places, "id") or hit.id,
        "format": (_first(places, "format") or hit.format) if tracked["type"] == "download" else None,
        "url": url,
        "agent": _short(tracked["data"].get("userAgent")),
        # A pixel's own referrer is the page that it is on.
        "referer": "" if page else _short(tracked["data"].get("referrer")),
    }
    yield from ((name, text) for name, text in known.items() if text)
    address = tracked["data"].get("ip")
    if isinstance(address, str) and read_address(address) is not None:
        yield "clientip", address


def _is_measure(value: object) -> bool:
    """Tell whether a value is a number that every store can work with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MEASURES_BELOW


def _first(places: Iterable[Mapping[str, Any]], name: str) -> str:
    return next(filter(None, (_short(place.get(name)) for place in places)), "")


def _short(value: object) -> str:
    """Return a text, or a whole number's, that may be a name; else nothing."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and len(text.encode(errors="replace")) <= NAME_MAX_BYTES else ""


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _tag_keys(names: list[str]) -> Iterator[str]:
    """Yield the names of tags as JSON arrays, sorted, none too long to be asked for."""
    part: list[str] = []
    for name in sorted(names):
        if part and len(orjson.dumps([*part, name]).decode()) > PARAM_MAX_CHARACTERS:
            yield orjson.dumps(part).decode()
            part = []
        part.append(name)
    if part:
        yield orjson.dumps(part).decode()


_PAIR: Final = re.compile(r"([^:=]*)(?:[:=](.*))?", re.DOTALL)


def read_pairs(text: str) -> dict[str, str | bool]:
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
