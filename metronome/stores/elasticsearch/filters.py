"""Filters and ranges of time as Elasticsearch queries, and fields as the names that it has for them."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from metronome.errors import Unaskable
from metronome.event import is_plain, param_name
from metronome.question import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Prefix, Range
from metronome.stores.elasticsearch.template import VALUE_MAX_CHARACTERS

Query = dict[str, Any]

EVERYTHING: Final[Query] = {"match_all": {}}
NOTHING: Final[Query] = {"match_none": {}}

TERMS_MAX: Final = 50_000
"""How many values go into one ``terms`` query: Elasticsearch takes 65,536."""

PREFIX_MAX_BYTES: Final = 980
"""The longest prefix, with its key in ``params``: Elasticsearch's automata have up to 1,000 states."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def field_name(field: str) -> str:
    """Return where a field lies: at the top level, or in ``params``."""
    return field if is_plain(field) else f"params.{param_name(_printable(field))}"


def number_name(field: str) -> str:
    """Return where the numbers of a field lie; values in ``params`` have none."""
    return f"{field_name(field)}.num" if is_plain(field) else "params_have_no_numbers"


def group_name(field: str) -> str:
    """Return where the values lie that a field is grouped or counted by.

    Raises:
        Unaskable: its values are only kept, not indexed.

    """
    if field == "event_id":
        raise Unaskable("events cannot be grouped or counted by event_id: count them, each has its own")
    return field_name(field)


def query_of(where: Filter | None, start: datetime | None = None, end: datetime | None = None) -> Query:
    """Return the query for the events that a filter and a range of time let through."""
    conditions = []
    if where is not None:
        conditions.append(filter_query(where))
    bounds = {}
    if start is not None:
        bounds["gte"] = _milliseconds(start)
    if end is not None:
        bounds["lt"] = _milliseconds(end)
    if bounds:
        conditions.append({"range": {"@timestamp": {**bounds, "format": "epoch_millis"}}})
    return {"bool": {"filter": conditions}} if conditions else EVERYTHING


def filter_query(where: Filter) -> Query:  # noqa: PLR0911  # one for each kind of filter
    """Return the query for one filter.

    Raises:
        Unaskable: it looks for the beginning of an ``event_id``, or a beginning that is too long.

    """
    match where:
        case Equals(field, value):
            return _one_of(field, (value,))
        case OneOf(field, values):
            return _one_of(field, values)
        case Prefix(field, text):
            return _prefix(field, text)
        case Exists(field):
            return _exists(field)
        case Range():
            return _range(where)
        case Not(inner):
            return {"bool": {"must_not": [filter_query(inner)]}}
        case AllOf(inner):
            return {"bool": {"filter": [filter_query(each) for each in inner]}} if inner else EVERYTHING
        case AnyOf(inner):
            return _any_of([filter_query(each) for each in inner])


def _any_of(queries: list[Query]) -> Query:
    return {"bool": {"should": queries, "minimum_should_match": 1}} if queries else NOTHING


def _one_of(field: str, values: tuple[str, ...]) -> Query:
    name = "_id" if field == "event_id" else field_name(field)
    findable = [_value(field, value) for value in values if len(value) <= VALUE_MAX_CHARACTERS]
    chunks = [findable[at : at + TERMS_MAX] for at in range(0, len(findable), TERMS_MAX)]
    queries: list[Query] = [{"terms": {name: chunk}} for chunk in chunks]
    return queries[0] if len(queries) == 1 else _any_of(queries)


def _prefix(field: str, text: str) -> Query:
    if field == "event_id":
        raise Unaskable("event_id can be looked for only as a whole")
    if len(text) > VALUE_MAX_CHARACTERS:
        return NOTHING
    name, value = field_name(field), _value(field, text)
    if len(name.encode()) + len(value.encode()) > PREFIX_MAX_BYTES:
        raise Unaskable(f"{text[:20]}… is too long to be looked for as a beginning: shorten it to 500 bytes")
    return {"prefix": {name: value}}


def _exists(field: str) -> Query:
    if field == "event_id":
        return EVERYTHING
    # `exists` would read a `*` in the name as a pattern, and does not find keys that have one.
    name = field_name(field)
    return {"exists": {"field": name}} if is_plain(field) else {"prefix": {name: ""}}


def _range(where: Range) -> Query:
    bounds = {"gt": where.above, "gte": where.at_least, "lt": where.below, "lte": where.at_most}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    if any(math.isnan(bound) for bound in given.values()) or not is_plain(where.field):
        return NOTHING
    # Stored numbers are finite; JSON has no infinity.
    if math.inf in (where.above, where.at_least) or -math.inf in (where.below, where.at_most):
        return NOTHING
    finite = {name: bound for name, bound in given.items() if math.isfinite(bound)}
    return {"range": {number_name(where.field): finite}}


def _value(field: str, value: str) -> str:
    printable = _printable(value)
    return printable if is_plain(field) else printable.replace("\0", "\ufffd")


def _printable(text: str) -> str:
    """Put U+FFFD in place of lone surrogates, as documents have it."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _milliseconds(moment: datetime) -> int:
    # Documents have whole milliseconds: the first one that is not before the moment.
    return -(-((moment - _EPOCH) // _MICROSECOND) // 1000)
