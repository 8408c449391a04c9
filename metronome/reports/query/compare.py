"""Compare a range with an earlier one."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from metronome.errors import InvalidQuery
from metronome.reports.query.series import Row, empty_value
from metronome.stores.query import Metric

COMPARISONS: Final = ("previous", "year")
"""``previous`` is the range of the same length right before, ``year`` the same range one year earlier."""

CHANGE_SUFFIX: Final = "change"
"""Suffix of the columns with the relative change since the earlier range."""

_LEAP_DAY: Final = (2, 29)
_WALL_CLOCK_UNITS: Final = frozenset({"day", "hour", "minute"})
_DATE_LENGTH: Final = len("2026-01-31")
_WALL_TIME_LENGTH: Final = len("2026-01-31T12:00:00")


def earlier_range(comparison: str, start: datetime, end: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the range to compare with.

    Whole days stay whole days, even if clocks change: the day before one of 23 hours has 24.

    Args:
        comparison: one of `COMPARISONS`.
        start: aware; before *end*.
        end: aware.
        zone: the time zone that days belong to.

    Raises:
        InvalidQuery: the earlier range would start before the calendar.

    """
    try:
        local_start, local_end = start.astimezone(zone), end.astimezone(zone)
        if comparison == "year":
            return _year_before(local_start), _year_before(local_end, since=local_start)
        if has_whole_days(local_start, local_end, zone):
            days = local_end.date() - local_start.date()
            return datetime.combine(local_start.date() - days, time(), zone).astimezone(UTC), start
        return start - (end - start), start
    except (OverflowError, ValueError):
        raise InvalidQuery(
            f"compare={comparison} needs a range before the start of the calendar: use a later from"
        ) from None


def earlier_range_to_now(start: datetime, now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the range to compare a range up to now with: if it starts with a day, as many days earlier.

    Its last day then ends at the same time of day, so that both ranges have the same parts of days.

    Args:
        start: aware; before *now*.
        now: aware.
        zone: the time zone that days belong to.

    Raises:
        InvalidQuery: the earlier range would start before the calendar.

    """
    local_start, local_now = start.astimezone(zone), now.astimezone(zone)
    if local_start.time() != time():
        return earlier_range("previous", start, now, zone)
    days = local_now.date() - local_start.date() + timedelta(days=1)
    earlier_start, _ = earlier_range("previous", start, datetime.combine(local_start.date() + days, time(), zone), zone)
    return earlier_start, datetime.combine(local_now.date() - days, local_now.time(), zone).astimezone(UTC)


def match_time_units(
    comparison: str, unit: str, units: Sequence[str], earlier_units: Sequence[str], *, whole_days: bool
) -> dict[str, str]:
    """Return which time unit of a range corresponds to each unit of the earlier range.

    They correspond by calendar and clock: the first of March to the first of March, also if one of the years has a
    leap day, and ten o'clock to ten o'clock, also if clocks changed.

    Args:
        comparison: one of `COMPARISONS`.
        unit: the kind of both units, one of `TIME_UNITS`.
        units: labels of all units of the range, oldest first.
        earlier_units: labels of all units of the earlier range, oldest first.
        whole_days: whether the range consists of whole days.

    Returns:
        Labels of *units* by those of *earlier_units*, without those that have no counterpart.

    """
    if unit not in _WALL_CLOCK_UNITS or not (units and earlier_units) or (comparison != "year" and not whole_days):
        return dict(zip(earlier_units, units, strict=False))
    # An hour may occur twice.
    labels_by_wall_time = defaultdict[str, list[str]](list)
    for label in reversed(units):
        labels_by_wall_time[label[:_WALL_TIME_LENGTH]].append(label)
    days = date.fromisoformat(units[0][:_DATE_LENGTH]) - date.fromisoformat(earlier_units[0][:_DATE_LENGTH])
    mapping = {}
    for label in earlier_units:
        day = date.fromisoformat(label[:_DATE_LENGTH])
        for later_day in _days_a_year_later(day) if comparison == "year" else (day + days,):
            if labels := labels_by_wall_time.get(f"{later_day}{label[_DATE_LENGTH:_WALL_TIME_LENGTH]}"):
                mapping[label] = labels.pop()
                break
    return mapping


def has_whole_days(start: datetime, end: datetime, zone: ZoneInfo) -> bool:
    """Return whether a range starts and ends at midnight in a time zone."""
    return start.astimezone(zone).time() == end.astimezone(zone).time() == time()


def join_rows(
    rows: Iterable[Row],
    earlier_rows: Iterable[Row],
    metrics: tuple[Metric, ...],
    group_count: int,
    unit_mapping: Mapping[int, Mapping[str, str]],
) -> list[Row]:
    """Return one row for each group of either range.

    Args:
        rows: rows of the range, groups first.
        earlier_rows: rows of the earlier range.
        metrics: the metrics of the rows.
        group_count: how many columns are groups.
        unit_mapping: for each column of time units, the unit that each unit of the earlier range corresponds to. Rows
            of units without a counterpart, such as a leap day, are omitted.

    Returns:
        Groups, then for each metric its value, the earlier value, and the relative change.

    """
    empty_values = tuple(map(empty_value, metrics))
    values = {row[:group_count]: row[group_count:] for row in rows}
    earlier_values = {}
    for row in earlier_rows:
        key = tuple(
            unit_mapping[at].get(label) if at in unit_mapping else label for at, label in enumerate(row[:group_count])
        )
        if None not in key:
            earlier_values[key] = row[group_count:]
    return [
        (*key, *_comparison_cells(values.get(key, empty_values), earlier_values.get(key, empty_values)))
        for key in dict.fromkeys((*values, *earlier_values))
    ]


def _comparison_cells(values: Row, earlier_values: Row) -> Row:
    return tuple(
        cell for new, old in zip(values, earlier_values, strict=True) for cell in (new, old, _relative_change(new, old))
    )


def _relative_change(new: str | float | None, old: str | float | None) -> float | None:
    if not isinstance(new, (int, float)) or not isinstance(old, (int, float)) or not old:
        return None
    return (new - old) / abs(old)


def _year_before(moment: datetime, since: datetime | None = None) -> datetime:
    """Return the same time one year earlier; for a leap day, on the 28th of February.

    The end of a range that ends on a leap day, but started earlier, is the start of March.
    """
    if (moment.month, moment.day) != _LEAP_DAY:
        earlier = moment.replace(year=moment.year - 1)
    elif since is None or since.date() == moment.date():
        earlier = moment.replace(year=moment.year - 1, day=28)
    else:
        earlier = datetime(moment.year - 1, 3, 1, tzinfo=moment.tzinfo)
    return earlier.astimezone(UTC)


def _days_a_year_later(day: date) -> Iterator[date]:
    """Yield the days of the next year that a day may correspond to."""
    if (day.month, day.day) != _LEAP_DAY:
        same_day = day.replace(year=day.year + 1)
        yield same_day
        next_day = same_day + timedelta(days=1)
        if (next_day.month, next_day.day) == _LEAP_DAY:
            # If the range starts with it.
            yield next_day
