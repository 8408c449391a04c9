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
_SCALARS: Final = (str, bool, int, float, type(None))
_LONG_MAX: Final = 2**63
_NAMED: Final = {"id": NAME_MAX_BYTES, "event": NAME_MAX_BYTES, "format": NAME_MAX_BYTES, "bot": NAME_MAX_BYTES}
_HEADS: Final = frozenset({"@timestamp", "@version"})


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
    if len(fields) > _MOST_FIELDS:
        raise Malformed(f"it has over {_MOST_FIELDS} fields, and no door makes so many")
    for name, value in fields.items():
        _check_field(name, value)
    for name, limit in _NAMED.items():
        value = fields.get(name, "")
        if type(value) is not str or len(value.encode()) > limit:
            raise Malformed(f"{name} is no text of at most {limit} bytes")
    return orjson.dumps(fields)


def _check_head(fields: Mapping[str, Any], latest: str) -> None:
    stamp, identity = fields["@timestamp"], fields["event_id"]
    if type(stamp) is not str or read_stamp(stamp) != stamp:
        raise Malformed("@timestamp is not written as 2015-01-22T09:30:00.000Z")
    if stamp > latest:
        raise Malformed(f"@timestamp is {stamp}, more than a day ahead of this server's clock")
    if type(identity) is not str or not 0 < len(identity.encode()) <= EVENT_ID_MAX_BYTES:
        raise Malformed(f"event_id is no text of 1 to {EVENT_ID_MAX_BYTES} bytes")


def _check_field(name: str, value: object) -> None:
    if name == "params":
        if type(value) is not dict or not all(type(text) is str for text in value.values()):
            raise Malformed("params is no object of texts")
    elif name == "event.original":
        if type(value) is not str:
            raise Malformed("event.original is no text")
    elif name not in _HEADS and not _may_stand(name):
        raise Malformed(f"{name[:100]!r} may not stand at a document's top level")
    elif type(value) not in _SCALARS or (type(value) is int and not -_LONG_MAX < value < _LONG_MAX):
        raise Malformed(f"{name} is neither a text nor a number that a document may have")


@lru_cache(maxsize=4096)
def _known_to_stand(name: str) -> bool:
    return is_plain(name)


def _may_stand(name: str) -> bool:
    # What is too long to be one is not remembered.
    return len(name) <= 100 and _known_to_stand(name)  # noqa: PLR2004  # as long as a plain name may be
