"""Comparing a range of time with an earlier one."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from metronome.errors import InvalidQuery
from metronome.reports.query.series import Row, empty_value
from metronome.stores.query import Metric

COMPARISONS: Final = ("previous", "year")
"""``previous`` is the range of the same length just before, ``year`` the same range a year before."""

CHANGE_SUFFIX: Final = "change"
"""What the column is called that tells how much more or less there is than in the earlier range, as a share of it."""

_LEAP_DAY: Final = (2, 29)
_WALL_CLOCK_UNITS: Final = frozenset({"day", "hour", "minute"})
_DATE_LENGTH: Final = len("2026-01-31")
_WALL_TIME_LENGTH: Final = len("2026-01-31T12:00:00")


def earlier_range(comparison: str, start: datetime, end: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the range to compare with.

    Whole days stay whole days, even where clocks change: the day before one with 23 hours has 24.

    Args:
        comparison: one of `COMPARISONS`.
        start: aware; before *end*.
        end: aware.
        zone: that days belong to.

    Raises:
        InvalidQuery: it would lie before the calendar begins.

    """
    try:
        here, there = start.astimezone(zone), end.astimezone(zone)
        if comparison == "year":
            return _year_before(here), _year_before(there, since=here)
        if has_whole_days(here, there, zone):
            days = there.date() - here.date()
            return datetime.combine(here.date() - days, time(), zone).astimezone(UTC), start
        return start - (end - start), start
    except (OverflowError, ValueError):
        raise InvalidQuery(
            f"compare={comparison} would reach back before the calendar begins: choose a later from"
        ) from None


def match_time_units(
    comparison: str, unit: str, units: Sequence[str], earlier_units: Sequence[str], *, whole_days: bool
) -> dict[str, str]:
    """Tell which unit of time of the range stands where which one of the earlier range stood.

    Days and times of day are those of the calendar and of the clock: the first of March is compared with the first of
    March, also where one year has a leap day between, and ten o'clock with ten o'clock, also where clocks changed.

    Args:
        comparison: one of `COMPARISONS`.
        unit: of which both are.
        units: all units of the range, oldest first.
        earlier_units: likewise of the earlier one.
        whole_days: whether the range has just whole days.

    Returns:
        Units of *units* by those of *earlier_units*; those that have no counterpart are left out.

    """
    if unit not in _WALL_CLOCK_UNITS or not (units and earlier_units) or (comparison != "year" and not whole_days):
        return dict(zip(earlier_units, units, strict=False))
    # An hour that comes twice is there twice.
    places = defaultdict[str, list[str]](list)
    for label in reversed(units):
        places[label[:_WALL_TIME_LENGTH]].append(label)
    days = date.fromisoformat(units[0][:_DATE_LENGTH]) - date.fromisoformat(earlier_units[0][:_DATE_LENGTH])
    found = {}
    for label in earlier_units:
        day = date.fromisoformat(label[:_DATE_LENGTH])
        for later in _days_a_year_later(day) if comparison == "year" else (day + days,):
            if same := places.get(f"{later}{label[_DATE_LENGTH:_WALL_TIME_LENGTH]}"):
                found[label] = same.pop()
                break
    return found


def has_whole_days(start: datetime, end: datetime, zone: ZoneInfo) -> bool:
    """Tell whether a range begins and ends with a day of a zone."""
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
        rows: rows of the range, with groups first.
        earlier_rows: rows of the earlier range.
        metrics: what is measured.
        group_count: how many columns are groups.
        unit_mapping: for each column that holds units of time, which unit of the range stands where which one of the
            earlier range stood. What has no counterpart, as the day that a leap year has more, is left out.

    Returns:
        Groups, then for each metric its value, the earlier value, and the change as a share of the earlier value.

    """
    nothing = tuple(map(empty_value, metrics))
    values = {row[:group_count]: row[group_count:] for row in rows}
    earlier_values = {}
    for row in earlier_rows:
        key = tuple(
            unit_mapping[at].get(text) if at in unit_mapping else text for at, text in enumerate(row[:group_count])
        )
        if None not in key:
            earlier_values[key] = row[group_count:]
    return [
        (*key, *_comparison_cells(values.get(key, nothing), earlier_values.get(key, nothing)))
        for key in dict.fromkeys((*values, *earlier_values))
    ]


def _comparison_cells(now: Row, before: Row) -> Row:
    return tuple(cell for new, old in zip(now, before, strict=True) for cell in (new, old, _relative_change(new, old)))


def _relative_change(new: str | float | None, old: str | float | None) -> float | None:
    if not isinstance(new, (int, float)) or not isinstance(old, (int, float)) or not old:
        return None
    return (new - old) / abs(old)


def _year_before(moment: datetime, since: datetime | None = None) -> datetime:
    """Return the same date and time a year before; of a leap day, that of the day before it.

    A range that ends in a leap day, but did not begin there, ends with the day before it.
    """
    if (moment.month, moment.day) != _LEAP_DAY:
        earlier_one = moment.replace(year=moment.year - 1)
    elif since is None or since.date() == moment.date():
        earlier_one = moment.replace(year=moment.year - 1, day=28)
    else:
        earlier_one = datetime(moment.year - 1, 3, 1, tzinfo=moment.tzinfo)
    return earlier_one.astimezone(UTC)


def _days_a_year_later(day: date) -> Iterator[date]:
    """Yield the days of the next year that a day can be compared with."""
    if (day.month, day.day) != _LEAP_DAY:
        same = day.replace(year=day.year + 1)
        yield same
        after = same + timedelta(days=1)
        if (after.month, after.day) == _LEAP_DAY:
            # As far as the range begins with it.
            yield after
