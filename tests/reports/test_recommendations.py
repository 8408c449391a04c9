"""Recommendations: a hand-made set whose answer is known, on both stores."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, Final

import pytest
import pytest_asyncio

from metronome.reports.log_likelihood import association_score
from metronome.reports.parameters import ReportParameters
from metronome.reports.recommendations import MAX_ITEMS_PER_VISITOR, recommendations_report
from metronome.reports.sample import SampleLimits
from metronome.stores.base import Store
from tests.reports.filled import BACK_ENDS, Fill, filled, told

LIMITS = SampleLimits()

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""All tests ask the same stores, and so share the loop that these were opened in."""

EVERYBODY: Final = range(40)
SEEN: Final[dict[str, list[int]]] = {
    "home": list(EVERYBODY),
    "x": list(range(10)),
    # Eight of the ten who saw x, and two others.
    "twin": [*range(8), 20, 21],
    # As many of them, but half of all others, too.
    "popular": [*range(8), *range(20, 35)],
    # Fewer than five of them.
    "rare": list(range(4)),
    # As by chance: a quarter of those who saw x and of those who did not is not to be had, a half is.
    "chance": [*range(5), *range(10, 25)],
    # Five of them, and all others.
    "avoided": [*range(5), *range(10, 40)],
}
"""Which of forty visitors saw what."""
FILES: Final = [{"id": "file", "format": "csv", "visitor": f"v{number}"} for number in range(6)]
"""Of the ten who saw x, six downloaded it, and nobody else."""
BOTS: Final = [{"id": item, "visitor": f"b{number}", "bot": "crawler"} for number in range(9) for item in ("x", "trap")]
NOBODY: Final = [{"id": "x"}, {"visitor": "v98"}, {"id": "x", "visitor": "v99", "event": "error"}]
"""None of these is a visitor who sees an item."""
EVENTS: Final[list[dict[str, Any]]] = [
    *(
        {"ts": f"2015-01-22T10:{visitor:02}:00Z", "id": item, "visitor": f"v{visitor}"}
        for item, visitors in SEEN.items()
        for visitor in visitors
    ),
    *({"ts": "2015-01-22T11:00:00Z", **fields} for fields in (*FILES, *BOTS, *NOBODY)),
]


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, EVENTS) as store:
        yield store


def recommended(item: str, visitors: int, score: float) -> dict[str, Any]:
    return {"id": item, "score": score, "visitors": visitors}


async def test_recommends_items_of_the_same_visitors_but_not_those_of_everyone(store: Store) -> None:
    found = told(store, await recommendations_report(store, "x", ReportParameters()))
    # By hand, of the tables 6 4 0 30, 8 2 2 28 and 8 2 15 15: visitors of both, only x, only the other, neither.
    assert found == {
        "items": [
            recommended("file", 6, 20.3565),
            recommended("twin", 8, 20.283),
            recommended("popular", 8, 2.9515),
        ]
    }


async def test_scores_are_symmetric(store: Store) -> None:
    of_x, of_twin = [
        {each["id"]: each["score"] for each in (await recommendations_report(store, item, ReportParameters()))["items"]}
        for item in ("x", "twin")
    ]
    assert of_x["twin"] == of_twin["x"]


@pytest.mark.parametrize("item", ["rare", "never", "trap"])
async def test_items_with_few_visitors_have_no_recommendations(store: Store, item: str) -> None:
    assert await recommendations_report(store, item, ReportParameters()) == {"items": []}


async def test_the_minimum_applies_to_visitors_and_to_shared_visitors(store: Store) -> None:
    assert "rare" in [each["id"] for each in (await recommendations_report(store, "x", ReportParameters(), 4))["items"]]
    assert [each["id"] for each in (await recommendations_report(store, "x", ReportParameters(), 7))["items"]] == [
        "twin",
        "popular",
    ]
    assert await recommendations_report(store, "x", ReportParameters(), 11) == {"items": []}
    assert (await recommendations_report(store, "rare", ReportParameters(), 4))["items"][0]["id"] == "file"


async def test_the_limit_keeps_the_highest_scores(store: Store) -> None:
    every = (await recommendations_report(store, "x", ReportParameters(limit=None)))["items"]
    assert (await recommendations_report(store, "x", ReportParameters(limit=1)))["items"] == every[:1]


async def test_only_events_in_the_range_count(store: Store) -> None:
    start, end = (datetime(2015, 1, 22, hour, minute, tzinfo=UTC) for hour, minute in ((10, 3), (10, 40)))
    found = told(store, await recommendations_report(store, "x", ReportParameters(start=start, end=end)))
    # v3 to v39: seven saw x, five of them the twin, as two others did.
    assert found["items"][0] == recommended("twin", 5, round(association_score(5, 7, 7, 37), 4))
    assert "file" not in [each["id"] for each in found["items"]]


async def test_excludes_bots_by_default(store: Store) -> None:
    found = await recommendations_report(store, "x", ReportParameters(include_bots=True))
    assert found["items"][0] == recommended("trap", 9, round(association_score(9, 19, 9, 49), 4))


async def test_pairs_of_all_items_equal_those_of_a_naive_count(store: Store) -> None:
    seen = {item: set(visitors) for item, visitors in SEEN.items()} | {"file": set(range(6))}
    counted = [
        {"items": [one, other], "score": round(score, 4), "visitors": len(seen[one] & seen[other])}
        for one, other in combinations(sorted(seen), 2)
        if len(seen[one] & seen[other]) >= 5
        for score in (
            association_score(len(seen[one] & seen[other]), len(seen[one]), len(seen[other]), len(EVERYBODY)),
        )
        if score > 0
    ]
    counted.sort(key=lambda pair: (-float(str(pair["score"])), pair["items"]))
    found = told(store, await recommendations_report(store, None, ReportParameters()))
    assert found == {"pairs": counted}
    assert found["pairs"][:3] == [
        {"items": ["file", "twin"], "score": 20.3565, "visitors": 6},
        {"items": ["file", "x"], "score": 20.3565, "visitors": 6},
        {"items": ["twin", "x"], "score": 20.283, "visitors": 8},
    ]
    assert told(store, await recommendations_report(store, None, ReportParameters(limit=1))) == {"pairs": counted[:1]}


async def test_omits_pairs_of_few_visitors(store: Store) -> None:
    pairs = (await recommendations_report(store, None, ReportParameters(), 11))["pairs"]
    assert all(pair["visitors"] >= 11 for pair in pairs)
    assert (await recommendations_report(store, None, ReportParameters(), 41)) == {"pairs": []}


OLDER: Final = 30
"""Visitors before the newest 5,000 that saw x."""


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def crowd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    """More visitors than are looked at: the older ones saw *then* beside x, every tenth of the newer ones *now*."""
    events: list[dict[str, Any]] = []
    for number in range(LIMITS.sequences + OLDER):
        day = "2015-01-21" if number < OLDER else "2015-01-22"
        fields = {"ts": f"{day}T10:{number % 60:02}:00Z", "visitor": f"v{number}"}
        events.append({"id": "x", **fields})
        if number < OLDER:
            events.append({"id": "then", **fields})
        elif number % 10 == 0:
            events.append({"id": "now", **fields})
    # Those who did not see x: before, all of them saw *now*; since, one in two hundred.
    for number in range(400):
        other = {"visitor": f"o{number}"}
        events.append({"id": "now", "ts": "2015-01-20T10:00:00Z", **other})
        events.append({"id": "now" if number < 2 else "else", "ts": "2015-01-22T12:00:00Z", **other})
    async with filled(request.param, request, tmp_path_factory, events) as store:
        yield store


async def test_a_sample_is_compared_with_visitors_of_the_same_period(crowd: Store) -> None:
    # Of thousands of visitors, Elasticsearch's estimate is a few off.
    score = pytest.approx(association_score(500, 5000, 502, 5400), rel=0.01)
    assert await recommendations_report(crowd, "x", ReportParameters()) == {
        "items": [{"id": "now", "score": score, "visitors": 500}],
        "exact": False,
        "visitors_looked_at": 5000,
    }


async def test_pairs_are_counted_among_the_newest_visitors(crowd: Store) -> None:
    found = await recommendations_report(crowd, None, ReportParameters())
    assert (found["exact"], found["visitors_looked_at"]) == (False, 5000)
    # The newest are the 400 that did not see x, and 4,600 of the others.
    assert "then" not in {item for pair in found["pairs"] for item in pair["items"]}


async def test_only_the_last_items_of_a_visitor_form_pairs(fill: Fill) -> None:
    seen = [*(f"item{number}" for number in range(MAX_ITEMS_PER_VISITOR - 1)), "one", "other"]
    events = [
        {"ts": f"2015-01-22T10:{at:02}:00Z", "id": item, "visitor": visitor}
        for visitor in ("a", "b", "c")
        for at, item in enumerate(seen)
    ]
    events += [{"ts": "2015-01-22T10:00:00Z", "id": "else", "visitor": f"v{number}"} for number in range(3)]
    store = await fill(events)
    found = await recommendations_report(store, None, ReportParameters(limit=None), 3)
    assert found["exact"] is False
    assert len(found["pairs"]) == MAX_ITEMS_PER_VISITOR * (MAX_ITEMS_PER_VISITOR - 1) // 2
    assert "item0" not in {item for pair in found["pairs"] for item in pair["items"]}


async def test_one_person_on_two_days_is_not_two_people(fill: Fill) -> None:
    def used(day: int, visitor: str, *items: str) -> list[dict[str, Any]]:
        return [
            {"id": item, "ts": f"2015-01-{day:02}T10:00:0{at}Z", "visitor": visitor} for at, item in enumerate(items)
        ]

    others = [event for number in range(20) for event in used(20, f"other {number}", "c")]
    one_person = [*used(20, "a", "a", "b"), *used(21, "b", "a", "b")]
    store = await fill([*others, *one_person])
    assert (await recommendations_report(store, None, ReportParameters(), 2))["pairs"] == []
    assert (await recommendations_report(store, "a", ReportParameters(), 2))["items"] == []
    store = await fill([*others, *one_person, *used(21, "c", "a", "b")])
    assert [
        pair["visitors"] for pair in (await recommendations_report(store, None, ReportParameters(), 2))["pairs"]
    ] == [3]
    assert [
        item["visitors"] for item in (await recommendations_report(store, "a", ReportParameters(), 2))["items"]
    ] == [3]
