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

from metronome.errors import Unaskable
from metronome.protocols.microticks.sessions import (
    ACTION,
    CLICKED,
    CLICKS,
    CONSUMER,
    DATA,
    MARK,
    SESSION,
    STARTED,
    STOPPED,
    shown_data,
)
from metronome.stores.base import Store
from metronome.stores.query import MAX_GROUPS, AllOf, Equals, Exists, Filter, Metric, Order, Prefix, Question
from metronome.times import stamp_of

LIST_MAX_BYTES: Final = 32 * 2**20
"""One list holds so much of events' documents at the most; twice that is in memory while they are chosen."""

_STOPPED: Final = Metric.parse(f"max:{STOPPED}")
_CLICKS: Final = Metric.parse(f"sum:{CLICKS}")
_CLICKED: Final = Metric.parse(f"max:{CLICKED}")

SESSION_COLUMNS: Final[Mapping[str, str]] = {
    "id": STARTED,
    "consumer": CONSUMER,
    "consumer_id": CONSUMER,
    "started_at": STARTED,
    "stopped_at": _STOPPED.name,
    "clicks": _CLICKS.name,
    "last_action": _CLICKED.name,
}
"""What sessions can be sorted by, and the column of the question that holds it."""

EVENT_COLUMNS: Final[Mapping[str, str]] = {"id": "", "time": "", "action": ACTION, "session_id": SESSION}
"""What events can be sorted by, and the field that holds it; none for their time."""

_DATE: Final = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,3}Z?)?)?)?)?)?)?")
_DESCENDING: Final = ".desc"
_NUMBER_DIGITS: Final = 9
_TURN_DOCUMENTS: Final = 500
"""So many documents are looked at before other work gets its turn."""


@dataclass(frozen=True, slots=True)
class Asked:
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

    def only(self, *filters: Filter) -> AllOf:
        """Return a filter of these and of what is asked for; what is quickest to check comes first."""
        chosen = [Exists(SESSION), *filters, Equals(*MARK)]
        if self.consumer:
            chosen.append(Equals(CONSUMER, self.consumer))
        if self.date:
            chosen.append(Prefix(STARTED, self.date))
        return AllOf(tuple(chosen))


def read_list(query: Mapping[str, str], columns: Mapping[str, str]) -> Asked:
    """Read a list's parameters; unknown ones, as those against caches, do not count.

    Args:
        query: as in the address: ``consumer``, ``date``, ``limit``, ``offset``, and ``sort=column``,
            ``sort=column.desc`` or ``sort.desc=column``.
        columns: what the list can be sorted by.

    Raises:
        Unaskable: a value cannot be; the message says which.

    """
    if query.get("ip"):
        raise Unaskable("ip is not asked for here, since sessions are kept without addresses: leave it out")
    date = query.get("date", "")
    if date and _DATE.fullmatch(date) is None:
        raise Unaskable(f"date={date[:60]} is no date: write 2017-08-25, or 2017-08 for a month")
    sort = query.get("sort.desc", "")
    sort = sort + _DESCENDING if sort else query.get("sort", "")
    name = sort.removesuffix(_DESCENDING)
    if name and name not in columns:
        raise Unaskable(f"sort={name[:60]} is no column: there are {', '.join(columns)}, each with .desc behind it too")
    return Asked(
        consumer=query.get("consumer", ""),
        date=date,
        column=columns.get(name, ""),
        descending=sort.endswith(_DESCENDING),
        limit=_number("limit", query["limit"]) if query.get("limit") else None,
        offset=_number("offset", query.get("offset") or "0"),
    )


async def sessions(store: Store, asked: Asked) -> dict[str, Any]:
    """List sessions, the oldest first.

    Args:
        store: what is asked.
        asked: which, in which order; its column is one of `SESSION_COLUMNS`.

    Returns:
        ``sessions``, each with its ``id``, ``consumer_id`` (the consumer's name), ``started_at``, ``stopped_at``
        (None while it goes on), ``clicks`` and ``last_action`` (the time of the last click, or None); how many these
        are as ``count``; and ``status``.

    Raises:
        Unaskable: they are too many.

    """
    question = Question(
        metrics=(_STOPPED, _CLICKS, _CLICKED),
        by=(STARTED, SESSION, CONSUMER),
        where=asked.only(),
        order=(Order(asked.column, asked.descending),) if asked.column else (),
        limit=MAX_GROUPS if asked.limit is None else min(asked.limit, MAX_GROUPS),
        offset=asked.offset,
    )
    (found,) = await store.ask(question)
    wanted = found.total - asked.offset if asked.limit is None else min(asked.limit, found.total - asked.offset)
    # A store that stopped at so many groups may have left out the first of all.
    if not found.exact or len(found.rows) < wanted:
        raise _too_many(f"over {MAX_GROUPS} sessions")
    return _listed("sessions", [_session(row) for row in found.rows])


async def events(store: Store, asked: Asked) -> dict[str, Any]:
    """List events, the oldest first.

    Args:
        store: what is asked.
        asked: which, in which order; its column is one of `EVENT_COLUMNS`.

    Returns:
        ``events``, each with its ``id``, ``session_id``, ``time``, ``action`` and ``data`` as it was sent; how many
        these are as ``count``; and ``status``.

    Raises:
        Unaskable: they are too large together.

    """
    if asked.limit == 0:
        return _listed("events", [])
    first = _First(None if asked.limit is None else asked.offset + asked.limit, descending=asked.descending)
    key_of = _key_of(asked.column)
    seen = 0
    async for document in store.documents(asked.only(Exists(ACTION))):
        first.add(key_of(document), document)
        if first.is_full and not asked.column and not asked.descending:
            break
        seen += 1
        if seen % _TURN_DOCUMENTS == 0:
            await asyncio.sleep(0)
    return _listed("events", [_event(orjson.loads(document)) for document in first.documents()[asked.offset :]])


class _First:
    """The first documents of a list in bounded memory, however many are added.

    Args:
        wanted: how many; None for all.
        descending: whether the greatest are first, and the youngest of those that are equal.

    """

    def __init__(self, wanted: int | None, *, descending: bool) -> None:
        self._wanted = wanted
        self._descending = descending
        self._rows: list[tuple[str, int, bytes]] = []
        self._added = 0
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether there are as many as are wanted."""
        return self._wanted is not None and len(self._rows) >= self._wanted

    def add(self, key: str, document: bytes) -> None:
        """Add the next one; raises `Unaskable` where the first ones are too large together."""
        self._rows.append((key, self._added, document))
        self._added += 1
        self._bytes += len(document)
        # Seldom enough that sorting costs little for each document.
        if self._bytes > 2 * LIST_MAX_BYTES or (self._wanted is not None and len(self._rows) > 2 * self._wanted):
            self._cut()

    def documents(self) -> list[bytes]:
        """Return the first ones in their order; raises as `add` does."""
        self._cut()
        return [document for _, _, document in self._rows]

    def _cut(self) -> None:
        self._rows.sort(reverse=self._descending)
        if self._wanted is not None:
            del self._rows[self._wanted :]
        self._bytes = sum(len(document) for _, _, document in self._rows)
        if self._bytes > LIST_MAX_BYTES:
            raise _too_many(f"over {LIST_MAX_BYTES // 2**20} MiB of events")


def _key_of(column: str) -> Callable[[bytes], str]:
    if not column:
        return lambda _: ""
    return lambda document: str(orjson.loads(document).get(column, ""))


def _session(row: tuple[Any, ...]) -> dict[str, Any]:
    started, token, consumer, stopped, clicks, clicked = row
    return {
        "id": token,
        "consumer_id": consumer,
        "started_at": started,
        "stopped_at": _stamp(stopped),
        "clicks": int(clicks or 0),
        "last_action": _stamp(clicked),
    }


def _event(document: Mapping[str, Any]) -> dict[str, Any]:
    data = document.get(DATA)
    return {
        "id": document["event_id"],
        "session_id": document.get(SESSION),
        "time": document["@timestamp"],
        "action": document.get(ACTION),
        "data": shown_data(data) if isinstance(data, str) else data,
    }


def _listed(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: entries, "count": len(entries), "status": 200}


def _stamp(milliseconds: float | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return stamp_of(datetime.fromtimestamp(milliseconds / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        # Anybody who may send events may send one that looks like one of these.
        return None


def _too_many(what: str) -> Unaskable:
    return Unaskable(f"{what} are more than one list holds: ask for fewer with limit and offset, date or consumer")


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS):
        raise Unaskable(f"{name}={text[:60]} is no number: write 10")
    return int(text)
