"""Exact counts of investigations and requests, total and unique, by item, month and access method.

Section 6.3 of the Code of Practice (see `metronome.reports.counter`): *investigations* are all events about a dataset,
*requests* those that retrieved it; *total* counts have all of them without double clicks, *unique* counts at most one
for each user session and dataset.

A long range is counted in spans that end with a day, as user sessions do (see `metronome.reports.counter.clicks`), so
that each fits into memory. Every event belongs to exactly one of three groups:

* Those with a ``session`` are counted by session. If the sender logs sessions, the Code of Practice requires that
  double clicks are found by them rather than by address and user agent, from which ``visitor`` is derived (section
  10.2, options 2 and 1).
* Those with only a ``visitor`` are counted by visitor.
* Those with neither are each a user and a session of their own.
"""

import asyncio
import time as clock_time
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import date, datetime, time, timedelta
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
from metronome.reports.parameters import IS_VIEW_OR_DOWNLOAD, ReportParameters, item_filter
from metronome.stores.base import Store
from metronome.stores.query import EXCLUDE_BOTS, AllOf, Equals, Exists, Filter, Not, Query, parse_time_zone
from metronome.stores.sequences import EventSequence, SequenceQuery
from metronome.times import from_milliseconds, to_milliseconds_ceil

MAX_SPAN_EVENTS: Final = 200_000
"""Approximate maximum number of events in a span; a single day may have more."""


class TimeSpan(NamedTuple):
    """A range of time, in milliseconds since 1970.

    Attributes:
        start: its first millisecond.
        end: the first millisecond after it.

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
    """Combine days into spans of whole days.

    Args:
        days: days with events, oldest first, such as ``2015-01-22``, each with its number of events.
        zone: the time zone that days belong to.
        start: aware; the start of the first span, at the earliest.
        end: aware; the end of the last span, at the latest.
        max_events: maximum number of events in a span of several days.

    """
    spans: list[TimeSpan] = []
    span_events = 0
    for day, count in days:
        day_span = _day_span(date.fromisoformat(day), zone)
        if spans and span_events + count <= max_events:
            spans[-1] = TimeSpan(spans[-1].start, day_span.end)
            span_events += count
        else:
            spans.append(day_span)
            span_events = count
    # Rounded up: stored times have whole milliseconds.
    start_ms = 0 if start is None else to_milliseconds_ceil(start)
    return [
        TimeSpan(max(span.start, start_ms), span.end if end is None else min(span.end, to_milliseconds_ceil(end)))
        for span in spans
    ]


def _day_span(day: date, zone: ZoneInfo) -> TimeSpan:
    start, end = (datetime.combine(each, time(), zone) for each in (day, day + timedelta(days=1)))
    return TimeSpan(to_milliseconds_ceil(start), to_milliseconds_ceil(end))


USAGE_METRICS: Final = ("total_investigations", "unique_investigations", "total_requests", "unique_requests")
"""The names of the four numbers, in the order of all lists of them in this module."""

MAX_USAGE_KEYS: Final = 200_000
"""Maximum number of keys in a tally; that many take about 100 MB."""


class UsageKey(NamedTuple):
    """What is counted together; machines are scripts and tools, other users are people."""

    item: str
    month: str
    is_machine: bool


class UsageCounts:
    """The four numbers of one key, in total and by country.

    Attributes:
        totals: in the order of `USAGE_METRICS`.
        by_country: in the same order, for each known country. A unique count belongs to the country where its session
            started.

    """

    __slots__ = ("by_country", "totals")

    def __init__(self) -> None:
        self.totals = [0, 0, 0, 0]
        self.by_country: dict[str, list[int]] = {}

    def add(self, country: str | None, numbers: tuple[int, int, int, int]) -> None:
        """Add numbers in the order of `USAGE_METRICS`."""
        _add_numbers(self.totals, numbers)
        if country is not None:
            _add_numbers(self.by_country.setdefault(country, [0, 0, 0, 0]), numbers)


class UsageTally:
    """Counts by key; memory grows with keys and countries, not with events.

    Args:
        max_keys: maximum number of keys.

    """

    def __init__(self, max_keys: int = MAX_USAGE_KEYS) -> None:
        self.counts: dict[UsageKey, UsageCounts] = {}
        self._max_keys = max_keys

    def add_clicks(self, clicks: Iterable[Click]) -> None:
        """Count the clicks of one user, oldest first, without double clicks.

        Raises:
            QueryTooExpensive: there are too many keys.

        """
        investigated: set[tuple[object, ...]] = set()
        requested: set[tuple[object, ...]] = set()
        for click in clicks:
            unique = (click.item, click.is_machine, click.user_session)
            is_first = unique not in investigated
            investigated.add(unique)
            is_first_request = click.is_request and unique not in requested
            if click.is_request:
                requested.add(unique)
            key = UsageKey(click.item, click.month, click.is_machine)
            self._counts_of(key).add(click.country, (1, is_first, click.is_request, is_first_request))

    def add_anonymous_clicks(self, key: UsageKey, country: str | None, number: int, *, are_requests: bool) -> None:
        """Count clicks of unknown users: each is a session of its own.

        Raises:
            QueryTooExpensive: there are too many keys.

        """
        requests = number if are_requests else 0
        self._counts_of(key).add(country, (number, number, requests, requests))

    def _counts_of(self, key: UsageKey) -> UsageCounts:
        counts = self.counts.get(key)
        if counts is None:
            if len(self.counts) >= self._max_keys:
                raise QueryTooExpensive(f"there are over {self._max_keys:,} combinations of items and months")
            counts = self.counts[key] = UsageCounts()
        return counts


def _add_numbers(numbers: list[int], added: tuple[int, int, int, int]) -> None:
    for at, number in enumerate(added):
        numbers[at] += number


COUNT_TIMEOUT_SECONDS: Final = 50.0
"""Timeout of a count; less than the minute that a worker waits for the main process, so that it receives the error."""

_THREAD_MIN_EVENTS: Final = 2_000
"""Longer sequences are counted in a thread: they take longer than other requests may wait."""

_HAS_SESSION, _HAS_VISITOR = (AllOf((Exists(name), Not(Equals(name, "")))) for name in ("session", "visitor"))
_VISITOR_ONLY: Final = AllOf((_HAS_VISITOR, Not(_HAS_SESSION)))
_ANONYMOUS: Final = AllOf((Not(_HAS_VISITOR), Not(_HAS_SESSION)))
_ANONYMOUS_GROUPS: Final = tuple(
    (AllOf((method, country)), by, is_machine)
    for method, is_machine in ((IS_MACHINE, True), (Not(IS_MACHINE), False))
    for country, by in ((Exists("country"), ("country",)), (Not(Exists("country")), ()))
)
"""Separate queries for the third group: a query omits groups that lack a value."""


class Deadline:
    """A timeout that is checked between steps, some of which run in threads.

    Args:
        seconds: the timeout, from now on.
        clock: monotonic, in seconds.

    """

    def __init__(self, seconds: float, clock: Callable[[], float] = clock_time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def check(self) -> None:
        """Check the time.

        Raises:
            QueryTooExpensive: the timeout has expired.

        """
        if self._clock() >= self._end:
            raise QueryTooExpensive(f"counting takes over {self._seconds:g} s")


async def count_usage(
    store: Store, item: str | None, parameters: ReportParameters, deadline: Deadline, max_events: int = MAX_SPAN_EVENTS
) -> UsageTally:
    """Count all clicks of a range.

    The first click of a double click does not count if the second one is after the end of the range. So the total
    counts of consecutive ranges add up to those of the whole range.

    Args:
        store: runs the queries.
        item: the item ID; None for all items.
        parameters: the range, and the time zone of months, days and hours.
        deadline: the timeout.
        max_events: approximate number of events per span (see `split_into_spans`); it does not change the result.

    Raises:
        QueryTooExpensive: it takes too long, or there are too many items.

    """
    where = AllOf((CLICK_FILTER, item_filter(item)))
    tally = UsageTally()
    for span in await _split_range(store, item, parameters, max_events):
        for key, user_filter in (("session", _HAS_SESSION), ("visitor", _VISITOR_ONLY)):
            query = _sequence_query(key, AllOf((where, user_filter)), span)
            await _count_sequences(store, query, span, parameters.tz, tally, deadline)
        await _count_anonymous(store, AllOf((where, _ANONYMOUS)), span, parameters.tz, tally)
        deadline.check()
    return tally


async def _split_range(store: Store, item: str | None, parameters: ReportParameters, max_events: int) -> list[TimeSpan]:
    # Only filters for which a store may keep counts.
    where = AllOf((item_filter(item), IS_VIEW_OR_DOWNLOAD, EXCLUDE_BOTS))
    (result,) = await store.query(
        Query(group_by=("day",), where=where, start=parameters.start, end=parameters.end, time_zone=parameters.tz)
    )
    days = [(str(day), int(count or 0)) for day, count in result.rows]
    return split_into_spans(days, parse_time_zone(parameters.tz), parameters.start, parameters.end, max_events)


def _sequence_query(key: str, where: Filter, span: TimeSpan) -> SequenceQuery:
    """Query the clicks of a span, and the following ones, which may be second clicks of double clicks."""
    return SequenceQuery(
        key, CLICK_FIELDS, where, from_milliseconds(span.start), from_milliseconds(span.end + DOUBLE_CLICK_MS)
    )


async def _count_sequences(
    store: Store, sequence_query: SequenceQuery, span: TimeSpan, tz: str, tally: UsageTally, deadline: Deadline
) -> None:
    zone = parse_time_zone(tz)
    sequences = store.sequences(sequence_query)
    try:
        async for sequence in sequences:
            if len(sequence.events) < _THREAD_MIN_EVENTS:
                _count_sequence(sequence, zone, span, tally)
            else:
                await asyncio.to_thread(_count_sequence, sequence, zone, span, tally)
            deadline.check()
    finally:
        # Otherwise the store holds the remaining sequences until the next garbage collection.
        if isinstance(sequences, AsyncGenerator):
            await sequences.aclose()


def _count_sequence(sequence: EventSequence, zone: ZoneInfo, span: TimeSpan, tally: UsageTally) -> None:
    clicks = remove_double_clicks(parse_clicks(sequence, zone))
    tally.add_clicks(click for click in clicks if click.timestamp_ms < span.end)


async def _count_anonymous(store: Store, where: Filter, span: TimeSpan, tz: str, tally: UsageTally) -> None:
    queries = (
        Query(
            group_by=("id", "month", "event", *by),
            where=AllOf((where, group_filter)),
            start=from_milliseconds(span.start),
            end=from_milliseconds(span.end),
            time_zone=tz,
        )
        for group_filter, by, _ in _ANONYMOUS_GROUPS
    )
    results = await store.query(*queries)
    if not all(result.is_complete for result in results):
        raise QueryTooExpensive("there are too many items to count exactly")
    for result, (_, _, is_machine) in zip(results, _ANONYMOUS_GROUPS, strict=True):
        for item, month, event, *countries, count in result.rows:
            key = UsageKey(str(item), str(month), is_machine)
            country = str(countries[0]) if countries else None
            tally.add_anonymous_clicks(key, country, int(count or 0), are_requests=event == REQUEST_EVENT)


PARAMETERS: Final = frozenset({"from", "to", "tz"})


async def usage_report(
    store: Store, item: str, parameters: ReportParameters, timeout_seconds: float = COUNT_TIMEOUT_SECONDS
) -> dict[str, Any]:
    """Return an item's usage by month, counted by the Code of Practice (see `metronome.reports.counter`).

    Args:
        store: runs the queries.
        item: the item ID.
        parameters: the range and the time zone.
        timeout_seconds: the timeout.

    Returns:
        ``months``, newest first, without empty ones; each with the numbers of `USAGE_METRICS` for people and, under
        ``machine``, for scripts and tools; both with ``countries`` if countries are known, those with the most
        investigations first, each with the same four numbers. Robots are excluded.

    Raises:
        QueryTooExpensive: it takes too long.

    """
    tally = await count_usage(store, item, parameters, Deadline(timeout_seconds))
    months = sorted({key.month for key in tally.counts}, reverse=True)
    return {"months": {month: _month_report(tally, item, month) for month in months}}


def _month_report(tally: UsageTally, item: str, month: str) -> dict[str, Any]:
    people, machines = (
        _format_counts(tally.counts.get(UsageKey(item, month, is_machine), UsageCounts()))
        for is_machine in (False, True)
    )
    return {**people, "machine": machines}


def _format_counts(counts: UsageCounts) -> dict[str, Any]:
    by_most = sorted(counts.by_country.items(), key=lambda entry: (-entry[1][0], entry[0]))
    countries = {country: _name_metrics(numbers) for country, numbers in by_most}
    return {**_name_metrics(counts.totals), **({"countries": countries} if countries else {})}


def _name_metrics(numbers: list[int]) -> dict[str, int]:
    return dict(zip(USAGE_METRICS, numbers, strict=True))
