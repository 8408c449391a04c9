"""Numbers as a page writes them: grouped digits, durations, percentages with a true minus sign."""

import math
from typing import Final

from metronome.page.model import Headline, Unit

NOTHING: Final = "\u2013"
"""Stands where there is no number."""
MINUS: Final = "\u2212"
TIMES: Final = "\u00d7"
SPACE: Final = "\u00a0"
"""Keeps a number and its unit on one line."""

_SECOND: Final = 1_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_MILLISECONDS_BELOW: Final = _SECOND
_TENTHS_BELOW: Final = 10 * _SECOND
_PERCENT_BELOW: Final = 10.0
"""From a tenfold increase on, a factor reads better than a percentage."""
_TENTHS_OF_A_PERCENT_BELOW: Final = 0.01


def format_number(value: float | None, unit: Unit = Unit.COUNT, *, exact: bool = True) -> str:
    """Return a number as text.

    Args:
        value: the number; None is a dash.
        unit: what it counts.
        exact: whether it is exact; otherwise it is marked with ≈.

    Returns:
        Such as ``19,242``, ``≈9,204``, ``1 m 52 s`` or ``0.12``, with spaces that do not break.

    """
    if value is None or not math.isfinite(value):
        return NOTHING
    sign = MINUS if value < 0 else ""
    size = abs(value)
    if unit is Unit.MILLISECONDS:
        text = format_duration(size)
    elif unit is Unit.SCORE:
        text = f"{size:,.2f}"
    else:
        text = f"{round(size):,}"
    return f"{'' if exact else '≈'}{sign}{text}"


def format_duration(milliseconds: float) -> str:
    """Return a duration in at most two units, such as ``850 ms``, ``4.2 s``, ``52 s``, ``1 m 52 s`` or ``3 h 5 m``."""
    if round(milliseconds) < _MILLISECONDS_BELOW:
        return f"{round(milliseconds)}{SPACE}ms"
    if milliseconds < _TENTHS_BELOW - 50:
        return f"{milliseconds / _SECOND:.1f}".removesuffix(".0") + f"{SPACE}s"
    for size, small, names in ((_DAY, _HOUR, "dh"), (_HOUR, _MINUTE, "hm"), (_MINUTE, _SECOND, "ms")):
        count = round(milliseconds / small)
        whole, rest = divmod(count, size // small)
        if whole:
            return f"{whole:,}{SPACE}{names[0]}" + (f"{SPACE}{rest}{SPACE}{names[1]}" if rest else "")
    return f"{round(milliseconds / _SECOND)}{SPACE}s"


def format_share(share: float | None) -> str:
    """Return a share of all, from 0 to 1, such as ``16 %``; ``<1 %`` if it would be rounded to nothing."""
    if share is None:
        return ""
    if 0 < share < _TENTHS_OF_A_PERCENT_BELOW:
        return f"<1{SPACE}%"
    return f"{round(share * 100)}{SPACE}%"


def format_change(change: float | None) -> str:
    """Return a relative change, such as ``+14 %``, or as a factor from ten on; empty without one."""
    if change is None or not math.isfinite(change):
        return ""
    if change >= _PERCENT_BELOW:
        return f"{TIMES}{round(change + 1):,}"
    percent = round(change * 100)
    sign = "+" if percent > 0 else MINUS if percent < 0 else "±"
    return f"{sign}{abs(percent):,}{SPACE}%"


def describe_change(headline: Headline, period: str) -> str:
    """Return a headline's change in a sentence for screen readers and the tooltip.

    Args:
        headline: the number.
        period: the earlier period in words, such as ``October``; empty without one.

    Returns:
        Such as ``14 % more than October (16,842)``; empty without an earlier number.

    """
    if headline.previous is None or not period:
        return ""
    previous = format_number(headline.previous, headline.unit, exact=headline.exact)
    text = format_change(headline.change)
    if not text:
        return f"{period}: {previous}"
    if text.startswith("±"):
        return f"as in {period} ({previous})"
    if text.startswith(TIMES):
        return f"{text[1:]} times as in {period} ({previous})"
    return f"{text[1:]} {'more' if text[0] == '+' else 'less'} than {period} ({previous})"


def judge_change(headline: Headline) -> str:
    """Return whether a headline's change is ``good``, ``bad`` or neither (empty)."""
    change = format_change(headline.change)
    if not change or change.startswith("±") or headline.more_is_better is None:
        return ""
    return "good" if (change[0] != MINUS) == headline.more_is_better else "bad"


def format_age(seconds: float) -> str:
    """Return how long ago something was, such as ``40 seconds ago`` or ``3 minutes ago``."""
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    count = max(0, int(seconds))
    return f"{count} second{'' if count == 1 else 's'} ago"
