"""Pages of stored documents, from both stores."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from metronome.errors import InvalidQuery
from metronome.reports.documents import parse_document_request, read_document_page
from metronome.reports.query.names import FieldChecker
from metronome.stores.base import Store
from tests.reports.filled import Fill

NOW = datetime(2015, 2, 1, tzinfo=UTC)


async def read_all(store: Store, query: str = "", limit: int = 3) -> list[list[dict[str, Any]]]:
    pages, after = [], ""
    while True:
        request = parse_document_request(f"{query}&limit={limit}{after}", NOW)
        page = await read_document_page(store, FieldChecker(store), request, NOW)
        pages.append([orjson.loads(document) for document in page.documents])
        if page.next_page is None:
            return pages
        after = f"&after={quote(str(page.next_page))}"


def ids(pages: list[list[dict[str, Any]]]) -> list[str]:
    return [fields["event_id"] for page in pages for fields in page]


@pytest.mark.asyncio(loop_scope="module")
async def test_pages_have_each_document_once_in_order(fill: Fill) -> None:
    times = ["2014-05-01", "2015-01-01T09:00:00", "2015-01-01T09:00:00", "2015-01-20T10:00:00.250", "2015-01-31"]
    # Of one time more than a page has, and far from each other.
    events = [
        {"id": f"item {number % 2}", "event": "view", "ts": time, "event_id": f"{number:02},é"}
        for number, time in enumerate(sorted([*times, *["2015-01-10T00:00:00.001"] * 10], reverse=True))
    ]
    store = await fill(events)
    expected = [event["event_id"] for event in sorted(events, key=lambda event: (event["ts"], event["event_id"]))]
    for limit in (1, 3, 15, 100):
        pages = await read_all(store, limit=limit)
        assert ids(pages) == expected
        assert {len(page) for page in pages[:-1]} <= {limit}
    in_range = await read_all(store, "from=2015-01-01&to=2015-01-10&id=item 1")
    assert ids(in_range) == [
        event_id for event_id in expected if int(event_id[:2]) % 2 and int(event_id[:2]) not in {0, 1, 14}
    ]


@pytest.mark.asyncio(loop_scope="module")
async def test_events_of_bots_are_included_unless_they_are_left_out(fill: Fill) -> None:
    times = {"ts": "2015-01-22", "event": "view"}
    store = await fill([{**times, "event_id": "a"}, {**times, "event_id": "b", "bot": "GoogleBot"}])
    assert ids(await read_all(store)) == ["a", "b"]
    assert ids(await read_all(store, "bots=0")) == ["a"]
    assert ids(await read_all(store, "bot!=*")) == ["a"]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_empty_store_has_one_empty_page(fill: Fill) -> None:
    store = await fill([])
    assert await read_all(store) == [[]]
    assert await read_all(store, "from=2015-01-01") == [[]]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("by=id", "unknown parameter 'by'"),
        ("limit=10001", "over the maximum of 10,000"),
        ("after=x", "invalid after=x"),
        ("after=2015-01-22T09:30:00.000Z", "invalid after"),
        ("after=2015-01-22,x", "invalid after"),
        ("after=a&after=b", "repeated"),
    ],
)
def test_rejects_invalid_parameters(query: str, message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        parse_document_request(query, NOW)
