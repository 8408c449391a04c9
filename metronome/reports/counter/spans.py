"""Spans: the parts that a long time is counted in, so that none of them is too much at once.

They are cut where days begin, which no user session lasts beyond (see `metronome.reports.counter.clicks`).
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

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
