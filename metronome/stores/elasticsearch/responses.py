"""From the responses of Elasticsearch to the answer of a question."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
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
from metronome.times import format_timestamp

Bucket = dict[str, Any]
Value = str | int | float | None
Row = tuple[Value, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class QueryExecution:
    """What is known of a question's answer so far, and what has to be asked next.

    Attributes:
        query: what is asked.
        step: the search to make next; None once the answer is known.

    """

    def __init__(self, query: Query) -> None:
        self.query = query
        self.plan: SearchPlan | None = first_plan(query)
        self._rows: dict[Row, Row] = {}
        self._partial_rows: dict[Row, Row] = {}
        self._is_complete = True
        self._aggregation_names = aggregation_names(query.metrics)
        self._zone = parse_time_zone(query.time_zone)

    def add_response(self, response: dict[str, Any]) -> None:
        """Read the response to `step`, and go on to the next."""
        groups: Bucket = response.get("aggregations", {}).get(GROUPS_AGGREGATION, {})
        match self.plan:
            case TotalPlan():
                self._add_row((), groups)
                self.plan = None
            case TermsPlan() as tree if _has_all_groups(groups):
                self._add_terms_response(tree, groups)
            case TermsPlan():
                self._partial_rows = dict(self._iterate_terms(groups, aggregation_levels(self.query), {}))
                self.use_smaller_plan()
            case CompositePlan() as page:
                self._add_composite_response(page, groups)

    def use_smaller_plan(self) -> None:
        """Begin again in smaller steps: there are more groups than a tree can hold."""
        self._rows = {}
        self.plan = smaller_plan(self.query, self.plan) if isinstance(self.plan, TermsPlan) else None
        self._is_complete = self.plan is not None

    def result(self) -> QueryResult:
        """Return the answer, once there is nothing to ask any more."""
        rows = list((self._rows if self._is_complete else self._partial_rows | self._rows).values())
        return build_result(self.query, rows, exact=self._is_complete and not self._has_estimates(rows))

    def _add_terms_response(self, plan: TermsPlan, groups: Bucket) -> None:
        self._rows.update(self._iterate_terms(groups, aggregation_levels(self.query), {}))
        if plan.partition + 1 == plan.partitions:
            self.plan = None
        else:
            self.plan = TermsPlan(plan.partition + 1, plan.partitions)
        self._stop_at_max_groups()

    def _add_composite_response(self, plan: CompositePlan, groups: Bucket) -> None:
        for bucket in groups.get("buckets", ()):
            key = tuple(self._group_label(at, bucket["key"][str(at)]) for at in range(len(self.query.group_by)))
            self._add_row(key, bucket)
        after = groups.get("after_key")
        if after is None or len(groups["buckets"]) < plan.size:
            self.plan = None
        else:
            self.plan = next_composite_plan(self.query, after, len(self._rows))
        self._stop_at_max_groups()

    def _stop_at_max_groups(self) -> None:
        if len(self._rows) > MAX_GROUPS:
            self.plan, self._is_complete = None, False

    def _iterate_terms(self, groups: Bucket, below: list[int], path: dict[int, str]) -> Iterator[tuple[Row, Row]]:
        at, *rest = below
        for bucket in groups.get("buckets", ()):
            here = {**path, at: self._group_label(at, bucket["key"])}
            if rest:
                yield from self._iterate_terms(bucket[GROUPS_AGGREGATION], rest, here)
            else:
                key = tuple(here[index] for index in range(len(here)))
                yield key, self._build_row(key, bucket)

    def _add_row(self, key: tuple[str, ...], bucket: Bucket) -> None:
        self._rows[key] = self._build_row(key, bucket)

    def _build_row(self, key: tuple[str, ...], bucket: Bucket) -> Row:
        return (*key, *(self._read_value(metric, bucket) for metric in self.query.metrics))

    def _read_value(self, metric: Metric, bucket: Bucket) -> Value:
        if metric.kind is MetricKind.COUNT:
            return int(bucket.get("doc_count", 0))
        return read_metric(metric, bucket.get(self._aggregation_names[aggregation_key(metric)], {}))

    def _group_label(self, at: int, key: Any) -> str:
        name = self.query.group_by[at]
        return format_time_unit(key, name, self._zone) if name in TIME_UNITS else str(key)

    def _has_estimates(self, rows: list[Row]) -> bool:
        width = len(self.query.group_by)
        columns = [width + at for at, metric in enumerate(self.query.metrics) if metric.kind in APPROXIMATE_METRICS]
        return any(row[column] for column in columns for row in rows)


def read_metric(metric: Metric, aggregation: dict[str, Any]) -> Value:
    """Read a metric's number or time; without a single value a sum is 0.0, a number of values 0, all else None."""
    match metric.kind:
        case MetricKind.UNIQUE:
            return int(aggregation.get("value", 0))
        case MetricKind.VALUE_COUNT:
            return int(aggregation.get("count", 0))
        case MetricKind.FIRST | MetricKind.LAST:
            return _format_timestamp(aggregation.get("value"))
        case MetricKind.SUM:
            return float(aggregation.get("sum") or 0.0)
        case MetricKind.PERCENTILE:
            values = {each["key"]: each["value"] for each in aggregation.get("values", ())}
            number = values.get(metric.percentile)
        case _:
            number = aggregation.get(metric.kind)
    return None if number is None else float(number)


def _format_timestamp(milliseconds: float | None) -> str | None:
    return None if milliseconds is None else format_timestamp(_EPOCH + timedelta(milliseconds=milliseconds))


def format_time_unit(milliseconds: int, unit: str, zone: ZoneInfo) -> str:
    """Write the beginning of a minute, hour, day, week or month as answers have it."""
    moment = datetime.fromtimestamp(milliseconds / 1000, zone)
    match unit:
        case "month":
            return f"{moment:%Y-%m}"
        case "day" | "week":
            return f"{moment:%Y-%m-%d}"
        case _:
            return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _has_all_groups(groups: Bucket) -> bool:
    """Return whether a tree holds every group, on each of its levels."""
    if groups.get("sum_other_doc_count", 0):
        return False
    return all(
        _has_all_groups(bucket[GROUPS_AGGREGATION])
        for bucket in groups.get("buckets", ())
        if GROUPS_AGGREGATION in bucket
    )
