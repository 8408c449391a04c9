"""Building the result of a query from the responses of its searches."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from metronome.stores.elasticsearch.queries import (
    APPROXIMATE_METRICS,
    GROUPS_AGGREGATION,
    CompositePlan,
    SearchPlan,
    TermsPlan,
    TotalPlan,
    aggregation_key,
    aggregation_levels,
    aggregation_names,
    first_plan,
    next_composite_plan,
    smaller_plan,
)
from metronome.stores.query import (
    MAX_GROUPS,
    TIME_UNITS,
    Metric,
    MetricKind,
    Query,
    QueryResult,
    build_result,
    parse_time_zone,
)
from metronome.times import format_time_unit, format_timestamp, from_milliseconds

_ALL_TIME: Final = "all"
_FIRST_EVENT: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_EVENT: Final = datetime(2040, 1, 1, tzinfo=UTC)
_OFFSET_SAMPLE_INTERVAL: Final = timedelta(days=20)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)

Bucket = dict[str, Any]
Value = str | int | float | None
Row = tuple[Value, ...]


class QueryExecution:
    """The state of a query that may take several searches.

    Args:
        query: the query.
        plan: the first search; by default, the one that suits the query.

    Attributes:
        query: what is executed: without the group ``all``, which is in the result only.
        plan: the search to run next; None once the result is known.

    """

    def __init__(self, query: Query, plan: SearchPlan | None = None) -> None:
        self._full_query = query
        self.query = _drop_all_time(query)
        self.plan: SearchPlan | None = plan or first_plan(self.query)
        self._rows: dict[Row, Row] = {}
        self._partial_rows: dict[Row, Row] = {}
        self._is_complete = True
        self._has_events = True
        self._aggregation_names = aggregation_names(query.metrics)
        self._zone = parse_time_zone(query.time_zone)

    def add_response(self, response: dict[str, Any], name: str = GROUPS_AGGREGATION) -> None:
        """Read the response to the search of `plan`, and set the next plan.

        Args:
            response: the response.
            name: the name of the outermost aggregation.

        """
        groups: Bucket = response.get("aggregations", {}).get(name, {})
        match self.plan:
            case TotalPlan():
                self._rows[()] = self._build_row((), groups)
                self._has_events = groups.get("doc_count", 0) > 0
                self.plan = None
            case TermsPlan() as plan if _has_all_groups(groups):
                self._add_terms_response(plan, groups)
            case TermsPlan():
                self._partial_rows = dict(self._iterate_terms(groups, aggregation_levels(self.query), {}))
                self.use_smaller_plan()
            case CompositePlan() as plan:
                self._add_composite_response(plan, groups)

    def use_smaller_plan(self) -> None:
        """Start again with smaller searches, because there are more groups than one response can hold."""
        self._rows = {}
        self.plan = smaller_plan(self.query, self.plan) if isinstance(self.plan, TermsPlan) else None
        self._is_complete = self.plan is not None

    def result(self) -> QueryResult:
        """Return the result; `plan` must be None."""
        rows = list((self._rows if self._is_complete else self._partial_rows | self._rows).values())
        exact = not (self._has_estimates(rows) or self._has_odd_hours(rows))
        if self._full_query is not self.query:
            at = self._full_query.group_by.index(_ALL_TIME)
            rows = [(*row[:at], _ALL_TIME, *row[at:]) for row in rows] if self._has_events else []
        return build_result(self._full_query, rows, exact=exact, is_complete=self._is_complete)

    def _add_terms_response(self, plan: TermsPlan, groups: Bucket) -> None:
        self._rows.update(self._iterate_terms(groups, aggregation_levels(self.query), {}))
        if plan.partition + 1 == plan.partitions:
            self.plan = None
        else:
            self.plan = TermsPlan(plan.partition + 1, plan.partitions)
        self._stop_at_max_groups()

    def _add_composite_response(self, plan: CompositePlan, groups: Bucket) -> None:
        for bucket in groups.get("buckets", ()):
            key = tuple(
                self._group_label(index, bucket["key"][str(index)]) for index in range(len(self.query.group_by))
            )
            self._rows[key] = self._build_row(key, bucket)
        after = groups.get("after_key")
        if after is None or len(groups["buckets"]) < plan.size:
            self.plan = None
        else:
            self.plan = next_composite_plan(self.query, after, len(self._rows))
        self._stop_at_max_groups()

    def _stop_at_max_groups(self) -> None:
        if len(self._rows) > MAX_GROUPS:
            self.plan, self._is_complete = None, False

    def _iterate_terms(
        self, groups: Bucket, levels: list[int], outer_labels: dict[int, str]
    ) -> Iterator[tuple[Row, Row]]:
        index, *inner_levels = levels
        for bucket in groups.get("buckets", ()):
            labels = {**outer_labels, index: self._group_label(index, bucket["key"])}
            if inner_levels:
                yield from self._iterate_terms(bucket[GROUPS_AGGREGATION], inner_levels, labels)
            else:
                key = tuple(labels[at] for at in range(len(labels)))
                yield key, self._build_row(key, bucket)

    def _build_row(self, key: tuple[str, ...], bucket: Bucket) -> Row:
        return (*key, *(self._read_value(metric, bucket) for metric in self.query.metrics))

    def _read_value(self, metric: Metric, bucket: Bucket) -> Value:
        if metric.kind is MetricKind.COUNT:
            return int(bucket.get("doc_count", 0))
        return read_metric(metric, bucket.get(self._aggregation_names[aggregation_key(metric)], {}))

    def _group_label(self, index: int, key: Any) -> str:
        name = self.query.group_by[index]
        if name not in TIME_UNITS:
            return str(key)
        return format_time_unit(from_milliseconds(key).astimezone(self._zone), name)

    def _has_odd_hours(self, rows: list[Row]) -> bool:
        """Return whether clocks change by parts of an hour, which Elasticsearch counts as if they were whole."""
        names, time_zone = self.query.group_by, self.query.time_zone
        if "hour" not in names or not _changes_by_parts_of_an_hour(time_zone, _FIRST_EVENT, _LAST_EVENT):
            return False
        at = names.index("hour")
        hours = [datetime.fromisoformat(str(row[at])) for row in rows]
        return bool(hours) and _changes_by_parts_of_an_hour(time_zone, min(hours) - _DAY, max(hours) + _DAY)

    def _has_estimates(self, rows: list[Row]) -> bool:
        width = len(self.query.group_by)
        columns = [width + at for at, metric in enumerate(self.query.metrics) if metric.kind in APPROXIMATE_METRICS]
        return any(row[column] for column in columns for row in rows)


def _drop_all_time(query: Query) -> Query:
    if _ALL_TIME not in query.group_by:
        return query
    groups = tuple(name for name in query.group_by if name != _ALL_TIME)
    return replace(query, group_by=groups, sort_keys=(), limit=None, offset=0)


@lru_cache(maxsize=256)
def _changes_by_parts_of_an_hour(time_zone: str, first: datetime, last: datetime) -> bool:
    zone = parse_time_zone(time_zone)
    moment = first
    offsets = {_minutes_of_offset(last, zone)}
    while moment < last and len(offsets) == 1:
        offsets.add(_minutes_of_offset(moment, zone))
        moment += _OFFSET_SAMPLE_INTERVAL
    return len(offsets) > 1


def _minutes_of_offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return (moment.astimezone(zone).utcoffset() or timedelta()) % _HOUR


def read_metric(metric: Metric, aggregation: dict[str, Any]) -> Value:
    """Return a metric's number or time; without any value a sum is 0.0, a number of values 0, all else None."""
    match metric.kind:
        case MetricKind.UNIQUE:
            return int(aggregation.get("value", 0))
        case MetricKind.VALUE_COUNT:
            return int(aggregation.get("count", 0))
        case MetricKind.VIEWS | MetricKind.DOWNLOADS:
            return int(aggregation.get("doc_count", 0))
        case MetricKind.FIRST | MetricKind.LAST:
            milliseconds = aggregation.get("value")
            return None if milliseconds is None else format_timestamp(from_milliseconds(milliseconds))
        case MetricKind.SUM:
            return float(aggregation.get("sum") or 0.0)
        case MetricKind.PERCENTILE:
            values = {percentile["key"]: percentile["value"] for percentile in aggregation.get("values", ())}
            number = values.get(metric.percentile)
        case _:
            number = aggregation.get(metric.kind)
    return None if number is None else float(number)


def _has_all_groups(groups: Bucket) -> bool:
    """Return whether nested aggregations hold every group, on each level."""
    if groups.get("sum_other_doc_count", 0):
        return False
    return all(
        _has_all_groups(bucket[GROUPS_AGGREGATION])
        for bucket in groups.get("buckets", ())
        if GROUPS_AGGREGATION in bucket
    )
