"""A question may be written in an address or in JSON, and is the same question."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, quote_plus

import orjson
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from metronome.errors import InvalidQuery, RequestError
from metronome.reports.query.parse import parse_query_json, parse_query_string
from metronome.reports.query.request import MAX_ROWS, QUERY_PARAMETERS, ParsedQuery, parse_query
from metronome.stores.query import (
    EXCLUDE_BOTS,
    AllOf,
    AnyOf,
    Equals,
    Exists,
    Filter,
    Metric,
    Not,
    OneOf,
    Prefix,
    Query,
    Range,
    SortKey,
)

NOW: Final = datetime(2026, 3, 31, 12, tzinfo=UTC)
DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS: Final = {
    "": None,
    "2026-01-01": DAY,
    "2026-01-01T02:00:00+02:00": DAY,
    "1767225600": DAY,
    "-30d": datetime(2026, 3, 1, tzinfo=UTC),
}
ENDS: Final = {"": None, "2026-01-01": datetime(2026, 1, 2, tzinfo=UTC), "-30d": datetime(2026, 3, 2, tzinfo=UTC)}


def asked_in_address(query: str) -> ParsedQuery:
    return parse_query(parse_query_string(query), NOW)


def asked_in_json(question: Any) -> ParsedQuery:
    return parse_query(parse_query_json(orjson.dumps(question)), NOW)


@dataclass
class Written:
    """A question in both ways, and what it is."""

    address: str
    body: dict[str, Any]
    question: Query
    fill: bool


TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES: Final = TEXTS.filter(lambda name: name and name not in QUERY_PARAMETERS)
NAMES_IN_ADDRESSES: Final = NAMES.filter(lambda name: not set(name) & set("!^><=,\n") and name[0] != "-")
NUMBERS: Final = st.floats(allow_nan=False, allow_infinity=False)
SIGNS: Final = {">": "above", ">=": "at_least", "<": "below", "<=": "at_most"}


@st.composite
def filters(draw: st.DrawFn, name: str, spell: Any) -> tuple[list[str], Any, Filter]:
    """Draw what is asked of one field: the parts of an address, the condition in JSON, and the filter."""
    values = draw(st.lists(TEXTS.filter(lambda text: text != "*"), min_size=1, max_size=3, unique=True))
    one_of: Filter = Equals(name, values[0]) if len(values) == 1 else OneOf(name, tuple(values))
    prefixes = tuple(Prefix(name, value) for value in values)
    in_json = values if len(values) > 1 or draw(st.booleans()) else values[0]
    bounds = draw(st.dictionaries(st.sampled_from([*SIGNS]), NUMBERS, min_size=1))
    ways: list[tuple[list[str], Any, Filter]] = [
        ([f"{spell(name)}={spell(value)}" for value in values], in_json, one_of),
        ([f"{spell(name)}!={spell(value)}" for value in values], {"not": in_json}, Not(one_of)),
        (
            [f"{spell(name)}%5E={spell(value)}" for value in values],
            {"prefix": in_json},
            prefixes[0] if len(prefixes) == 1 else AnyOf(prefixes),
        ),
        (
            [
                f"{spell(name)}{draw(st.sampled_from([sign, quote(sign, safe='=')]))}{spell(repr(number))}"
                for sign, number in bounds.items()
            ],
            bounds,
            Range(name, **{SIGNS[sign]: number for sign, number in bounds.items()}),
        ),
        ([f"{spell(name)}=*"], {"exists": True}, Exists(name)),
        ([f"{spell(name)}!=*"], {"exists": False}, Not(Exists(name))),
    ]
    chosen: tuple[list[str], Any, Filter] = draw(st.sampled_from(ways))
    return chosen


def in_body(field: str) -> str:
    """Write a field's name so that it is taken for nothing else."""
    return f"={field}" if field in {"and", "or", "not"} or field.startswith("=") else field


@st.composite
def written(draw: st.DrawFn) -> Written:
    """Draw a question."""

    def spell(text: str) -> str:
        return draw(st.sampled_from([quote, quote_plus]))(text, safe="")

    kinds = st.sampled_from(["unique", "sum", "avg", "min", "max", "p95", "p99.9", "count"])
    of_fields = st.builds(lambda kind, name: f"{kind}:{name}", kinds, NAMES_IN_ADDRESSES)
    plain = st.sampled_from(["count", "visitors", "sessions", "first", "last"])
    metrics = draw(st.lists(plain | of_fields, max_size=4, unique=True))
    units = draw(st.lists(st.sampled_from(["day", "hour", "week"]), max_size=1))
    by = draw(st.lists(NAMES_IN_ADDRESSES, max_size=3, unique=True)) + units
    named = draw(st.lists(NAMES_IN_ADDRESSES, max_size=4, unique=True))
    asked_of = [draw(filters(name, spell)) for name in named]
    texts: dict[str, Any] = {
        "from": draw(st.sampled_from([*MOMENTS])),
        "to": draw(st.sampled_from([*ENDS])),
        "tz": draw(st.sampled_from(["", "UTC"])),
        "limit": draw(st.sampled_from(["", 0, 1, 10, MAX_ROWS])),
        "offset": draw(st.sampled_from(["", 0, 7])),
        "bots": draw(st.sampled_from(["", True, False])),
        "fill": draw(st.booleans()) if units else False,
    }
    start, end = MOMENTS[texts["from"]], ENDS[texts["to"]]
    assume(start is None or end is None or start < end)
    ordered = draw(st.lists(st.sampled_from([*by, *(metrics or ["count"])]), max_size=2, unique=True))
    orders = [SortKey(column, draw(st.booleans())) for column in ordered]
    lists = {
        "metrics": metrics,
        "by": by,
        "order": [f"{'-' if order.descending else ''}{order.column}" for order in orders],
    }
    given_texts = {name: value for name, value in texts.items() if value != ""}
    parts = [
        *(f"{name}={spell(','.join(entries))}" for name, entries in lists.items()),
        *(
            f"{name}={spell(str(int(value) if isinstance(value, bool) else value))}"
            for name, value in given_texts.items()
        ),
        *(part for each, _, _ in asked_of for part in each),
    ]
    whole = tuple(each for _, _, each in asked_of)
    names = {*by, *named, *(metric.partition(":")[2] for metric in metrics)}
    if texts["bots"] is not True and not names & {"bot", "bot_kind"}:
        whole = (*whole, EXCLUDE_BOTS)
    try:
        question = Query(
            metrics=tuple(map(Metric.parse, metrics or ["count"])),
            group_by=tuple(by),
            where=AllOf(whole) if whole else None,
            start=start,
            end=end,
            sort_keys=tuple(orders),
            limit={"": 1000, 0: MAX_ROWS}.get(texts["limit"], texts["limit"]),
            offset=texts["offset"] or 0,
        )
    except InvalidQuery:
        # One name for two columns.
        reject()
    where = {in_body(name): condition for name, (_, condition, _) in zip(named, asked_of, strict=True)}
    return Written("&".join(parts), {**lists, **given_texts, "where": where}, question, texts["fill"])


@given(written())
def test_a_query_string_and_json_give_the_same_query(one: Written) -> None:
    expected = ParsedQuery(one.question, one.question.metrics, None, one.fill)
    assert asked_in_address(one.address) == expected
    assert asked_in_json(one.body) == expected


def in_json(where: Filter) -> dict[str, Any]:  # noqa: PLR0911  # one for each kind
    """Write a filter as JSON, the plain way."""
    match where:
        case Not(inner):
            return {"not": in_json(inner)}
        case AllOf(inners):
            return {"and": [in_json(inner) for inner in inners]}
        case AnyOf(inners):
            return {"or": [in_json(inner) for inner in inners]}
        case Equals(field, value):
            return {in_body(field): value}
        case OneOf(field, values):
            return {in_body(field): values}
        case Prefix(field, text):
            return {in_body(field): {"prefix": text}}
        case Exists(field):
            return {in_body(field): {"exists": True}}
        case Range(field):
            bounds = {sign: getattr(where, attribute) for sign, attribute in SIGNS.items()}
            return {in_body(field): {sign: bound for sign, bound in bounds.items() if bound is not None}}


FIELDS: Final = NAMES | st.sampled_from(["and", "or", "not", "=", "==", "=and", "where", "limit"])
LEAVES: Final = st.one_of(
    st.builds(Equals, FIELDS, TEXTS),
    st.builds(OneOf, FIELDS, st.lists(TEXTS, max_size=4, unique=True).filter(lambda all_: len(all_) != 1).map(tuple)),
    st.builds(Prefix, FIELDS, TEXTS),
    st.builds(Exists, FIELDS),
    st.builds(Range, FIELDS, at_least=NUMBERS, below=NUMBERS | st.none()),
)


def nested(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Not, inner), st.builds(AllOf, several.filter(lambda all_: len(all_) != 1)), st.builds(AnyOf, several)
    )


@given(st.recursive(LEAVES, nested, max_leaves=8).filter(lambda where: not isinstance(where, AllOf)))
def test_parses_nested_filters(where: Filter) -> None:
    body = orjson.dumps({"where": in_json(where)})
    assert parse_query_json(body).filters == (where,)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda sent: sent.decode(errors="surrogateescape")))
def test_any_query_string_is_parsed_or_rejected(query: str) -> None:
    with suppress(RequestError):
        asked_in_address(query)


SNIPPETS: Final = st.sampled_from(
    [
        *QUERY_PARAMETERS,
        "=",
        "!=",
        "^=",
        ">",
        "<",
        ">=",
        "*",
        "&",
        ",",
        "%",
        "%00",
        "%ff",
        "%ED%A0%80",
        "+",
        "1e999",
        "-1d",
        "bot",
    ]
)


@given(st.lists(SNIPPETS, max_size=30).map("".join))
def test_any_combination_of_parts_is_parsed_or_rejected(query: str) -> None:
    with suppress(RequestError):
        asked_in_address(query)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS | SNIPPETS | st.sampled_from(["not", "and", "prefix", "exists"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*QUERY_PARAMETERS, "where"]), JSON))
def test_any_json_is_parsed_or_rejected(question: dict[str, Any]) -> None:
    with suppress(RequestError):
        asked_in_json(question)


@given(st.binary(max_size=100))
def test_rejects_invalid_json(body: bytes) -> None:
    with suppress(RequestError):
        parse_query_json(body)
