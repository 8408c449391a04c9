"""Questions as they are written in an address: parameters, and filters beside them.

``event=view`` asks for events whose field has that value, and where it is given again with others, for any of these.
``event!=view`` leaves these out, ``referer^=arcgis`` asks for a beginning, ``LCP>=100``, ``>``, ``<=`` and ``<`` for
numbers, ``LCP=*`` for events that have the field, and ``LCP!=*`` for those that lack it. Percent signs and ``+`` are
read as in forms. All but the ``=`` may be encoded, as most programs write it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from metronome.errors import Malformed, Unaskable
from metronome.question import Exists, Filter, Not
from metronome.reports.query.asked import LISTS, PARAMETERS, Given
from metronome.reports.query.filters import BOUNDS, begins_with_any, is_any, within

_ANY: Final = "*"
_SIGN: Final = re.compile("[!^><]=|[><=]")
_BEFORE_EQUALS: Final = ("!", "^", ">", "<")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SHOWN: Final = 60


class Part(NamedTuple):
    """One part of a question: a parameter, or what is asked of a field.

    Attributes:
        name: of the parameter or the field.
        sign: one of ``= != ^= >= <= > <``.
        value: what stands behind it.

    """

    name: str
    sign: str
    value: str


def read_address(query: str) -> Given:
    """Read a question from what follows the ``?`` of an address.

    Args:
        query: as it was sent, percent signs and all.

    Raises:
        Malformed: what its percent signs encode is no UTF-8.
        Unaskable: a part of it cannot be read; the message says which and how to write it.

    """
    lists: dict[str, tuple[str, ...]] = {}
    texts: dict[str, str] = {}
    asked: list[Part] = []
    for part in (_part(text) for text in query.split("&") if text):
        if part.name not in PARAMETERS:
            asked.append(part)
        elif part.sign != "=":
            raise Unaskable(f"{part.name} is a parameter: write {part.name}=…, or ask for a field of that name by POST")
        elif part.name in LISTS:
            lists[part.name] = (*lists.get(part.name, ()), *(entry for entry in part.value.split(",") if entry))
        elif part.name in texts:
            raise Unaskable(f"{part.name} is given twice: give it once")
        else:
            texts[part.name] = part.value
    return Given(lists, texts, _filters(asked))


def split_filter(text: str) -> Part | None:
    """Take a filter apart that is not encoded, such as ``LCP>=100``; None where it is none."""
    sign = _SIGN.search(text)
    if sign is None or not sign.start():
        return None
    return Part(text[: sign.start()], sign[0], text[sign.end() :])


def _part(text: str) -> Part:
    left, equals, right = text.partition("=")
    name = _decoded(left)
    if not equals:
        if name in PARAMETERS:
            return Part(name, "=", "")
        return _whole(name)
    if len(name) > 1 and name.endswith(_BEFORE_EQUALS):
        return Part(name[:-1], f"{name[-1]}=", _decoded(right))
    if not right and (">" in name or "<" in name):
        # Programs that take pairs of names and values write `LCP>100` as a name, and nothing as its value.
        return _whole(name)
    return Part(name, "=", _decoded(right))


def _whole(text: str) -> Part:
    part = split_filter(text)
    if part is None:
        raise Unaskable(f"{text[:_SHOWN]!r} asks for nothing: write name=value, or name=* for events that have it")
    return part


def _decoded(text: str) -> str:
    try:
        # What was sent as plain bytes is UTF-8 as well.
        return unquote_to_bytes(text.replace("+", " ").encode(errors="surrogateescape")).decode()
    except UnicodeError:
        raise Malformed("the address is no UTF-8: encode names and values with encodeURIComponent") from None


def _filters(parts: Iterable[Part]) -> tuple[Filter, ...]:
    """Put together what is asked of one field in the same way."""
    together: defaultdict[tuple[str, str], list[Part]] = defaultdict(list)
    for part in parts:
        together[part.name, _way(part)].append(part)
    return tuple(_filter(name, way, [*each]) for (name, way), each in together.items())


def _way(part: Part) -> str:
    if part.value == _ANY and part.sign in {"=", "!="}:
        return part.sign + _ANY
    return "<>" if part.sign in BOUNDS else part.sign


def _filter(name: str, way: str, parts: list[Part]) -> Filter:
    values = [part.value for part in parts]
    match way:
        case "=":
            return is_any(name, values)
        case "!=":
            return Not(is_any(name, values))
        case "^=":
            return begins_with_any(name, values)
        case "=*":
            return Exists(name)
        case "!=*":
            return Not(Exists(name))
        case _:
            return within(name, [(part.sign, _number(part)) for part in parts])


def _number(part: Part) -> float:
    if _NUMBER.fullmatch(part.value) is None:
        shown = f"{part.name[:_SHOWN]}{part.sign}{part.value[:_SHOWN]}"
        raise Unaskable(f"{shown} compares with no number: write {part.name[:_SHOWN]}{part.sign}100")
    return float(part.value)
