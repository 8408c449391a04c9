"""The reports that hold, or go through, the documents themselves."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from metronome.dialects.micrometrics.documents import tracked_of
from metronome.errors import Unaskable
from metronome.question import AllOf, Exists, Filter, Question
from metronome.reports.micrometrics.filters import Asked
from metronome.reports.micrometrics.limits import MAX_BYTES, MAX_DOCUMENTS, too_much
from metronome.stores.store import Store

_TURN_DOCUMENTS: Final = 500
"""So many are read before other work gets its turn."""
_INDEXED: Final = ("tags", "fields")
_ABSENT: Final = object()


async def count(store: Store, asked: Asked) -> int:
    """Answer how many documents there are."""
    (answer,) = await store.ask(_count(asked.where, asked))
    return int(answer.rows[0][0] or 0) if answer.rows else 0


async def report(store: Store, asked: Asked) -> list[bytes]:
    """Answer with the documents, oldest first, each as JSON.

    Raises:
        Unaskable: there are too many of them.

    """
    return [orjson.dumps(tracked) async for tracked in _documents(store, asked, asked.where)]


async def unique(store: Store, asked: Asked, path: str) -> list[dict[str, Any]]:
    """Answer which values there are at a place in the documents.

    Args:
        store: what is asked.
        asked: which documents.
        path: the place, as ``tags.currency``, ``userId`` or ``data.cart.total``.

    Returns:
        Each value once, in the order of its first document, as ``_id``, with the different ``types``, ``tags``,
        ``values`` and ``data`` of its documents, and their ``count``. Documents without such a value are left out.

    Raises:
        Unaskable: there are too many documents to go through.

    """
    group, _, name = path.partition(".")
    where: Filter = asked.where
    if group in _INDEXED and name and "." not in name:
        where = AllOf((asked.where, Exists(path)))
    found: dict[bytes, _Same] = {}
    async for tracked in _documents(store, asked, where):
        value = _at(tracked, path)
        if value is not _ABSENT:
            found.setdefault(_code(value), _Same(value)).add(tracked)
    return [same.row() for same in found.values()]


@dataclass(slots=True)
class _Same:
    """The documents that have one value in common."""

    value: Any
    types: dict[bytes, Any] = field(default_factory=dict)
    tags: dict[bytes, Any] = field(default_factory=dict)
    values: dict[bytes, Any] = field(default_factory=dict)
    data: dict[bytes, Any] = field(default_factory=dict)
    count: int = 0

    def add(self, tracked: Mapping[str, Any]) -> None:
        self.count += 1
        kinds = ((self.types, "type"), (self.tags, "tags"), (self.values, "value"), (self.data, "data"))
        for kept, name in kinds:
            kept.setdefault(_code(tracked[name]), tracked[name])

    def row(self) -> dict[str, Any]:
        different = {"types": self.types, "tags": self.tags, "values": self.values, "data": self.data}
        return {
            "_id": self.value,
            **{name: list(kept.values()) for name, kept in different.items()},
            "count": self.count,
        }


async def _documents(store: Store, asked: Asked, where: Filter) -> AsyncIterator[dict[str, Any]]:
    (answer,) = await store.ask(_count(where, asked))
    if answer.rows and int(answer.rows[0][0] or 0) > MAX_DOCUMENTS:
        raise too_much(f"over {MAX_DOCUMENTS} documents")
    number = size = 0
    async for line in store.documents(where, asked.start, asked.end):
        number, size = number + 1, size + len(line)
        if size > MAX_BYTES:
            raise too_much(f"over {MAX_BYTES} bytes of documents")
        if number % _TURN_DOCUMENTS == 0:
            await asyncio.sleep(0)
        yield tracked_of(line)


def _count(where: Filter, asked: Asked) -> Question:
    return Question(where=where, start=asked.start, end=asked.end)


def _at(tracked: Mapping[str, Any], path: str) -> Any:
    """Return what lies at a path: a name may itself have dots."""
    if path in tracked:
        return tracked[path]
    name, dot, rest = path.partition(".")
    while dot:
        inner = tracked.get(name, _ABSENT)
        if isinstance(inner, dict) and (value := _at(inner, rest)) is not _ABSENT:
            return value
        more, dot, rest = rest.partition(".")
        name = f"{name}.{more}"
    return _ABSENT


def _code(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise Unaskable(f"a value cannot be compared: {error}") from None
