"""Questions in addresses: what each way of writing a filter asks for, and what is said to what cannot be read."""

from urllib.parse import quote

import pytest

from metronome.errors import RequestError
from metronome.reports.query.parse import QueryPart, parse_filter_expression, parse_query_string
from metronome.stores.query import AnyOf, Equals, Exists, Filter, Not, OneOf, Prefix, Range


@pytest.mark.parametrize(
    ("query", "filters"),
    [
        ("event=view", (Equals("event", "view"),)),
        ("event=", (Equals("event", ""),)),
        ("format=pdf&id=a&format=csv&format=pdf", (OneOf("format", ("pdf", "csv")), Equals("id", "a"))),
        ("event!=view", (Not(Equals("event", "view")),)),
        ("event!=view&event!=error", (Not(OneOf("event", ("view", "error"))),)),
        ("referer^=arcgis", (Prefix("referer", "arcgis"),)),
        ("referer%5E=a&referer^=b", (AnyOf((Prefix("referer", "a"), Prefix("referer", "b"))),)),
        ("LCP>=100&LCP<200", (Range("LCP", at_least=100, below=200),)),
        ("LCP>100&LCP<=2e2", (Range("LCP", above=100, at_most=200),)),
        ("LCP%3E=100&LCP%3C200", (Range("LCP", at_least=100, below=200),)),
        ("LCP%3E%3D-.5", (Range("LCP", at_least=-0.5),)),
        ("LCP%3E5=", (Range("LCP", above=5),)),
        ("LCP>%2B5", (Range("LCP", above=5),)),
        ("LCP=*", (Exists("LCP"),)),
        ("LCP!=*", (Not(Exists("LCP")),)),
        ("LCP=*&LCP=5", (Exists("LCP"), Equals("LCP", "5"))),
        ("a^=*", (Prefix("a", "*"),)),
        ("a=b+c%2Bd", (Equals("a", "b c+d"),)),
        ("a+b=%26%3D", (Equals("a b", "&="),)),
        ("a%3Db=c=d", (Equals("a=b", "c=d"),)),
        ("tags.color=100%", (Equals("tags.color", "100%"),)),
        ("caf\u00e9=\u00fc", (Equals("caf\u00e9", "\u00fc"),)),
        ("where=x&lmit=2", (Equals("where", "x"), Equals("lmit", "2"))),
        ("&&event=view&", (Equals("event", "view"),)),
    ],
)
def test_other_names_than_parameters_are_filters(query: str, filters: tuple[Filter, ...]) -> None:
    given = parse_query_string(query)
    assert given.filters == filters
    assert (given.lists, given.scalars) == ({}, {})


def test_parses_lists_and_scalars() -> None:
    given = parse_query_string(
        "metrics=count%2Cavg:LCP&by=id,,day&order=-count&metrics=visitors&limit=2&tz=Etc/UTC&fill&bots="
    )
    assert given.lists == {"metrics": ("count", "avg:LCP", "visitors"), "by": ("id", "day"), "order": ("-count",)}
    assert given.scalars == {"limit": "2", "tz": "Etc/UTC", "fill": "", "bots": ""}
    assert given.filters == ()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=1&limit=2", "the parameter limit is repeated"),
        ("from>=2026-01-01", "from is a parameter: write from=…"),
        ("limit!=3", "limit is a parameter"),
        ("view", "invalid filter 'view': expected name=value, or name=*"),
        (">5", "invalid filter '>5'"),
        ("LCP>", "invalid bound LCP>: expected a number, such as LCP>100"),
        ("LCP>=fast", "invalid bound LCP>=fast: expected a number, such as LCP>=100"),
        ("LCP>=1_000", "expected a number"),
        ("LCP>=0x10", "expected a number"),
        ("LCP>=nan", "expected a number"),
        ("LCP>=\u0663", "expected a number"),
        ("LCP>=1e999", "the bounds of LCP are not finite"),
        ("LCP>=1&LCP>=2", "LCP has the same bound twice"),
    ],
)
def test_rejects_invalid_parts_and_says_what_is_expected(query: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_query_string(query)
    assert said in str(caught.value)


@pytest.mark.parametrize(("query", "value"), [("a=%ff", "%FF"), ("a=%ED%A0%80", "%ED%A0%80"), ("a=\udcff", "%FF")])
def test_bytes_that_are_not_utf_8_stay_encoded(query: str, value: str) -> None:
    assert parse_query_string(query) == parse_query_string(f"a={quote(value)}")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("event=view", QueryPart("event", "=", "view")),
        ("LCP>=100", QueryPart("LCP", ">=", "100")),
        ("LCP<1=", QueryPart("LCP", "<", "1=")),
        ("a!=b=c", QueryPart("a", "!=", "b=c")),
        ("a b^=c", QueryPart("a b", "^=", "c")),
        ("view", None),
        ("=view", None),
        ("", None),
    ],
)
def test_splits_a_filter_at_its_first_operator(text: str, part: QueryPart | None) -> None:
    assert parse_filter_expression(text) == part
