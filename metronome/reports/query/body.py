"""Questions as they are written in JSON: an object with the same parameters, and filters as ``where``.

``{"event": "view"}`` asks for a value, ``{"format": ["pdf", "csv"]}`` for any of these, ``{"LCP": {">=": 100}}`` for
numbers, ``{"referer": {"prefix": "arcgis"}}`` for a beginning, ``{"LCP": {"exists": true}}`` for events that have the
field, and ``{"event": {"not": "view"}}`` leaves events out. What stands in one object has to hold together; else there
are ``{"and": […]}``, ``{"or": […]}`` and ``{"not": {…}}``. Behind a ``=`` the rest of a name is a field's, whatever
it says: ``{"=not": "x"}`` asks for the field ``not``, and ``{"==x": 1}`` for ``=x``.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from metronome.errors import Malformed, TooLarge, Unaskable
from metronome.question import AnyOf, Exists, Filter, Not
from metronome.reports.query.asked import LISTS, MOST_LEVELS, PARAMETERS, Given
from metronome.reports.query.filters import BOUNDS, all_of, begins_with_any, is_any, within
from metronome.reports.query.names import suggestion

MAX_BYTES: Final = 2**20
"""How large a question may be, in bytes: reading it stands in everyone's way."""

_WHERE: Final = "where"
_KNOWN: Final = (*PARAMETERS, _WHERE)
_TOGETHER: Final = frozenset({"and", "or"})
_NOT: Final = "not"
_LITERAL: Final = "="
_SWITCHES: Final = frozenset({"fill", "bots"})
_CONDITIONS: Final = (*BOUNDS, "prefix", "exists", _NOT)
_SHOWN: Final = 60


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
    bounds = [(sign, _number(field, sign, value[sign])) for sign in BOUNDS if sign in value]
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


def _number(field: str, sign: str, value: object) -> float:
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
