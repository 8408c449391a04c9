"""What reports share: parameters read from a query string, filters, and the marks of an incomplete result."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from metronome.errors import InvalidQuery, Malformed
from metronome.reports.query.series import find_partial_units
from metronome.stores.query import (
    EXCLUDE_BOTS,
    TIME_UNITS,
    AllOf,
    Equals,
    Exists,
    Filter,
    OneOf,
    QueryResult,
    parse_time_zone,
)
from metronome.times import EXPECTED_PERIOD, parse_period

IS_VIEW: Final = Equals("event", "view")
IS_VIEW_OR_DOWNLOAD: Final = OneOf("event", ("view", "download"))

SHARE_DIGITS: Final = 4
"""To how many digits shares and scores are rounded."""

_DEFAULT_LIMIT: Final = 100
_NUMBER_MAX_DIGITS: Final = 9
CHEAP_MAX_ROWS: Final = 1000
"""A report with more entries is an expensive one, and is built in a thread."""
_EXCERPT_CHARACTERS: Final = 60
_STEPS: Final = ("1", "2", "3", "4", "5")
_TRUE_TEXTS: Final = frozenset({"1", "true", "yes", ""})
_FALSE_TEXTS: Final = frozenset({"0", "false", "no"})


@dataclass(frozen=True, slots=True)
class ReportParameters:
    """The parameters of a report; each report uses some of them.

    Attributes:
        start: only events from then on; None for no bound.
        end: only events before then; None for no bound.
        tz: IANA name of the time zone that days belong to.
        interval: time unit of a series.
        limit: maximum number of entries in each ranking; None for no limit.
        include_bots: whether to count events of bots.
        order: what items are ranked by.
        steps: up to how many steps before and after an item to report, from 1 to 5.
        filters: only events that all of these match.
        now: aware; time units that last longer are incomplete. None if none is.

    """

    start: datetime | None = None
    end: datetime | None = None
    tz: str = "UTC"
    interval: str = "day"
    limit: int | None = _DEFAULT_LIMIT
    include_bots: bool = False
    order: str = ""
    steps: int = 1
    filters: tuple[Filter, ...] = ()
    now: datetime | None = None

    def build_filter(self, *filters: Filter) -> AllOf:
        """Return a filter that combines these with the parameters' own and, unless bots are included, excludes bots."""
        return AllOf((*filters, *self.filters, *(() if self.include_bots else (EXCLUDE_BOTS,))))


def parse_report_parameters(
    query: Mapping[str, str], now: datetime, allowed: frozenset[str], default_limit: int = _DEFAULT_LIMIT
) -> ReportParameters:
    """Parse the parameters of a report.

    Args:
        query: the query string, decoded.
        now: aware; the time that relative times count from.
        allowed: names of the parameters that this report has.
        default_limit: the limit if there is none; 0 for no limit.

    Returns:
        The parameters. ``from`` and ``to`` are periods of whole days, which belong to ``tz`` and are both included, or
        times (see `metronome.times.parse_period`); ``limit=0`` is no limit.

    Raises:
        InvalidQuery: a parameter is unknown or has an invalid value.

    """
    for name in query:
        if name not in allowed:
            raise InvalidQuery(f"unknown parameter {excerpt(name)!r}: expected one of {', '.join(sorted(allowed))}")
    tz = query.get("tz") or "UTC"
    zone = parse_time_zone(tz)
    limit = parse_whole_number("limit", query.get("limit"), default_limit)
    start, end = (parse_bound(name, query.get(name), zone, now) for name in ("from", "to"))
    # The same time twice is a range without a length, which is not a mistake.
    if start is not None and end is not None and start >= end and query["from"] != query["to"]:
        raise InvalidQuery(f"from={excerpt(query['from'])} is not before to={excerpt(query['to'])}: the range is empty")
    return ReportParameters(
        start=start,
        end=end,
        tz=tz,
        interval=parse_choice("interval", query.get("interval"), TIME_UNITS, "day"),
        limit=limit or None,
        include_bots=parse_boolean("bots", query.get("bots")),
        order=query.get("order", ""),
        steps=int(parse_choice("steps", query.get("steps"), _STEPS, "1")),
        now=now,
    )


def parse_bound(name: str, text: str | None, zone: ZoneInfo, now: datetime) -> datetime | None:
    """Return the bound of a range: the end of the period of ``to``, the start of any other; None if it is missing.

    Raises:
        InvalidQuery: the value is not a time or a period.

    """
    if not text:
        return None
    try:
        period = parse_period(text, zone, now)
    except Malformed:
        raise InvalidQuery(f"invalid {name}={excerpt(text)}: expected a time such as {EXPECTED_PERIOD}") from None
    return period.end if name == "to" else period.start


def parse_choice(name: str, text: str | None, choices: Iterable[str], default: str) -> str:
    """Return the value of a parameter that must be one of *choices*; *default* if it is missing or empty.

    Raises:
        InvalidQuery: the value is not a choice.

    """
    choices = tuple(choices)
    value = text or default
    if value not in choices:
        raise InvalidQuery(f"invalid {name}={excerpt(value)}: expected one of {', '.join(filter(None, choices))}")
    return value


def parse_whole_number(name: str, text: str | None, default: int) -> int:
    """Return the value of a parameter that must be a whole number; *default* if it is missing or empty.

    Raises:
        InvalidQuery: the value is not a number, is negative, or has over nine digits.

    """
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_MAX_DIGITS):
        raise InvalidQuery(f"invalid {name}={excerpt(text)}: expected a number of up to {_NUMBER_MAX_DIGITS} digits")
    return int(text)


def parse_boolean(name: str, text: str | None) -> bool:
    """Return whether a parameter is on: true if it is present and empty, false if it is missing.

    Raises:
        InvalidQuery: the value is not a boolean.

    """
    if text is None or text.lower() in _FALSE_TEXTS:
        return False
    if text.lower() in _TRUE_TEXTS:
        return True
    raise InvalidQuery(f"invalid {name}={excerpt(text)}: expected 1 or 0")


def excerpt(text: str) -> str:
    """Return the start of a client's text, for error messages."""
    return text[:_EXCERPT_CHARACTERS]


def item_filter(item: str | None) -> Filter:
    """Return a filter for the events of an item, or of any item."""
    return Exists("id") if item is None else Equals("id", item)


def exactness_fields(*results: QueryResult) -> dict[str, Any]:
    """Return ``exact: false``, to be added to a report, if any result is estimated; else nothing."""
    return {} if all(result.exact for result in results) else {"exact": False}


def partial_fields(parameters: ReportParameters, unit: str, labels: Collection[str]) -> dict[str, Any]:
    """Return ``partial``, to be added to a report: the time units of a series that are incomplete; nothing if none is.

    Args:
        parameters: the range and the time zone of the report.
        unit: the time unit of the series.
        labels: the labels of the series.

    """
    zone = parse_time_zone(parameters.tz)
    units = find_partial_units(unit, labels, parameters.start, parameters.end, parameters.now, zone)
    return {"partial": units} if units else {}


def rounded_share(part: float, total: float) -> float | None:
    """Return a share from 0 to 1, to four digits; None of nothing."""
    # Estimated parts may exceed an estimated total.
    return round(min(1.0, part / total), SHARE_DIGITS) if total else None
