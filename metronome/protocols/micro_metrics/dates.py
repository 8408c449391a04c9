"""Times as JavaScript's ``Date`` reads them.

That is the format of ECMA-262 (21.4.1.32, Date Time String Format), and besides what browsers and Node read for
old times' sake: ``Mon, 25 Dec 1995 13:30:00 +0430``, ``Dec 25, 1995``, ``12/25/1995 1:30 PM``. Where JavaScript
takes the zone of the machine, this takes UTC.
"""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from metronome.errors import Malformed

_MAX_CHARACTERS: Final = 100
_SHOWN_CHARACTERS: Final = 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ZONE_HOURS: Final = {
    **dict.fromkeys(("z", "ut", "utc", "gmt"), 0),
    **dict.fromkeys(("est", "cdt"), -5),
    **dict.fromkeys(("cst", "mdt"), -6),
    **dict.fromkeys(("mst", "pdt"), -7),
    "edt": -4,
    "pst": -8,
}
"""The zones that JavaScript knows by name, in hours."""
_MIN_NAME_CHARACTERS: Final = 3

_ISO: Final = re.compile(
    r"(?P<year>[+-]\d{6}|\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d))?)?"
    r"(?:[Tt ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r" ?(?P<zone>[Zz]|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_MILLISECONDS: Final = re.compile(r"0|-?\d{9,16}", re.ASCII)
"""Fewer digits are a year, or a day without its hyphens: it is not said which."""
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
    """Read a time as JavaScript's ``new Date(value)`` does.

    Args:
        value: milliseconds since 1970, as a number or (nine digits or more) as text, or a time in words and figures.

    Returns:
        The time in UTC, in whole milliseconds.

    Raises:
        Malformed: it is none, or outside the years 1 to 9999.

    """
    try:
        moment = _parse_text(value.strip()) if isinstance(value, str) else _parse_milliseconds(value)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    except (ValueError, OverflowError):
        raise Malformed(_invalid_date_message(value)) from None


def _parse_milliseconds(value: object) -> datetime:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError
    return _EPOCH + timedelta(milliseconds=math.trunc(value))


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
    """Read the form without a standard: a clock anywhere, and the day in what is left."""
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
    is_end_of_day = hour == 24 and not (minute or second or part)  # noqa: PLR2004  # so many hours has a day
    if not (hour < 24 or is_end_of_day) or minute > 59 or second > 59:  # noqa: PLR2004  # a clock's own
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
    """Read a day as ``25 Dec 1995``, ``Dec 25, 1995``, ``12/25/1995`` or ``1995/12/25``, and perhaps a zone."""
    month, numbers, zone = 0, [], 0
    for token in _TOKEN.findall(text):
        if token[0].isdigit():
            numbers.append(token)
        elif token[0].isalpha():
            found = _name_index(token, _MONTHS)
            if found is not None:
                month = found + 1
            elif _name_index(token, _WEEKDAYS) is None:
                zone = _named_zone_hours(token)
        elif not _SEPARATORS.issuperset(token):
            raise ValueError
    return _build_day(month, numbers) - timedelta(hours=zone)


def _name_index(word: str, names: tuple[str, ...]) -> int | None:
    lower = word.lower()
    if len(lower) < _MIN_NAME_CHARACTERS:
        return None
    return next((at for at, name in enumerate(names) if name.startswith(lower)), None)


def _build_day(month: int, numbers: list[str]) -> datetime:
    year_first = _is_year(numbers[0]) if numbers else False
    match numbers:
        case [one, other] if month:
            year, day = (one, other) if year_first else (other, one)
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
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return (
        f"{shown} is no time: write 2017-04-26T12:17:25.458Z, Wed, 26 Apr 2017 12:17:25 GMT, or milliseconds since 1970"
    )
