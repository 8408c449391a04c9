"""The parameters that reports take in common, read from a query string."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from metronome.errors import InvalidQuery, Malformed
from metronome.stores.query import EXCLUDE_BOTS, TIME_UNITS, AllOf, Filter, parse_time_zone
from metronome.times import parse_timestamp

_RELATIVE_TIME = re.compile(r"-(\d{1,6})([smhdw])")
_DAY_PATTERN = re.compile(r"\d{4}-\d\d-\d\d")
_RELATIVE_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DEFAULT_LIMIT: Final = 100
_LIMIT_MAX_DIGITS: Final = 9
_STEPS: Final = ("1", "2", "3", "4", "5")
_TRUE_TEXTS: Final = frozenset({"1", "true", "yes", ""})
_FALSE_TEXTS: Final = frozenset({"0", "false", "no"})


@dataclass(frozen=True, slots=True)
class ReportParameters:
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
    limit: int | None = _DEFAULT_LIMIT
    include_bots: bool = False
    order: str = ""
    steps: int = 1

    def build_filter(self, *filters: Filter) -> AllOf:
        """Return a filter of these and, unless bots count, of people's events only."""
        return AllOf(filters if self.include_bots else (*filters, EXCLUDE_BOTS))


def parse_report_parameters(query: Mapping[str, str], now: datetime, allowed: frozenset[str]) -> ReportParameters:
    """Read a report's parameters.

    Args:
        query: as in the address.
        now: what relative times count from, aware.
        allowed: the names that this report takes.

    Returns:
        ``from`` and ``to`` may be days, which belong to ``tz`` and are both included, times
        (ISO 8601, or epoch), or relative to now, as ``-30d``; ``limit=0`` is no limit.

    Raises:
        InvalidQuery: a name is unknown or a value cannot be; the message says which.

    """
    for name in query:
        if name not in allowed:
            raise InvalidQuery(f"{name[:60]!r} is no parameter here: there are {', '.join(sorted(allowed))}")
    tz = query.get("tz") or "UTC"
    zone = parse_time_zone(tz)
    return ReportParameters(
        start=_parse_time("from", query.get("from"), zone, now, whole_days=0),
        end=_parse_time("to", query.get("to"), zone, now, whole_days=1),
        tz=tz,
        interval=_parse_choice("interval", query.get("interval") or "day", TIME_UNITS),
        limit=_parse_limit(query.get("limit")),
        include_bots=parse_boolean("bots", query.get("bots")),
        order=query.get("order", ""),
        steps=int(_parse_choice("steps", query.get("steps") or "1", _STEPS)),
    )


def _parse_time(name: str, text: str | None, zone: ZoneInfo, now: datetime, whole_days: int) -> datetime | None:
    if not text:
        return None
    try:
        if ago := _RELATIVE_TIME.fullmatch(text):
            return now - timedelta(**{_RELATIVE_UNITS[ago[2]]: int(ago[1])})
        if _DAY_PATTERN.fullmatch(text):
            return datetime.combine(date.fromisoformat(text) + timedelta(days=whole_days), time(), zone).astimezone(UTC)
        # In an address a + that was not encoded arrives as a space.
        return datetime.fromisoformat(parse_timestamp(text.replace(" ", "+")))
    except (Malformed, ValueError, OverflowError):
        raise InvalidQuery(f"{name}={text[:60]} is no time: write 2015-01-22, 2015-01-22T09:30:00Z or -30d") from None


def _parse_choice(name: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise InvalidQuery(f"{name}={text[:60]} is not known: choose one of {', '.join(choices)}")
    return text


def _parse_limit(text: str | None) -> int | None:
    if text is None or text == "":
        return _DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= _LIMIT_MAX_DIGITS):
        raise InvalidQuery(f"limit={text[:60]} is no number: write 10, or 0 for no limit")
    return int(text) or None


def parse_boolean(name: str, text: str | None) -> bool:
    """Read a parameter that is on or off; one that is missing is off.

    Raises:
        InvalidQuery: it is neither.

    """
    if text is None or text.lower() in _FALSE_TEXTS:
        return False
    if text.lower() in _TRUE_TEXTS:
        return True
    raise InvalidQuery(f"{name}={text[:60]} is neither 1 nor 0")
