"""Random filters, written as in an address and as in a body, and as a plain function of a document."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from hypothesis import strategies as st

from tests.scenarios.counting import Condition, Document, number_of, text_of
from tests.scenarios.random_events import ITEMS, TEXTS, quarters

_FEW: Final = st.sampled_from([0, 1, 2])


class Filter(NamedTuple):
    """One filter, written in both ways.

    Attributes:
        way: what is asked of which field: in an address, filters of the same way are put together.
        address: as it stands in an address; None where it cannot.
        body: as it stands in a body.
        holds: whether it lets a document through.
        fields: of which it asks something.

    """

    way: tuple[str, str]
    address: str | None
    body: dict[str, Any]
    holds: Condition
    fields: frozenset[str]


def _leaf(field: str, way: str, address: str | None, body: Any, holds: Callable[[str | None], bool]) -> Filter:
    written = None if address is None else quote(field, safe="") + address
    return Filter((field, way), written, {field: body}, lambda doc: holds(text_of(doc, field)), frozenset({field}))


@st.composite
def _one_of(draw: st.DrawFn, run: str) -> Filter:
    field = draw(st.sampled_from(["id", "event", "format", "p_lang", "p_flag", "p.dot", "device", "session", "bot"]))
    pool: tuple[str, ...] = TEXTS
    if field in {"id", "session"}:
        pool = tuple(f"{run}/{one}" for one in (*ITEMS, "s1", "s2"))
    elif field not in {"p_lang", "p.dot"}:
        pool = ("view", "download", "csv", "true", "false", "desktop", "script", "mine", "none")
    values = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3, unique=True))
    sign = draw(st.sampled_from(["=", "!="]))
    parts = f"&{quote(field, safe='')}".join([f"{sign}{quote(value, safe='')}" for value in values])
    # In an address, a star asks for any value.
    address = None if "*" in values else parts
    listed: Any = values if len(values) > 1 or draw(st.booleans()) else values[0]
    if sign == "=":
        return _leaf(field, sign, address, listed, lambda text: text in values)
    return _leaf(field, sign, address, {"not": listed}, lambda text: text not in values)


@st.composite
def _begins(draw: st.DrawFn, run: str) -> Filter:
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
def _within(draw: st.DrawFn) -> Filter:
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

    address = "&".join(f"{name}{quote(sign)}{bound}" for sign, bound in bounds.items())
    return Filter((field, "<>"), address, {field: bounds}, holds, frozenset({field}))


def _leaves(run: str) -> st.SearchStrategy[Filter]:
    return st.one_of(_one_of(run), _begins(run), _exists(), _within())


def _nested(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    return st.one_of(
        inner.map(_negated), st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, max_size=3)).map(_joined)
    )


def _negated(one: Filter) -> Filter:
    return Filter(("", "not"), None, {"not": one.body}, lambda doc: not one.holds(doc), one.fields)


def _joined(given: tuple[str, list[Filter]]) -> Filter:
    how, inner = given
    quantified = all if how == "and" else any
    fields = frozenset[str]().union(*(one.fields for one in inner))
    body = {how: [one.body for one in inner]}
    return Filter(("", how), None, body, lambda doc: quantified(one.holds(doc) for one in inner), fields)


@st.composite
def posted_filters(draw: st.DrawFn, run: str) -> list[Filter]:
    """Draw filters about the events of an example, as a body may have them."""
    filters = st.recursive(_leaves(run), _nested, max_leaves=4)
    return draw(st.lists(filters, max_size=draw(_FEW)))


@st.composite
def filters_in_an_address(draw: st.DrawFn, run: str) -> list[Filter]:
    """Draw filters about the events of an example, as an address may have them."""
    filters = _leaves(run).filter(lambda one: one.address is not None)
    return draw(st.lists(filters, max_size=draw(_FEW), unique_by=lambda one: one.way))
