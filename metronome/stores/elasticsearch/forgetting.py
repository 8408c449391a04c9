"""Deleting events: whole days as their indices, single events by their identity."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from metronome.errors import StoreAway, StoreDenied
from metronome.stores.elasticsearch.connection import reason_of

NAMES_AT_ONCE: Final = 20
"""How many indices one request names: an HTTP line holds 4,096 bytes."""

_DELETED = range(200, 300)
_GONE = 404
_DENIED = (401, 403)


def indices_before(names: Iterable[str], prefix: str, before: datetime) -> list[str]:
    """Return the names of the days' indices that lie wholly before a moment, oldest first."""
    day = re.compile(re.escape(prefix) + r"-(\d{4}\.\d\d\.\d\d)")
    first_kept = before.astimezone(UTC).strftime("%Y.%m.%d")
    return sorted(name for name in names if (match := day.fullmatch(name)) and match[1] < first_kept)


def named_at_once(names: list[str]) -> Iterator[list[str]]:
    """Yield names in lists short enough for one request."""
    for at in range(0, len(names), NAMES_AT_ONCE):
        yield names[at : at + NAMES_AT_ONCE]


def delete_body(hits: list[dict[str, Any]]) -> bytes:
    """Return the ``_bulk`` body that deletes the documents that were found."""
    return b"".join(orjson.dumps({"delete": {"_index": hit["_index"], "_id": hit["_id"]}}) + b"\n" for hit in hits)


def read_deletions(response: dict[str, Any]) -> int:
    """Read how many documents a ``_bulk`` request deleted; those that were gone already do not count.

    Raises:
        StoreDenied: deleting is not allowed.
        StoreAway: some could not be deleted now.

    """
    deleted = 0
    for item in response["items"]:
        result = item["delete"]
        status = result["status"]
        if status in _DELETED:
            deleted += 1
        elif status in _DENIED:
            raise StoreDenied(f"Elasticsearch does not let this node delete: {reason_of(result.get('error'))}")
        elif status != _GONE:
            raise StoreAway(f"Elasticsearch cannot delete now: {status} {reason_of(result.get('error'))}")
    return deleted
