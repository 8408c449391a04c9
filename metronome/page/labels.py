"""Words for ranges, time units, comparisons and values."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

from metronome.page.view import Earlier, Span, View, count_whole_months
from metronome.reports.query.parse import QueryPart
from metronome.times import MONTH_NAMES, parse_time_unit

RANGE_LABELS: Final = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "last-month": "Last month",
    "12m": "12 months",
    "all": "All time",
}
COMPARISON_LABELS: Final = {"previous": "Previous period", "year": "Year before", "none": "No comparison"}
METRIC_LABELS: Final = {
    "views": "Views",
    "downloads": "Downloads",
    "visitors": "Visitors",
    "time": "Median time on item",
    "errors": "Errors",
}
FIELD_LABELS: Final = {
    "id": "Item",
    "referer": "Referring page",
    "referer_group": "Referrer",
    "channel": "Channel",
    "country": "Country",
    "format": "Format",
    "browser": "Browser",
    "browser_version": "Browser version",
    "device": "Device",
    "os": "Operating system",
    "error_group": "Error",
    "bot": "Robot",
    "bot_kind": "Kind of robot",
    "utm_source": "Source",
    "utm_campaign": "Campaign",
    "event": "Event",
    "status": "Status",
}
VISITORS_NOTE: Final = (
    "The sum of daily visitors: they are identified per UTC day, unless the sender identifies them, "
    "so a person who returns on another day counts again."
)
PARTIAL_NOTE: Final = "The range is not over: its totals are compared with the earlier range up to the same time."
ESTIMATED_NOTE: Final = "The store estimates this number; it may differ from the true one by a few percent."

_OPERATOR_WORDS: Final = {"=": "", "!=": "not ", "^=": "begins with ", ">=": "≥ ", "<=": "≤ ", ">": "> ", "<": "< "}
_DEVICE_LABELS: Final = {
    "desktop": "Desktop",
    "mobile": "Mobile",
    "tablet": "Tablet",
    "tv": "TV",
    "console": "Console",
    "script": "Script",
    "other": "Other",
}
_CHANNEL_LABELS: Final = {
    "search": "Search",
    "social": "Social media",
    "ai": "AI assistants",
    "campaign": "Campaigns",
    "email": "Email",
    "referral": "Other sites",
    "internal": "Own sites",
    "direct": "Direct",
}
_COUNTRY_NAMES: Final = {"GB": "United Kingdom"}
"""Better known than the name in the time zone database, which is "Britain (UK)"."""
_EN_DASH: Final = "\u2013"
_WEEKEND: Final = 5
_RESOLUTION: Final = timedelta(microseconds=1)


@lru_cache(maxsize=1)
def country_names() -> Mapping[str, str]:
    """Return the English names of countries by their ISO 3166 codes, from the time zone database."""
    text = (resources.files("tzdata") / "zoneinfo" / "iso3166.tab").read_text(encoding="utf-8")
    names = dict(line.split("\t", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return names | _COUNTRY_NAMES


def value_text(field: str, value: str) -> str:
    """Return what a page calls a value of a field."""
    match field:
        case "country":
            return country_names().get(value, value)
        case "device":
            return _DEVICE_LABELS.get(value, value)
        case "channel":
            return _CHANNEL_LABELS.get(value, value)
        case _:
            return value or "(empty)"


def filter_text(part: QueryPart) -> str:
    """Return a filter in words, such as ``Country: Switzerland``."""
    name = FIELD_LABELS.get(part.name, part.name)
    if part.value == "*" and part.operator in {"=", "!="}:
        return f"{name}: {'any' if part.operator == '=' else 'none'}"
    value = value_text(part.name, part.value) if part.operator in {"=", "!="} else part.value
    return f"{name}: {_OPERATOR_WORDS[part.operator]}{value}"


def range_text(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    """Return a range in words: ``1-30 Nov 2026``, ``12 Jan 2026``, with an en dash."""
    first, last = start.astimezone(zone), end.astimezone(zone)
    if first.time() == last.time() == time():
        return _days_text(first.date(), (last - _RESOLUTION).date())
    if first.date() == (last - _RESOLUTION).date():
        return f"{_day_text(first.date())}, {first:%H:%M}{_EN_DASH}{last:%H:%M}"
    return f"{_day_text(first.date())}, {first:%H:%M} {_EN_DASH} {_day_text(last.date())}, {last:%H:%M}"


def earlier_text(view: View, span: Span, earlier: Earlier) -> str:
    """Return the range that a view is compared with, in words: ``October``, ``2-31 Oct``, ``yesterday``."""
    zone, whole = view.zone, earlier.whole
    if view.compare == "year":
        return range_text(whole.start, whole.end, zone)
    if view.range == "today":
        return "yesterday"
    start = whole.start.astimezone(zone)
    if count_whole_months(whole, zone) == 1:
        is_same_year = start.year == span.start.astimezone(zone).year
        return MONTH_NAMES[start.month - 1] + ("" if is_same_year else f" {start.year}")
    text = range_text(whole.start, whole.end, zone)
    year = span.start.astimezone(zone).year
    return text.removesuffix(f" {year}") if start.year == year else text


def time_text(moment: datetime, now: datetime, zone: ZoneInfo) -> str:
    """Return the time of an event in words: ``14:05:09`` today, ``4 Mar, 14:05:09`` this year, or with its year."""
    local, today = moment.astimezone(zone), now.astimezone(zone).date()
    if local.date() == today:
        return f"{local:%H:%M:%S}"
    return f"{_day_text(local.date()).removesuffix(f' {today.year}')}, {local:%H:%M:%S}"


def comparison_text(view: View, span: Span, earlier: Earlier | None) -> str:
    """Return a comparison in words: ``vs. October``; empty for none."""
    return "" if earlier is None else f"vs. {earlier_text(view, span, earlier)}"


def unit_label(label: str, unit: str, zone: ZoneInfo) -> str:
    """Return a time unit in words: ``1 Nov 2026``, ``1 Nov 2026, 14:00``, ``Week of 2 Nov 2026``, ``November 2026``."""
    start = parse_time_unit(label, unit, zone).astimezone(zone) if unit != "hour" else datetime.fromisoformat(label)
    match unit:
        case "month":
            return f"{MONTH_NAMES[start.month - 1]} {start.year}"
        case "week":
            return f"Week of {_day_text(start.date())}"
        case "day":
            return _day_text(start.date())
        case _:
            return f"{_day_text(start.date())}, {start:%H:%M}"


def unit_tick(label: str, unit: str) -> str:
    """Return a time unit for an axis: ``1 Nov``, ``14:00``, ``Nov``; a January has its year."""
    if unit in {"hour", "minute"}:
        return label[11:16]
    month = MONTH_NAMES[int(label[5:7]) - 1][:3]
    if unit == "month":
        return label[:4] if month == "Jan" else month
    return f"{int(label[8:10])} {month}"


def is_weekend(label: str, unit: str) -> bool:
    """Return whether a time unit is a day of a weekend."""
    return unit == "day" and date.fromisoformat(label).weekday() >= _WEEKEND


def _day_text(day: date) -> str:
    return f"{day.day} {MONTH_NAMES[day.month - 1][:3]} {day.year}"


def _days_text(first: date, last: date) -> str:
    if first == last:
        return _day_text(first)
    short = str(first.day)
    if first.month != last.month or first.year != last.year:
        short += f" {MONTH_NAMES[first.month - 1][:3]}"
    if first.year != last.year:
        short += f" {first.year}"
    dash = _EN_DASH if short.isdigit() else f" {_EN_DASH} "
    return f"{short}{dash}{_day_text(last)}"
