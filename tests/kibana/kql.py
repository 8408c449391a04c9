"""Translate the subset of Kibana's query language that the panels use to Elasticsearch queries.

Follows Kibana's documentation of KQL: ``not`` binds closest, then ``and``, then ``or``; ``field : "value"``,
``field : ("one" or "other")``, ``field : *``, and comparisons of numbers. Anything else fails an assertion.
"""

import re
from typing import Any, Final

Query = dict[str, Any]

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<text>"[^"\\]*")|(?P<sign>>=|<=|[:()<>*])|(?P<word>[A-Za-z_@][\w.@-]*)|(?P<number>\d+))'
)
_RANGES: Final = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}


def elasticsearch_query(query: str) -> Query:
    """Return the Elasticsearch query for a KQL query; an empty one matches all events."""
    if not query.strip():
        return {"match_all": {}}
    reader = _Reader(_tokens(query))
    found = reader.any_of()
    assert reader.at_end, f"cannot parse all of {query!r}"
    return found


def fields_in(query: str) -> set[str]:
    """Return the fields that a KQL query uses."""

    def look(value: Any) -> set[str]:
        match value:
            case {"term": term} | {"range": term}:
                return {*term}
            case {"exists": {"field": field}}:
                return {field}
            case dict():
                return {field for inner in value.values() for field in look(inner)}
            case list():
                return {field for inner in value for field in look(inner)}
            case _:
                return set()

    return look(elasticsearch_query(query))


def _tokens(query: str) -> list[str]:
    found, at = [], 0
    query = query.rstrip()
    while at < len(query):
        match = _TOKEN.match(query, at)
        assert match is not None, f"cannot read {query[at:]!r} in {query!r}"
        found.append(match[0].strip())
        at = match.end()
    return found


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._tokens)

    def any_of(self) -> Query:
        found = [self._all_of()]
        while self._take("or"):
            found.append(self._all_of())
        return found[0] if len(found) == 1 else {"bool": {"should": found, "minimum_should_match": 1}}

    def _all_of(self) -> Query:
        found = [self._one()]
        while self._take("and"):
            found.append(self._one())
        return found[0] if len(found) == 1 else {"bool": {"filter": found}}

    def _one(self) -> Query:
        if self._take("not"):
            return {"bool": {"must_not": [self._one()]}}
        if self._take("("):
            inner = self.any_of()
            self._need(")")
            return inner
        field, sign = self._next(), self._next()
        assert re.fullmatch(r"[A-Za-z_@][\w.@-]*", field), f"{field} is no field"
        if sign in _RANGES:
            return {"range": {field: {_RANGES[sign]: float(self._next())}}}
        assert sign == ":", f"{sign} is no comparison"
        if self._take("*"):
            return {"exists": {"field": field}}
        if self._take("("):
            values = [self._value()]
            while self._take("or"):
                values.append(self._value())
            self._need(")")
            found: list[Query] = [{"term": {field: value}} for value in values]
            return {"bool": {"should": found, "minimum_should_match": 1}}
        return {"term": {field: self._value()}}

    def _value(self) -> str:
        text = self._next()
        assert text.startswith('"'), f"{text} is no text in quotes"
        return text[1:-1]

    def _next(self) -> str:
        assert not self.at_end, "it ends too soon"
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, token: str) -> bool:
        if not self.at_end and self._tokens[self._at] == token:
            self._at += 1
            return True
        return False

    def _need(self, token: str) -> None:
        assert self._take(token), f"{token} is missing"
