"""Badges: how often an item was used, as a small picture for its README or page."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from metronome.errors import Unaskable
from metronome.question import Equals, Question
from metronome.reports.drawing import NOT_XML, draw
from metronome.reports.parameters import Parameters
from metronome.stores.store import Store

PARAMETERS: Final = frozenset({"from", "to", "tz", "bots", "metric", "label", "color", "style"})
METRICS: Final = {"views": "view", "downloads": "download"}
STYLES: Final = {"flat": 3, "flat-square": 0}
"""How round the corners are, in pixels."""
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
MAX_LABEL: Final = 64
"""Characters."""

_HEX: Final = re.compile(r"#?([0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE | re.ASCII)
_STEPS: Final = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_TENTHS_BELOW: Final = 10


@dataclass(frozen=True, slots=True)
class Look:
    """What a badge shows, and how.

    Attributes:
        metric: one of `METRICS`.
        label: the text on its left.
        color: of its right, as ``#0969da``.
        corner: how round it is, in pixels.

    """

    metric: str
    label: str
    color: str
    corner: int


def read_look(query: Mapping[str, str]) -> Look:
    """Read ``metric``, ``label``, ``color`` and ``style`` of a query string; what is not given is usual.

    Raises:
        Unaskable: one of them cannot be; the message says which.

    """
    metric = _choice("metric", query, METRICS, "views")
    style = _choice("style", query, STYLES, "flat")
    label = " ".join(NOT_XML.sub("\ufffd", query.get("label", "")).split())
    if len(label) > MAX_LABEL:
        raise Unaskable(f"label has {len(label)} characters: write {MAX_LABEL} at the most")
    return Look(metric, label or metric, _color(query.get("color") or "blue"), STYLES[style])


async def badge(store: Store, item: str, asked: Parameters, look: Look) -> str:
    """Draw how often an item was viewed, or downloaded.

    Args:
        store: what is asked.
        item: the item's id; one that was never seen shows 0.
        asked: the range.
        look: what to show, and how.

    Returns:
        An SVG picture. The number on it is shortened (see `shorten`); the picture's title has it whole.

    """
    where = asked.only(Equals("id", item), Equals("event", METRICS[look.metric]))
    (answer,) = await store.ask(Question(where=where, start=asked.start, end=asked.end))
    number = int(answer.rows[0][0] or 0)
    return draw(look.label, shorten(number), f"{look.label}: {number:,}", look.color, look.corner)


def shorten(number: int) -> str:
    """Write a number in three digits at the most: ``999``, ``1.2k``, ``12k``, ``3.4M``; never as more than it is."""
    for step, letter in _STEPS:
        if number >= step:
            whole, tenth = divmod(number * 10 // step, 10)
            return f"{whole}.{tenth}{letter}" if tenth and whole < _TENTHS_BELOW else f"{whole}{letter}"
    return str(number)


def _color(text: str) -> str:
    if text in COLORS:
        return COLORS[text]
    match = _HEX.fullmatch(text)
    if match is None:
        raise Unaskable(f"color={text[:60]} is not known: write it as 0969da, or choose one of {', '.join(COLORS)}")
    digits = match[1].lower()
    return f"#{digits}" if len(digits) > len("rgb") else f"#{''.join(digit * 2 for digit in digits)}"


def _choice(name: str, query: Mapping[str, str], choices: Mapping[str, object], usual: str) -> str:
    text = query.get(name) or usual
    if text not in choices:
        raise Unaskable(f"{name}={text[:60]} is not known: choose one of {', '.join(choices)}")
    return text
