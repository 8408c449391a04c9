"""What the reports of micro-metrics are asked with: which documents, and of which time."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from metronome.dialects.micrometrics.answers import KEY
from metronome.dialects.micrometrics.dates import read_date
from metronome.dialects.micrometrics.documents import ANY_VALUE, MARK
from metronome.dialects.micrometrics.pairs import read_pairs
from metronome.errors import Malformed, Unaskable
from metronome.question import AllOf, AnyOf, Equals, Exists, Filter, Range

PARAMETERS: Final = ("type", "tags", "fields", "value", "startDate", "endDate", "last", "period")
"""What every report can be asked with; ``period`` says something to some only."""
PERIODS: Final = {"d": "day", "h": "hour", "m": "minute"}
"""The lengths of time that measures are given for, and the time unit of each."""
ALL: Final = "0"
"""The ``last`` that is without beginning and end."""
USUAL_LAST: Final = "30d"

_AGO: Final = re.compile(r"(?=[\ddhm]{2,30}$)(?!.*([dhm]).*\1)(?:\d{1,7}[dhm])+", re.ASCII)
_PART: Final = re.compile(r"(\d+)([dhm])", re.ASCII)
_NAMES: Final = {"d": "days", "h": "hours", "m": "minutes"}
_PLUS: Final = re.compile(r"(T\d\d:\d\d\S*) (?=\d\d:?\d\d$)")
"""In an address a + that was not encoded arrives as a space."""
_LEAST: Final = timedelta(milliseconds=1)
_MINUTE: Final = timedelta(minutes=1)
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """Which documents a report is about.

    Attributes:
        where: holds for them.
        start: they are from then on; None for all older ones.
        end: they are from before then; None for all newer ones.
        period: one of `PERIODS`.
        now: when it was asked.

    """

    where: AllOf
    start: datetime | None
    end: datetime | None
    period: str
    now: datetime


def read_asked(query: Mapping[str, str], now: datetime, own: str = "", last: str = USUAL_LAST) -> Asked:
    """Read what a report is asked with.

    Args:
        query: as in the address. ``tags`` and ``fields`` are lists as `read_pairs` reads them: a name alone asks
            for documents that have it, whatever its value is.
        now: what ``last`` counts from, aware.
        own: the name of what this report takes besides.
        last: how far it looks back if neither ``last`` nor a date is given.

    Raises:
        Unaskable, Malformed: a name is unknown or a value cannot be; the message says which.

    """
    known = (*PARAMETERS, own) if own else PARAMETERS
    for name in query:
        if name not in known and name != KEY:
            raise Unaskable(f'"{name[:_SHOWN]}" is not allowed: there are {", ".join(known)}')
    period = query.get("period") or "d"
    if period not in PERIODS:
        raise Unaskable(f'"period" is {period[:_SHOWN]!r} and must be one of {", ".join(PERIODS)}')
    start, end = _range(query, now, last)
    return Asked(_where(query), start, end, period, now)


def _where(query: Mapping[str, str]) -> AllOf:
    filters: list[Filter] = [Equals(*MARK)]
    if query.get("type"):
        filters.append(Equals("event", query["type"]))
    for group in ("tags", "fields"):
        for name, value in read_pairs(query.get(group, "")).items():
            field = f"{group}.{name}"
            filters.append(Exists(field) if value is True else Equals(field, str(value)))
    if query.get("value"):
        filters.append(_has_value(query["value"]))
    return AllOf(tuple(filters))


def _has_value(text: str) -> Filter:
    """Ask for the number that a text is, or for the text."""
    is_text = Equals(ANY_VALUE, text)
    try:
        number = float(text)
    except ValueError:
        return is_text
    if not math.isfinite(number):
        return is_text
    return AnyOf((Range("value", at_least=number, at_most=number), is_text))


def _range(query: Mapping[str, str], now: datetime, usual: str) -> tuple[datetime | None, datetime | None]:
    start, end = _moment(query, "startDate"), _moment(query, "endDate")
    last = query.get("last") or (ALL if start or end else usual)
    if last == ALL:
        # An end is part of what is asked for.
        return start, None if end is None else _later(end, _LEAST)
    minute = now.replace(second=0, microsecond=0)
    return _ago(last, minute), _later(minute, _MINUTE + _LEAST)


def _moment(query: Mapping[str, str], name: str) -> datetime | None:
    text = query.get(name)
    if not text:
        return None
    try:
        return read_date(_PLUS.sub(r"\1+", text))
    except Malformed as error:
        raise Malformed(f'"{name}": {error}') from None


def _ago(last: str, minute: datetime) -> datetime:
    """Count back from this minute, or whole days from this day's beginning."""
    if _AGO.fullmatch(last) is None:
        raise Unaskable(f'"last" is {last[:_SHOWN]!r}: write how far back, as 30d or 2d3h25m, or 0 for everything')
    parts = {_NAMES[unit]: int(number) for number, unit in _PART.findall(last)}
    whole_days = not (parts.get("hours") or parts.get("minutes"))
    try:
        return (minute.replace(hour=0, minute=0) if whole_days else minute) - timedelta(**parts)
    except OverflowError:
        raise Unaskable(f'"last" is {last}, from before the year 1: write 0 for everything') from None


def _later(moment: datetime, more: timedelta) -> datetime | None:
    """Return a later moment, or None where the calendar ends."""
    try:
        return moment + more
    except OverflowError:
        return None
