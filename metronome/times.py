"""Timestamps, dates and labels of time units.

A *timestamp* in a document is a UTC time such as ``2015-01-22T09:30:00.000Z``: always 24 characters, so that timestamps
sort as text and their first ten characters are the UTC day.
"""

import math
import re
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final
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

_TIMESTAMP_LENGTH = 24
_DATE_DIGITS = 8
"""Eight digits are a day, such as 20150122; more digits are a number of seconds or of a smaller unit."""
_UNITS_PER_SECOND = ((10**18, 10**9), (10**15, 10**6), (10**11, 1000))
"""Numbers from the first one on are in the unit of which a second has so many: of 19 digits nanoseconds, of 16
microseconds, of 13 milliseconds."""
_MILLISECONDS_PER_SECOND = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_QUOTED_MAX_CHARACTERS = 60
_MIN_RECORD_SECONDS = 100_000_000
"""A smaller number in a log record's time field is a duration, not a time: as a time it would be before 1973-03-03."""
_CLF_TIMESTAMP_PATTERN = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})", re.ASCII)
_CLF_MAX_CHARACTERS = 40
_RFC2822_PATTERN = re.compile(
    r"(?:[A-Z][a-z]{2}, ?)?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(?::\d\d)?"
    r"(?: (?:[+-]\d{4}|[A-Z]{1,5})(?: \([^()]*\))?)?",
    re.ASCII,
)
_LEAP_SECOND_PATTERN = re.compile(r"(\d\d:?\d\d:?)60(?!\d)", re.ASCII)
_TEXT_MAX_CHARACTERS = 100
"""No longer text is a time."""


def format_timestamp(moment: datetime) -> str:
    """Return the timestamp of an aware datetime, truncated to milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def parse_timestamp(value: object) -> str:
    """Return the timestamp of a time as senders write it.

    Args:
        value: ISO 8601 text (UTC if it has no zone, midnight if it has no time), a date of RFC 2822, or the seconds,
            milliseconds, microseconds or nanoseconds since 1970 as a number or as text. Blanks around a text are
            ignored. A leap second is the second before it, as stored times have none.

    Raises:
        Malformed: the value is not valid, or is before 1970 or after 9999.

    """
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _parse_number(value)
    raise Malformed(_invalid_timestamp_message(value))


def parse_record_timestamp(value: object) -> str | None:
    """Return the stamp of a value in a time field of a log record, or None if it is not a time.

    Accept what `parse_timestamp` and `parse_clf_timestamp` accept, but take small numbers as durations.
    """
    if isinstance(value, (int, float)) and not value >= _MIN_RECORD_SECONDS:
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


def format_time_unit(start: date, unit: str) -> str:
    """Return the label of a time unit.

    Args:
        start: when the unit starts, in the time zone that days belong to; an aware datetime for hours and minutes.
        unit: ``minute``, ``hour``, ``day``, ``week`` or ``month``.

    Returns:
        ``2015-01`` for a month, ``2015-01-22`` for a day or for a week by its Monday, ``2015-01-22T09:00:00+01:00``
        for an hour or a minute, with ``Z`` for UTC.

    """
    if unit == "month":
        return start.isoformat()[:7]
    if unit in {"day", "week"}:
        return start.isoformat()[:10]
    return start.isoformat().replace("+00:00", "Z")


def parse_time_unit(label: str, unit: str, zone: ZoneInfo) -> datetime:
    """Return when a time unit starts, of its label (see `format_time_unit`) in a time zone."""
    if unit in {"hour", "minute"}:
        return datetime.fromisoformat(label)
    day = date.fromisoformat(f"{label}-01" if unit == "month" else label)
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _parse_text(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _parse_unusual_text(text)
    if moment.tzinfo is None:
        if len(text) > _DATE_DIGITS and text.isdigit():
            return _parse_digits(text)
        moment = moment.replace(tzinfo=UTC)
    elif len(text) == _TIMESTAMP_LENGTH and text[-1] == "Z" and text[7:20:3] == "-T::.":
        return _check_range(text, text)
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
    if _RFC2822_PATTERN.fullmatch(usual) is not None:
        return _parse_rfc2822(usual)
    return _parse_digits(text) if usual == text else _parse_text(usual)


def _parse_rfc2822(text: str) -> str:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        raise Malformed(_invalid_timestamp_message(text)) from None
    return _format_in_range(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC), text)


def _format_in_range(moment: datetime, text: str) -> str:
    try:
        return _check_range(format_timestamp(moment), text)
    except OverflowError:
        raise Malformed(_invalid_timestamp_message(text)) from None


def _parse_digits(text: str) -> str:
    try:
        # A float may lack the last digits of an integer.
        number = int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise Malformed(_invalid_timestamp_message(text)) from None
    return _parse_number(number)


def _parse_number(number: float) -> str:
    size = abs(number)
    per_second = next((count for start, count in _UNITS_PER_SECOND if size >= start), 1)
    try:
        if not math.isfinite(number):
            raise Malformed(_invalid_timestamp_message(number))
        # Rounded where a float may be slightly too small, and truncated, as in texts, where the unit is finer.
        is_finer = per_second > _MILLISECONDS_PER_SECOND
        milliseconds = (
            number // (per_second // _MILLISECONDS_PER_SECOND) if is_finer else round(number / per_second * 1000)
        )
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise Malformed(_invalid_timestamp_message(number)) from None
    return _check_range(format_timestamp(moment), number)


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
