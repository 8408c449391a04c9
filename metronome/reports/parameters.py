"""The parameters that reports take in common, read from a query string."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from metronome.errors import Malformed, Unaskable
from metronome.stores.query import NO_BOTS, TIME_UNITS, AllOf, Filter, read_zone
from metronome.times import read_stamp

_AGO = re.compile(r"-(\d{1,6})([smhdw])")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_USUAL_LIMIT: Final = 100
_LIMIT_DIGITS: Final = 9
_STEPS: Final = ("1", "2", "3", "4", "5")
_YES: Final = frozenset({"1", "true", "yes", ""})
_NO: Final = frozenset({"0", "false", "no"})


@dataclass(frozen=True, slots=True)
class Parameters:
    """What every report can be asked with.

    Attributes:
        start: events from then on; None for all older ones.
        end: events before then; None for all newer ones.
        tz: the zone that days belong to.
        interval: the time unit of series.
        limit: how many entries of each ranking at most; None for all.
        bots: whether events of bots count.
        order: what items are ranked by.
        steps: how many steps before and after an item are told, from 1 to 5.

    """

    start: datetime | None = None
    end: datetime | None = None
    tz: str = "UTC"
    interval: str = "day"
    limit: int | None = _USUAL_LIMIT
    bots: bool = False
    order: str = ""
    steps: int = 1

    def only(self, *filters: Filter) -> AllOf:
        """Return a filter of these and, unless bots count, of people's events only."""
        return AllOf(filters if self.bots else (*filters, NO_BOTS))


def read_parameters(query: Mapping[str, str], now: datetime, known: frozenset[str]) -> Parameters:
    """Read a report's parameters.

    Args:
        query: as in the address.
        now: what relative times count from, aware.
        known: the names that this report takes.

    Returns:
        ``from`` and ``to`` may be days, which belong to ``tz`` and are both included, times
        (ISO 8601, or epoch), or relative to now, as ``-30d``; ``limit=0`` is no limit.

    Raises:
        Unaskable: a name is unknown or a value cannot be; the message says which.

    """
    for name in query:
        if name not in known:
            raise Unaskable(f"{name[:60]!r} is no parameter here: there are {', '.join(sorted(known))}")
    tz = query.get("tz") or "UTC"
    zone = read_zone(tz)
    return Parameters(
        start=_moment("from", query.get("from"), zone, now, whole_days=0),
        end=_moment("to", query.get("to"), zone, now, whole_days=1),
        tz=tz,
        interval=_one_of("interval", query.get("interval") or "day", TIME_UNITS),
        limit=_limit(query.get("limit")),
        bots=read_switch("bots", query.get("bots")),
        order=query.get("order", ""),
        steps=int(_one_of("steps", query.get("steps") or "1", _STEPS)),
    )


def _moment(name: str, text: str | None, zone: ZoneInfo, now: datetime, whole_days: int) -> datetime | None:
    if not text:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if _DAY.fullmatch(text):
            return datetime.combine(date.fromisoformat(text) + timedelta(days=whole_days), time(), zone).astimezone(UTC)
        # In an address a + that was not encoded arrives as a space.
        return datetime.fromisoformat(read_stamp(text.replace(" ", "+")))
    except (Malformed, ValueError, OverflowError):
        raise Unaskable(f"{name}={text[:60]} is no time: write 2015-01-22, 2015-01-22T09:30:00Z or -30d") from None


def _one_of(name: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise Unaskable(f"{name}={text[:60]} is not known: choose one of {', '.join(choices)}")
    return text


def _limit(text: str | None) -> int | None:
    if text is None or text == "":
        return _USUAL_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= _LIMIT_DIGITS):
        raise Unaskable(f"limit={text[:60]} is no number: write 10, or 0 for no limit")
    return int(text) or None


def read_switch(name: str, text: str | None) -> bool:
    """Read a parameter that is on or off; one that is missing is off.

    Raises:
        Unaskable: it is neither.

    """
    if text is None or text.lower() in _NO:
        return False
    if text.lower() in _YES:
        return True
    raise Unaskable(f"{name}={text[:60]} is neither 1 nor 0")
