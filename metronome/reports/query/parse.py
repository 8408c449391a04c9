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

from metronome.errors import InvalidQuery, Malformed, PayloadTooLarge
from metronome.reports.query.names import suggest_names
from metronome.reports.query.request import LIST_PARAMETERS, MAX_FILTER_DEPTH, QUERY_PARAMETERS, RawQuery
from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Prefix, Range

RANGE_OPERATORS: Final = {">": "above", ">=": "at_least", "<": "below", "<=": "at_most"}
"""The signs of bounds, and what each is called in a `metronome.stores.query.Range`."""

_EXCERPT_CHARACTERS: Final = 60


def equals_any(name: str, values: Iterable[str]) -> Filter:
    """Ask for events whose field has one of these values."""
    different = tuple(dict.fromkeys(values))
    return Equals(name, different[0]) if len(different) == 1 else OneOf(name, different)


def starts_with_any(name: str, prefixes: Iterable[str]) -> Filter:
    """Ask for events whose field begins with one of these texts."""
    different = tuple(Prefix(name, text) for text in dict.fromkeys(prefixes))
    return different[0] if len(different) == 1 else AnyOf(different)


def range_filter(name: str, bounds: Sequence[tuple[str, float]]) -> Filter:
    """Ask for events whose field holds a number within bounds, each with its sign.

    Raises:
        InvalidQuery: a bound is given twice, or is no finite number.

    """
    found = {RANGE_OPERATORS[sign]: number for sign, number in bounds}
    if len(found) < len(bounds):
        raise InvalidQuery(f"{name[:_EXCERPT_CHARACTERS]} has the same bound twice: give one of each")
    if not all(map(math.isfinite, found.values())):
        raise InvalidQuery(
            f"the bounds of {name[:_EXCERPT_CHARACTERS]} are beyond all numbers: write one of up to 1e308"
        )
    return Range(name, **found)


def combine_filters(filters: Iterable[Filter]) -> Filter:
    """Ask for events that all of these hold for."""
    together = tuple(filters)
    return together[0] if len(together) == 1 else AllOf(together)


_ANY_VALUE: Final = "*"
_OPERATOR: Final = re.compile("[!^><]=|[><=]")
_OPERATOR_STARTS: Final = ("!", "^", ">", "<")
_NUMBER_PATTERN: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


class QueryPart(NamedTuple):
    """One part of a question: a parameter, or what is asked of a field.

    Attributes:
        name: of the parameter or the field.
        sign: one of ``= != ^= >= <= > <``.
        value: what stands behind it.

    """

    name: str
    operator: str
    value: str


def parse_query_string(query: str) -> RawQuery:
    """Read a question from what follows the ``?`` of an address.

    Args:
        query: as it was sent, percent signs and all.

    Raises:
        Malformed: what its percent signs encode is no UTF-8.
        InvalidQuery: a part of it cannot be read; the message says which and how to write it.

    """
    lists: dict[str, tuple[str, ...]] = {}
    texts: dict[str, str] = {}
    asked: list[QueryPart] = []
    for part in (_parse_part(text) for text in query.split("&") if text):
        if part.name not in QUERY_PARAMETERS:
            asked.append(part)
        elif part.operator != "=":
            raise InvalidQuery(
                f"{part.name} is a parameter: write {part.name}=…, or ask for a field of that name by POST"
            )
        elif part.name in LIST_PARAMETERS:
            lists[part.name] = (*lists.get(part.name, ()), *(entry for entry in part.value.split(",") if entry))
        elif part.name in texts:
            raise InvalidQuery(f"{part.name} is given twice: give it once")
        else:
            texts[part.name] = part.value
    return RawQuery(lists, texts, _build_filters(asked))


def parse_filter_expression(text: str) -> QueryPart | None:
    """Take a filter apart that is not encoded, such as ``LCP>=100``; None where it is none."""
    sign = _OPERATOR.search(text)
    if sign is None or not sign.start():
        return None
    return QueryPart(text[: sign.start()], sign[0], text[sign.end() :])


def _parse_part(text: str) -> QueryPart:
    left, equals, right = text.partition("=")
    name = _percent_decode(left)
    if not equals:
        if name in QUERY_PARAMETERS:
            return QueryPart(name, "=", "")
        return _parse_unencoded(name)
    if len(name) > 1 and name.endswith(_OPERATOR_STARTS):
        return QueryPart(name[:-1], f"{name[-1]}=", _percent_decode(right))
    if not right and (">" in name or "<" in name):
        # Programs that take pairs of names and values write `LCP>100` as a name, and nothing as its value.
        return _parse_unencoded(name)
    return QueryPart(name, "=", _percent_decode(right))


def _parse_unencoded(text: str) -> QueryPart:
    part = parse_filter_expression(text)
    if part is None:
        raise InvalidQuery(
            f"{text[:_EXCERPT_CHARACTERS]!r} asks for nothing: write name=value, or name=* for events that have it"
        )
    return part


def _percent_decode(text: str) -> str:
    try:
        # What was sent as plain bytes is UTF-8 as well.
        return unquote_to_bytes(text.replace("+", " ").encode(errors="surrogateescape")).decode()
    except UnicodeError:
        raise Malformed("the address is no UTF-8: encode names and values with encodeURIComponent") from None


def _build_filters(parts: Iterable[QueryPart]) -> tuple[Filter, ...]:
    """Put together what is asked of one field in the same way."""
    together: defaultdict[tuple[str, str], list[QueryPart]] = defaultdict(list)
    for part in parts:
        together[part.name, _filter_kind(part)].append(part)
    return tuple(_build_filter(name, way, [*each]) for (name, way), each in together.items())


def _filter_kind(part: QueryPart) -> str:
    if part.value == _ANY_VALUE and part.operator in {"=", "!="}:
        return part.operator + _ANY_VALUE
    return "<>" if part.operator in RANGE_OPERATORS else part.operator


def _build_filter(name: str, kind: str, parts: list[QueryPart]) -> Filter:
    values = [part.value for part in parts]
    match kind:
        case "=":
            return equals_any(name, values)
        case "!=":
            return Not(equals_any(name, values))
        case "^=":
            return starts_with_any(name, values)
        case "=*":
            return Exists(name)
        case "!=*":
            return Not(Exists(name))
        case _:
            return range_filter(name, [(part.operator, _parse_bound(part)) for part in parts])


def _parse_bound(part: QueryPart) -> float:
    if _NUMBER_PATTERN.fullmatch(part.value) is None:
        shown = f"{part.name[:_EXCERPT_CHARACTERS]}{part.operator}{part.value[:_EXCERPT_CHARACTERS]}"
        raise InvalidQuery(
            f"{shown} compares with no number: write {part.name[:_EXCERPT_CHARACTERS]}{part.operator}100"
        )
    return float(part.value)


QUERY_MAX_BYTES: Final = 2**20
"""How large a question may be, in bytes: reading it stands in everyone's way."""

_WHERE: Final = "where"
_BODY_KEYS: Final = (*QUERY_PARAMETERS, _WHERE)
_COMBINATORS: Final = frozenset({"and", "or"})
_NOT: Final = "not"
_FIELD_ESCAPE: Final = "="
_BOOLEAN_PARAMETERS: Final = frozenset({"fill", "bots"})
_CONDITION_KEYS: Final = (*RANGE_OPERATORS, "prefix", "exists", _NOT)


def parse_query_json(body: bytes) -> RawQuery:
    """Read a question from JSON.

    Raises:
        PayloadTooLarge: it is over `QUERY_MAX_BYTES`.
        Malformed: it is no JSON.
        InvalidQuery: it is no question; the message says where and what to write there.

    """
    if len(body) > QUERY_MAX_BYTES:
        raise PayloadTooLarge(f"the question has over {QUERY_MAX_BYTES:,} bytes")
    try:
        given = orjson.loads(body)
    except ValueError as error:
        raise Malformed(f'the question is no JSON ({error}): send an object such as {{"by": ["id"]}}') from None
    if not isinstance(given, dict):
        raise InvalidQuery('a question is a JSON object: send one such as {"metrics": ["count"], "by": ["id"]}')
    for name in given:
        if name not in _BODY_KEYS:
            near = suggest_names(name, _BODY_KEYS)
            raise InvalidQuery(
                f"{name[:_EXCERPT_CHARACTERS]!r} is no part of a question{near}: there are {', '.join(_BODY_KEYS)}"
            )
    lists = {
        name: _read_list(name, given[name])
        for name in sorted(LIST_PARAMETERS & given.keys())
        if given[name] is not None
    }
    texts = {
        name: _read_scalar(name, value)
        for name, value in given.items()
        if name not in LIST_PARAMETERS and name != _WHERE and value is not None
    }
    where = given.get(_WHERE)
    return RawQuery(lists, texts, () if where is None else _parse_where(where, 0))


def _read_list(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(entry for entry in value.split(",") if entry)
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple(value)
    raise InvalidQuery(f'{name} is no list of texts: write it as {{"{name}": ["…"]}}')


def _read_scalar(name: str, value: object) -> str:
    if isinstance(value, bool) and name in _BOOLEAN_PARAMETERS:
        return "1" if value else "0"
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise InvalidQuery(f"{name} is {_excerpt(value)}: write a text or a number")


def _parse_where(where: object, depth: int) -> tuple[Filter, ...]:
    if depth > MAX_FILTER_DEPTH:
        raise InvalidQuery(f"filters stand in each other over {MAX_FILTER_DEPTH} levels deep: ask with fewer")
    if not isinstance(where, dict):
        raise InvalidQuery(f'{_excerpt(where)} is no filter: write an object such as {{"event": "view"}}')
    return tuple(each for name, value in where.items() for each in _parse_where_entry(name, value, depth))


def _parse_where_entry(name: str, value: Any, depth: int) -> Iterator[Filter]:
    if name in _COMBINATORS:
        if not isinstance(value, list):
            raise InvalidQuery(f'"{name}" takes a list: write {{"{name}": [{{…}}, {{…}}]}}')
        inner = tuple(combine_filters(_parse_where(each, depth + 1)) for each in value)
        yield combine_filters(inner) if name == "and" else AnyOf(inner)
    elif name == _NOT:
        yield Not(combine_filters(_parse_where(value, depth + 1)))
    else:
        yield from _parse_conditions(name.removeprefix(_FIELD_ESCAPE), value, depth)


def _parse_conditions(field: str, value: Any, depth: int) -> Iterator[Filter]:
    if not isinstance(value, Mapping):
        yield equals_any(field, _read_values(field, value))
        return
    if not value or not value.keys() <= set(_CONDITION_KEYS):
        raise InvalidQuery(
            f"{_excerpt(value)} asks nothing of {field[:_EXCERPT_CHARACTERS]}: an object there has "
            f"{', '.join(map(repr, _CONDITION_KEYS))}"
        )
    bounds = [(sign, _read_number(field, sign, value[sign])) for sign in RANGE_OPERATORS if sign in value]
    if bounds:
        yield range_filter(field, bounds)
    if "prefix" in value:
        yield starts_with_any(field, _read_values(field, value["prefix"]))
    if "exists" in value:
        if not isinstance(value["exists"], bool):
            raise InvalidQuery(
                f'"exists" of {field[:_EXCERPT_CHARACTERS]} is {_excerpt(value["exists"])}: write true or false'
            )
        yield Exists(field) if value["exists"] else Not(Exists(field))
    if _NOT in value:
        if depth >= MAX_FILTER_DEPTH:
            raise InvalidQuery(f"filters stand in each other over {MAX_FILTER_DEPTH} levels deep: ask with fewer")
        yield Not(combine_filters(_parse_conditions(field, value[_NOT], depth + 1)))


def _read_values(field: str, value: object) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, (str, int, float)) for entry in entries):
        raise InvalidQuery(
            f"{field[:_EXCERPT_CHARACTERS]} is compared with {_excerpt(value)}: write a text, a number, true, "
            f"false or a list of "
            'these, or {"exists": false} for events that lack it'
        )
    # Numbers and truth values are compared as documents have them: as JSON's text.
    return [entry if isinstance(entry, str) else orjson.dumps(entry).decode() for entry in entries]


def _read_number(field: str, sign: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidQuery(f'"{sign}" of {field[:_EXCERPT_CHARACTERS]} is {_excerpt(value)}: write a number')
    return float(value)


def _excerpt(value: object) -> str:
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        # More levels than can be written.
        return "this"
    return text if len(text) <= _EXCERPT_CHARACTERS else f"{text[:_EXCERPT_CHARACTERS]}…"
