"""Which of several media types a client would rather have (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

_MEDIA_RANGE_PATTERN: Final = re.compile(r"([^\s;/]+/[^\s;/]+)(?:\s*;\s*(.*))?", re.DOTALL)
_QUALITY_PATTERN: Final = re.compile(
    r"(?:^|;)\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.ASCII | re.IGNORECASE
)
_ANY_MEDIA_TYPE: Final = "*/*"


class _MediaMatch(NamedTuple):
    """How well a type is liked: by its weight, how exactly it is named, and how early."""

    quality: float
    specificity: int
    precedence: int


def negotiate_media_type(accept: Iterable[str], available: Sequence[str]) -> str:
    """Return the media type that a client would rather have.

    Args:
        accept: the values of its ``Accept`` headers.
        available: what there is, in lower case. Of two that it likes alike, that which it names more exactly is taken,
            then earlier, then that which is offered first.

    Returns:
        One of *available*: the first if it likes none, which says more to it than a refusal would.

    """
    ranges = [each for value in accept for each in value.lower().split(",")]
    liked = {media: _match_media_type(media, ranges) for media in available}
    best = max(available, key=lambda media: liked[media])
    return best if liked[best].quality > 0 else available[0]


def _match_media_type(media: str, ranges: list[str]) -> _MediaMatch:
    """Return what the most exact range says of a type, or that nothing is said where there is no range at all."""
    kinds = {media: 2, f"{media.partition('/')[0]}/*": 1, _ANY_MEDIA_TYPE: 0}
    found = _MediaMatch(0.0, -1, 0)
    for place, text in enumerate(ranges):
        match = _MEDIA_RANGE_PATTERN.fullmatch(text.strip())
        exactness = kinds.get(match[1], -1) if match else -1
        if match and exactness > found.specificity:
            quality = _QUALITY_PATTERN.search(match[2] or "")
            found = _MediaMatch(float(quality[1]) if quality else 1.0, exactness, -place)
    return found
