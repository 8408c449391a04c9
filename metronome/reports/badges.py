"""Badges: how often an item was used, as a small SVG image for a README or web page.

No badge library fits: pybadges needs what Python 3.13 removed and is unmaintained; genbadge needs Pillow and requests;
anybadge numbers its images, so that no two are equal, and mistakes some labels for placeholders or XML. A badge is two
boxes and two texts.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Final

from metronome.errors import InvalidQuery
from metronome.reports.parameters import ReportParameters, excerpt, parse_choice
from metronome.stores.base import Store
from metronome.stores.query import Equals, Query

INVALID_XML_CHARACTERS: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot contain, not even escaped."""

_HEIGHT: Final = 20
_PADDING: Final = 6
_BASELINE: Final = 14
_LABEL_COLOR: Final = "#484f58"
_FONT_SIZE: Final = 11
_WIDTHS: Final = {
    character: width
    for width, characters in (
        (3, " ',.IJijl"),
        (4, "!()-/:;[\\]ft|"),
        (5, '"r'),
        (6, "*?FL_`cksz"),
        (8, "ABCDHNRUVXZ"),
        (9, "#&+<=>GMOQ^w~"),
        (10, "%"),
        (11, "@Wm"),
    )
    for character in characters
}
"""Widths in pixels of characters in DejaVu Sans at `_FONT_SIZE`, as measured in a browser; Verdana's are similar."""
_DEFAULT_WIDTH: Final = 7
_FULL_WIDTH: Final = 11
_LINEAR_BELOW: Final = 0.04045
_DARK_BELOW: Final = 0.179
"""Up to this luminance of the background, white text has more contrast than black text."""


def draw_badge(label: str, value: str, title: str, color: str, corner_radius: int) -> str:
    """Return an SVG image with a label on the left and a value on the right.

    Args:
        label: without `INVALID_XML_CHARACTERS`, as are value and title.
        value: the value.
        title: read by screen readers.
        color: background of the value, such as ``#0969da``.
        corner_radius: in pixels.

    Returns:
        One line of text. It has no IDs, so that a page may embed any number of badges.

    """
    left, right = (text_width(text) + 2 * _PADDING for text in (label, value))
    title = escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_HEIGHT}" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
        f'<path fill="{_LABEL_COLOR}" d="{_left_box(left, corner_radius)}"/>'
        f'<path fill="{color}" d="{_right_box(left, right, corner_radius)}"/>'
        f'<g font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="{_FONT_SIZE}" text-anchor="middle">'
        f"{_text_element(label, left / 2, '#fff')}"
        f"{_text_element(value, left + right / 2, contrast_color(color))}</g></svg>\n"
    )


def text_width(text: str) -> int:
    """Return the approximate width of a text in pixels; it is drawn with this width in any font."""
    return sum(map(_character_width, text))


def contrast_color(background: str) -> str:
    """Return white or black, whichever has more contrast with a background (relative luminance of WCAG 2.2)."""
    channels = (int(background[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (
        channel / 12.92 if channel <= _LINEAR_BELOW else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels
    )
    return "#fff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue <= _DARK_BELOW else "#000"


def _left_box(width: int, radius: int) -> str:
    bend = f"a{radius} {radius} 0 0 1"
    return f"M{width} 0V{_HEIGHT}H{radius}{bend}-{radius}-{radius}V{radius}{bend} {radius}-{radius}z"


def _right_box(start: int, width: int, radius: int) -> str:
    bend = f"a{radius} {radius} 0 0 1"
    side = f"{bend} {radius} {radius}V{_HEIGHT - radius}{bend}-{radius} {radius}"
    return f"M{start} {_HEIGHT}V0H{start + width - radius}{side}z"


def _text_element(text: str, middle: float, color: str) -> str:
    return (
        f'<text x="{middle:g}" y="{_BASELINE}" fill="{color}" textLength="{text_width(text)}" '
        f'lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
    )


def _character_width(character: str) -> int:
    if character.isascii():
        return _WIDTHS.get(character, _DEFAULT_WIDTH)
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return _FULL_WIDTH if unicodedata.east_asian_width(character) in {"W", "F"} else _DEFAULT_WIDTH


PARAMETERS: Final = frozenset({"from", "to", "tz", "bots", "metric", "label", "color", "style"})
EVENT_BY_METRIC: Final = {"views": "view", "downloads": "download"}
CORNER_RADIUS_BY_STYLE: Final = {"flat": 3, "flat-square": 0}
"""In pixels."""
COLORS: Final = {
    "blue": "#0969da",
    "green": "#1a7f37",
    "brightgreen": "#4ac26b",
    "yellow": "#e3b341",
    "orange": "#f0883e",
    "red": "#cf222e",
    "purple": "#8250df",
    "grey": "#57606a",
    "black": "#24292f",
}
LABEL_MAX_CHARACTERS: Final = 64

_HEX_COLOR: Final = re.compile(r"#?([0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE | re.ASCII)
_UNIT_SUFFIXES: Final = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_DECIMAL_BELOW: Final = 10


@dataclass(frozen=True, slots=True)
class BadgeStyle:
    """What a badge shows.

    Attributes:
        metric: one of `EVENT_BY_METRIC`.
        label: the text on the left.
        color: background of the number, such as ``#0969da``.
        corner_radius: in pixels.

    """

    metric: str
    label: str
    color: str
    corner_radius: int


def parse_badge_style(query: Mapping[str, str]) -> BadgeStyle:
    """Parse the parameters ``metric``, ``label``, ``color`` and ``style``, all optional.

    Raises:
        InvalidQuery: one of them has an invalid value.

    """
    metric = parse_choice("metric", query.get("metric"), EVENT_BY_METRIC, "views")
    style = parse_choice("style", query.get("style"), CORNER_RADIUS_BY_STYLE, "flat")
    label = " ".join(INVALID_XML_CHARACTERS.sub("\ufffd", query.get("label", "")).split())
    if len(label) > LABEL_MAX_CHARACTERS:
        raise InvalidQuery(f"label has {len(label)} characters: use at most {LABEL_MAX_CHARACTERS}")
    return BadgeStyle(
        metric, label or metric, _parse_color(query.get("color") or "blue"), CORNER_RADIUS_BY_STYLE[style]
    )


async def render_badge(store: Store, item: str, parameters: ReportParameters, style: BadgeStyle) -> str:
    """Return a badge with an item's number of views or downloads.

    Args:
        store: runs the query.
        item: the item ID; an unknown item has 0.
        parameters: the range.
        style: what the badge shows.

    Returns:
        An SVG image with the number abbreviated (see `abbreviate_number`); its title has the whole number.

    """
    where = parameters.build_filter(Equals("id", item), Equals("event", EVENT_BY_METRIC[style.metric]))
    (result,) = await store.query(Query(where=where, start=parameters.start, end=parameters.end))
    number = int(result.rows[0][0] or 0)
    return draw_badge(
        style.label, abbreviate_number(number), f"{style.label}: {number:,}", style.color, style.corner_radius
    )


def abbreviate_number(number: int) -> str:
    """Return a number in at most three digits, rounded down: ``999``, ``1.2k``, ``12k``, ``3.4M``."""
    for size, suffix in _UNIT_SUFFIXES:
        if number >= size:
            whole, tenth = divmod(number * 10 // size, 10)
            return f"{whole}.{tenth}{suffix}" if tenth and whole < _DECIMAL_BELOW else f"{whole}{suffix}"
    return str(number)


def _parse_color(text: str) -> str:
    if text in COLORS:
        return COLORS[text]
    match = _HEX_COLOR.fullmatch(text)
    if match is None:
        raise InvalidQuery(f"invalid color={excerpt(text)}: expected 0969da or one of {', '.join(COLORS)}")
    digits = match[1].lower()
    return f"#{digits}" if len(digits) > len("rgb") else f"#{''.join(digit * 2 for digit in digits)}"
