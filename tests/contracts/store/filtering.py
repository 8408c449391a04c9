"""Filters: which events each lets through, whatever characters values and names have."""

from typing import Any, Final

import pytest

from metronome.stores.base import Store
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
)
from tests.contracts.store.events import StoreContract, event_document, query_rows, write_new_documents

VALUES: Final = (
    "plain",
    "PLAIN",
    "",
    " ",
    "plain ",
    "1",
    "1.0",
    "01",
    "true",
    "null",
    "*",
    "?",
    "p*",
    "p?ain",
    "%",
    "p%",
    "p_ain",
    "_lain",
    "pl.in",
    ".*",
    "[a-z]+",
    "(plain)|x",
    "^plain$",
    "~",
    "#",
    "@",
    "&&",
    "<1-9>",
    "a\\b",
    "\\",
    "\\*",
    'say "hi"',
    "it's",
    "'; DROP TABLE events; --",
    "$.a",
    "a.b",
    "{{x}}",
    "tab\tand\nline",
    "nul\0nul",
    "é",
    "e\u0301",
    "ß",
    "👍",
    "👩\u200d👩\u200d👧",
    "\u202emirror",
    "\uffff",
    "x" * 1024,
    "é" * 300,
)


class FilterTests(StoreContract):
    """Which events a filter lets through."""

    async def test_each_filter_selects_the_expected_events(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document(id="1", lang="en", n=1, **{"utm.source": "mail"}),
            event_document(id="2", lang="en-GB", n=2.5, **{"utm.source": "e-mail", "utm.*": "star"}),
            event_document(id="3", lang="EN", n=-1, **{"utm.source": ""}),
            event_document(id="4", lang="", duration=100),
            event_document(id="5", lang=None, duration="1e3", utm={"source": "mail"}),
            event_document(id="6", bot="crawler", lang=True, n=10**15),
        )
        english, source = Equals("lang", "en"), "utm.source"
        expectations: list[tuple[Filter, str]] = [
            (english, "1"),
            (Equals("lang", "true"), "6"),
            (Equals("lang", ""), "4"),
            (Equals("nothing", ""), ""),
            (Equals("n", "2.5"), "2"),
            (Equals("n", "1"), "1"),
            (Equals("n", "1.0"), ""),
            (Equals(source, "mail"), "1"),
            (Equals(source, ""), "3"),
            (Equals("utm.*", "star"), "2"),
            (OneOf("lang", ("en", "EN", "xx")), "13"),
            (OneOf("lang", ()), ""),
            (OneOf(source, ("mail", "e-mail")), "12"),
            (OneOf("id", tuple(str(number) for number in range(70_000))), "123456"),
            (Prefix("lang", "en"), "12"),
            (Prefix("lang", ""), "12346"),
            (Prefix("lang", "en-GBx"), ""),
            (Prefix(source, "e"), "2"),
            (Prefix(source, ""), "123"),
            (Prefix("nothing", ""), ""),
            (Exists("lang"), "12346"),
            (Exists("n"), "1236"),
            (Exists(source), "123"),
            (Exists("utm.*"), "2"),
            (Exists("utm"), ""),
            (Exists("nothing"), ""),
            (Exists("no.thing"), ""),
            (Not(english), "23456"),
            (Not(Exists("lang")), "5"),
            (Not(Equals(source, "mail")), "23456"),
            (Not(Equals("nothing", "x")), "123456"),
            (Not(OneOf("lang", ())), "123456"),
            (Not(Not(english)), "1"),
            (EXCLUDE_BOTS, "12345"),
            (Range("n", at_least=1), "126"),
            (Range("n", above=1), "26"),
            (Range("n", below=2.5), "13"),
            (Range("n", at_most=2.5), "123"),
            (Range("n", above=-1, at_most=2.5), "12"),
            (Range("n", at_least=10**15, at_most=10**15), "6"),
            (Range("n", above=3, below=2), ""),
            (Range("n"), "1236"),
            (Range("n", below=float("inf"), above=float("-inf")), "1236"),
            (Range("n", above=float("inf")), ""),
            (Range("n", at_most=float("nan")), ""),
            (Range("duration", at_least=100), "45"),
            (Range("duration", above=100), "5"),
            (Range("lang", at_least=0), ""),
            (Range("nothing", at_least=0), ""),
            (Range(source, at_least=0), ""),
            (Not(Range("n", at_least=1)), "345"),
            (AllOf(()), "123456"),
            (AnyOf(()), ""),
            (Not(AllOf(())), ""),
            (Not(AnyOf(())), "123456"),
            (AllOf((Prefix("lang", "en"), Exists("n"))), "12"),
            (AllOf((Prefix("lang", "en"), Not(english))), "2"),
            (AnyOf((english, Exists("bot"))), "16"),
            (AnyOf((AllOf((english, Exists("bot"))), Not(AnyOf((Exists("n"), Equals("id", "4")))))), "5"),
            (AllOf((Not(AllOf((english, Range("n", at_least=1)))), AnyOf((Exists("n"), Exists("bot"))))), "236"),
        ]
        answers = await store.query(*[Query(group_by=("id",), where=where) for where, _ in expectations])
        found = ["".join(str(row[0]) for row in answer.rows) for answer in answers]
        assert dict(zip(map(repr, [where for where, _ in expectations]), found, strict=True)) == {
            repr(where): expected for where, expected in expectations
        }
        for where, expected in (expectations[0], expectations[7], expectations[-1]):
            assert len([each async for each in store.iterate_documents(where)]) == len(expected)

    @pytest.mark.parametrize("field", ["note", "note.inside", "note * \" ' \\ é"])
    async def test_equals_and_prefix_match_special_characters_literally(self, store: Store, field: str) -> None:
        await write_new_documents(
            store, *[event_document(**{field: value}, id=f"{at:02}") for at, value in enumerate(VALUES)]
        )
        stored = [value if field == "note" else value.replace("\0", "\ufffd") for value in VALUES]
        equal = await store.query(*[Query(group_by=("id",), where=Equals(field, value)) for value in VALUES])
        assert [answer.rows for answer in equal] == [((f"{at:02}", 1),) for at in range(len(VALUES))]
        beginning = await store.query(*[Query(group_by=(field,), where=Prefix(field, value[:300])) for value in VALUES])
        assert [{row[0] for row in answer.rows} for answer in beginning] == [
            {other for other in stored if other.startswith(value[:300])} for value in stored
        ]
        assert await query_rows(store, Query(group_by=(field,))) == sorted((value, 1) for value in stored)

    async def test_filters_accept_text_that_cannot_be_stored(self, store: Store) -> None:
        await write_new_documents(store, event_document(id="1", note="x"))
        odd = ("\ud800", "x\udfff", "\0", "x" * 50_000, "\uffff" * 2_000)
        for field in ("note", "no.te", "\ud800", "", " ", "\0", "x" * 5_000, "params", "event.original", "_id"):
            asked: list[Query] = [Query(where=Equals(field, text)) for text in odd]
            asked += [Query(where=Prefix(field, text)) for text in odd]
            asked += [
                Query((Metric.parse("max:n"),), where=Exists(field)),
                Query(group_by=(field,), where=Equals("id", "2")),
            ]
            for answer in (await store.query(*asked))[:-2]:
                assert answer.rows == ((0,),)

    async def test_filters_by_event_id(self, store: Store) -> None:
        await write_new_documents(
            store, event_document(event_id="a", id="1"), event_document(event_id="b", id="2"), event_document(id="3")
        )
        asked = (
            Equals("event_id", "a"),
            OneOf("event_id", ("b", "x")),
            Exists("event_id"),
            Not(Equals("event_id", "b")),
        )
        answers = await store.query(*[Query(group_by=("id",), where=where) for where in asked])
        assert ["".join(str(row[0]) for row in answer.rows) for answer in answers] == ["1", "2", "123", "13"]

    async def test_filters_by_unusual_field_names(self, store: Store) -> None:
        names: list[str] = ["a.b", "a", "a.b.c", ".", "..", "*", "params", "params.x", "event.original", "_id", "@x"]
        names += ["x y", "é", "k" * 100, "k" * 101, "k" * 256, "a*", 'q"', "back\\slash", "a\0b", " ", "n.num", "1"]
        await write_new_documents(
            store, *[event_document(**{name: "here"}, id=f"{at:02}") for at, name in enumerate(names)]
        )
        found: list[Any] = await store.query(  # type: ignore[assignment]  # a tuple will do
            *[Query(group_by=("id", name), where=where(name)) for name in names for where in (Exists, _equals_here)]
        )
        assert [answer.rows for answer in found] == [
            ((f"{at:02}", "here", 1),) for at in range(len(names)) for _ in range(2)
        ]


def _equals_here(name: str) -> Filter:
    return Equals(name, "here")
