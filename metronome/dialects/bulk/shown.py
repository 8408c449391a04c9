"""What of an answer a client wants to see: the ``filter_path`` of its query.

Source: Elasticsearch's documentation of response filtering. Beats, Logstash and Fluent Bit ask for
``errors,items.*.error,items.*.status``, others for ``errors`` alone; these forms are followed. What excludes
(``-took``) or is written in another way shows everything, of which clients take what they need.
"""

from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

_PARAMETER: Final = "filter_path"
_TOP: Final = frozenset({"took", "errors"})
_WHOLE: Final = frozenset({"items", "items.*", "items.**", "**", "*"})
_OPERATIONS: Final = frozenset({"*", "create", "index"})
_FIELDS: Final = frozenset({"_index", "_id", "_version", "result", "_shards", "status", "error"})
_MAX_CHARACTERS: Final = 500
_ITEM_DEPTH: Final = 3


class Shown(NamedTuple):
    """What an answer shows.

    Attributes:
        top: what stands beside the items.
        fields: of each item, or None for all.

    """

    top: frozenset[str]
    fields: frozenset[str] | None


_ALL: Final = Shown(_TOP, None)


def shown_by(query: str) -> Shown:
    """Return what a request's query wants to see."""
    return _shown_by(query) if _PARAMETER in query and len(query) <= _MAX_CHARACTERS else _ALL


@lru_cache(maxsize=256)
def _shown_by(query: str) -> Shown:
    given = next((value for name, value in parse_qsl(query) if name == _PARAMETER), "")
    paths = [path.strip() for path in given.split(",") if path.strip()]
    fields: set[str] = set()
    for path in paths:
        if path in _TOP:
            continue
        parts = path.split(".")
        if path in _WHOLE or len(parts) < _ITEM_DEPTH or parts[0] != "items" or parts[1] not in _OPERATIONS:
            return _ALL if path not in {"items", "items.*", "items.**"} else Shown(_TOP & set(paths), None)
        if parts[2] not in _FIELDS:
            return _ALL
        fields.add(parts[2])
    return Shown(_TOP & set(paths), frozenset(fields)) if paths else _ALL
