"""Sampling takes the newest trails, within its bounds, on both stores."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import pytest_asyncio

from metronome.reports.parameters import ReportParameters
from metronome.reports.sample import SampleLimits, SequenceSample
from metronome.stores.base import Store
from metronome.stores.query import Equals, Exists, Filter
from tests.reports.filled import BACK_ENDS, filled

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""All tests ask the same stores, and so share the loop that these were opened in."""


def seen(session: str, at: str, item: str, **fields: Any) -> dict[str, Any]:
    return {"session": session, "visitor": f"v{session}", "ts": f"2015-01-{at}:00Z", "id": item, **fields}


EVENTS: Final = [
    # s1 begins first and ends last.
    seen("s1", "20T10:00", "a"),
    seen("s1", "22T10:00", "b"),
    seen("s2", "21T10:00", "a"),
    seen("s2", "21T10:01", "c"),
    seen("s2", "21T10:02", "a"),
    seen("s3", "21T12:00", "a"),
    seen("s4", "21T13:00", "b"),
    seen("bot", "23T10:00", "a", bot="crawler"),
    {"ts": "2015-01-23T11:00:00Z", "id": "a"},
]
ANY: Final = Exists("id")
OF_A: Final = Equals("id", "a")


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, EVENTS) as store:
        yield store


async def look(
    store: Store, touching: Filter, bounds: SampleLimits, asked: ReportParameters | None = None, key: str = "session"
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the items of each trail of a sample, and what it notes."""
    sample = SequenceSample(
        store, key, ("id",), asked or ReportParameters(), selecting=touching, included=ANY, limits=bounds
    )
    trails = {trail.key: "".join(step.values[0] or "" for step in trail.events) async for trail in sample}
    return trails, sample.completeness_fields()


@pytest.mark.parametrize(
    ("touching", "bounds", "trails", "note"),
    [
        (ANY, SampleLimits(), {"s1": "ab", "s2": "aca", "s3": "a", "s4": "b"}, None),
        # As many as there are.
        (ANY, SampleLimits(sequences=4), {"s1": "ab", "s2": "aca", "s3": "a", "s4": "b"}, None),
        (ANY, SampleLimits(sequences=2), {"s1": "ab", "s4": "b"}, 2),
        # That s1 had an event later than all others does not matter where it was not of a.
        (OF_A, SampleLimits(sequences=2), {"s2": "aca", "s3": "a"}, 2),
        (OF_A, SampleLimits(sequences=3), {"s1": "ab", "s2": "aca", "s3": "a"}, None),
        (ANY, SampleLimits(events_per_sequence=2), {"s1": "ab", "s2": "ac", "s3": "a", "s4": "b"}, 4),
        (ANY, SampleLimits(events_per_sequence=3), {"s1": "ab", "s2": "aca", "s3": "a", "s4": "b"}, None),
        # The trail that reaches the bound is whole, the next ones are left out.
        (ANY, SampleLimits(total_events=3), {"s1": "ab", "s2": "aca"}, 2),
        (ANY, SampleLimits(total_events=6), {"s1": "ab", "s2": "aca", "s3": "a"}, 3),
        (ANY, SampleLimits(total_events=7), {"s1": "ab", "s2": "aca", "s3": "a", "s4": "b"}, None),
        (ANY, SampleLimits(sequences=3, events_per_sequence=1, total_events=2), {"s1": "a", "s3": "a"}, 2),
        (Equals("id", "nothing"), SampleLimits(), {}, None),
    ],
)
async def test_a_sample_has_the_newest_sequences_within_its_limits(
    store: Store, touching: Filter, bounds: SampleLimits, trails: dict[str, str], note: int | None
) -> None:
    noted = {} if note is None else {"exact": False, "sessions_looked_at": note}
    assert await look(store, touching, bounds) == (trails, noted)


async def test_samples_visitors_the_same_way(store: Store) -> None:
    found = await look(store, ANY, SampleLimits(sequences=1), key="visitor")
    assert found == ({"vs1": "ab"}, {"exact": False, "visitors_looked_at": 1})


async def test_samples_only_the_range_and_bots_on_request(store: Store) -> None:
    noon = datetime(2015, 1, 21, 12, tzinfo=UTC)
    assert await look(store, ANY, SampleLimits(), ReportParameters(start=noon)) == (
        {"s1": "b", "s3": "a", "s4": "b"},
        {},
    )
    assert await look(store, ANY, SampleLimits(), ReportParameters(end=noon)) == ({"s1": "a", "s2": "aca"}, {})
    newest, _ = await look(store, OF_A, SampleLimits(sequences=1), ReportParameters(include_bots=True))
    assert newest == {"bot": "a"}
