"""Elasticsearch's time zones may be older than Metronome's: then results by days are not exact."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from metronome.stores.elasticsearch.time_zones import TimeZoneCheck, build_probe_search, has_same_clock, list_probes
from metronome.stores.query import Query
from metronome.times import to_milliseconds
from tests.reports.filled import BACK_ENDS, filled

PROBES = list_probes(datetime(2026, 12, 1, tzinfo=UTC))
DAYS = Query(group_by=("day",), time_zone="Europe/Zurich")


def buckets_of(zone: str) -> list[dict[str, float]]:
    return [{"from": to_milliseconds(probe.replace(tzinfo=ZoneInfo(zone)))} for probe in PROBES]


def test_compares_each_month_of_ten_years_and_the_next() -> None:
    assert len(PROBES) == 12 * 12
    assert (PROBES[0].year, PROBES[-1].year) == (2016, 2027)
    ranges = build_probe_search("EST", PROBES)["aggs"]["probes"]["date_range"]["ranges"]
    assert ranges[0] == {"from": "2016-01-15T12:00:00"}


@pytest.mark.parametrize("zone", ["Europe/Zurich", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"])
def test_a_zone_is_right_if_all_its_clocks_are(zone: str) -> None:
    assert has_same_clock(zone, buckets_of(zone), PROBES)
    assert not has_same_clock(zone, buckets_of("Africa/Casablanca"), PROBES)
    assert not has_same_clock(zone, [], PROBES)


def test_each_zone_is_checked_once_and_a_wrong_one_logged() -> None:
    check = TimeZoneCheck()
    others = [Query(group_by=("day",)), Query(group_by=("id",), time_zone="Asia/Tokyo")]
    assert check.unchecked([DAYS, *others]) == ["Europe/Zurich"]
    check.add_response("Europe/Zurich", PROBES, {})
    assert check.unchecked([DAYS]) == ["Europe/Zurich"]
    with capture_logs() as logs:
        check.add_response("Europe/Zurich", PROBES, {"aggregations": {"probes": {"buckets": buckets_of("Asia/Tokyo")}}})
    assert [(entry["event"], entry["zone"]) for entry in logs] == [("time_zone_outdated", "Europe/Zurich")]
    assert check.unchecked([DAYS]) == []
    assert [check.is_right(query) for query in (DAYS, *others)] == [False, True, True]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("back_end", BACK_ENDS)
async def test_days_of_usual_zones_are_exact_on_both_stores(
    back_end: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with filled(back_end, request, tmp_path_factory, [{"ts": "2015-01-22T23:30:00Z", "id": "a"}]) as store:
        for _ in range(2):
            (result,) = await store.query(DAYS)
            assert (result.rows, result.exact) == ((("2015-01-23", 1),), True)
