"""Tock: an item's views by day, downloads by format, and referers of both."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.event import DocumentContext, Event, build_document
from metronome.reports.parameters import ReportParameters
from metronome.reports.tock import MAX_ITEMS, several_tocks_report, tock_report
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.query import Query, QueryResult

DOOR = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
EVENTS: list[dict[str, Any]] = [
    {"id": "doc1", "ts": "2015-01-20T23:30:00Z", "referer": "arcgis.com"},
    {"id": "doc1", "ts": "2015-01-22T00:30:00Z", "referer": "https://www.arcgis.com/"},
    {"id": "doc1", "ts": "2015-01-22T09:30:00Z", "referer": "https://news.example/a?b=c"},
    {"id": "doc1", "ts": "2015-01-22T10:00:00Z"},
    {"id": "doc1", "ts": "2015-01-22T11:00:00Z", "bot": "Googlebot", "referer": "google.com"},
    {"id": "doc1", "ts": "2015-01-21T10:00:00Z", "format": "KML", "referer": "arcgis.com"},
    {"id": "doc1", "ts": "2015-01-21T10:00:00Z", "format": "kml"},
    {"id": "doc1", "ts": "2015-01-21T10:00:00Z", "format": "csv"},
    {"id": "doc1", "ts": "2015-01-21T10:00:00Z", "event": "error", "referer": "broken.example"},
    {"id": "doc1/data", "ts": "2015-01-22T10:00:00Z"},
    {"id": 7, "ts": "2015-01-22T10:00:00Z"},
    {"ts": "2015-01-22T10:00:00Z", "referer": "arcgis.com"},
]


class Estimating(DuckDBStore):
    """A store that does not vouch for its answers."""

    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        return tuple(replace(answer, exact=False) for answer in await super().query(*queries))


async def filled(store: Store) -> Store:
    await store.setup()
    lines = [build_document(Event(fields), DOOR, str(number)) for number, fields in enumerate(EVENTS)]
    await store.write(DocumentBatch.from_documents(lines))
    return store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await filled(DuckDBStore(tmp_path))
    yield store
    await store.close()


async def test_days_are_newest_first_and_rankings_most_frequent_first(store: Store) -> None:
    found = await tock_report(store, "doc1", ReportParameters())
    assert found == {
        "views": {"2015-01-22": 3, "2015-01-20": 1},
        "downloads": {"kml": 2, "csv": 1},
        "referers": {"arcgis.com": 3, "news.example/a": 1},
        "totals": {"views": 4, "downloads": 3},
    }
    assert [list(found[name]) for name in ("views", "downloads", "referers")] == [
        ["2015-01-22", "2015-01-20"],
        ["kml", "csv"],
        ["arcgis.com", "news.example/a"],
    ]


async def test_an_unknown_item_has_empty_results(store: Store) -> None:
    assert await tock_report(store, "doc", ReportParameters()) == {
        "views": {},
        "downloads": {},
        "referers": {},
        "totals": {"views": 0, "downloads": 0},
    }


@pytest.mark.parametrize("item", ["doc1/data", "7"])
async def test_accepts_any_item_id(store: Store, item: str) -> None:
    assert (await tock_report(store, item, ReportParameters()))["views"] == {"2015-01-22": 1}


async def test_includes_bots_on_request(store: Store) -> None:
    found = await tock_report(store, "doc1", ReportParameters(include_bots=True))
    assert found["views"] == {"2015-01-22": 4, "2015-01-20": 1}
    assert found["referers"]["google.com"] == 1


async def test_days_are_those_of_the_time_zone(store: Store) -> None:
    found = await tock_report(store, "doc1", ReportParameters(tz="America/New_York"))
    assert found["views"] == {"2015-01-22": 2, "2015-01-21": 1, "2015-01-20": 1}


@pytest.mark.parametrize(
    ("interval", "views"),
    [
        ("hour", {f"2015-01-{hour}:00:00Z": 1 for hour in ("22T10", "22T09", "22T00", "20T23")}),
        ("week", {"2015-01-19": 4}),
        ("month", {"2015-01": 4}),
    ],
)
async def test_counts_views_by_any_interval(store: Store, interval: str, views: dict[str, int]) -> None:
    assert (await tock_report(store, "doc1", ReportParameters(interval=interval)))["views"] == views


async def test_the_range_applies_to_all_parts(store: Store) -> None:
    asked = ReportParameters(
        start=datetime.fromisoformat("2015-01-21T10:00:00Z"), end=datetime.fromisoformat("2015-01-22T09:30:00Z")
    )
    assert await tock_report(store, "doc1", asked) == {
        "views": {"2015-01-22": 1},
        "downloads": {"kml": 2, "csv": 1},
        "referers": {"arcgis.com": 2},
        "totals": {"views": 1, "downloads": 3},
        "partial": ["2015-01-22"],
    }


async def test_the_limit_applies_to_rankings_but_not_to_days(store: Store) -> None:
    assert await tock_report(store, "doc1", ReportParameters(limit=1)) == {
        "views": {"2015-01-22": 3, "2015-01-20": 1},
        "downloads": {"kml": 2},
        "referers": {"arcgis.com": 3},
        # Whatever the limit.
        "totals": {"views": 4, "downloads": 3},
    }


async def test_totals_count_downloads_without_a_format(store: Store) -> None:
    line = build_document(Event({"id": "doc2", "ts": "2015-01-22", "event": "download"}), DOOR, "without")
    await store.write(DocumentBatch.from_documents([line]))
    found = await tock_report(store, "doc2", ReportParameters())
    assert (found["downloads"], found["totals"]) == ({}, {"views": 0, "downloads": 1})


async def test_reports_several_items_at_once(store: Store) -> None:
    found = await several_tocks_report(store, ("7", "never", "7"), "doc1", ReportParameters(limit=1))
    assert list(found) == ["items", "totals"]
    assert list(found["items"]) == ["7", "never", "doc1", "doc1/data"]
    for item, tock in found["items"].items():
        assert tock == await tock_report(store, item, ReportParameters(limit=1))
        assert list(tock["views"]) == sorted(tock["views"], reverse=True)
    assert found["totals"] == {"views": 6, "downloads": 3}
    by_hour = await several_tocks_report(store, ("doc1",), "", ReportParameters(interval="hour", tz="Asia/Tokyo"))
    assert by_hour["items"]["doc1"] == await tock_report(
        store, "doc1", ReportParameters(interval="hour", tz="Asia/Tokyo")
    )


async def test_units_of_several_items_may_be_incomplete(store: Store) -> None:
    asked = ReportParameters(start=datetime.fromisoformat("2015-01-22T09:30:00Z"))
    assert (await several_tocks_report(store, (), "doc", asked))["partial"] == ["2015-01-22"]


@pytest.mark.parametrize(
    ("items", "prefix", "message"),
    [
        ((), "", "which items?"),
        (tuple(map(str, range(MAX_ITEMS + 1))), "", "1,001 items are over the maximum"),
        ((), "x" * 501, "is over 500 bytes"),
    ],
)
async def test_a_choice_of_items_that_is_invalid_is_rejected(
    store: Store, items: tuple[str, ...], prefix: str, message: str
) -> None:
    with pytest.raises(InvalidQuery) as raised:
        await several_tocks_report(store, items, prefix, ReportParameters())
    assert message in str(raised.value)


async def test_too_many_items_with_a_prefix_are_rejected(store: Store) -> None:
    lines = [
        build_document(Event({"id": f"many/{at}", "ts": "2015-01-22"}), DOOR, f"many-{at}")
        for at in range(MAX_ITEMS + 1)
    ]
    await store.write(DocumentBatch.from_documents(lines))
    with pytest.raises(QueryTooExpensive) as raised:
        await several_tocks_report(store, (), "many/", ReportParameters())
    assert "use a longer prefix" in str(raised.value)


async def test_estimates_are_marked(tmp_path: Path) -> None:
    store = await filled(Estimating(tmp_path))
    assert (await tock_report(store, "doc1", ReportParameters()))["exact"] is False
    await store.close()
