"""Documents that come back as documents: from the archive, where they were put as the door made them.

They go into the store as they are. So each is looked at first: whatever `metronome.event.document` makes passes
unchanged, and what no door has made is refused.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from metronome.errors import Malformed
from metronome.event import EVENT_ID_MAX_BYTES, HEAD_PATTERN, NAME_MAX_BYTES, is_plain
from metronome.timestamps import read_stamp

_HEAD: Final = re.compile(HEAD_PATTERN)
_MOST_FIELDS: Final = 250
"""At the top level: more than a door's limit, the known fields and those of enrichment are together."""
_REMEMBERED_CHARACTERS: Final = 2048
_LONG_MAX: Final = 2**63
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
        if kind is not int or not -_LONG_MAX < value < _LONG_MAX:
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
