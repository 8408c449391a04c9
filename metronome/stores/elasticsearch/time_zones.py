"""Time zones of Elasticsearch: its Java brings zones of its own, which may be older than Metronome's.

Where governments have changed clocks since, days that Elasticsearch counts begin at other times than those that
Metronome asks for. So the clocks are compared when a zone is first used.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog

from metronome.stores.elasticsearch.queries import MATCH_NONE, SearchBody, java_zone
from metronome.stores.query import TIME_UNITS, Query
from metronome.times import from_milliseconds

_PROBED_YEARS: Final = range(-10, 2)
"""The years before and after the current one in which clocks are compared."""
_MONTHS: Final = range(1, 13)
_PROBES_AGGREGATION: Final = "probes"
_TOLERANCE: Final = timedelta(seconds=1)

log = structlog.get_logger()


class TimeZoneCheck:
    """Remembers which time zones of Elasticsearch are right."""

    def __init__(self) -> None:
        self._is_right: dict[str, bool] = {}

    def unchecked(self, queries: Sequence[Query]) -> list[str]:
        """Return the time zones that queries group by and that have not been checked."""
        return sorted({query.time_zone for query in queries if _groups_by_local_time(query)} - self._is_right.keys())

    def add_response(self, zone: str, probes: Sequence[datetime], response: Mapping[str, Any]) -> None:
        """Read the response to `build_probe_search`; log a warning if the clocks differ."""
        buckets = response.get("aggregations", {}).get(_PROBES_AGGREGATION, {}).get("buckets")
        if buckets is None:
            # Without an index, nothing is searched.
            return
        self._is_right[zone] = has_same_clock(zone, buckets, probes)
        if not self._is_right[zone]:
            log.warning(
                "time_zone_outdated",
                zone=zone,
                advice="Elasticsearch's Java has older rules for this zone: update it; until then, results by days of "
                "the zone are marked as not exact",
            )

    def is_right(self, query: Query) -> bool:
        """Return whether Elasticsearch's clocks are right for a query, as far as that is known."""
        return not _groups_by_local_time(query) or self._is_right.get(query.time_zone, True)


def _groups_by_local_time(query: Query) -> bool:
    return query.time_zone != "UTC" and not {*TIME_UNITS}.isdisjoint(query.group_by)


def list_probes(now: datetime) -> list[datetime]:
    """Return the local times at which clocks are compared, around a time."""
    return [datetime(now.year + year, month, 15, 12) for year in _PROBED_YEARS for month in _MONTHS]  # noqa: DTZ001  # of any zone


def build_probe_search(zone: str, probes: Sequence[datetime]) -> SearchBody:
    """Return the search that converts local times: the start of each range of an aggregation is one."""
    ranges = [{"from": probe.isoformat()} for probe in probes]
    aggregation = {"field": "@timestamp", "time_zone": java_zone(zone), "ranges": ranges}
    return {
        "size": 0,
        "track_total_hits": False,
        "query": MATCH_NONE,
        "aggs": {_PROBES_AGGREGATION: {"date_range": aggregation}},
    }


def has_same_clock(name: str, buckets: Sequence[Mapping[str, Any]], probes: Sequence[datetime]) -> bool:
    """Return whether Elasticsearch's clocks show the local times at the same moments as Metronome's.

    Args:
        name: of the time zone.
        buckets: in the response to `build_probe_search`.
        probes: the local times.

    """
    zone = ZoneInfo(name)
    found = sorted(from_milliseconds(bucket["from"]) for bucket in buckets)
    expected = sorted(probe.replace(tzinfo=zone).astimezone(UTC) for probe in probes)
    return len(found) == len(expected) and all(
        abs(moment - other) < _TOLERANCE for moment, other in zip(found, expected, strict=True)
    )
