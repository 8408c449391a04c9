"""Timestamps, dates, the language of time, and labels of time units.

A *timestamp* in a document is a UTC time such as ``2015-01-22T09:30:00.000Z``: always 24 characters, so that timestamps
sort as text and their first ten characters are the UTC day.
"""

import math
import re
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from metronome.errors import Malformed

MONTH_NAMES: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
MONTH_NUMBERS: Final = {name[:3]: number for number, name in enumerate(MONTH_NAMES, 1)}
"""The number of each month by its English abbreviation, as in ``Jan``."""

# Take time zones from the installed tzdata package: DuckDB and Elasticsearch bring zones of their own, which are newer
# than those of many systems, and days counted in Python must begin when the store's days do. Not done in
# metronome/__init__.py, because a service that imports metronome.middleware keeps its own zones.
zoneinfo.reset_tzpath(())

EXPECTED_PERIOD: Final = "2015-01-22, 2015-01, 2015-W04, 2015-01-22T09:30, -30d or last-month"
"""Examples for error messages about what `parse_period` does not accept."""

VISIT_PAUSE: Final = timedelta(minutes=30)
"""Whoever does nothing for longer has left, as in Matomo's ``visit_standard_length``."""

_TIMESTAMP_LENGTH = 24
_SECOND_LENGTH = len("2015-01-22T09:30:00Z")
_UNITS_PER_SECOND = ((10**18, 10**9), (10**15, 10**6), (10**11, 1000))
"""Numbers from the first one on are in the unit of which a second has so many: of 19 digits nanoseconds, of 16
microseconds, of 13 milliseconds."""
_MILLISECONDS_PER_SECOND = 1000
_MIN_EPOCH_SECONDS = 100_000_000
"""A smaller number is never a Unix timestamp, since 1973-03-03: 2015 is a year, 201501 a month, 20150122 a day."""
_FIRST_13_DIGITS, _FIRST_14_DIGITS = 10**12, 10**13
"""Numbers of 13 digits are milliseconds, from 2001 to 2286."""
_DAY_DIGITS = 8
_COMPACT_FORMATS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Times of digits alone, by their number."""
_MAX_COMPACT = 10**14
_COMPACT_YEARS = ("1970", "2100")
"""The years of times of twelve or fourteen digits; others are milliseconds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC_ZONE = ZoneInfo("UTC")
_MILLISECOND = timedelta(milliseconds=1)
_QUOTED_MAX_CHARACTERS = 60
_CLF_TIMESTAMP_PATTERN = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})", re.ASCII)
_CLF_MAX_CHARACTERS = 40
_RFC2822_PATTERN = re.compile(
    r"(?:[a-z]{3,9},? *)?(?:\d{1,2}[ -]+[a-z]{3}[ -]+(?:\d\d|\d{4}) +\d\d:\d\d(?::\d\d)?"
    r"(?: +(?:[+-]\d{4}|UTC?|GMT|Z|[ECMP][SD]T)(?: +\([^()]*\))?)?|[a-z]{3} +\d{1,2} \d\d:\d\d:\d\d \d{4})",
    re.ASCII | re.IGNORECASE,
)
"""Dates of RFC 2822, and of RFC 850 and C's ``asctime``, which HTTP (RFC 9110) has as well."""
_UTC_SUFFIX_PATTERN = re.compile(r"(?<=\d) ?(?:\+0000 )?(?:UTC|GMT)", re.ASCII)
_LEAP_SECOND_PATTERN = re.compile(r"(\d\d:?\d\d:?)60(?!\d)", re.ASCII)
_TEXT_MAX_CHARACTERS = 100
"""No longer text is a time."""
_PERIOD_MAX_CHARACTERS = 60
_MONTH_PATTERN = re.compile(r"(\d{4})-?(\d\d)|(\d{4})-?Q([1-4])|(\d{4})", re.ASCII)
_WEEK_PATTERN = re.compile(r"\d{4}-?W\d\d", re.ASCII)
_DAY_PATTERN = re.compile(r"\d{4}-\d\d-\d\d|\d{8}|\d{4}-W\d\d-\d|\d{4}W\d{3}", re.ASCII)
_AGO_PATTERN = re.compile(r"-(\d{1,6})(mo|[smhdwqy])", re.ASCII)
_CALENDAR_PATTERN = re.compile(r"(this|last)-(week|month|quarter|year)", re.ASCII)
_CLOCK_SECONDS = {"s": 1, "m": 60, "h": 3600}
_AGO_DAYS = {"d": 1, "w": 7}
_AGO_MONTHS = {"mo": 1, "q": 3, "y": 12}
_UNIT_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_YEAR_MONTHS = 12
_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)


class _Minutes(dict[int, str]):
    """The beginning of the timestamps in a minute since 1970, such as ``2015-01-22T09:30:``, of recent minutes."""

    MAX_MINUTES = 16_384

    def __missing__(self, minute: int) -> str:
        if len(self) >= self.MAX_MINUTES:
            self.clear()
        start = self[minute] = format_timestamp(_EPOCH + timedelta(minutes=minute))[:17]
        return start


_MINUTES = _Minutes()


def is_same_visit(first: str, second: str) -> bool:
    """Return whether two timestamps are so close that what happened then belongs to one visit (`VISIT_PAUSE`)."""
    return abs(datetime.fromisoformat(second) - datetime.fromisoformat(first)) <= VISIT_PAUSE


def format_timestamp(moment: datetime) -> str:
    """Return the timestamp of an aware datetime, truncated to milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def parse_timestamp(value: object) -> str:
    """Return the timestamp of a time as senders write it.

    Args:
        value: ISO 8601 text (UTC if it has no zone), a period such as ``2015-01`` (its start; see `parse_period`), a
            date of RFC 2822 or HTTP, or the seconds, milliseconds, microseconds or nanoseconds since 1970 as a number
            or as text. A number below 100,000,000 is read by its digits: 2015 is a year, 201501 a month, 20150122 a
            day. Blanks around a text are ignored. A leap second is the second before it, as stored times have none.

    Raises:
        Malformed: the value is not valid, or is before 1970 or after 9999.

    """
    if isinstance(value, str):
        return _parse_text(value)
    if type(value) is int and _FIRST_13_DIGITS <= value < _FIRST_14_DIGITS:
        # The usual form, without datetime: its minute was mostly formatted for another event.
        minute, rest = divmod(value, 60_000)
        return f"{_MINUTES[minute]}{rest // 1000:02d}.{rest % 1000:03d}Z"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _parse_number(value)
    raise Malformed(_invalid_timestamp_message(value))


def parse_record_timestamp(value: object) -> str | None:
    """Return the stamp of a value in a time field of a log record, or None if it is not a time.

    Accept what `parse_timestamp` and `parse_clf_timestamp` accept, but take small numbers as durations.
    """
    if isinstance(value, (int, float)) and not value >= _MIN_EPOCH_SECONDS:
        return None
    if isinstance(value, str) and len(value) < _DAY_DIGITS and value.isdigit():
        return None
    try:
        return parse_clf_timestamp(value) if isinstance(value, str) and "/" in value else parse_timestamp(value)
    except Malformed:
        return None


def parse_clf_timestamp(text: str) -> str:
    """Return the stamp of a time in the Common Log Format, ``17/May/2015:10:05:03 +0000``.

    Raises:
        Malformed: it is not such a time.

    """
    if len(text) > _CLF_MAX_CHARACTERS:
        raise Malformed(_clf_timestamp_error(text))
    return _parse_clf_timestamp(text)


@lru_cache(maxsize=4096)
def _parse_clf_timestamp(text: str) -> str:
    match = _CLF_TIMESTAMP_PATTERN.fullmatch(text)
    if match is None or match[2] not in MONTH_NUMBERS:
        raise Malformed(_clf_timestamp_error(text))
    day, month, year, clock, zone = match.groups()
    try:
        return parse_timestamp(f"{year}-{MONTH_NUMBERS[month]:02}-{day}T{clock}{zone}")
    except Malformed:
        raise Malformed(_clf_timestamp_error(text)) from None


def _clf_timestamp_error(text: str) -> str:
    return f"invalid timestamp {text[:_CLF_MAX_CHARACTERS]!r}: expected 17/May/2015:10:05:03 +0000"


def from_milliseconds(milliseconds: float) -> datetime:
    """Return the UTC time of a number of milliseconds since 1970.

    Raises:
        OverflowError: it is outside the years 1 to 9999.

    """
    return _EPOCH + timedelta(milliseconds=milliseconds)


def to_milliseconds(moment: datetime) -> int:
    """Return an aware time in whole milliseconds since 1970, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND


def to_milliseconds_ceil(moment: datetime) -> int:
    """Return an aware time in whole milliseconds since 1970, rounded up.

    Stored times have whole milliseconds: this is the first of them that is not before *moment*.
    """
    return -((_EPOCH - moment) // _MILLISECOND)


class Period(NamedTuple):
    """What a text such as ``2015-01`` means: the times from *start* until before *end*; both are the same for a time.

    Attributes:
        start: in UTC.
        end: in UTC.

    """

    start: datetime
    end: datetime


def parse_period(text: str, zone: ZoneInfo, now: datetime | None = None) -> Period:
    """Parse a time, or a period of whole days.

    Args:
        text: a year, quarter, month, week or day (``2015``, ``2015-Q1``, ``2015-01``, ``2015-W04``, ``2015-01-22``,
            also without hyphens), or a time: ISO 8601 or seconds or milliseconds since 1970. Relative to *now*:
            ``today``, ``yesterday``, ``now``, ``this-week``, ``last-month`` (also ``quarter`` and ``year``), the day
            some days, weeks, months, quarters or years ago (``-30d``, ``-2w``, ``-3mo``, ``-1q``, ``-1y``), or the
            time some hours, minutes or seconds ago (``-12h``, ``-5m``, ``-30s``).
        zone: the time zone that days and times without an offset belong to. Of a time that clocks repeat, the first
            one counts.
        now: aware; None if relative times are not allowed.

    Raises:
        Malformed: the text is none of these, or is outside the calendar.

    """
    try:
        days = None if len(text) > _PERIOD_MAX_CHARACTERS else _parse_days(text, zone, now)
        if days is not None:
            return Period(start_of_day(days[0], zone), start_of_day(days[1], zone))
        moment = _parse_moment(text, zone, now)
    except (ValueError, OverflowError):
        raise Malformed(_invalid_timestamp_message(text)) from None
    return Period(moment, moment)


def start_of_day(day: date, zone: ZoneInfo) -> datetime:
    """Return when a day starts in a time zone, in UTC.

    Raises:
        OverflowError: it is outside the years 1 to 9999.

    """
    return datetime.combine(day, time(), zone).astimezone(UTC)


def add_months(day: date, months: int) -> date:
    """Return the same day of another month, or its last day if it is shorter.

    Raises:
        ValueError: it is outside the years 1 to 9999.

    """
    index = day.year * _YEAR_MONTHS + day.month - 1 + months
    first = date(index // _YEAR_MONTHS, index % _YEAR_MONTHS + 1, 1)
    last = (first.replace(day=28) + timedelta(days=4)).replace(day=1) - _DAY
    return first.replace(day=min(day.day, last.day))


def start_of_first_kept_month(now: datetime, months: int) -> datetime:
    """Return the start, in UTC, of the oldest month that is kept if so many whole months before the current one are."""
    day = add_months(now.astimezone(UTC).date().replace(day=1), -months)
    return datetime(day.year, day.month, 1, tzinfo=UTC)


def first_day_of_unit(day: date, unit: str) -> date:
    """Return the first day of the ``day``, ``week``, ``month``, ``quarter`` or ``year`` that a day belongs to."""
    if unit == "day":
        return day
    if unit == "week":
        return day - timedelta(days=day.weekday())
    months = _UNIT_MONTHS[unit]
    return date(day.year, (day.month - 1) // months * months + 1, 1)


def first_day_of_next_unit(day: date, unit: str) -> date:
    """Return the first day of the unit after the one that a day belongs to (see `first_day_of_unit`).

    Raises:
        OverflowError, ValueError: it is outside the years 1 to 9999.

    """
    first = first_day_of_unit(day, unit)
    if unit in _UNIT_MONTHS:
        return add_months(first, _UNIT_MONTHS[unit])
    return first + (_WEEK if unit == "week" else _DAY)


def _parse_days(text: str, zone: ZoneInfo, now: datetime | None) -> tuple[date, date] | None:
    """Return the first day of a period, and the first after it; None if the text is not a period of days."""
    if _DAY_PATTERN.fullmatch(text):
        day = date.fromisoformat(text)
        return day, day + _DAY
    if _WEEK_PATTERN.fullmatch(text):
        day = date.fromisoformat(text)
        return day, day + _WEEK
    if match := _MONTH_PATTERN.fullmatch(text):
        year, month, quarter_year, quarter, whole_year = match.groups()
        if month:
            first, months = date(int(year), int(month), 1), 1
        elif quarter:
            first, months = date(int(quarter_year), int(quarter) * 3 - 2, 1), 3
        else:
            first, months = date(int(whole_year), 1, 1), _YEAR_MONTHS
        return first, add_months(first, months)
    return None if now is None else _parse_relative_days(text, now.astimezone(zone).date())


def _parse_relative_days(text: str, today: date) -> tuple[date, date] | None:
    if match := _AGO_PATTERN.fullmatch(text):
        number, unit = int(match[1]), match[2]
        if unit in _CLOCK_SECONDS:
            return None
        if unit in _AGO_DAYS:
            day = today - timedelta(days=number * _AGO_DAYS[unit])
        else:
            day = add_months(today, -number * _AGO_MONTHS[unit])
        return day, day + _DAY
    if text in {"today", "yesterday"}:
        day = today if text == "today" else today - _DAY
        return day, day + _DAY
    if match := _CALENDAR_PATTERN.fullmatch(text):
        first = first_day_of_unit(today, match[2])
        if match[1] == "this":
            return first, first_day_of_next_unit(first, match[2])
        return first_day_of_unit(first - _DAY, match[2]), first
    return None


def _parse_moment(text: str, zone: ZoneInfo, now: datetime | None) -> datetime:
    """Return the time that a text means."""
    if now is not None:
        if text == "now":
            return now.astimezone(UTC)
        if (match := _AGO_PATTERN.fullmatch(text)) and match[2] in _CLOCK_SECONDS:
            return (now - timedelta(seconds=int(match[1]) * _CLOCK_SECONDS[match[2]])).astimezone(UTC)
    # A + that the client did not encode arrives as a space.
    head, space, tail = text.rpartition(" ")
    if space and ("T" in head or " " in head):
        text = f"{head}+{tail}"
    local = _parse_number_text(text) if text.isdigit() else _parse_iso(text)
    return (local if local.tzinfo else local.replace(tzinfo=zone)).astimezone(UTC)


def _parse_iso(text: str) -> datetime:
    """Parse ISO 8601; raises ValueError."""
    if _has_odd_separator(text):
        raise ValueError
    return datetime.fromisoformat(text)


def _has_odd_separator(text: str) -> bool:
    """Return whether Python would read something else as a time of day: 2015-01-22-05:00 as five o'clock."""
    return text[4:5] == "-" and text[7:8] == "-" and text[10:11] not in {"", "T", "t", " "}


def _parse_number_text(text: str) -> datetime:
    """Parse a number: a time of digits alone, without a zone, or an aware time; raises ValueError or OverflowError."""
    is_whole = text.isascii() and text.isdigit()
    local = _parse_compact(text) if is_whole else None
    # A float may lack the last digits of an integer.
    return local or _from_epoch(int(text) if is_whole else float(text))


def _parse_compact(digits: str) -> datetime | None:
    """Parse a year, month, day or time of digits alone; None if they are seconds or milliseconds.

    Raises:
        ValueError: there are too few digits for these, and they are not a day.

    """
    form = _COMPACT_FORMATS.get(len(digits))
    if len(digits) > _DAY_DIGITS:
        if form is None or not _COMPACT_YEARS[0] <= digits < _COMPACT_YEARS[1]:
            return None
        try:
            return datetime.strptime(digits, form)  # noqa: DTZ007  # the caller knows the zone
        except ValueError:
            return None
    if form is None:
        if float(digits) >= _MIN_EPOCH_SECONDS:
            return None
        raise ValueError
    return datetime.strptime(digits, form)  # noqa: DTZ007  # the caller knows the zone


def _from_epoch(number: float) -> datetime:
    """Return the time of seconds, milliseconds, microseconds or nanoseconds since 1970.

    Raises:
        ValueError: the number is too small, or not finite.
        OverflowError: it is outside the calendar.

    """
    if not (math.isfinite(number) and number >= _MIN_EPOCH_SECONDS):
        raise ValueError
    per_second = next((count for start, count in _UNITS_PER_SECOND if number >= start), 1)
    # Rounded where a float may be slightly too small, and truncated, as in texts, where the unit is finer.
    is_finer = per_second > _MILLISECONDS_PER_SECOND
    milliseconds = number // (per_second // _MILLISECONDS_PER_SECOND) if is_finer else round(number / per_second * 1000)
    return _EPOCH + timedelta(milliseconds=milliseconds)


def format_time_unit(start: date, unit: str) -> str:
    """Return the label of a time unit.

    Args:
        start: when the unit starts, in the time zone that days belong to; an aware datetime for hours and minutes.
        unit: ``minute``, ``hour``, ``day``, ``week``, ``month``, ``quarter``, ``year`` or ``all``.

    Returns:
        ``2015`` for a year, ``2015-Q1`` for a quarter, ``2015-01`` for a month, ``2015-01-22`` for a day or for a week
        by its Monday, ``2015-01-22T09:00:00+01:00`` for an hour or a minute, with ``Z`` for UTC, and ``all`` for all.

    """
    match unit:
        case "day" | "week":
            return start.isoformat()[:10]
        case "month":
            return start.isoformat()[:7]
        case "quarter":
            return f"{start.isoformat()[:4]}-Q{(start.month + 2) // 3}"
        case "year":
            return start.isoformat()[:4]
        case "all":
            return unit
    return start.isoformat().replace("+00:00", "Z")


def parse_time_unit(label: str, unit: str, zone: ZoneInfo) -> datetime:
    """Return when a time unit starts, of its label (see `format_time_unit`) in a time zone; not of ``all``.

    Raises:
        ValueError: it is not such a label.

    """
    if unit in {"hour", "minute"}:
        return datetime.fromisoformat(label)
    days = _parse_days(label, zone, None)
    if days is None:
        raise ValueError(f"invalid {unit} {label[:_PERIOD_MAX_CHARACTERS]!r}")
    return start_of_day(days[0], zone)


def _parse_text(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _parse_unusual_text(text)
    if moment.tzinfo is None:
        if text.isdigit() and len(text) != _DAY_DIGITS:
            return _parse_other_text(text)
        moment = moment.replace(tzinfo=UTC)
    elif len(text) == _TIMESTAMP_LENGTH and text[-1] == "Z" and text[7:20:3] == "-T::.":
        return _check_range(text, text)
    if len(text) == _SECOND_LENGTH and text[4::3] == "--T::Z":
        return _check_range(f"{text[:-1]}.000Z", text)
    if _has_odd_separator(text):
        raise Malformed(_invalid_timestamp_message(text))
    return _format_in_range(moment, text)


def _parse_unusual_text(text: str) -> str:
    stripped = text.strip()
    if len(stripped) > _TEXT_MAX_CHARACTERS:
        raise Malformed(_invalid_timestamp_message(text))
    if stripped != text:
        return _parse_text(stripped)
    # A second of 60 is invalid for Python, and so is a Z in lower case.
    usual = _LEAP_SECOND_PATTERN.sub(r"\g<1>59", text, count=1)
    usual = usual[:-1] + "Z" if usual.endswith("z") else usual
    if (
        usual[:4].isdigit()
        and ":" in usual
        and (suffix := _UTC_SUFFIX_PATTERN.search(usual)) is not None
        and suffix.end() == len(usual)
    ):
        usual = f"{usual[: suffix.start()]}Z"
    if _RFC2822_PATTERN.fullmatch(usual) is not None:
        return _parse_rfc2822(usual)
    return _parse_other_text(text) if usual == text or text.isdigit() else _parse_text(usual)


def _parse_rfc2822(text: str) -> str:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        raise Malformed(_invalid_timestamp_message(text)) from None
    return _format_in_range(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC), text)


def _format_in_range(moment: datetime, value: object) -> str:
    try:
        return _check_range(format_timestamp(moment), value)
    except OverflowError:
        raise Malformed(_invalid_timestamp_message(value)) from None


def _parse_other_text(text: str) -> str:
    """Return the timestamp of a period or number."""
    try:
        days = None if text.isdigit() else _parse_days(text, _UTC_ZONE, None)
        moment = _parse_number_text(text) if days is None else start_of_day(days[0], _UTC_ZONE)
    except (ValueError, OverflowError):
        raise Malformed(_invalid_timestamp_message(text)) from None
    return _format_in_range(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC), text)


def _parse_number(number: float) -> str:
    try:
        local = _parse_compact(str(number)) if isinstance(number, int) and 0 <= number < _MAX_COMPACT else None
        moment = _from_epoch(number) if local is None else local.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Malformed(_invalid_timestamp_message(number)) from None
    return _format_in_range(moment, number)


def _check_range(timestamp: str, value: object) -> str:
    if timestamp < "1970" or len(timestamp) != _TIMESTAMP_LENGTH:
        raise Malformed(_invalid_timestamp_message(value))
    return timestamp


def _invalid_timestamp_message(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        text = "a number of thousands of digits"
    excerpt = text if len(text) <= _QUOTED_MAX_CHARACTERS else text[:_QUOTED_MAX_CHARACTERS] + "…"
    return f"invalid timestamp {excerpt}: expected ISO 8601 (2015-01-22T09:30:00Z) or a Unix timestamp"
