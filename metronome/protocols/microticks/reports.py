"""The lists of microticks: sessions, and actions with their data.

Parameters and names are those of https://github.com/scriptotek/microticks. IDs are not sequential here, so sorting by
``id`` means sorting by time.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from metronome.errors import InvalidQuery
from metronome.protocols.microticks.sessions import (
    ACTION_FIELD,
    CLICKED_FIELD,
    CLICKS_FIELD,
    CONSUMER_FIELD,
    DATA_FIELD,
    PROTOCOL_MARKER,
    SESSION_FIELD,
    STARTED_FIELD,
    STOPPED_FIELD,
    decode_data,
)
from metronome.stores.base import Store
from metronome.stores.query import MAX_GROUPS, AllOf, Equals, Exists, Filter, Metric, Prefix, Query, SortKey
from metronome.times import format_timestamp

LIST_MAX_DOCUMENT_BYTES: Final = 32 * 2**20
"""The maximum size of the documents in a list; twice as much is in memory while the first ones are selected."""

_STOPPED_METRIC: Final = Metric.parse(f"max:{STOPPED_FIELD}")
_CLICKS_METRIC: Final = Metric.parse(f"sum:{CLICKS_FIELD}")
_LAST_CLICK_METRIC: Final = Metric.parse(f"max:{CLICKED_FIELD}")

SESSION_COLUMNS: Final[Mapping[str, str]] = {
    "id": STARTED_FIELD,
    "consumer": CONSUMER_FIELD,
    "consumer_id": CONSUMER_FIELD,
    "started_at": STARTED_FIELD,
    "stopped_at": _STOPPED_METRIC.name,
    "clicks": _CLICKS_METRIC.name,
    "last_action": _LAST_CLICK_METRIC.name,
}
"""The columns that sessions can be sorted by, and the column of each in the query."""

EVENT_COLUMNS: Final[Mapping[str, str]] = {"id": "", "time": "", "action": ACTION_FIELD, "session_id": SESSION_FIELD}
"""The columns that events can be sorted by, and the field of each; empty for the time."""

_DATE_PATTERN: Final = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,3}Z?)?)?)?)?)?)?")
_DESCENDING_SUFFIX: Final = ".desc"
_MAX_NUMBER_DIGITS: Final = 9
_DOCUMENTS_PER_SLICE: Final = 500
"""How many documents are read before other work gets its turn."""


@dataclass(frozen=True, slots=True)
class SessionListQuery:
    """The parameters of a list.

    Attributes:
        consumer: the name of the sessions' consumer; empty for all.
        date: the prefix of the time at which the sessions started, such as ``2017-08-25``; empty for any.
        column: the column to sort by, from the list's columns; empty for the time.
        descending: whether the greatest come first.
        limit: the maximum number of entries; None for all.
        offset: how many of the first entries to omit.

    """

    consumer: str = ""
    date: str = ""
    column: str = ""
    descending: bool = False
    limit: int | None = None
    offset: int = 0

    def build_filter(self, *filters: Filter) -> AllOf:
        """Return a filter of these and of the parameters, the ones that are quickest to check first."""
        all_filters = [Exists(SESSION_FIELD), *filters, Equals(*PROTOCOL_MARKER)]
        if self.consumer:
            all_filters.append(Equals(CONSUMER_FIELD, self.consumer))
        if self.date:
            all_filters.append(Prefix(STARTED_FIELD, self.date))
        return AllOf(tuple(all_filters))


def parse_list_query(query: Mapping[str, str], columns: Mapping[str, str]) -> SessionListQuery:
    """Parse the parameters of a list; unknown ones, such as those that bypass caches, are ignored.

    Args:
        query: ``consumer``, ``date``, ``limit``, ``offset``, and ``sort=column``, ``sort=column.desc`` or
            ``sort.desc=column``.
        columns: the columns that the list can be sorted by.

    Raises:
        InvalidQuery: a parameter has an invalid value.

    """
    if query.get("ip"):
        raise InvalidQuery("invalid parameter ip: sessions are stored without IP addresses")
    date = query.get("date", "")
    if date and _DATE_PATTERN.fullmatch(date) is None:
        raise InvalidQuery(f"invalid date {date[:60]!r}: expected 2017-08-25, or 2017-08 for a month")
    sort = query.get("sort.desc", "")
    sort = sort + _DESCENDING_SUFFIX if sort else query.get("sort", "")
    name = sort.removesuffix(_DESCENDING_SUFFIX)
    if name and name not in columns:
        raise InvalidQuery(
            f"invalid sort {name[:60]!r}: expected {', '.join(columns)}, or one of them followed by .desc"
        )
    return SessionListQuery(
        consumer=query.get("consumer", ""),
        date=date,
        column=columns.get(name, ""),
        descending=sort.endswith(_DESCENDING_SUFFIX),
        limit=_parse_number("limit", query["limit"]) if query.get("limit") else None,
        offset=_parse_number("offset", query.get("offset") or "0"),
    )


async def list_sessions(store: Store, query: SessionListQuery) -> dict[str, Any]:
    """Return sessions, by default the oldest first.

    Args:
        store: runs the query.
        query: which sessions; its column is a value of `SESSION_COLUMNS`.

    Returns:
        ``sessions``, each with its ``id``, ``consumer_id`` (the consumer's name), ``started_at``, ``stopped_at`` (None
        while it lasts), ``clicks`` and ``last_action`` (the time of the last click, or None); their number as
        ``count``; and ``status``.

    Raises:
        InvalidQuery: there are too many.

    """
    store_query = Query(
        metrics=(_STOPPED_METRIC, _CLICKS_METRIC, _LAST_CLICK_METRIC),
        group_by=(STARTED_FIELD, SESSION_FIELD, CONSUMER_FIELD),
        where=query.build_filter(),
        sort_keys=(SortKey(query.column, query.descending),) if query.column else (),
        limit=MAX_GROUPS if query.limit is None else min(query.limit, MAX_GROUPS),
        offset=query.offset,
    )
    (result,) = await store.query(store_query)
    expected = result.total - query.offset if query.limit is None else min(query.limit, result.total - query.offset)
    # An inexact result may lack the first sessions.
    if not result.is_complete or len(result.rows) < expected:
        raise _list_too_large(f"over {MAX_GROUPS} sessions")
    return _list_body("sessions", [_session_entry(row) for row in result.rows])


async def list_events(store: Store, query: SessionListQuery) -> dict[str, Any]:
    """Return actions, by default the oldest first.

    Args:
        store: runs the query.
        query: which actions; its column is a value of `EVENT_COLUMNS`.

    Returns:
        ``events``, each with its ``id``, ``session_id``, ``time``, ``action`` and ``data`` as it was sent; their
        number as ``count``; and ``status``.

    Raises:
        InvalidQuery: they are too large.

    """
    if query.limit == 0:
        return _list_body("events", [])
    documents = _TopDocuments(None if query.limit is None else query.offset + query.limit, descending=query.descending)
    key_of = _sort_key(query.column)
    read_count = 0
    async for document in store.iterate_documents(query.build_filter(Exists(ACTION_FIELD))):
        documents.add(key_of(document), document)
        if documents.is_full and not query.column and not query.descending:
            break
        read_count += 1
        if read_count % _DOCUMENTS_PER_SLICE == 0:
            await asyncio.sleep(0)
    return _list_body(
        "events", [_event_entry(orjson.loads(document)) for document in documents.sorted_documents()[query.offset :]]
    )


class _TopDocuments:
    """Select the first documents of a list in bounded memory, however many are added.

    Args:
        limit: the number of documents; None for all.
        descending: whether the documents with the greatest keys come first, and of equal keys the newest.

    """

    def __init__(self, limit: int | None, *, descending: bool) -> None:
        self._limit = limit
        self._descending = descending
        self._rows: list[tuple[str, int, bytes]] = []
        self._added_count = 0
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether *limit* documents have been added."""
        return self._limit is not None and len(self._rows) >= self._limit

    def add(self, key: str, document: bytes) -> None:
        """Add a document.

        Raises:
            InvalidQuery: the selected documents are too large.

        """
        self._rows.append((key, self._added_count, document))
        self._added_count += 1
        self._bytes += len(document)
        # Rarely, so that sorting costs little per document.
        if self._bytes > 2 * LIST_MAX_DOCUMENT_BYTES or (self._limit is not None and len(self._rows) > 2 * self._limit):
            self._trim()

    def sorted_documents(self) -> list[bytes]:
        """Return the selected documents in order; raises as `add` does."""
        self._trim()
        return [document for _, _, document in self._rows]

    def _trim(self) -> None:
        self._rows.sort(reverse=self._descending)
        if self._limit is not None:
            del self._rows[self._limit :]
        self._bytes = sum(len(document) for _, _, document in self._rows)
        if self._bytes > LIST_MAX_DOCUMENT_BYTES:
            raise _list_too_large(f"over {LIST_MAX_DOCUMENT_BYTES // 2**20} MiB of events")


def _sort_key(column: str) -> Callable[[bytes], str]:
    if not column:
        return lambda _: ""
    return lambda document: str(orjson.loads(document).get(column, ""))


def _session_entry(row: tuple[Any, ...]) -> dict[str, Any]:
    started, token, consumer, stopped, clicks, clicked = row
    return {
        "id": token,
        "consumer_id": consumer,
        "started_at": started,
        "stopped_at": _format_timestamp(stopped),
        "clicks": int(clicks or 0),
        "last_action": _format_timestamp(clicked),
    }


def _event_entry(document: Mapping[str, Any]) -> dict[str, Any]:
    data = document.get(DATA_FIELD)
    return {
        "id": document["event_id"],
        "session_id": document.get(SESSION_FIELD),
        "time": document["@timestamp"],
        "action": document.get(ACTION_FIELD),
        "data": decode_data(data) if isinstance(data, str) else data,
    }


def _list_body(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: entries, "count": len(entries), "status": 200}


def _format_timestamp(milliseconds: float | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return format_timestamp(datetime.fromtimestamp(milliseconds / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        # Any client may send an event with these fields.
        return None


def _list_too_large(what: str) -> InvalidQuery:
    return InvalidQuery(f"the list has {what}: request fewer entries with limit and offset, date or consumer")


def _parse_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_NUMBER_DIGITS):
        raise InvalidQuery(f"invalid {name} {text[:60]!r}: expected a whole number")
    return int(text)
