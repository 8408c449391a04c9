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

from metronome.errors import QueryTooExpensive
from metronome.reports.counter.clicks import (
    CLICK_FIELDS,
    CLICK_FILTER,
    DOUBLE_CLICK_MS,
    IS_MACHINE,
    REQUEST_EVENT,
    Click,
    parse_clicks,
    remove_double_clicks,
)
from metronome.reports.parameters import ReportParameters
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Exists, Filter, Not, OneOf, Query, parse_time_zone
from metronome.stores.sequences import EventSequence, SequenceQuery

MAX_SPAN_EVENTS: Final = 200_000
"""About how many events a span has at most, unless a single day has more."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class TimeSpan(NamedTuple):
    """A time, in milliseconds since 1970.

    Attributes:
        start: its first moment.
        end: the first moment after it.

    """

    start: int
    end: int


def split_into_spans(
    days: Iterable[tuple[str, int]],
    zone: ZoneInfo,
    start: datetime | None,
    end: datetime | None,
    max_events: int = MAX_SPAN_EVENTS,
) -> list[TimeSpan]:
    """Put days together to spans, each from the beginning of a day to the end of one.

    Args:
        days: those that have events, oldest first, as ``2015-01-22``, each with how many there are.
        zone: days are its.
        start: aware; nothing from before then is in a span.
        end: aware; nor is anything from then on.
        max_events: how many events a span of several days has at most.

    """
    found: list[TimeSpan] = []
    together = 0
    for day, count in days:
        span = _day_span(date.fromisoformat(day), zone)
        if found and together + count <= max_events:
            found[-1] = TimeSpan(found[-1].start, span.end)
            together += count
        else:
            found.append(span)
            together = count
    first = 0 if start is None else to_milliseconds(start)
    return [
        TimeSpan(max(span.start, first), span.end if end is None else min(span.end, to_milliseconds(end)))
        for span in found
    ]


def to_milliseconds(moment: datetime) -> int:
    """Return a moment in milliseconds since 1970, rounded up: what is before the one is before the other."""
    return -((_EPOCH - moment) // _MILLISECOND)


def from_milliseconds(ms: int) -> datetime:
    """Return the moment so many milliseconds after 1970 began, in UTC."""
    return _EPOCH + ms * _MILLISECOND


def _day_span(day: date, zone: ZoneInfo) -> TimeSpan:
    start, end = (datetime.combine(one, time(), zone) for one in (day, day + timedelta(days=1)))
    return TimeSpan(to_milliseconds(start), to_milliseconds(end))


USAGE_METRICS: Final = ("total_investigations", "unique_investigations", "total_requests", "unique_requests")
"""What is counted, in the order of all lists of four numbers here."""

MAX_USAGE_KEYS: Final = 200_000
"""How many cells a tally has at most: a hundred megabytes or so."""


class UsageKey(NamedTuple):
    """What is counted together; machines are script and tools, the others are people."""

    item: str
    month: str
    is_machine: bool


class UsageCounts:
    """The four numbers of one cell, and how many of each came from which country, where that is known.

    Attributes:
        numbers: by `USAGE_METRICS`.
        countries: likewise, for each country. A unique one is of the country where its session began.

    """

    __slots__ = ("by_country", "totals")

    def __init__(self) -> None:
        self.totals = [0, 0, 0, 0]
        self.by_country: dict[str, list[int]] = {}

    def add(self, country: str | None, numbers: tuple[int, int, int, int]) -> None:
        """Count so many of each metric more."""
        _add_numbers(self.totals, numbers)
        if country is not None:
            _add_numbers(self.by_country.setdefault(country, [0, 0, 0, 0]), numbers)


class UsageTally:
    """Everything counted so far; its memory grows with cells and countries, not with events.

    Args:
        max_keys: how many cells it may have.

    """

    def __init__(self, max_keys: int = MAX_USAGE_KEYS) -> None:
        self.counts: dict[UsageKey, UsageCounts] = {}
        self._max_keys = max_keys

    def add_clicks(self, clicks: Iterable[Click]) -> None:
        """Count one user's clicks, double ones removed, oldest first.

        Raises:
            QueryTooExpensive: there are too many cells.

        """
        investigated: set[tuple[object, ...]] = set()
        requested: set[tuple[object, ...]] = set()
        for click in clicks:
            once = (click.item, click.is_machine, click.user_session)
            first = once not in investigated
            investigated.add(once)
            first_request = click.is_request and once not in requested
            if click.is_request:
                requested.add(once)
            cell = UsageKey(click.item, click.month, click.is_machine)
            self._counts_of(cell).add(click.country, (1, first, click.is_request, first_request))

    def add_anonymous_clicks(self, key: UsageKey, country: str | None, number: int, *, are_requests: bool) -> None:
        """Count clicks of which nobody knows whose they are: each is a session of its own.

        Raises:
            QueryTooExpensive: there are too many cells.

        """
        requests = number if are_requests else 0
        self._counts_of(key).add(country, (number, number, requests, requests))

    def _counts_of(self, key: UsageKey) -> UsageCounts:
        counts = self.counts.get(key)
        if counts is None:
            if len(self.counts) >= self._max_keys:
                raise QueryTooExpensive(
                    f"more than {self._max_keys:,} numbers of items and months: ask for a month at a time, or for "
                    f"one item"
                )
            counts = self.counts[key] = UsageCounts()
        return counts


def _add_numbers(numbers: list[int], added: tuple[int, int, int, int]) -> None:
    for at, number in enumerate(added):
        numbers[at] += number


COUNT_TIMEOUT_SECONDS: Final = 50.0
"""How long counting may take: a worker waits a minute for the main process's answer, so it hears the reason, too."""

_THREAD_MIN_EVENTS: Final = 2_000
"""Longer trails take longer than others may wait."""

_HAS_SESSION, _HAS_VISITOR = (AllOf((Exists(name), Not(Equals(name, "")))) for name in ("session", "visitor"))
_VISITOR_ONLY: Final = AllOf((_HAS_VISITOR, Not(_HAS_SESSION)))
_ANONYMOUS: Final = AllOf((Not(_HAS_VISITOR), Not(_HAS_SESSION)))
_ANONYMOUS_GROUPS: Final = tuple(
    (AllOf((method, country)), by, is_machine)
    for method, is_machine in ((IS_MACHINE, True), (Not(IS_MACHINE), False))
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
            QueryTooExpensive: there is none.

        """
        if self._clock() >= self._end:
            raise QueryTooExpensive(
                f"counting takes over {self._seconds:g} s: ask for a shorter range, such as a month, or for one item"
            )


async def count_usage(
    store: Store, item: str | None, parameters: ReportParameters, deadline: Deadline, max_events: int = MAX_SPAN_EVENTS
) -> UsageTally:
    """Count all clicks of a range of time.

    A click that is followed by the second one of a double click after the range has ended is none of its: so the
    total numbers of ranges that follow each other are, together, those of all of them.

    Args:
        store: what is asked.
        item: the only item that counts; None for all.
        parameters: the range and the zone that months, days and hours belong to; nothing else of it.
        deadline: when it has to be done.
        max_events: about how many events are looked at together (see `split_into_spans`), which changes no number.

    Raises:
        QueryTooExpensive: it takes too long, or there are too many items.

    """
    where = CLICK_FILTER if item is None else AllOf((CLICK_FILTER, Equals("id", item)))
    tally = UsageTally()
    for span in await _split_range(store, item, parameters, max_events):
        for key, whose in (("session", _HAS_SESSION), ("visitor", _VISITOR_ONLY)):
            trails = _trails(key, AllOf((where, whose)), span)
            await _count_sequences(store, trails, span, parameters.tz, tally, deadline)
        await _count_anonymous(store, AllOf((where, _ANONYMOUS)), span, parameters.tz, tally)
        deadline.check()
    return tally


async def _split_range(store: Store, item: str | None, parameters: ReportParameters, max_events: int) -> list[TimeSpan]:
    # Only by what a store may have counted already.
    about: Filter = Exists("id") if item is None else Equals("id", item)
    where = AllOf((about, OneOf("event", ("view", REQUEST_EVENT)), Not(Exists("bot"))))
    (answer,) = await store.query(
        Query(group_by=("day",), where=where, start=parameters.start, end=parameters.end, time_zone=parameters.tz)
    )
    days = [(str(day), int(count or 0)) for day, count in answer.rows]
    return split_into_spans(days, parse_time_zone(parameters.tz), parameters.start, parameters.end, max_events)


def _trails(key: str, where: Filter, span: TimeSpan) -> SequenceQuery:
    """Ask for the clicks of a span, and for those that may make double clicks of its last ones."""
    return SequenceQuery(
        key, CLICK_FIELDS, where, from_milliseconds(span.start), from_milliseconds(span.end + DOUBLE_CLICK_MS)
    )


async def _count_sequences(
    store: Store, sequence_query: SequenceQuery, span: TimeSpan, tz: str, tally: UsageTally, deadline: Deadline
) -> None:
    zone = parse_time_zone(tz)
    found = store.sequences(sequence_query)
    try:
        async for trail in found:
            if len(trail.events) < _THREAD_MIN_EVENTS:
                _count_sequence(trail, zone, span, tally)
            else:
                await asyncio.to_thread(_count_sequence, trail, zone, span, tally)
            deadline.check()
    finally:
        # Or the store would hold what it still has to tell until the garbage is collected.
        if isinstance(found, AsyncGenerator):
            await found.aclose()


def _count_sequence(sequence: EventSequence, zone: ZoneInfo, span: TimeSpan, tally: UsageTally) -> None:
    clicks = remove_double_clicks(parse_clicks(sequence, zone))
    tally.add_clicks(click for click in clicks if click.timestamp_ms < span.end)


async def _count_anonymous(store: Store, where: Filter, span: TimeSpan, tz: str, tally: UsageTally) -> None:
    questions = (
        Query(
            group_by=("id", "month", "event", *by),
            where=AllOf((where, kind)),
            start=from_milliseconds(span.start),
            end=from_milliseconds(span.end),
            time_zone=tz,
        )
        for kind, by, _ in _ANONYMOUS_GROUPS
    )
    answers = await store.query(*questions)
    if not all(answer.exact for answer in answers):
        raise QueryTooExpensive("too many items to be counted exactly: ask for a month at a time, or for one item")
    for answer, (_, _, is_machine) in zip(answers, _ANONYMOUS_GROUPS, strict=True):
        for item, month, event, *where_from, count in answer.rows:
            cell = UsageKey(str(item), str(month), is_machine)
            country = str(where_from[0]) if where_from else None
            tally.add_anonymous_clicks(cell, country, int(count or 0), are_requests=event == REQUEST_EVENT)


PARAMETERS: Final = frozenset({"from", "to", "tz"})


async def usage_report(
    store: Store, item: str, parameters: ReportParameters, timeout_seconds: float = COUNT_TIMEOUT_SECONDS
) -> dict[str, Any]:
    """Answer how an item was used, as the Code of Practice counts it (see `metronome.reports.counter`).

    Args:
        store: what is asked.
        item: the item's id.
        parameters: the range and the zone.
        timeout_seconds: how long it may take.

    Returns:
        ``months``, newest first, without empty ones; each with the numbers of `USAGE_METRICS` of people and, under
        ``machine``, of scripts and tools; both with ``countries`` where countries are known, those with the most
        investigations first, each with the same four numbers. Robots are in none.

    Raises:
        QueryTooExpensive: it takes longer.

    """
    tally = await count_usage(store, item, parameters, Deadline(timeout_seconds))
    months = sorted({cell.month for cell in tally.counts}, reverse=True)
    return {"months": {month: _month_report(tally, item, month) for month in months}}


def _month_report(tally: UsageTally, item: str, month: str) -> dict[str, Any]:
    people, machines = (
        _format_counts(tally.counts.get(UsageKey(item, month, is_machine), UsageCounts()))
        for is_machine in (False, True)
    )
    return {**people, "machine": machines}


def _format_counts(counts: UsageCounts) -> dict[str, Any]:
    by_most = sorted(counts.by_country.items(), key=lambda one: (-one[1][0], one[0]))
    countries = {country: _name_metrics(numbers) for country, numbers in by_most}
    return {**_name_metrics(counts.totals), **({"countries": countries} if countries else {})}


def _name_metrics(numbers: list[int]) -> dict[str, int]:
    return dict(zip(USAGE_METRICS, numbers, strict=True))
