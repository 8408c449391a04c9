"""The values of a field whose newest events are newest: pure functions.

Elasticsearch finds them in one search, but that looks at every event. The newest ones lie within the newest days, so
days are counted first, which is quick, and then as many of them searched as should be enough; if they were not,
four times as many.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from metronome.errors import Unaskable
from metronome.event import is_plain
from metronome.question import AllOf, Exists, Filter
from metronome.stores.elasticsearch.filters import group_name, query_of

Body = dict[str, Any]

EVENTS_EACH: Final = 8
"""How many events one value has, at a first guess."""
MORE: Final = 4

_DAYS: Final = "days"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def days_body(field: str, where: Filter | None, start: datetime | None, end: datetime | None) -> Body:
    """Return the search that counts the events of each day that have a value.

    Raises:
        Unaskable: the field does not stand at a document's top level.

    """
    if not is_plain(field):
        raise Unaskable(f"{field[:60]!r} does not stand at the top level of documents: ask for one that does")
    days = {"field": "@timestamp", "fixed_interval": "1d", "min_doc_count": 1}
    query = query_of(_having(field, where), start, end)
    return {"size": 0, "track_total_hits": False, "query": query, "aggs": {_DAYS: {"date_histogram": days}}}


def newest_body(field: str, limit: int, where: Filter | None, start: datetime | None, end: datetime | None) -> Body:
    """Return the search for the newest event of each value."""
    name = group_name(field)
    return {
        "size": limit,
        "track_total_hits": False,
        "_source": False,
        "stored_fields": "_none_",
        "query": query_of(_having(field, where), start, end),
        "collapse": {"field": name},
        "sort": [{"@timestamp": "desc"}, {name: {"order": "desc", "unmapped_type": "keyword"}}],
    }


def starts(response: dict[str, Any], limit: int, start: datetime | None) -> Iterator[datetime | None]:
    """Yield from when on to search, at first for the newest days only, and at last for all.

    Args:
        response: that of `days_body`; without a single event nothing is to be searched.
        limit: how many values are wanted.
        start: from when on events count.

    """
    days = response.get("aggregations", {}).get(_DAYS, {}).get("buckets", [])
    if not days or not limit:
        return
    wanted, events = EVENTS_EACH * limit, 0
    for day in reversed(days[1:]):
        events += day["doc_count"]
        if events >= wanted:
            midnight = _EPOCH + timedelta(milliseconds=day["key"])
            yield midnight if start is None else max(midnight, start)
            wanted *= MORE
    yield start


def read_newest(response: dict[str, Any]) -> tuple[str, ...]:
    """Return the values, that with the newest event first."""
    return tuple(hit["sort"][1] for hit in response.get("hits", {}).get("hits", ()))


def _having(field: str, where: Filter | None) -> Filter:
    return Exists(field) if where is None else AllOf((Exists(field), where))
