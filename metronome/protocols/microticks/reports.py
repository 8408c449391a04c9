"""The lists of microticks: its sessions, and its events with their data.

Parameters and names are those of https://github.com/scriptotek/microticks. Identities are no numbers that grow here, so
that to sort by ``id`` is to sort by time.
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
"""One list holds so much of events' documents at the most; twice that is in memory while they are chosen."""

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
"""What sessions can be sorted by, and the column of the question that holds it."""

EVENT_COLUMNS: Final[Mapping[str, str]] = {"id": "", "time": "", "action": ACTION_FIELD, "session_id": SESSION_FIELD}
"""What events can be sorted by, and the field that holds it; none for their time."""

_DATE_PATTERN: Final = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,3}Z?)?)?)?)?)?)?")
_DESCENDING_SUFFIX: Final = ".desc"
_MAX_NUMBER_DIGITS: Final = 9
_DOCUMENTS_PER_SLICE: Final = 500
"""So many documents are looked at before other work gets its turn."""


@dataclass(frozen=True, slots=True)
class SessionListQuery:
    """What a list is asked with.

    Attributes:
        consumer: the name of the consumer whose sessions count; empty for all.
        date: the beginning of the time at which the sessions started, as ``2017-08-25``; empty for any.
        column: what to sort by, as the list's columns have it; empty for time.
        descending: whether to begin with the greatest.
        limit: how many entries at the most; None for all.
        offset: how many of the first entries to leave out.

    """

    consumer: str = ""
    date: str = ""
    column: str = ""
    descending: bool = False
    limit: int | None = None
    offset: int = 0

    def build_filter(self, *filters: Filter) -> AllOf:
        """Return a filter of these and of what is asked for; what is quickest to check comes first."""
        chosen = [Exists(SESSION_FIELD), *filters, Equals(*PROTOCOL_MARKER)]
        if self.consumer:
            chosen.append(Equals(CONSUMER_FIELD, self.consumer))
        if self.date:
            chosen.append(Prefix(STARTED_FIELD, self.date))
        return AllOf(tuple(chosen))


def parse_list_query(query: Mapping[str, str], columns: Mapping[str, str]) -> SessionListQuery:
    """Read a list's parameters; unknown ones, as those against caches, do not count.

    Args:
        query: as in the address: ``consumer``, ``date``, ``limit``, ``offset``, and ``sort=column``,
            ``sort=column.desc`` or ``sort.desc=column``.
        columns: what the list can be sorted by.

    Raises:
        InvalidQuery: a value cannot be; the message says which.

    """
    if query.get("ip"):
        raise InvalidQuery("ip is not asked for here, since sessions are kept without addresses: leave it out")
    date = query.get("date", "")
    if date and _DATE_PATTERN.fullmatch(date) is None:
        raise InvalidQuery(f"date={date[:60]} is no date: write 2017-08-25, or 2017-08 for a month")
    sort = query.get("sort.desc", "")
    sort = sort + _DESCENDING_SUFFIX if sort else query.get("sort", "")
    name = sort.removesuffix(_DESCENDING_SUFFIX)
    if name and name not in columns:
        raise InvalidQuery(
            f"sort={name[:60]} is no column: there are {', '.join(columns)}, each with .desc behind it too"
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
    """List sessions, the oldest first.

    Args:
        store: what is asked.
        query: which, in which order; its column is one of `SESSION_COLUMNS`.

    Returns:
        ``list_sessions``, each with its ``id``, ``consumer_id`` (the consumer's name), ``started_at``, ``stopped_at``
        (None while it goes on), ``clicks`` and ``last_action`` (the time of the last click, or None); how many these
        are as ``count``; and ``status``.

    Raises:
        InvalidQuery: they are too many.

    """
    question = Query(
        metrics=(_STOPPED_METRIC, _CLICKS_METRIC, _LAST_CLICK_METRIC),
        group_by=(STARTED_FIELD, SESSION_FIELD, CONSUMER_FIELD),
        where=query.build_filter(),
        sort_keys=(SortKey(query.column, query.descending),) if query.column else (),
        limit=MAX_GROUPS if query.limit is None else min(query.limit, MAX_GROUPS),
        offset=query.offset,
    )
    (found,) = await store.query(question)
    wanted = found.total - query.offset if query.limit is None else min(query.limit, found.total - query.offset)
    # A store that stopped at so many groups may have left out the first of all.
    if not found.exact or len(found.rows) < wanted:
        raise _list_too_large(f"over {MAX_GROUPS} sessions")
    return _list_body("sessions", [_session_entry(row) for row in found.rows])


async def list_events(store: Store, query: SessionListQuery) -> dict[str, Any]:
    """List events, the oldest first.

    Args:
        store: what is asked.
        query: which, in which order; its column is one of `EVENT_COLUMNS`.

    Returns:
        ``list_events``, each with its ``id``, ``session_id``, ``time``, ``action`` and ``data`` as it was sent; how
        many
        these are as ``count``; and ``status``.

    Raises:
        InvalidQuery: they are too large together.

    """
    if query.limit == 0:
        return _list_body("events", [])
    first = _TopDocuments(None if query.limit is None else query.offset + query.limit, descending=query.descending)
    key_of = _sort_key(query.column)
    seen = 0
    async for document in store.iterate_documents(query.build_filter(Exists(ACTION_FIELD))):
        first.add(key_of(document), document)
        if first.is_full and not query.column and not query.descending:
            break
        seen += 1
        if seen % _DOCUMENTS_PER_SLICE == 0:
            await asyncio.sleep(0)
    return _list_body(
        "events", [_event_entry(orjson.loads(document)) for document in first.sorted_documents()[query.offset :]]
    )


class _TopDocuments:
    """The first documents of a list in bounded memory, however many are added.

    Args:
        limit: how many; None for all.
        descending: whether the greatest are first, and the youngest of those that are equal.

    """

    def __init__(self, limit: int | None, *, descending: bool) -> None:
        self._limit = limit
        self._descending = descending
        self._rows: list[tuple[str, int, bytes]] = []
        self._added_count = 0
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether there are as many as are wanted."""
        return self._limit is not None and len(self._rows) >= self._limit

    def add(self, key: str, document: bytes) -> None:
        """Add the next one; raises `InvalidQuery` where the first ones are too large together."""
        self._rows.append((key, self._added_count, document))
        self._added_count += 1
        self._bytes += len(document)
        # Seldom enough that sorting costs little for each document.
        if self._bytes > 2 * LIST_MAX_DOCUMENT_BYTES or (self._limit is not None and len(self._rows) > 2 * self._limit):
            self._trim()

    def sorted_documents(self) -> list[bytes]:
        """Return the first ones in their order; raises as `add` does."""
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
        # Anybody who may send events may send one that looks like one of these.
        return None


def _list_too_large(what: str) -> InvalidQuery:
    return InvalidQuery(f"{what} are more than one list holds: ask for fewer with limit and offset, date or consumer")


def _parse_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_NUMBER_DIGITS):
        raise InvalidQuery(f"{name}={text[:60]} is no number: write 10")
    return int(text)
