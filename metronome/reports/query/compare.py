"""Comparing a range of time with an earlier one."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from metronome.errors import Unaskable
from metronome.question import Metric
from metronome.reports.query.series import Row, zero

COMPARISONS: Final = ("previous", "year")
"""``previous`` is the range of the same length just before, ``year`` the same range a year before."""

CHANGE: Final = "change"
"""What the column is called that tells how much more or less there is than in the earlier range, as a share of it."""

_LEAP_DAY: Final = 29


def earlier(name: str, start: datetime, end: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the range to compare with.

    Whole days stay whole days, even where clocks change: the day before one with 23 hours has 24.

    Args:
        name: one of `COMPARISONS`.
        start: aware; before *end*.
        end: aware.
        zone: that days belong to.

    Raises:
        Unaskable: it would lie before the calendar begins.

    """
    try:
        here, there = start.astimezone(zone), end.astimezone(zone)
        if name == "year":
            return _year_before(here), _year_before(there)
        if here.time() == there.time() == time():
            days = there.date() - here.date()
            return datetime.combine(here.date() - days, time(), zone).astimezone(UTC), start
        return start - (end - start), start
    except (OverflowError, ValueError):
        raise Unaskable(f"compare={name} would reach back before the calendar begins: choose a later from") from None


def joined(
    now: Iterable[Row],
    before: Iterable[Row],
    metrics: tuple[Metric, ...],
    width: int,
    places: Mapping[int, Mapping[str, str]],
) -> list[Row]:
    """Return one row for each group of either range.

    Args:
        now: rows of the range, with groups first.
        before: rows of the earlier range.
        metrics: what is measured.
        width: how many columns are groups.
        places: for each column that holds units of time, which unit of the range stands where which one of the
            earlier range stood. What has no counterpart, as the day that a leap year has more, is left out.

    Returns:
        Groups, then for each metric its value, the earlier value, and the change as a share of the earlier value.

    """
    nothing = tuple(map(zero, metrics))
    values = {row[:width]: row[width:] for row in now}
    earlier_values = {}
    for row in before:
        key = tuple(places[at].get(text) if at in places else text for at, text in enumerate(row[:width]))
        if None not in key:
            earlier_values[key] = row[width:]
    return [
        (*key, *_side_by_side(values.get(key, nothing), earlier_values.get(key, nothing)))
        for key in dict.fromkeys((*values, *earlier_values))
    ]


def _side_by_side(now: Row, before: Row) -> Row:
    return tuple(cell for new, old in zip(now, before, strict=True) for cell in (new, old, _change(new, old)))


def _change(new: str | float | None, old: str | float | None) -> float | None:
    if not isinstance(new, (int, float)) or not isinstance(old, (int, float)) or not old:
        return None
    return (new - old) / abs(old)


def _year_before(moment: datetime) -> datetime:
    day = 28 if (moment.month, moment.day) == (2, _LEAP_DAY) else moment.day
    return moment.replace(year=moment.year - 1, day=day).astimezone(UTC)
