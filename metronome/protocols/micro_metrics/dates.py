"""Parse times as JavaScript's ``Date`` does.

Accepted are the format of ECMA-262 (21.4.1.32, Date Time String Format) and the forms without a standard that browsers
and Node accept: ``Mon, 25 Dec 1995 13:30:00 +0430``, ``Dec 25, 1995``, ``12/25/1995 1:30 PM``. A time without a zone
is in UTC, where JavaScript uses the zone of the machine.
"""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from metronome.errors import Malformed
from metronome.times import MONTH_NAMES, from_milliseconds

_MAX_CHARACTERS: Final = 100
_QUOTED_MAX_CHARACTERS: Final = 60
_MONTHS: Final = tuple(name.lower() for name in MONTH_NAMES)
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ZONE_HOURS: Final = {
    **dict.fromkeys(("z", "ut", "utc", "gmt"), 0),
    **dict.fromkeys(("est", "cdt"), -5),
    **dict.fromkeys(("cst", "mdt"), -6),
    **dict.fromkeys(("mst", "pdt"), -7),
    "edt": -4,
    "pst": -8,
}
"""The offsets of the zones that JavaScript knows by name, in hours."""
_MIN_NAME_CHARACTERS: Final = 3

_ISO: Final = re.compile(
    r"(?P<year>[+-]\d{6}|\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d))?)?"
    r"(?:[Tt ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r" ?(?P<zone>[Zz]|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_MILLISECONDS: Final = re.compile(r"0|-?\d{9,16}", re.ASCII)
"""Fewer digits are ambiguous: a year, or a day without hyphens."""
_CLOCK: Final = re.compile(
    r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<part>\d{1,9}))?)?\s*(?P<half>[AP]M\b)?"
    r"\s*(?P<zone>(?:GMT|UTC?|Z)?\s*[+-]\d\d:?\d\d|(?:GMT|UTC?|Z|[ECMP][SD]T)\b)?",
    re.ASCII | re.IGNORECASE,
)
_COMMENT: Final = re.compile(r"\([^()]*\)")
_TOKEN: Final = re.compile(r"[A-Za-z]+|\d+|[\s,./-]+|.", re.ASCII | re.DOTALL)
_SEPARATORS: Final = frozenset(" \t\r\n,./-")
_NOON_HOUR: Final = 12
_MAX_DAY: Final = 31
_TWO_DIGITS: Final = 2
_CENTURY_PIVOT: Final = 50


def parse_javascript_date(value: object) -> datetime:
    """Return a time as JavaScript's ``new Date(value)`` does, in UTC and whole milliseconds.

    Args:
        value: milliseconds since 1970, as a number or (nine digits or more) as text, or a date as text.

    Raises:
        Malformed: it is not a time, or outside the years 1 to 9999.

    """
    try:
        moment = _parse_text(value.strip()) if isinstance(value, str) else _parse_milliseconds(value)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    except (ValueError, OverflowError):
        raise Malformed(_invalid_date_message(value)) from None


def _parse_milliseconds(value: object) -> datetime:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError
    return from_milliseconds(math.trunc(value))


def _parse_text(text: str) -> datetime:
    if len(text) > _MAX_CHARACTERS:
        raise ValueError
    if _MILLISECONDS.fullmatch(text):
        return _parse_milliseconds(int(text))
    iso = _ISO.fullmatch(text)
    if iso is None:
        return _parse_informal(text)
    day = datetime(int(iso["year"]), int(iso["month"] or 1), int(iso["day"] or 1), tzinfo=UTC)
    return day + _parse_clock(iso, 0) if iso["hour"] else day


def _parse_informal(text: str) -> datetime:
    """Parse a time that is not ISO 8601: a clock anywhere in it, and a day in the rest."""
    plain = _COMMENT.sub(" ", text)
    clock = _CLOCK.search(plain)
    if clock is None:
        return _parse_day(plain)
    half = clock["half"]
    if half and not 0 < int(clock["hour"]) <= _NOON_HOUR:
        raise ValueError
    afternoon = _NOON_HOUR * ((half or "").lower() == "pm") - _NOON_HOUR * bool(
        half and int(clock["hour"]) == _NOON_HOUR
    )
    return _parse_day(f"{plain[: clock.start()]} {plain[clock.end() :]}") + _parse_clock(clock, afternoon)


def _parse_clock(clock: re.Match[str], hour_offset: int) -> timedelta:
    hour, minute, second = int(clock["hour"]), int(clock["minute"]), int(clock["second"] or 0)
    part = int((clock["part"] or "").ljust(6, "0")[:6])
    is_end_of_day = hour == 24 and not (minute or second or part)  # noqa: PLR2004  # hours of a day
    if not (hour < 24 or is_end_of_day) or minute > 59 or second > 59:  # noqa: PLR2004  # limits of a clock
        raise ValueError
    time = timedelta(hours=hour + hour_offset, minutes=minute, seconds=second, microseconds=part)
    return time - _zone_offset(clock["zone"] or "Z")


def _zone_offset(zone: str) -> timedelta:
    digits = re.sub(r"[^\d]", "", zone)
    if not digits:
        return timedelta(hours=_named_zone_hours(zone))
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -offset if "-" in zone else offset


def _named_zone_hours(name: str) -> int:
    if name.lower() not in _ZONE_HOURS:
        raise ValueError
    return _ZONE_HOURS[name.lower()]


def _parse_day(text: str) -> datetime:
    """Parse a day such as ``25 Dec 1995``, ``Dec 25, 1995``, ``12/25/1995`` or ``1995/12/25`` and a zone."""
    month, numbers, zone = 0, [], 0
    for token in _TOKEN.findall(text):
        if token[0].isdigit():
            numbers.append(token)
        elif token[0].isalpha():
            index = _name_index(token, _MONTHS)
            if index is not None:
                month = index + 1
            elif _name_index(token, _WEEKDAYS) is None:
                zone = _named_zone_hours(token)
        elif not _SEPARATORS.issuperset(token):
            raise ValueError
    return _build_day(month, numbers) - timedelta(hours=zone)


def _name_index(word: str, names: tuple[str, ...]) -> int | None:
    lower = word.lower()
    if len(lower) < _MIN_NAME_CHARACTERS:
        return None
    return next((index for index, name in enumerate(names) if name.startswith(lower)), None)


def _build_day(month: int, numbers: list[str]) -> datetime:
    year_first = _is_year(numbers[0]) if numbers else False
    match numbers:
        case [first, second] if month:
            year, day = (first, second) if year_first else (second, first)
        case [first, second, third] if not month:
            year, month, day = (first, int(second), third) if year_first else (third, int(first), second)
        case _:
            raise ValueError
    return datetime(_expand_year(year), month, int(day), tzinfo=UTC)


def _is_year(number: str) -> bool:
    return len(number) > _TWO_DIGITS or int(number) > _MAX_DAY


def _expand_year(number: str) -> int:
    year = int(number)
    if len(number) > _TWO_DIGITS:
        return year
    return year + (2000 if year < _CENTURY_PIVOT else 1900)


def _invalid_date_message(value: object) -> str:
    text = repr(value) if isinstance(value, (str, float)) else type(value).__name__
    quoted = text if len(text) <= _QUOTED_MAX_CHARACTERS else text[:_QUOTED_MAX_CHARACTERS] + "…"
    return (
        f"invalid time {quoted}: expected 2017-04-26T12:17:25.458Z, Wed, 26 Apr 2017 12:17:25 GMT, "
        "or milliseconds since 1970"
    )
