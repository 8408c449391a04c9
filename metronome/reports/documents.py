"""Stored documents in pages, oldest first: what `metronome export` reads.

A page ends with a document, whose time and ID are the cursor of the next page. So a client that was interrupted can
continue after the last document that it has.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple, cast

import orjson

from metronome.errors import InvalidQuery
from metronome.fields import decode_percent
from metronome.reports.parameters import excerpt, parse_whole_number
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.parse import parse_query_string
from metronome.reports.query.request import ParsedQuery, parse_query
from metronome.stores.base import Store
from metronome.stores.query import Metric, Query
from metronome.times import parse_timestamp

PAGE_MAX_DOCUMENTS: Final = 10_000
"""Maximum number of documents in a page; the default, too."""
PAGE_MAX_BYTES: Final = 8 * 2**20
"""A page is full at this size, whatever its number of documents."""
PARAMETERS: Final = ("from", "to", "tz", "bots", "limit", "after")

_AFTER: Final = "after"
_OTHER_PARAMETERS: Final = frozenset({"metrics", "by", "order", "offset", "compare", "fill"})
_FIRST_WINDOW: Final = timedelta(hours=1)
_MIN_WINDOW: Final = timedelta(seconds=1)
_WINDOW_FACTOR: Final = 4
_MAX_CLOCK_SKEW: Final = timedelta(days=2)
"""Stores accept documents of up to a day ahead of their clock."""
_DOCUMENTS_PER_TURN: Final = 200


class Cursor(NamedTuple):
    """The place of a document in the order of all.

    Attributes:
        timestamp: its time, as it is stored.
        event_id: its ID, which orders documents of the same time.

    """

    timestamp: str
    event_id: str

    def __str__(self) -> str:
        """Return the value of the parameter ``after``."""
        return f"{self.timestamp},{self.event_id}"


class DocumentRequest(NamedTuple):
    """A request for a page of documents.

    Attributes:
        query: which documents; its metrics, groups and limit are not used.
        after: only documents after this place; None for all.
        limit: maximum number of documents.

    """

    query: ParsedQuery
    after: Cursor | None
    limit: int


class DocumentPage(NamedTuple):
    """A page of documents.

    Attributes:
        documents: unchanged, oldest first; those with the same time by their ID.
        next_page: place of the last document; None if there are no more documents.

    """

    documents: list[bytes]
    next_page: Cursor | None


def parse_document_request(query_string: str, now: datetime) -> DocumentRequest:
    """Parse the parameters of a request for documents.

    Args:
        query_string: percent-encoded; ranges and filters as for a query. Events of bots are included by default.
        now: aware; the time that relative times count from.

    Raises:
        Malformed: the percent-encoding is not valid UTF-8.
        InvalidQuery: a parameter is invalid.

    """
    parts = query_string.split("&")
    cursors = [part.partition("=")[2] for part in parts if part.partition("=")[0] == _AFTER]
    raw = parse_query_string("&".join(part for part in parts if part.partition("=")[0] != _AFTER))
    if invalid := (raw.lists.keys() | raw.scalars.keys()) & _OTHER_PARAMETERS:
        raise InvalidQuery(f"unknown parameter {min(invalid)!r}: expected one of {', '.join(PARAMETERS)}, or a filter")
    if len(cursors) > 1:
        raise InvalidQuery(f"the parameter {_AFTER} is repeated: use it once")
    limit = parse_whole_number("limit", raw.scalars.get("limit"), PAGE_MAX_DOCUMENTS) or PAGE_MAX_DOCUMENTS
    if limit > PAGE_MAX_DOCUMENTS:
        raise InvalidQuery(f"limit={limit} is over the maximum of {PAGE_MAX_DOCUMENTS:,} documents: use after")
    query = parse_query(replace(raw, scalars={"bots": "1", **raw.scalars, "limit": ""}), now)
    return DocumentRequest(query, _parse_cursor(cursors[0]) if cursors and cursors[0] else None, limit)


def _parse_cursor(text: str) -> Cursor:
    timestamp, comma, event_id = decode_percent(text.replace("+", " ")).partition(",")
    try:
        is_valid = bool(comma) and parse_timestamp(timestamp) == timestamp
    except ValueError:
        is_valid = False
    if not is_valid:
        raise InvalidQuery(
            f"invalid {_AFTER}={excerpt(text)}: expected the @timestamp and the event_id of a document, "
            "such as 2015-01-22T09:30:00.000Z,8b1d"
        )
    return Cursor(timestamp, event_id)


async def read_document_page(
    store: Store, field_checker: FieldChecker, request: DocumentRequest, now: datetime
) -> DocumentPage:
    """Return a page of documents.

    The store reads one window of time after the other, each with a few times as many documents as are needed: so a page
    takes as long with a million documents after it as with none.

    Raises:
        InvalidQuery: no event has one of the fields.
        QueryTooExpensive: a filter takes too long.

    """
    await field_checker.check(request.query)
    query, after, limit = request.query.query, request.after, request.limit
    end = min(query.end or now + _MAX_CLOCK_SKEW, now + _MAX_CLOCK_SKEW)
    start = query.start
    if after is not None:
        cursor_time = datetime.fromisoformat(after.timestamp)
        start = cursor_time if start is None else max(start, cursor_time)
    if start is None:
        start = await _find_first_time(store, query, end)
    page: list[bytes] = []
    size, window = 0, _FIRST_WINDOW
    while start is not None and start < end:
        window = await _fit_window(store, query, start, end, window, limit)
        window_end = end if window >= end - start else start + window
        selection = replace(query, start=start, end=window_end)
        async with aclosing(_iterate_in_order(store, selection, after, limit)) as documents:
            async for document in documents:
                if page and (len(page) == limit or size + len(document) >= PAGE_MAX_BYTES):
                    return DocumentPage(page, read_cursor(page[-1]))
                page.append(document)
                size += len(document) + 1
        start = window_end
    return DocumentPage(page, None)


def read_cursor(document: bytes) -> Cursor:
    """Return the place of a document."""
    fields = orjson.loads(document)
    return Cursor(fields["@timestamp"], fields["event_id"])


async def _find_first_time(store: Store, query: Query, end: datetime) -> datetime | None:
    first = Metric.parse("first")
    (result,) = await store.query(Query(metrics=(first,), where=query.where, end=end))
    value = result.rows[0][0] if result.rows else None
    return datetime.fromisoformat(value) if isinstance(value, str) else None


async def _fit_window(
    store: Store, query: Query, start: datetime, end: datetime, window: timedelta, limit: int
) -> timedelta:
    """Return a length of time from *start* with at least *limit* documents and, if possible, not many times more."""

    async def count() -> int:
        (result,) = await store.query(Query(where=query.where, start=start, end=min(end, start + window)))
        return int(result.rows[0][0] or 0) if result.rows else 0

    while (found := await count()) <= limit and window < end - start:
        window *= _WINDOW_FACTOR
    while found > _WINDOW_FACTOR * _WINDOW_FACTOR * limit and window > _MIN_WINDOW:
        window /= _WINDOW_FACTOR
        found = await count()
        if found <= limit:
            return window * _WINDOW_FACTOR
    return window


async def _iterate_in_order(store: Store, query: Query, after: Cursor | None, limit: int) -> AsyncGenerator[bytes]:
    """Yield documents in the order of their times and IDs; up to *limit* of those of one time, and one more."""
    group: list[tuple[str, bytes]] = []
    group_time, turn = "", 0
    # An async generator in every store: closed at once, it releases its snapshot.
    stored = cast("AsyncGenerator[bytes]", store.iterate_documents(query.where, query.start, query.end))
    async with aclosing(stored) as documents:
        async for document in documents:
            turn += 1
            if turn % _DOCUMENTS_PER_TURN == 0:
                await asyncio.sleep(0)
            fields = orjson.loads(document)
            timestamp, event_id = fields["@timestamp"], fields["event_id"]
            if timestamp != group_time:
                for _, grouped in sorted(group):
                    yield grouped
                group, group_time = [], timestamp
            if after is not None and (timestamp, event_id) <= after:
                continue
            group.append((event_id, document))
            if len(group) > 2 * limit:
                # The page ends in this group: the documents with greater IDs are those of later pages.
                group = sorted(group)[: limit + 1]
    for _, grouped in sorted(group):
        yield grouped
