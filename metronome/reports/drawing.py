"""Drawing: a label and a value as an SVG picture, such as READMEs show.

Of the packages that draw badges none fits: pybadges imports what Python 3.13 no longer has and is not kept up any more;
genbadge wants Pillow and requests; anybadge numbers its pictures, so that no two of the same are equal, and takes
a label for one of its placeholders, or for XML, that only looks like it. What is left to draw is two boxes
and two texts.
"""

import re
import unicodedata
from html import escape
from typing import Final

NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML may hold, however they are written."""

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
"""In pixels, rounded, of characters in DejaVu Sans at `_FONT_SIZE`, as a browser measures them; Verdana's are alike."""
_USUAL_WIDTH: Final = 7
_WIDE: Final = 11
_LINEAR_BELOW: Final = 0.04045
_DARK_BELOW: Final = 0.179
"""Up to this luminance white text has more contrast than black text."""


def draw(label: str, value: str, title: str, color: str, corner: int) -> str:
    """Draw a label on the left and a value on the right.

    Args:
        label: of characters that XML may hold (see `NOT_XML`).
        value: likewise.
        title: likewise; what is read out in place of the picture.
        color: behind the value, as ``#0969da``.
        corner: how round the corners are, in pixels.

    Returns:
        An SVG picture, one line of text. It refers to nothing by name, so any number of them may stand in one page.

    """
    left, right = (text_width(text) + 2 * _PADDING for text in (label, value))
    title = escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_HEIGHT}" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
        f'<path fill="{_LABEL_COLOR}" d="{_left_box(left, corner)}"/>'
        f'<path fill="{color}" d="{_right_box(left, right, corner)}"/>'
        f'<g font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="{_FONT_SIZE}" text-anchor="middle">'
        f"{_text(label, left / 2, '#fff')}{_text(value, left + right / 2, text_color(color))}</g></svg>\n"
    )


def text_width(text: str) -> int:
    """Return how wide a text is in a common font, about, in pixels; it is then drawn just so wide in any font."""
    return sum(map(_width, text))


def text_color(background: str) -> str:
    """Return the colour of text that has more contrast to a background (WCAG 2.2, relative luminance)."""
    channels = (int(background[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (one / 12.92 if one <= _LINEAR_BELOW else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return "#fff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue <= _DARK_BELOW else "#000"


def _left_box(width: int, corner: int) -> str:
    bend = f"a{corner} {corner} 0 0 1"
    return f"M{width} 0V{_HEIGHT}H{corner}{bend}-{corner}-{corner}V{corner}{bend} {corner}-{corner}z"


def _right_box(start: int, width: int, corner: int) -> str:
    bend = f"a{corner} {corner} 0 0 1"
    side = f"{bend} {corner} {corner}V{_HEIGHT - corner}{bend}-{corner} {corner}"
    return f"M{start} {_HEIGHT}V0H{start + width - corner}{side}z"


def _text(text: str, middle: float, color: str) -> str:
    return (
        f'<text x="{middle:g}" y="{_BASELINE}" fill="{color}" textLength="{text_width(text)}" '
        f'lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
    )


def _width(character: str) -> int:
    if character.isascii():
        return _WIDTHS.get(character, _USUAL_WIDTH)
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return _WIDE if unicodedata.east_asian_width(character) in {"W", "F"} else _USUAL_WIDTH
