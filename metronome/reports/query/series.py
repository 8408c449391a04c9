"""Series of time: which units a range has, and rows for those in which nothing was."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.stores.query import MAX_GROUPS, TIME_UNITS, Metric, MetricKind
from metronome.times import format_time_unit

Row = tuple[Any, ...]

_CLOCK_UNIT_LENGTHS: Final = {"hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
_CALENDAR_UNIT_STRIDES: Final = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=31)}
_RESOLUTION: Final = timedelta(microseconds=1)
_NOON: Final = time(12)
_COUNT_METRICS: Final = frozenset({MetricKind.COUNT, MetricKind.VALUE_COUNT, MetricKind.UNIQUE})


def list_time_units(unit: str, start: datetime, end: datetime, zone: ZoneInfo) -> list[str]:
    """Return every minute, hour, day, week or month that a range has a part of, oldest first.

    Args:
        unit: one of `TIME_UNITS`.
        start: aware; the range is from then on.
        end: aware; the range is from before then.
        zone: that days belong to.

    Returns:
        Each as it stands in a `metronome.stores.query.Answer`. An hour that comes twice as clocks go back is there
        twice, with its two offsets; hours and days that clocks leap over are not there.

    Raises:
        QueryTooExpensive: there are more than an answer may have rows.
        InvalidQuery: the range leaves the calendar.

    """
    if end <= start:
        return []
    try:
        walk = (
            _iterate_clock_units(start, end, _CLOCK_UNIT_LENGTHS[unit], zone)
            if unit in _CLOCK_UNIT_LENGTHS
            else _iterate_calendar_units(unit, start, end, zone)
        )
        found = list(islice(walk, MAX_GROUPS + 1))
    except OverflowError:
        raise InvalidQuery("the range goes beyond the calendar: choose from and to between 1970 and 9999") from None
    if len(found) > MAX_GROUPS:
        raise QueryTooExpensive(f"the range has over {MAX_GROUPS:,} {unit}s")
    return found


def fill_gaps(
    rows: Iterable[Row], by: tuple[str, ...], metrics: tuple[Metric, ...], time_units: list[str]
) -> list[Row]:
    """Return rows, and one more for each unit of time and other group that has none.

    Args:
        rows: of an answer, with its groups first.
        by: what it is grouped by, one unit of time among it.
        metrics: what is measured.
        time_units: the units (see `list_time_units`).

    Raises:
        QueryTooExpensive: there would be more than an answer may have.

    """
    whole = {row[: len(by)]: row for row in rows}
    at = next(place for place, name in enumerate(by) if name in TIME_UNITS)
    others = {(key[:at], key[at + 1 :]) for key in whole} if len(by) > 1 else {((), ())}
    if len(time_units) * len(others) > MAX_GROUPS:
        raise QueryTooExpensive(
            f"{len(time_units):,} {by[at]}s for each of {len(others):,} groups are over {MAX_GROUPS:,} rows"
        )
    nothing = tuple(map(empty_value, metrics))
    for left, right in others:
        for label in time_units:
            key = (*left, label, *right)
            whole.setdefault(key, (*key, *nothing))
    return list(whole.values())


def empty_value(metric: Metric) -> int | float | None:
    """Return what a metric is where there is no event."""
    if metric.kind in _COUNT_METRICS:
        return 0
    return 0.0 if metric.kind is MetricKind.SUM else None


def _iterate_clock_units(start: datetime, end: datetime, length: timedelta, zone: ZoneInfo) -> Iterator[str]:
    moment = start.astimezone(UTC)
    while moment < end:
        local = moment.astimezone(zone)
        # The offset is that of the moment: where it changes within an hour, the rest of that hour is another one.
        fixed = local.replace(tzinfo=timezone(local.utcoffset() or timedelta()))
        begin = fixed.replace(
            second=0, microsecond=0, minute=0 if length == _CLOCK_UNIT_LENGTHS["hour"] else local.minute
        )
        yield format_time_unit(begin, "minute")
        moment = begin.astimezone(UTC) + length


def _iterate_calendar_units(unit: str, start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[str]:
    day = _first_day_of_unit(unit, start.astimezone(zone).date())
    last = (end.astimezone(UTC) - _RESOLUTION).astimezone(zone).date()
    while day <= last:
        if unit != "day" or _day_exists(day, zone):
            yield format_time_unit(day, unit)
        day = _first_day_of_unit(unit, day + _CALENDAR_UNIT_STRIDES[unit])


def _first_day_of_unit(unit: str, day: date) -> date:
    if unit == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if unit == "week" else day


def _day_exists(day: date, zone: ZoneInfo) -> bool:
    """Tell whether a zone has that day: some have leapt over one, and with it over the date line."""
    noon = datetime.combine(day, _NOON, zone)
    return noon.astimezone(UTC).astimezone(zone).date() == day
