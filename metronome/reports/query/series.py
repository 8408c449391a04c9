"""Time series: the time units of a range, and rows for units without events."""

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import islice
from typing import Any, Final
from zoneinfo import ZoneInfo

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.stores.query import EVENT_COUNTS, MAX_GROUPS, TIME_UNITS, Metric, MetricKind
from metronome.times import first_day_of_next_unit, first_day_of_unit, format_time_unit, start_of_day

Row = tuple[Any, ...]

_CLOCK_UNIT_LENGTHS: Final = {"hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
_MAX_CLOCK_SKEW: Final = timedelta(days=1)
_RESOLUTION: Final = timedelta(microseconds=1)
_NOON: Final = time(12)
_COUNT_METRICS: Final = frozenset({*EVENT_COUNTS, MetricKind.VALUE_COUNT, MetricKind.UNIQUE})


def list_time_units(unit: str, start: datetime, end: datetime, zone: ZoneInfo) -> list[str]:
    """Return the labels of all time units that overlap a range, oldest first.

    Args:
        unit: one of `TIME_UNITS`.
        start: aware; the start of the range.
        end: aware; the first time after the range.
        zone: the time zone that days belong to.

    Returns:
        Labels as in a `metronome.stores.query.QueryResult`. An hour that occurs twice when clocks go back has two
        labels with different offsets; hours and days that clocks skip have none.

    Raises:
        QueryTooExpensive: there are more units than a result may have rows.
        InvalidQuery: the range exceeds the calendar.

    """
    if end <= start:
        return []
    if unit == "all":
        return [unit]
    try:
        units = (
            _iterate_clock_units(start, end, _CLOCK_UNIT_LENGTHS[unit], zone)
            if unit in _CLOCK_UNIT_LENGTHS
            else _iterate_calendar_units(unit, start, end, zone)
        )
        labels = list(islice(units, MAX_GROUPS + 1))
    except (OverflowError, ValueError):
        raise InvalidQuery("the range exceeds the calendar: use from and to between 1970 and 9999") from None
    if len(labels) > MAX_GROUPS:
        raise QueryTooExpensive(f"the range has over {MAX_GROUPS:,} {unit}s")
    return labels


def find_partial_units(
    unit: str,
    labels: Collection[str],
    start: datetime | None,
    end: datetime | None,
    now: datetime | None,
    zone: ZoneInfo,
) -> list[str]:
    """Return which time units of a series are incomplete: cut by the range, or not over yet.

    Args:
        unit: one of `TIME_UNITS`.
        labels: the labels of the series.
        start: aware; the start of the range; None for all time.
        end: aware; the end of the range; None for all time.
        now: aware; None to regard all units as over.
        zone: the time zone that days belong to.

    Returns:
        Those of *labels*, the older one first.

    """
    if unit == "all" or not labels:
        return []
    units = [] if start is None else _units_cut_at(unit, start, zone)
    if now is not None and (end is None or now < end):
        units += _units_cut_at(unit, now, zone)
        if unit != "minute":
            # Clocks of senders may be ahead.
            ahead = now + _MAX_CLOCK_SKEW if end is None else min(end, now + _MAX_CLOCK_SKEW)
            units += list_time_units(unit, now, ahead, zone)
    if end is not None:
        units += _units_cut_at(unit, end, zone)
    return [label for label in dict.fromkeys(units) if label in labels]


def _units_cut_at(unit: str, moment: datetime, zone: ZoneInfo) -> list[str]:
    """Return the label of the unit that starts before a time and ends after it, if there is one."""
    if length := _CLOCK_UNIT_LENGTHS.get(unit):
        label = next(_iterate_clock_units(moment, moment + _RESOLUTION, length, zone))
        return [] if datetime.fromisoformat(label) == moment else [label]
    try:
        day = first_day_of_unit(moment.astimezone(zone).date(), unit)
        return [] if start_of_day(day, zone) == moment else [format_time_unit(day, unit)]
    except OverflowError:
        return []


def fill_gaps(
    rows: Iterable[Row], by: tuple[str, ...], metrics: tuple[Metric, ...], time_units: list[str]
) -> list[Row]:
    """Return rows, with an additional row for each time unit in which a group has none.

    Args:
        rows: the rows of a result, groups first.
        by: what the rows are grouped by, including one time unit.
        metrics: the metrics of the rows.
        time_units: the labels of the units (see `list_time_units`).

    Raises:
        QueryTooExpensive: the result would have too many rows.

    """
    row_by_group = {row[: len(by)]: row for row in rows}
    at = next(at for at, name in enumerate(by) if name in TIME_UNITS)
    other_groups = {(group[:at], group[at + 1 :]) for group in row_by_group} if len(by) > 1 else {((), ())}
    if len(time_units) * len(other_groups) > MAX_GROUPS:
        raise QueryTooExpensive(
            f"{len(time_units):,} {by[at]}s for each of {len(other_groups):,} groups exceed {MAX_GROUPS:,} rows"
        )
    empty_values = tuple(map(empty_value, metrics))
    for left, right in other_groups:
        for label in time_units:
            group = (*left, label, *right)
            row_by_group.setdefault(group, (*group, *empty_values))
    return list(row_by_group.values())


def empty_value(metric: Metric) -> int | float | None:
    """Return the value of a metric without events."""
    if metric.kind in _COUNT_METRICS:
        return 0
    return 0.0 if metric.kind is MetricKind.SUM else None


def _iterate_clock_units(start: datetime, end: datetime, length: timedelta, zone: ZoneInfo) -> Iterator[str]:
    moment = start.astimezone(UTC)
    while moment < end:
        local = moment.astimezone(zone)
        # If the offset changes within an hour, the rest of that hour is another hour.
        fixed_offset = local.replace(tzinfo=timezone(local.utcoffset() or timedelta()))
        unit_start = fixed_offset.replace(
            second=0, microsecond=0, minute=0 if length == _CLOCK_UNIT_LENGTHS["hour"] else local.minute
        )
        yield format_time_unit(unit_start, "minute")
        moment = unit_start.astimezone(UTC) + length


def _iterate_calendar_units(unit: str, start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[str]:
    day = first_day_of_unit(start.astimezone(zone).date(), unit)
    last = (end.astimezone(UTC) - _RESOLUTION).astimezone(zone).date()
    while day <= last:
        if unit != "day" or _day_exists(day, zone):
            yield format_time_unit(day, unit)
        day = first_day_of_next_unit(day, unit)


def _day_exists(day: date, zone: ZoneInfo) -> bool:
    """Return whether a time zone has a day: some skipped one when they moved across the date line."""
    noon = datetime.combine(day, _NOON, zone)
    return noon.astimezone(UTC).astimezone(zone).date() == day
