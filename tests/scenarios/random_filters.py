"""Random filters: as a query string, as a JSON body, and as a predicate on documents."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from hypothesis import strategies as st

from tests.scenarios.random_events import ITEMS, TEXTS, quarters
from tests.scenarios.reference import Condition, Document, number_of, text_of

_FILTER_COUNTS: Final = st.sampled_from([0, 1, 2])


class Filter(NamedTuple):
    """A filter in both notations.

    Attributes:
        operation: field and operator; in a query string, filters with the same operation are combined.
        query_string: as a query string; None if it cannot be written as one.
        body: as JSON.
        holds: returns whether a document passes.
        fields: the names of the fields it uses.

    """

    operation: tuple[str, str]
    query_string: str | None
    body: dict[str, Any]
    holds: Condition
    fields: frozenset[str]


def _leaf(
    field: str, operator: str, query_string: str | None, body: Any, holds: Callable[[str | None], bool]
) -> Filter:
    if query_string is not None:
        query_string = quote(field, safe="") + query_string
    return Filter(
        (field, operator), query_string, {field: body}, lambda doc: holds(text_of(doc, field)), frozenset({field})
    )


@st.composite
def _is_one_of(draw: st.DrawFn, run: str) -> Filter:
    field = draw(st.sampled_from(["id", "event", "format", "p_lang", "p_flag", "p.dot", "device", "session", "bot"]))
    pool: tuple[str, ...] = TEXTS
    if field in {"id", "session"}:
        pool = tuple(f"{run}/{name}" for name in (*ITEMS, "s1", "s2"))
    elif field not in {"p_lang", "p.dot"}:
        pool = ("view", "download", "csv", "true", "false", "desktop", "script", "mine", "none")
    values = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3, unique=True))
    sign = draw(st.sampled_from(["=", "!="]))
    parts = f"&{quote(field, safe='')}".join([f"{sign}{quote(value, safe='')}" for value in values])
    # In a query string, a star matches any value.
    query_string = None if "*" in values else parts
    value: Any = values if len(values) > 1 or draw(st.booleans()) else values[0]
    if sign == "=":
        return _leaf(field, sign, query_string, value, lambda text: text in values)
    return _leaf(field, sign, query_string, {"not": value}, lambda text: text not in values)


@st.composite
def _has_prefix(draw: st.DrawFn, run: str) -> Filter:
    field = draw(st.sampled_from(["id", "p_lang", "p.dot", "referer"]))
    pool = [f"{run}/", f"{run}/a", f"{run}/0"] if field == "id" else ["", "a", "x", "exam", "😀", "<"]
    value = draw(st.sampled_from(pool))
    return _leaf(
        field, "^=", f"^={quote(value, safe='')}", {"prefix": value}, lambda text: (text or "").startswith(value)
        and text is not None
    )  # fmt: skip


@st.composite
def _exists(draw: st.DrawFn) -> Filter:
    field = draw(st.sampled_from(["id", "p_lang", "p.dot", "country", "referer", "error_group", "visitor", "bot"]))
    if draw(st.booleans()):
        return _leaf(field, "=*", "=*", {"exists": True}, lambda text: text is not None)
    return _leaf(field, "!=*", "!=*", {"exists": False}, lambda text: text is None)


@st.composite
def _in_range(draw: st.DrawFn) -> Filter:
    field = draw(st.sampled_from(["p_n", "LCP", "duration"]))
    low, high = draw(st.tuples(st.sampled_from([">", ">=", ""]), st.sampled_from(["<", "<=", ""])))
    signs = [sign for sign in (low, high) if sign] or [">="]
    bounds = {sign: draw(quarters) for sign in signs}
    name = quote(field, safe="")

    def holds(document: Document) -> bool:
        number = number_of(document, field)
        return number is not None and all(
            {">": number > bound, ">=": number >= bound, "<": number < bound, "<=": number <= bound}[sign]
            for sign, bound in bounds.items()
        )

    query_string = "&".join(f"{name}{quote(sign)}{bound}" for sign, bound in bounds.items())
    return Filter((field, "<>"), query_string, {field: bounds}, holds, frozenset({field}))


def _leaves(run: str) -> st.SearchStrategy[Filter]:
    return st.one_of(_is_one_of(run), _has_prefix(run), _exists(), _in_range())


def _nested(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    return st.one_of(
        inner.map(_negate), st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, max_size=3)).map(_join)
    )


def _negate(operand: Filter) -> Filter:
    return Filter(("", "not"), None, {"not": operand.body}, lambda doc: not operand.holds(doc), operand.fields)


def _join(operator_and_operands: tuple[str, list[Filter]]) -> Filter:
    operator, operands = operator_and_operands
    quantifier = all if operator == "and" else any
    fields = frozenset[str]().union(*(operand.fields for operand in operands))
    body = {operator: [operand.body for operand in operands]}
    return Filter(
        ("", operator), None, body, lambda doc: quantifier(operand.holds(doc) for operand in operands), fields
    )


@st.composite
def posted_filters(draw: st.DrawFn, run: str) -> list[Filter]:
    """Draw filters on the events of an example, for a JSON body."""
    filters = st.recursive(_leaves(run), _nested, max_leaves=4)
    return draw(st.lists(filters, max_size=draw(_FILTER_COUNTS)))


@st.composite
def query_string_filters(draw: st.DrawFn, run: str) -> list[Filter]:
    """Draw filters on the events of an example, for a query string."""
    filters = _leaves(run).filter(lambda drawn: drawn.query_string is not None)
    return draw(st.lists(filters, max_size=draw(_FILTER_COUNTS), unique_by=lambda drawn: drawn.operation))
