"""Harvests: what a dataset report is asked with, in the names of SUSHI.

Section 8 of the Code of Practice (see `metronome.reports.counter`) has the dates and table 7.4 the filters.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

from metronome.errors import TooCostly, Unaskable
from metronome.question import read_zone
from metronome.reports.parameters import Parameters

RELEASE: Final = "rd1"

METRIC_TYPES: Final = (
    "total-dataset-investigations",
    "unique-dataset-investigations",
    "total-dataset-requests",
    "unique-dataset-requests",
)
"""How reports call what is counted, in the order of `metronome.reports.counter.tally.METRICS`."""

ACCESS_METHODS: Final = ("regular", "machine")
"""How reports call people, and scripts and tools."""

MOST_MONTHS: Final = 12
"""How many months one report has at most."""

_FILTERS: Final = ("begin_date", "end_date", "dataset_id", "metric_type", "access_method", "tz", "release")
_ELSEWHERE: Final = frozenset({"api_key", "requestor_id", "customer_id", "platform"})
"""By these other services know who asks, for whom, and of what: here the key alone says it, or nothing has to."""
_DATE: Final = re.compile(r"\d{4}-\d\d(-\d\d)?")
_FIRST_YEAR: Final = 1970
_A_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a dataset report is asked with.

    Attributes:
        begin: the first day, the first of a month.
        end: the last day.
        today: the day of the asking.
        dataset: the only item that is reported; None for all.
        metric_types: which are reported, of `METRIC_TYPES`.
        access_methods: likewise, of `ACCESS_METHODS`.
        tz: days are its.
        ignored: parameters that say nothing here.

    """

    begin: date
    end: date
    today: date
    dataset: str | None = None
    metric_types: tuple[str, ...] = METRIC_TYPES
    access_methods: tuple[str, ...] = ACCESS_METHODS
    tz: str = "UTC"
    ignored: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether the range is not over yet."""
        return self.end >= self.today

    @property
    def last(self) -> date:
        """The last day of the range that has begun."""
        return min(self.end, self.today)

    def parameters(self) -> Parameters:
        """Return the range as other reports are asked for it."""
        zone = read_zone(self.tz)
        start, end = (datetime.combine(day, time(), zone) for day in (self.begin, self.last + _A_DAY))
        return Parameters(start=start, end=end, tz=self.tz)


def read_harvest(query: Mapping[str, str], now: datetime) -> Harvest:
    """Read what a dataset report is asked with.

    Args:
        query: as in the address. ``begin_date`` and ``end_date`` are days or months, both included; without them it is
            this calendar year so far. ``metric_type`` and ``access_method`` are lists with ``|`` between.
            ``dataset_id`` is an item's id, and ``tz`` the zone that days belong to.
        now: the time, aware.

    Raises:
        Unaskable: a value cannot be; the message says which.
        TooCostly: the range is too long.

    """
    release = query.get("release") or RELEASE
    if release.lower() != RELEASE:
        raise Unaskable(f"release={release[:60]} is not spoken here: ask for {RELEASE}")
    tz = query.get("tz") or "UTC"
    today = now.astimezone(read_zone(tz)).date()
    begin, end = _range(query.get("begin_date"), query.get("end_date"), today)
    return Harvest(
        begin=begin,
        end=end,
        today=today,
        dataset=query.get("dataset_id") or None,
        metric_types=_chosen("metric_type", query.get("metric_type"), METRIC_TYPES),
        access_methods=_chosen("access_method", query.get("access_method"), ACCESS_METHODS),
        tz=tz,
        ignored=tuple(name for name in query if name not in _FILTERS and name not in _ELSEWHERE),
    )


def last_day(month: date) -> date:
    """Return the last day of a day's month."""
    return (month.replace(day=1) + 31 * _A_DAY).replace(day=1) - _A_DAY


def _range(begin_text: str | None, end_text: str | None, today: date) -> tuple[date, date]:
    if not begin_text and not end_text:
        return today.replace(month=1, day=1), today
    if not begin_text or not end_text:
        raise Unaskable("a range has a begin_date and an end_date: give both, or neither for this year so far")
    begin, end = _date("begin_date", begin_text), _date("end_date", end_text)
    if len(end_text) < len("2026-01-31"):
        end = last_day(end)
    if begin.day != 1:
        raise Unaskable(f"begin_date={begin} is in the middle of a month: reports begin with the first of one")
    if end < begin:
        raise Unaskable(f"end_date={end} is before begin_date={begin}")
    if begin > today:
        raise Unaskable(f"begin_date={begin} is yet to come: nothing is known of it")
    if 12 * (end.year - begin.year) + end.month - begin.month >= MOST_MONTHS:
        raise TooCostly(f"a report has {MOST_MONTHS} months at most: ask for a month at a time")
    return begin, end


def _date(name: str, text: str) -> date:
    if _DATE.fullmatch(text):
        try:
            day = date.fromisoformat(text if len(text) == len("2026-01-31") else f"{text}-01")
        except ValueError:
            day = date.min
        if _FIRST_YEAR <= day.year < date.max.year:
            return day
    raise Unaskable(f"{name}={text[:60]} is no date: write 2026-01-31, or 2026-01")


def _chosen(name: str, text: str | None, choices: tuple[str, ...]) -> tuple[str, ...]:
    if not text:
        return choices
    asked = {one.strip().lower().replace("_", "-") for one in text.split("|")}
    if wrong := asked - set(choices):
        raise Unaskable(f"{name}={min(wrong)[:60]} is not known: choose of {', '.join(choices)}, with | between")
    return tuple(choice for choice in choices if choice in asked)
