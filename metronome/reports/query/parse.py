"""Questions as they are written in JSON: an object with the same parameters, and filters as ``where``.

``{"event": "view"}`` asks for a value, ``{"format": ["pdf", "csv"]}`` for any of these, ``{"LCP": {">=": 100}}`` for
numbers, ``{"referer": {"prefix": "arcgis"}}`` for a beginning, ``{"LCP": {"exists": true}}`` for events that have the
field, and ``{"event": {"not": "view"}}`` leaves events out. What stands in one object has to hold together; else there
are ``{"and": […]}``, ``{"or": […]}`` and ``{"not": {…}}``. Behind a ``=`` the rest of a name is a field's, whatever
it says: ``{"=not": "x"}`` asks for the field ``not``, and ``{"==x": 1}`` for ``=x``.

The filters that questions are made of, in one form however they were written.

Questions as they are written in an address: parameters, and filters beside them.

``event=view`` asks for events whose field has that value, and where it is given again with others, for any of these.
``event!=view`` leaves these out, ``referer^=arcgis`` asks for a beginning, ``LCP>=100``, ``>``, ``<=`` and ``<`` for
numbers, ``LCP=*`` for events that have the field, and ``LCP!=*`` for those that lack it. Percent signs and ``+`` are
read as in forms. All but the ``=`` may be encoded, as most programs write it.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from metronome.errors import Malformed, TooLarge, Unaskable
from metronome.reports.query.names import suggestion
from metronome.reports.query.request import LISTS, MOST_LEVELS, PARAMETERS, Given
from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Prefix, Range

BOUNDS: Final = {">": "above", ">=": "at_least", "<": "below", "<=": "at_most"}
"""The signs of bounds, and what each is called in a `metronome.stores.query.Range`."""

_SHOWN: Final = 60


def is_any(name: str, values: Iterable[str]) -> Filter:
    """Ask for events whose field has one of these values."""
    different = tuple(dict.fromkeys(values))
    return Equals(name, different[0]) if len(different) == 1 else OneOf(name, different)


def begins_with_any(name: str, texts: Iterable[str]) -> Filter:
    """Ask for events whose field begins with one of these texts."""
    different = tuple(Prefix(name, text) for text in dict.fromkeys(texts))
    return different[0] if len(different) == 1 else AnyOf(different)


def within(name: str, bounds: Sequence[tuple[str, float]]) -> Filter:
    """Ask for events whose field holds a number within bounds, each with its sign.

    Raises:
        Unaskable: a bound is given twice, or is no finite number.

    """
    found = {BOUNDS[sign]: number for sign, number in bounds}
    if len(found) < len(bounds):
        raise Unaskable(f"{name[:_SHOWN]} has the same bound twice: give one of each")
    if not all(map(math.isfinite, found.values())):
        raise Unaskable(f"the bounds of {name[:_SHOWN]} are beyond all numbers: write one of up to 1e308")
    return Range(name, **found)


def all_of(filters: Iterable[Filter]) -> Filter:
    """Ask for events that all of these hold for."""
    together = tuple(filters)
    return together[0] if len(together) == 1 else AllOf(together)


_ANY: Final = "*"
_SIGN: Final = re.compile("[!^><]=|[><=]")
_BEFORE_EQUALS: Final = ("!", "^", ">", "<")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


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


MAX_BYTES: Final = 2**20
"""How large a question may be, in bytes: reading it stands in everyone's way."""

_WHERE: Final = "where"
_KNOWN: Final = (*PARAMETERS, _WHERE)
_TOGETHER: Final = frozenset({"and", "or"})
_NOT: Final = "not"
_LITERAL: Final = "="
_SWITCHES: Final = frozenset({"fill", "bots"})
_CONDITIONS: Final = (*BOUNDS, "prefix", "exists", _NOT)


def read_json(body: bytes) -> Given:
    """Read a question from JSON.

    Raises:
        TooLarge: it is over `MAX_BYTES`.
        Malformed: it is no JSON.
        Unaskable: it is no question; the message says where and what to write there.

    """
    if len(body) > MAX_BYTES:
        raise TooLarge(f"the question has over {MAX_BYTES:,} bytes")
    try:
        given = orjson.loads(body)
    except ValueError as error:
        raise Malformed(f'the question is no JSON ({error}): send an object such as {{"by": ["id"]}}') from None
    if not isinstance(given, dict):
        raise Unaskable('a question is a JSON object: send one such as {"metrics": ["count"], "by": ["id"]}')
    for name in given:
        if name not in _KNOWN:
            near = suggestion(name, _KNOWN)
            raise Unaskable(f"{name[:_SHOWN]!r} is no part of a question{near}: there are {', '.join(_KNOWN)}")
    lists = {name: _list(name, given[name]) for name in sorted(LISTS & given.keys()) if given[name] is not None}
    texts = {
        name: _text(name, value)
        for name, value in given.items()
        if name not in LISTS and name != _WHERE and value is not None
    }
    where = given.get(_WHERE)
    return Given(lists, texts, () if where is None else _entries(where, 0))


def _list(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(entry for entry in value.split(",") if entry)
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple(value)
    raise Unaskable(f'{name} is no list of texts: write it as {{"{name}": ["…"]}}')


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) and name in _SWITCHES:
        return "1" if value else "0"
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise Unaskable(f"{name} is {_shown(value)}: write a text or a number")


def _entries(where: object, level: int) -> tuple[Filter, ...]:
    if level > MOST_LEVELS:
        raise Unaskable(f"filters stand in each other over {MOST_LEVELS} levels deep: ask with fewer")
    if not isinstance(where, dict):
        raise Unaskable(f'{_shown(where)} is no filter: write an object such as {{"event": "view"}}')
    return tuple(each for name, value in where.items() for each in _entry(name, value, level))


def _entry(name: str, value: Any, level: int) -> Iterator[Filter]:
    if name in _TOGETHER:
        if not isinstance(value, list):
            raise Unaskable(f'"{name}" takes a list: write {{"{name}": [{{…}}, {{…}}]}}')
        inner = tuple(all_of(_entries(each, level + 1)) for each in value)
        yield all_of(inner) if name == "and" else AnyOf(inner)
    elif name == _NOT:
        yield Not(all_of(_entries(value, level + 1)))
    else:
        yield from _conditions(name.removeprefix(_LITERAL), value, level)


def _conditions(field: str, value: Any, level: int) -> Iterator[Filter]:
    if not isinstance(value, Mapping):
        yield is_any(field, _values(field, value))
        return
    if not value or not value.keys() <= set(_CONDITIONS):
        raise Unaskable(
            f"{_shown(value)} asks nothing of {field[:_SHOWN]}: an object there has {', '.join(map(repr, _CONDITIONS))}"
        )
    bounds = [(sign, _body_number(field, sign, value[sign])) for sign in BOUNDS if sign in value]
    if bounds:
        yield within(field, bounds)
    if "prefix" in value:
        yield begins_with_any(field, _values(field, value["prefix"]))
    if "exists" in value:
        if not isinstance(value["exists"], bool):
            raise Unaskable(f'"exists" of {field[:_SHOWN]} is {_shown(value["exists"])}: write true or false')
        yield Exists(field) if value["exists"] else Not(Exists(field))
    if _NOT in value:
        if level >= MOST_LEVELS:
            raise Unaskable(f"filters stand in each other over {MOST_LEVELS} levels deep: ask with fewer")
        yield Not(all_of(_conditions(field, value[_NOT], level + 1)))


def _values(field: str, value: object) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, (str, int, float)) for entry in entries):
        raise Unaskable(
            f"{field[:_SHOWN]} is compared with {_shown(value)}: write a text, a number, true, false or a list of "
            'these, or {"exists": false} for events that lack it'
        )
    # Numbers and truth values are compared as documents have them: as JSON's text.
    return [entry if isinstance(entry, str) else orjson.dumps(entry).decode() for entry in entries]


def _body_number(field: str, sign: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unaskable(f'"{sign}" of {field[:_SHOWN]} is {_shown(value)}: write a number')
    return float(value)


def _shown(value: object) -> str:
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        # More levels than can be written.
        return "this"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
