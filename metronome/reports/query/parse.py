"""Parse queries from a query string or from JSON.

In a query string, ``event=view`` filters by a value of a field, or, if repeated, by any of several values.
``event!=view`` excludes a value, ``referer^=arcgis`` filters by a prefix, ``LCP>=100``, ``>``, ``<=`` and ``<`` by
numbers, ``LCP=*`` by presence and ``LCP!=*`` by absence of the field. Percent-encoding and ``+`` are those of forms;
the ``=`` must not be encoded, other characters may be.

In JSON, a query is an object with the same parameters, and filters as ``where``: ``{"event": "view"}`` for a value,
``{"format": ["pdf", "csv"]}`` for any of several, ``{"LCP": {">=": 100}}`` for numbers, ``{"referer": {"prefix":
"arcgis"}}``, ``{"LCP": {"exists": true}}`` and ``{"event": {"not": "view"}}``. An event must match all entries of an
object; there are also ``{"and": […]}``, ``{"or": […]}`` and ``{"not": {…}}``. After a leading ``=`` the rest of a name
is that of a field: ``{"=not": "x"}`` is about the field ``not``, and ``{"==x": 1}`` about ``=x``.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import InvalidQuery, Malformed, PayloadTooLarge
from metronome.fields import decode_percent
from metronome.reports.parameters import excerpt
from metronome.reports.query.names import suggest_names
from metronome.reports.query.request import LIST_PARAMETERS, MAX_FILTER_DEPTH, QUERY_PARAMETERS, RawQuery
from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Prefix, Range

BOUNDS_BY_OPERATOR: Final = {">": "above", ">=": "at_least", "<": "below", "<=": "at_most"}
"""Operators of bounds, and the fields of `metronome.stores.query.Range` that they set."""

QUERY_MAX_BYTES: Final = 2**20
"""Maximum size of a query; parsing blocks the event loop."""

_ANY_VALUE: Final = "*"
_OPERATOR: Final = re.compile("[!^><]=|[><=]")
_OPERATOR_STARTS: Final = ("!", "^", ">", "<")
_NUMBER_PATTERN: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_WHERE: Final = "where"
_BODY_KEYS: Final = (*QUERY_PARAMETERS, _WHERE)
_COMBINATORS: Final = frozenset({"and", "or"})
_NOT: Final = "not"
_FIELD_ESCAPE: Final = "="
_BOOLEAN_PARAMETERS: Final = frozenset({"fill", "bots"})
_CONDITION_KEYS: Final = (*BOUNDS_BY_OPERATOR, "prefix", "exists", _NOT)
_JSON_EXCERPT_CHARACTERS: Final = 60


def _equals_any(name: str, values: Iterable[str]) -> Filter:
    distinct = tuple(dict.fromkeys(values))
    return Equals(name, distinct[0]) if len(distinct) == 1 else OneOf(name, distinct)


def _starts_with_any(name: str, prefixes: Iterable[str]) -> Filter:
    distinct = tuple(Prefix(name, text) for text in dict.fromkeys(prefixes))
    return distinct[0] if len(distinct) == 1 else AnyOf(distinct)


def _range_filter(name: str, bounds: Sequence[tuple[str, float]]) -> Filter:
    numbers = {BOUNDS_BY_OPERATOR[operator]: number for operator, number in bounds}
    if len(numbers) < len(bounds):
        raise InvalidQuery(f"{excerpt(name)} has the same bound twice: remove one")
    if not all(map(math.isfinite, numbers.values())):
        raise InvalidQuery(f"the bounds of {excerpt(name)} are not finite: use numbers up to 1e308")
    return Range(name, **numbers)


def _combine_filters(filters: Iterable[Filter]) -> Filter:
    combined = tuple(filters)
    return combined[0] if len(combined) == 1 else AllOf(combined)


class QueryPart(NamedTuple):
    """One part of a query string: a parameter or a filter.

    Attributes:
        name: of the parameter or field.
        operator: one of ``= != ^= >= <= > <``.
        value: what follows it.

    """

    name: str
    operator: str
    value: str


def parse_query_string(query: str) -> RawQuery:
    """Parse a query from a query string.

    Args:
        query: percent-encoded.

    Raises:
        Malformed: the percent-encoding is not valid UTF-8.
        InvalidQuery: a part is invalid.

    """
    lists: dict[str, tuple[str, ...]] = {}
    scalars: dict[str, str] = {}
    filter_parts: list[QueryPart] = []
    for part in parse_query_parts(query):
        if part.name not in QUERY_PARAMETERS:
            filter_parts.append(part)
        elif part.operator != "=":
            raise InvalidQuery(
                f"{part.name} is a parameter: write {part.name}=…, or POST a query to filter by a field of that name"
            )
        elif part.name in LIST_PARAMETERS:
            lists[part.name] = (*lists.get(part.name, ()), *(entry for entry in part.value.split(",") if entry))
        elif part.name in scalars:
            raise InvalidQuery(f"the parameter {part.name} is repeated: use it once")
        else:
            scalars[part.name] = part.value
    return RawQuery(lists, scalars, build_filters(filter_parts))


def parse_filter_expression(text: str) -> QueryPart | None:
    """Parse a filter that is not percent-encoded, such as ``LCP>=100``; return None if it is not a filter."""
    operator = _OPERATOR.search(text)
    if operator is None or not operator.start():
        return None
    return QueryPart(text[: operator.start()], operator[0], text[operator.end() :])


def parse_query_parts(query: str) -> Iterator[QueryPart]:
    """Yield the parts of a query string: parameters and filters.

    Raises:
        Malformed: the percent-encoding is not valid UTF-8.
        InvalidQuery: a part is not a parameter and not a filter.

    """
    return (_parse_part(text) for text in query.split("&") if text)


def _parse_part(text: str) -> QueryPart:
    left, equals, right = text.partition("=")
    name = _percent_decode(left)
    if not equals:
        if name in QUERY_PARAMETERS:
            return QueryPart(name, "=", "")
        return _parse_decoded(name)
    if len(name) > 1 and name.endswith(_OPERATOR_STARTS):
        return QueryPart(name[:-1], f"{name[-1]}=", _percent_decode(right))
    if not right and (">" in name or "<" in name):
        # HTTP clients that take pairs of names and values send `LCP>100` as a name with an empty value.
        return _parse_decoded(name)
    return QueryPart(name, "=", _percent_decode(right))


def _parse_decoded(text: str) -> QueryPart:
    part = parse_filter_expression(text)
    if part is None:
        raise InvalidQuery(
            f"invalid filter {excerpt(text)!r}: expected name=value, or name=* for events that have the field"
        )
    return part


def _percent_decode(text: str) -> str:
    return decode_percent(text.replace("+", " "))


def build_filters(parts: Iterable[QueryPart]) -> tuple[Filter, ...]:
    """Build one filter for all parts of the same kind about the same field.

    Raises:
        InvalidQuery: a bound is not a number, or occurs twice.

    """
    groups: defaultdict[tuple[str, str], list[QueryPart]] = defaultdict(list)
    for part in parts:
        groups[part.name, _filter_kind(part)].append(part)
    return tuple(_build_filter(name, kind, group) for (name, kind), group in groups.items())


def _filter_kind(part: QueryPart) -> str:
    if part.value == _ANY_VALUE and part.operator in {"=", "!="}:
        return part.operator + _ANY_VALUE
    return "<>" if part.operator in BOUNDS_BY_OPERATOR else part.operator


def _build_filter(name: str, kind: str, parts: list[QueryPart]) -> Filter:
    values = [part.value for part in parts]
    match kind:
        case "=":
            return _equals_any(name, values)
        case "!=":
            return Not(_equals_any(name, values))
        case "^=":
            return _starts_with_any(name, values)
        case "=*":
            return Exists(name)
        case "!=*":
            return Not(Exists(name))
        case _:
            return _range_filter(name, [(part.operator, _parse_bound(part)) for part in parts])


def _parse_bound(part: QueryPart) -> float:
    if _NUMBER_PATTERN.fullmatch(part.value) is None:
        name = excerpt(part.name)
        raise InvalidQuery(
            f"invalid bound {name}{part.operator}{excerpt(part.value)}: expected a number, "
            f"such as {name}{part.operator}100"
        )
    return float(part.value)


def parse_query_json(body: bytes) -> RawQuery:
    """Parse a query from JSON.

    Raises:
        PayloadTooLarge: it is over `QUERY_MAX_BYTES`.
        Malformed: it is not valid JSON.
        InvalidQuery: a part is invalid.

    """
    if len(body) > QUERY_MAX_BYTES:
        raise PayloadTooLarge(f"the query is over {QUERY_MAX_BYTES:,} bytes")
    try:
        query = orjson.loads(body)
    except ValueError as error:
        raise Malformed(f'invalid JSON ({error}): expected an object such as {{"by": ["id"]}}') from None
    if not isinstance(query, dict):
        raise InvalidQuery('invalid query: expected a JSON object such as {"metrics": ["count"], "by": ["id"]}')
    for name in query:
        if name not in _BODY_KEYS:
            suggestion = suggest_names(name, _BODY_KEYS)
            raise InvalidQuery(
                f"unknown key {excerpt(name)!r} in the query{suggestion}: expected one of {', '.join(_BODY_KEYS)}"
            )
    values = {name: value for name, value in query.items() if value is not None}
    lists = {name: _read_list(name, values[name]) for name in sorted(LIST_PARAMETERS & values.keys())}
    scalars = {
        name: _read_scalar(name, value)
        for name, value in values.items()
        if name not in LIST_PARAMETERS and name != _WHERE
    }
    return RawQuery(lists, scalars, _parse_where(values[_WHERE], 0) if _WHERE in values else ())


def _read_list(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(entry for entry in value.split(",") if entry)
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple(value)
    raise InvalidQuery(f'invalid {name}: expected a list of texts, {{"{name}": ["…"]}}')


def _read_scalar(name: str, value: object) -> str:
    if isinstance(value, bool) and name in _BOOLEAN_PARAMETERS:
        return "1" if value else "0"
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise InvalidQuery(f"invalid {name} {_json_excerpt(value)}: expected a text or a number")


def _parse_where(where: object, depth: int) -> tuple[Filter, ...]:
    _check_depth(depth)
    if not isinstance(where, dict):
        raise InvalidQuery(f'invalid filter {_json_excerpt(where)}: expected an object such as {{"event": "view"}}')
    return tuple(each for name, value in where.items() for each in _parse_where_entry(name, value, depth))


def _check_depth(depth: int) -> None:
    if depth > MAX_FILTER_DEPTH:
        raise InvalidQuery(f"filters are nested over {MAX_FILTER_DEPTH} levels deep: use fewer levels")


def _parse_where_entry(name: str, value: Any, depth: int) -> Iterator[Filter]:
    if name in _COMBINATORS:
        if not isinstance(value, list):
            raise InvalidQuery(f'invalid "{name}": expected a list, {{"{name}": [{{…}}, {{…}}]}}')
        filters = tuple(_combine_filters(_parse_where(each, depth + 1)) for each in value)
        yield _combine_filters(filters) if name == "and" else AnyOf(filters)
    elif name == _NOT:
        yield Not(_combine_filters(_parse_where(value, depth + 1)))
    else:
        yield from _parse_conditions(name.removeprefix(_FIELD_ESCAPE), value, depth)


def _parse_conditions(field: str, value: Any, depth: int) -> Iterator[Filter]:
    _check_depth(depth)
    if not isinstance(value, Mapping):
        yield _equals_any(field, _read_values(field, value))
        return
    if not value or not value.keys() <= set(_CONDITION_KEYS):
        raise InvalidQuery(
            f"invalid filter {_json_excerpt(value)} of {excerpt(field)}: expected an object with some of "
            f"{', '.join(map(repr, _CONDITION_KEYS))}"
        )
    bounds = [
        (operator, _read_number(field, operator, value[operator]))
        for operator in BOUNDS_BY_OPERATOR
        if operator in value
    ]
    if bounds:
        yield _range_filter(field, bounds)
    if "prefix" in value:
        yield _starts_with_any(field, _read_values(field, value["prefix"]))
    if "exists" in value:
        if not isinstance(value["exists"], bool):
            raise InvalidQuery(
                f'invalid "exists" {_json_excerpt(value["exists"])} of {excerpt(field)}: expected true or false'
            )
        yield Exists(field) if value["exists"] else Not(Exists(field))
    if _NOT in value:
        yield Not(_combine_filters(_parse_conditions(field, value[_NOT], depth + 1)))


def _read_values(field: str, value: object) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, (str, int, float)) for entry in entries):
        raise InvalidQuery(
            f"invalid value {_json_excerpt(value)} of {excerpt(field)}: expected a text, a number, true, false, or a "
            'list of these; use {"exists": false} for events without the field'
        )
    # Numbers and booleans compare as in documents: as JSON text.
    return [entry if isinstance(entry, str) else orjson.dumps(entry).decode() for entry in entries]


def _read_number(field: str, operator: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidQuery(f'invalid "{operator}" {_json_excerpt(value)} of {excerpt(field)}: expected a number')
    return float(value)


def _json_excerpt(value: object) -> str:
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        # Nested too deep to be encoded.
        return "(deeply nested)"
    return text if len(text) <= _JSON_EXCERPT_CHARACTERS else f"{text[:_JSON_EXCERPT_CHARACTERS]}…"
