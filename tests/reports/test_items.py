"""Items: the most viewed, the most downloaded, those of most visitors, and those that rise, on both stores."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import pytest_asyncio

from metronome.errors import InvalidQuery
from metronome.reports.items import items_report
from metronome.reports.parameters import ReportParameters
from metronome.stores.base import Store
from tests.reports.filled import BACK_ENDS, Fill, filled, told

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""All tests ask the same stores, and so share the loop that these were opened in."""

NOW: Final = datetime(2015, 1, 22, 12, tzinfo=UTC)
USES: Final = {"a": (3, 0), "b": (2, 5), "c": (0, 7), "d": (2, 1), "e": (0, 0)}
VISITORS: Final = {"a": ("v1",), "b": ("v1", "v2", "v3"), "c": ("v1", "v2"), "d": ()}
DAY: Final = "2015-01-01T12:00:00Z"
WEEKS: Final = {
    "small": (3, 9),
    "large": (30, 60),
    "new": (0, 12),
    "steady": (20, 20),
    "fading": (40, 20),
    "gone": (2, 0),
}
"""Views in the week up to the 15th at noon, and in the one since."""


def used(item: str, event: str, number: int) -> dict[str, Any]:
    """The n-th use of an item: its visitors come one after the other."""
    visitors = VISITORS.get(item)
    visitor = {"visitor": visitors[number % len(visitors)]} if visitors else {}
    return {"id": item, "ts": DAY, **visitor, **({"format": "csv"} if event == "download" else {})}


def in_week(week: int, item: str, number: int) -> dict[str, Any]:
    # A third of the new uses are downloads; half of them come at the last moment of the week, half at its first.
    begin = datetime(2015, 1, 8 + 7 * week, 12, tzinfo=UTC)
    moment = begin if number % 2 else begin + timedelta(days=7, milliseconds=-1)
    return {"id": item, "ts": moment.isoformat(), **({"format": "csv"} if week and number % 3 == 0 else {})}


EVENTS: Final[list[dict[str, Any]]] = [
    {"ts": DAY},
    {"ts": DAY, "format": "csv"},
    {"ts": DAY, "id": "e", "event": "error", "visitor": "v9"},
    {"ts": DAY, "id": "a", "bot": "x", "visitor": "v8"},
    *(used(item, "view", number) for item, (views, _) in USES.items() for number in range(views)),
    *(used(item, "download", number) for item, (_, downloads) in USES.items() for number in range(downloads)),
    *(in_week(week, item, number) for item, both in WEEKS.items() for week in (0, 1) for number in range(both[week])),
]


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, EVENTS) as store:
        yield store


def old(order: str = "", limit: int | None = 100, *, bots: bool = False) -> ReportParameters:
    return ReportParameters(end=datetime(2015, 1, 2, tzinfo=UTC), order=order, limit=limit, include_bots=bots)


def item(name: str, views: int, downloads: int, **more: int) -> dict[str, object]:
    return {"id": name, "views": views, "downloads": downloads, **more}


async def test_ranks_by_views_and_then_lists_items_with_only_downloads(store: Store) -> None:
    found = await items_report(store, old(), NOW)
    assert found == {"items": [item("a", 3, 0), item("b", 2, 5), item("d", 2, 1), item("c", 0, 7)]}
    assert await items_report(store, old("views"), NOW) == found


async def test_ranks_by_downloads(store: Store) -> None:
    found = await items_report(store, old("downloads"), NOW)
    assert found == {"items": [item("c", 0, 7), item("b", 2, 5), item("d", 2, 1), item("a", 3, 0)]}


async def test_ranks_by_visitors(store: Store) -> None:
    found = told(store, await items_report(store, old("visitors"), NOW))
    assert found == {
        "items": [
            item("b", 2, 5, visitors=3),
            item("c", 0, 7, visitors=2),
            item("a", 3, 0, visitors=1),
        ]
    }


@pytest.mark.parametrize(
    ("order", "names"), [("views", ["a", "b"]), ("downloads", ["c", "b"]), ("visitors", ["b", "c"])]
)
async def test_the_limit_keeps_the_first_items_with_both_counts(store: Store, order: str, names: list[str]) -> None:
    found = (await items_report(store, old(order, 2), NOW))["items"]
    assert [(each["id"], each["views"], each["downloads"]) for each in found] == [(name, *USES[name]) for name in names]


@pytest.mark.parametrize("order", ["views", "downloads", "visitors"])
async def test_without_a_limit_all_items_are_listed(store: Store, order: str) -> None:
    assert await items_report(store, old(order, None), NOW) == await items_report(store, old(order), NOW)


async def test_includes_bots_on_request(store: Store) -> None:
    assert (await items_report(store, old(bots=True), NOW))["items"][0] == item("a", 4, 0)
    assert (await items_report(store, old("visitors", bots=True), NOW))["items"][1] == item("a", 4, 0, visitors=2)


RISING: Final = [
    item("new", 8, 4, before=0, change=12),
    item("large", 40, 20, before=30, change=30),
    item("small", 6, 3, before=3, change=6),
    item("steady", 13, 7, before=20, change=0),
    item("gone", 0, 0, before=2, change=-2),
    item("fading", 13, 7, before=40, change=-20),
]


async def test_ranks_rising_items_by_significance_and_falling_ones_last(store: Store) -> None:
    assert await items_report(store, ReportParameters(order="rising"), NOW) == {"items": RISING}


@pytest.mark.parametrize("limit", [1, 3, None])
async def test_the_limit_keeps_the_items_that_rise_most(store: Store, limit: int | None) -> None:
    assert await items_report(store, ReportParameters(order="rising", limit=limit), NOW) == {"items": RISING[:limit]}


@pytest.mark.parametrize(
    ("start", "end"),
    [(None, NOW + timedelta(hours=12)), (NOW - timedelta(days=14), None), (NOW - timedelta(days=14), NOW)],
)
async def test_the_default_range_of_rising_items_is_two_weeks_up_to_now(
    store: Store, start: datetime | None, end: datetime | None
) -> None:
    assert await items_report(store, ReportParameters(start=start, end=end, order="rising"), NOW) == {"items": RISING}


async def test_compares_the_halves_of_the_range(store: Store) -> None:
    # The week's uses lie at its first moment and at its last one; the middle is half an hour after the first.
    start = datetime(2015, 1, 1, 13, tzinfo=UTC)
    assert await items_report(
        store, ReportParameters(start=start, end=NOW - timedelta(days=7), order="rising"), NOW
    ) == {
        "items": [
            item("small", 2, 0, before=1, change=1),
            item("fading", 20, 0, before=20, change=0),
            item("gone", 1, 0, before=1, change=0),
            item("large", 15, 0, before=15, change=0),
            item("steady", 10, 0, before=10, change=0),
        ]
    }


@pytest.mark.parametrize("start", [NOW, NOW + timedelta(days=1)])
async def test_rejects_an_empty_range_of_rising_items(store: Store, start: datetime) -> None:
    with pytest.raises(InvalidQuery, match="range of rising items is empty"):
        await items_report(store, ReportParameters(start=start, order="rising"), NOW)


async def test_compares_halves_at_the_start_of_the_calendar(store: Store) -> None:
    end = datetime(1, 1, 3, tzinfo=UTC)
    assert await items_report(store, ReportParameters(end=end, order="rising"), NOW) == {"items": []}


async def test_rejects_an_unknown_order(store: Store) -> None:
    with pytest.raises(InvalidQuery, match="invalid order=best: expected one of views, downloads, visitors, rising"):
        await items_report(store, ReportParameters(order="best"), NOW)


async def test_the_items_with_most_visitors_may_have_fewer_uses(fill: Fill) -> None:
    events = [{"ts": DAY, "id": f"item{number:03}", "visitor": "v0"} for number in range(520) for _ in range(5)]
    events += [{"ts": DAY, "id": "liked", "visitor": f"v{number}"} for number in range(4)]
    store = await fill(events)
    found = told(store, await items_report(store, old("visitors", 2), NOW))
    every = told(store, await items_report(store, old("visitors", None), NOW))
    assert found == {"items": [item("liked", 4, 0, visitors=4), item("item000", 5, 0, visitors=1)]}
    assert (len(every["items"]), every["items"][:2]) == (521, found["items"])
