"""The tally: investigations and requests, total and unique, by item, month and access method.

Section 6.3 of the Code of Practice (see `metronome.reports.counter`): *investigations* are whatever people did with
a dataset, *requests* those of them that retrieved it; *total* ones are all, less double clicks, *unique* ones at most
one for each user session and dataset.

Spans: the parts that a long time is counted in, so that none of them is too much at once.

They are cut where days begin, which no user session lasts beyond (see `metronome.reports.counter.clicks`).

Count: the tally of a store's events, exact to the last one.

Every event is in just one of three populations, each of which is told in a way of its own:

* Those with a ``session`` are told session by session. Where the sender logs sessions, the Code of Practice (see
  `metronome.reports.counter`) wants double clicks to be traced by them rather than by address and user agent, which
  are what ``visitor`` is made of where nobody sends one (section 10.2, options 2 and 1).
* Those without one, but with a ``visitor``, are told visitor by visitor.
* Those with neither are each a user and a session of their own, so it is enough to count them.

Usage: how often one dataset was investigated and requested, month by month.
"""

import asyncio
import time as count_time
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from metronome.errors import TooCostly
from metronome.reports.counter.clicks import (
    CLICKS,
    DOUBLE_CLICK_MS,
    FIELDS,
    MACHINE,
    REQUEST,
    Click,
    read_clicks,
    without_double_clicks,
)
from metronome.reports.parameters import Parameters
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Exists, Filter, Not, OneOf, Question, read_zone
from metronome.stores.sequences import Trail, Trails

MOST_EVENTS: Final = 200_000
"""About how many events a span has at most, unless a single day has more."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


class Span(NamedTuple):
    """A time, in milliseconds since 1970.

    Attributes:
        start: its first moment.
        end: the first moment after it.

    """

    start: int
    end: int


def spans(
    days: Iterable[tuple[str, int]],
    zone: ZoneInfo,
    start: datetime | None,
    end: datetime | None,
    most: int = MOST_EVENTS,
) -> list[Span]:
    """Put days together to spans, each from the beginning of a day to the end of one.

    Args:
        days: those that have events, oldest first, as ``2015-01-22``, each with how many there are.
        zone: days are its.
        start: aware; nothing from before then is in a span.
        end: aware; nor is anything from then on.
        most: how many events a span of several days has at most.

    """
    found: list[Span] = []
    together = 0
    for day, count in days:
        span = _day(date.fromisoformat(day), zone)
        if found and together + count <= most:
            found[-1] = Span(found[-1].start, span.end)
            together += count
        else:
            found.append(span)
            together = count
    first = 0 if start is None else ms_of(start)
    return [Span(max(span.start, first), span.end if end is None else min(span.end, ms_of(end))) for span in found]


def ms_of(moment: datetime) -> int:
    """Return a moment in milliseconds since 1970, rounded up: what is before the one is before the other."""
    return -((_EPOCH - moment) // _MS)


def moment_of(ms: int) -> datetime:
    """Return the moment so many milliseconds after 1970 began, in UTC."""
    return _EPOCH + ms * _MS


def _day(day: date, zone: ZoneInfo) -> Span:
    start, end = (datetime.combine(one, time(), zone) for one in (day, day + timedelta(days=1)))
    return Span(ms_of(start), ms_of(end))


METRICS: Final = ("total_investigations", "unique_investigations", "total_requests", "unique_requests")
"""What is counted, in the order of all lists of four numbers here."""

MOST_CELLS: Final = 200_000
"""How many cells a tally has at most: a hundred megabytes or so."""


class Cell(NamedTuple):
    """What is counted together; machines are script and tools, the others are people."""

    item: str
    month: str
    is_machine: bool


class Counts:
    """The four numbers of one cell, and how many of each came from which country, where that is known.

    Attributes:
        numbers: by `METRICS`.
        countries: likewise, for each country. A unique one is of the country where its session began.

    """

    __slots__ = ("countries", "numbers")

    def __init__(self) -> None:
        self.numbers = [0, 0, 0, 0]
        self.countries: dict[str, list[int]] = {}

    def add(self, country: str | None, added: tuple[int, int, int, int]) -> None:
        """Count so many of each metric more."""
        _add(self.numbers, added)
        if country is not None:
            _add(self.countries.setdefault(country, [0, 0, 0, 0]), added)


class Tally:
    """Everything counted so far; its memory grows with cells and countries, not with events.

    Args:
        most: how many cells it may have.

    """

    def __init__(self, most: int = MOST_CELLS) -> None:
        self.cells: dict[Cell, Counts] = {}
        self._most = most

    def count_clicks(self, clicks: Iterable[Click]) -> None:
        """Count one user's clicks, double ones removed, oldest first.

        Raises:
            TooCostly: there are too many cells.

        """
        investigated: set[tuple[object, ...]] = set()
        requested: set[tuple[object, ...]] = set()
        for click in clicks:
            once = (click.item, click.is_machine, click.session)
            first = once not in investigated
            investigated.add(once)
            first_request = click.is_request and once not in requested
            if click.is_request:
                requested.add(once)
            cell = Cell(click.item, click.month, click.is_machine)
            self._counts(cell).add(click.country, (1, first, click.is_request, first_request))

    def count_alone(self, cell: Cell, country: str | None, number: int, *, are_requests: bool) -> None:
        """Count clicks of which nobody knows whose they are: each is a session of its own.

        Raises:
            TooCostly: there are too many cells.

        """
        requests = number if are_requests else 0
        self._counts(cell).add(country, (number, number, requests, requests))

    def _counts(self, cell: Cell) -> Counts:
        counts = self.cells.get(cell)
        if counts is None:
            if len(self.cells) >= self._most:
                raise TooCostly(
                    f"more than {self._most:,} numbers of items and months: ask for a month at a time, or for one item"
                )
            counts = self.cells[cell] = Counts()
        return counts


def _add(numbers: list[int], added: tuple[int, int, int, int]) -> None:
    for at, number in enumerate(added):
        numbers[at] += number


SECONDS: Final = 50.0
"""How long counting may take: a worker waits a minute for the main process's answer, so it hears the reason, too."""

_IN_A_THREAD_FROM: Final = 2_000
"""Longer trails take longer than others may wait."""

_IN_SESSION, _BY_VISITOR = (AllOf((Exists(name), Not(Equals(name, "")))) for name in ("session", "visitor"))
_OF_VISITOR: Final = AllOf((_BY_VISITOR, Not(_IN_SESSION)))
_OF_NOBODY: Final = AllOf((Not(_BY_VISITOR), Not(_IN_SESSION)))
_KINDS: Final = tuple(
    (AllOf((method, country)), by, is_machine)
    for method, is_machine in ((MACHINE, True), (Not(MACHINE), False))
    for country, by in ((Exists("country"), ("country",)), (Not(Exists("country")), ()))
)
"""What is asked apart of events that are nobody's: a group that lacks a value would be left out."""


class Deadline:
    """The time by which something has to be done.

    Args:
        seconds: how long it may take from now on.
        clock: seconds, from whenever.

    """

    def __init__(self, seconds: float, clock: Callable[[], float] = count_time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def check(self) -> None:
        """Return if there is time left.

        Raises:
            TooCostly: there is none.

        """
        if self._clock() >= self._end:
            raise TooCostly(
                f"counting takes over {self._seconds:g} s: ask for a shorter range, such as a month, or for one item"
            )


async def count_usage(
    store: Store, item: str | None, asked: Parameters, deadline: Deadline, most: int = MOST_EVENTS
) -> Tally:
    """Count all clicks of a range of time.

    A click that is followed by the second one of a double click after the range has ended is none of its: so the
    total numbers of ranges that follow each other are, together, those of all of them.

    Args:
        store: what is asked.
        item: the only item that counts; None for all.
        asked: the range and the zone that months, days and hours belong to; nothing else of it.
        deadline: when it has to be done.
        most: about how many events are looked at together (see `spans`), which changes no number.

    Raises:
        TooCostly: it takes too long, or there are too many items.

    """
    where = CLICKS if item is None else AllOf((CLICKS, Equals("id", item)))
    tally = Tally()
    for span in await _spans(store, item, asked, most):
        for key, whose in (("session", _IN_SESSION), ("visitor", _OF_VISITOR)):
            trails = _trails(key, AllOf((where, whose)), span)
            await _count_trails(store, trails, span, asked.tz, tally, deadline)
        await _count_nobodys(store, AllOf((where, _OF_NOBODY)), span, asked.tz, tally)
        deadline.check()
    return tally


async def _spans(store: Store, item: str | None, asked: Parameters, most: int) -> list[Span]:
    # Only by what a store may have counted already.
    about: Filter = Exists("id") if item is None else Equals("id", item)
    where = AllOf((about, OneOf("event", ("view", REQUEST)), Not(Exists("bot"))))
    (answer,) = await store.ask(Question(by=("day",), where=where, start=asked.start, end=asked.end, tz=asked.tz))
    days = [(str(day), int(count or 0)) for day, count in answer.rows]
    return spans(days, read_zone(asked.tz), asked.start, asked.end, most)


def _trails(key: str, where: Filter, span: Span) -> Trails:
    """Ask for the clicks of a span, and for those that may make double clicks of its last ones."""
    return Trails(key, FIELDS, where, moment_of(span.start), moment_of(span.end + DOUBLE_CLICK_MS))


async def _count_trails(store: Store, asked: Trails, span: Span, tz: str, tally: Tally, deadline: Deadline) -> None:
    zone = read_zone(tz)
    found = store.trails(asked)
    try:
        async for trail in found:
            if len(trail.steps) < _IN_A_THREAD_FROM:
                _count_trail(trail, zone, span, tally)
            else:
                await asyncio.to_thread(_count_trail, trail, zone, span, tally)
            deadline.check()
    finally:
        # Or the store would hold what it still has to tell until the garbage is collected.
        if isinstance(found, AsyncGenerator):
            await found.aclose()


def _count_trail(trail: Trail, zone: ZoneInfo, span: Span, tally: Tally) -> None:
    clicks = without_double_clicks(read_clicks(trail, zone))
    tally.count_clicks(click for click in clicks if click.at < span.end)


async def _count_nobodys(store: Store, where: Filter, span: Span, tz: str, tally: Tally) -> None:
    questions = (
        Question(
            by=("id", "month", "event", *by),
            where=AllOf((where, kind)),
            start=moment_of(span.start),
            end=moment_of(span.end),
            tz=tz,
        )
        for kind, by, _ in _KINDS
    )
    answers = await store.ask(*questions)
    if not all(answer.exact for answer in answers):
        raise TooCostly("too many items to be counted exactly: ask for a month at a time, or for one item")
    for answer, (_, _, is_machine) in zip(answers, _KINDS, strict=True):
        for item, month, event, *where_from, count in answer.rows:
            cell = Cell(str(item), str(month), is_machine)
            country = str(where_from[0]) if where_from else None
            tally.count_alone(cell, country, int(count or 0), are_requests=event == REQUEST)


PARAMETERS: Final = frozenset({"from", "to", "tz"})


async def usage(store: Store, item: str, asked: Parameters, seconds: float = SECONDS) -> dict[str, Any]:
    """Answer how an item was used, as the Code of Practice counts it (see `metronome.reports.counter`).

    Args:
        store: what is asked.
        item: the item's id.
        asked: the range and the zone.
        seconds: how long it may take.

    Returns:
        ``months``, newest first, without empty ones; each with the numbers of `METRICS` of people and, under
        ``machine``, of scripts and tools; both with ``countries`` where countries are known, those with the most
        investigations first, each with the same four numbers. Robots are in none.

    Raises:
        TooCostly: it takes longer.

    """
    tally = await count_usage(store, item, asked, Deadline(seconds))
    months = sorted({cell.month for cell in tally.cells}, reverse=True)
    return {"months": {month: _month(tally, item, month) for month in months}}


def _month(tally: Tally, item: str, month: str) -> dict[str, Any]:
    people, machines = (
        _shown(tally.cells.get(Cell(item, month, is_machine), Counts())) for is_machine in (False, True)
    )
    return {**people, "machine": machines}


def _shown(counts: Counts) -> dict[str, Any]:
    by_most = sorted(counts.countries.items(), key=lambda one: (-one[1][0], one[0]))
    countries = {country: _named(numbers) for country, numbers in by_most}
    return {**_named(counts.numbers), **({"countries": countries} if countries else {})}


def _named(numbers: list[int]) -> dict[str, int]:
    return dict(zip(METRICS, numbers, strict=True))
