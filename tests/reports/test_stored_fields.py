"""The fields that events have, on both stores."""

from datetime import datetime
from typing import Any

import pytest

from metronome.reports.parameters import ReportParameters
from metronome.reports.stored_fields import SAMPLE_EVENTS, fields_report
from tests.reports.filled import Fill

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENTS: list[dict[str, Any]] = [
    {"ts": "2015-01-20", "id": "a", "lang": "de", "n": 1, "flag": True, "odd": 1},
    {"ts": "2015-01-21", "id": "a", "lang": "de", "n": 2.5, "user.age": 7, "odd": "x"},
    {"ts": "2015-01-22", "id": "b", "lang": "fr", "status": 200, "title": "x" * 200},
    {"ts": "2015-01-23", "id": "c", "format": "csv", "bot": "crawler"},
]


def described(report: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {field["name"]: (field["type"], field["share"], field["examples"]) for field in report["fields"]}


async def test_lists_names_types_shares_and_examples(fill: Fill) -> None:
    store = await fill(EVENTS)
    report = await fields_report(store, ReportParameters())
    assert [*report] == ["fields", "events"]
    assert report["events"] == 3
    fields = described(report)
    assert fields["id"] == ("text", 1.0, ["a", "b"])
    assert fields["lang"] == ("text", 1.0, ["de", "fr"])
    assert fields["n"] == ("number", 0.6667, ["1", "2.5"])
    assert fields["flag"] == ("boolean", 0.3333, ["true"])
    assert fields["odd"][:2] == ("mixed", 0.6667)
    assert fields["user.age"] == ("text", 0.3333, ["7"])
    assert fields["status"] == ("number", 0.3333, ["200"])
    assert fields["title"][2] == ["x" * 100]
    # Only robots have it, who are left out.
    assert fields["bot"] == ("text", 0.0, [])
    assert not fields.keys() & {"@timestamp", "@version", "params", "event.original"}
    assert [field["share"] for field in report["fields"]] == sorted(
        (field["share"] for field in report["fields"]), reverse=True
    )
    with_bots = described(await fields_report(store, ReportParameters(include_bots=True)))
    assert with_bots["bot"] == ("text", 0.25, ["crawler"])


async def test_shares_are_those_of_the_range(fill: Fill) -> None:
    store = await fill(EVENTS)
    report = await fields_report(store, ReportParameters(start=datetime.fromisoformat("2015-01-22T00:00:00Z")))
    assert report["events"] == 1
    assert described(report)["n"] == (None, 0.0, [])
    nothing = await fields_report(store, ReportParameters(start=datetime.fromisoformat("2016-01-22T00:00:00Z")))
    assert nothing["events"] == 0
    assert {field["share"] for field in nothing["fields"]} == {0.0}


async def test_of_many_events_a_sample_of_the_whole_range_is_read(fill: Fill) -> None:
    count = 2 * SAMPLE_EVENTS
    # The first half has the field, the other does not, and is the newest.
    events = [
        {"ts": 1_420_000_000 + at, "id": "a", **({"early": "x"} if at < count // 2 else {})} for at in range(count)
    ]
    report = await fields_report(await fill(events), ReportParameters())
    assert (report["exact"], report["events"], report["events_looked_at"]) == (False, count, SAMPLE_EVENTS)
    assert described(report)["early"] == ("text", 0.5, ["x"])


async def test_an_empty_store_has_no_fields(fill: Fill) -> None:
    assert await fields_report(await fill([]), ReportParameters()) == {"fields": [], "events": 0}
