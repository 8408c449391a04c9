"""Count: the tally of a store's events, exact to the last one.

Every event is in just one of three populations, each of which is told in a way of its own:

* Those with a ``session`` are told session by session. Where the sender logs sessions, the Code of Practice (see
  `metronome.reports.counter`) wants double clicks to be traced by them rather than by address and user agent, which
  are what ``visitor`` is made of where nobody sends one (section 10.2, options 2 and 1).
* Those without one, but with a ``visitor``, are told visitor by visitor.
* Those with neither are each a user and a session of their own, so it is enough to count them.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final
from zoneinfo import ZoneInfo

from metronome.errors import TooCostly
from metronome.question import AllOf, Equals, Exists, Filter, Not, OneOf, Question, read_zone
from metronome.reports.counter.clicks import (
    CLICKS,
    DOUBLE_CLICK_MS,
    FIELDS,
    MACHINE,
    REQUEST,
    read_clicks,
    without_double_clicks,
)
from metronome.reports.counter.spans import MOST_EVENTS, Span, moment_of, spans
from metronome.reports.counter.tally import Cell, Tally
from metronome.reports.parameters import Parameters
from metronome.stores.store import Store
from metronome.trails import Trail, Trails

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

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
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
