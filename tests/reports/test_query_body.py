"""Questions in JSON: what each way of writing a filter asks for, and what is said to what cannot be read."""

from typing import Any

import orjson
import pytest

from metronome.errors import Malformed, PayloadTooLarge, RequestError
from metronome.reports.query.parse import QUERY_MAX_BYTES, parse_query_json
from metronome.reports.query.request import MAX_FILTER_DEPTH
from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Prefix, Range


@pytest.mark.parametrize(
    ("where", "filters"),
    [
        ({"event": "view", "id": "a"}, (Equals("event", "view"), Equals("id", "a"))),
        ({"format": ["pdf", "csv", "pdf"]}, (OneOf("format", ("pdf", "csv")),)),
        ({"format": ["pdf"]}, (Equals("format", "pdf"),)),
        ({"format": []}, (OneOf("format", ()),)),
        ({"a": 1, "b": 1.5, "c": True, "d": 10.0}, tuple(map(Equals, "abcd", ("1", "1.5", "true", "10.0")))),
        ({"a": "*"}, (Equals("a", "*"),)),
        ({"LCP": {">=": 100, "<": 200}}, (Range("LCP", at_least=100, below=200),)),
        ({"LCP": {">": 100, "not": 150}}, (Range("LCP", above=100), Not(Equals("LCP", "150")))),
        ({"referer": {"prefix": "arcgis"}}, (Prefix("referer", "arcgis"),)),
        ({"referer": {"prefix": ["a", "b"]}}, (AnyOf((Prefix("referer", "a"), Prefix("referer", "b"))),)),
        ({"x": {"exists": True}, "y": {"exists": False}}, (Exists("x"), Not(Exists("y")))),
        ({"x": {"not": "y"}}, (Not(Equals("x", "y")),)),
        ({"x": {"not": ["y", 2]}}, (Not(OneOf("x", ("y", "2"))),)),
        ({"x": {"not": {"prefix": "y", ">": 1}}}, (Not(AllOf((Range("x", above=1), Prefix("x", "y")))),)),
        ({"not": {"x": "y", "z": "w"}}, (Not(AllOf((Equals("x", "y"), Equals("z", "w")))),)),
        ({"and": [{"x": "y"}, {"z": "w"}]}, (AllOf((Equals("x", "y"), Equals("z", "w"))),)),
        ({"or": [{"x": "y"}, {"z": "w"}]}, (AnyOf((Equals("x", "y"), Equals("z", "w"))),)),
        ({"or": []}, (AnyOf(()),)),
        ({"=not": "x", "=or": {"exists": True}, "==": 1}, (Equals("not", "x"), Exists("or"), Equals("=", "1"))),
        ({"limit": 3, "from": "x"}, (Equals("limit", "3"), Equals("from", "x"))),
        ({}, ()),
        (None, ()),
    ],
)
def test_parses_where_as_filters(where: Any, filters: tuple[Filter, ...]) -> None:
    assert parse_query_json(orjson.dumps({"where": where})).filters == filters


def test_parses_lists_and_scalars() -> None:
    given = parse_query_json(
        b'{"metrics":["count","avg:a,b"],"by":"id,day","order":[],"from":1767225600,"to":null,"limit":2,"fill":true,'
        b'"bots":false}'
    )
    assert given.lists == {"metrics": ("count", "avg:a,b"), "by": ("id", "day"), "order": ()}
    assert given.scalars == {"from": "1767225600", "limit": "2", "fill": "1", "bots": "0"}


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ([], "invalid query: expected a JSON object"),
        (
            {"metric": ["count"]},
            "unknown key 'metric' in the query (did you mean metrics?): expected one of metrics",
        ),
        ({"metrics": 1}, 'invalid metrics: expected a list of texts, {"metrics": ["…"]}'),
        ({"by": ["id", 1]}, "invalid by: expected a list of texts"),
        ({"limit": [1]}, "invalid limit [1]: expected a text or a number"),
        ({"limit": True}, "invalid limit true"),
        ({"where": []}, 'invalid filter []: expected an object such as {"event": "view"}'),
        ({"where": {"or": {}}}, 'invalid "or": expected a list'),
        ({"where": {"or": ["x"]}}, 'invalid filter "x"'),
        ({"where": {"not": "x"}}, 'invalid filter "x"'),
        (
            {"where": {"x": None}},
            'invalid value null of x: expected a text, a number, true, false, or a list of these; use {"e',
        ),
        ({"where": {"x": [[1]]}}, "invalid value [[1]] of x"),
        ({"where": {"x": {}}}, "invalid filter {} of x: expected an object with some of '>', '>='"),
        ({"where": {"x": {"=": 1}}}, 'invalid filter {"=":1} of x'),
        ({"where": {"x": {"prefix": "a", "like": "b"}}}, "of x: expected an object"),
        ({"where": {"x": {">": "5"}}}, 'invalid ">" "5" of x: expected a number'),
        ({"where": {"x": {">": True}}}, 'invalid ">" true of x: expected a number'),
        ({"where": {"x": {"exists": 1}}}, 'invalid "exists" 1 of x: expected true or false'),
    ],
)
def test_rejects_invalid_parts_and_says_what_is_expected(question: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_query_json(orjson.dumps(question))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


def deep(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"x": "y"}
    for _ in range(levels):
        where = {"not": where}
    return {"where": where}


def test_rejects_filters_nested_too_deep() -> None:
    parse_query_json(orjson.dumps(deep(MAX_FILTER_DEPTH)))
    for question in (deep(MAX_FILTER_DEPTH + 1), deep(200)):
        with pytest.raises(RequestError, match="levels deep"):
            parse_query_json(orjson.dumps(question))


@pytest.mark.parametrize(
    "body",
    [
        *(
            b'{"where":' + opening * levels + closing * levels + b"}"
            for levels in (300, 1000, 100_000)
            for opening, closing in ((b"[", b"]"), (b'{"not":', b"}"), (b'{"x":{"not":', b"}}"))
        ),
        b'{"where":{"x":' + b"[" * 900 + b"]" * 900 + b"}}",
    ],
)
def test_rejects_unlimited_nesting(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_query_json(body)


@pytest.mark.parametrize("body", [b"", b"{", b"by=id", b"\xff", b'{"by":"\\ud800"}', b"NaN", b'{"limit":1}x'])
def test_rejects_invalid_json(body: bytes) -> None:
    with pytest.raises(Malformed, match="invalid JSON"):
        parse_query_json(body)


def test_rejects_a_very_large_body() -> None:
    with pytest.raises(PayloadTooLarge, match="1,048,576 bytes"):
        parse_query_json(b'{"by":"id"' + b" " * QUERY_MAX_BYTES + b"}")
