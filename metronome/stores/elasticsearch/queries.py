"""Searches: filters, aggregations, and the plans that split a query into searches.

A query without groups is one search. A single field or time unit is one `TermsPlan`, whose response has all
groups or shows that it has not; then, and for several fields, a `CompositePlan` pages through the groups. Elasticsearch
8.19 pages wrongly through fields in ``params`` (it returns the values of other keys), so a query of these with too many
groups is a `TermsPlan` in partitions.

The newest values of a field are one search, but one that visits every event. So days are counted first, which is fast,
and then only as many of the newest days are searched as should suffice; if they do not, four times as many events.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from metronome.errors import InvalidQuery
from metronome.fields import VALUE_MAX_CHARACTERS, is_top_level_name, param_name
from metronome.stores.query import (
    EVENT_BY_METRIC,
    MAX_GROUPS,
    TIME_UNITS,
    AllOf,
    AnyOf,
    Equals,
    Exists,
    Filter,
    Metric,
    MetricKind,
    Not,
    OneOf,
    Prefix,
    Query,
    Range,
    replace_lone_surrogates,
)
from metronome.stores.sequences import require_top_level_field
from metronome.times import from_milliseconds, to_milliseconds_ceil

QueryClause = dict[str, Any]
SearchBody = dict[str, Any]

MATCH_ALL: Final[QueryClause] = {"match_all": {}}
MATCH_NONE: Final[QueryClause] = {"match_none": {}}

MAX_TERMS: Final = 50_000
"""The number of values in one ``terms`` query: Elasticsearch accepts 65,536."""
PREFIX_MAX_BYTES: Final = 980
"""The longest prefix, with its key in ``params``: Elasticsearch's automata have at most 1,000 states."""

EXPECTED_EVENTS_PER_VALUE: Final = 8
"""How many events a value has, as a first estimate."""
WINDOW_GROWTH: Final = 4

GROUPS_AGGREGATION: Final = "groups"
"""The name of the outermost aggregation."""
TERMS_SIZE: Final = 50_000
"""The number of groups on each level of a `TermsPlan`: Elasticsearch returns at most 65,536 buckets."""
COMPOSITE_SIZE: Final = 20_000
HEAVY_COMPOSITE_SIZE: Final = 2_000
"""For groups with distinct values or percentiles, which take memory each."""
PARTITIONS_FACTOR: Final = 8
MAX_PARTITIONS: Final = 512
PRECISION_THRESHOLD: Final = 40_000
"""Up to about this many distinct values are counted almost exactly; Elasticsearch's maximum."""
APPROXIMATE_METRICS: Final = frozenset({MetricKind.UNIQUE, MetricKind.PERCENTILE})

_DAYS_AGGREGATION: Final = "days"
_LONG_UNITS: Final = frozenset({"day", "week", "month", "quarter", "year"})
"""The time units of which an index contains one or few."""
_UNIT_LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
_ZONE_REPLACEMENTS = {"EST": "-05:00", "MST": "-07:00", "HST": "-10:00", "ROC": "Asia/Taipei"}
"""For names that Java does not have."""


def field_path(field: str) -> str:
    """Return the path of a field's values: at the top level, or in ``params``."""
    return field if is_top_level_name(field) else f"params.{param_name(replace_lone_surrogates(field))}"


def number_path(field: str) -> str:
    """Return the path of a field's numbers; values in ``params`` have none."""
    return f"{field_path(field)}.num" if is_top_level_name(field) else "params_have_no_numbers"


def keyword_path(field: str) -> str:
    """Return the path of the values to group or count by.

    Raises:
        InvalidQuery: the field is only stored, not indexed.

    """
    if field == "event_id":
        raise InvalidQuery("cannot group or count by event_id: every event has its own; use count")
    return field_path(field)


def build_query(where: Filter | None, start: datetime | None = None, end: datetime | None = None) -> QueryClause:
    """Return the query for a filter and a time range."""
    conditions = []
    if where is not None:
        conditions.append(build_filter(where))
    bounds = {}
    if start is not None:
        bounds["gte"] = to_milliseconds_ceil(start)
    if end is not None:
        bounds["lt"] = to_milliseconds_ceil(end)
    if bounds:
        conditions.append({"range": {"@timestamp": {**bounds, "format": "epoch_millis"}}})
    return {"bool": {"filter": conditions}} if conditions else MATCH_ALL


def build_filter(where: Filter) -> QueryClause:  # noqa: PLR0911  # one for each kind of filter
    """Return the query for a filter.

    Raises:
        InvalidQuery: it has a prefix of ``event_id``, or one that is too long.

    """
    match where:
        case Equals(field, value):
            return _terms_clause(field, (value,))
        case OneOf(field, values):
            return _terms_clause(field, values)
        case Prefix(field, text):
            return _prefix_clause(field, text)
        case Exists(field):
            return _exists_clause(field)
        case Range():
            return _range_clause(where)
        case Not(inner):
            return {"bool": {"must_not": [build_filter(inner)]}}
        case AllOf(inners):
            return {"bool": {"filter": [build_filter(inner) for inner in inners]}} if inners else MATCH_ALL
        case AnyOf(inners):
            return _any_clause([build_filter(inner) for inner in inners])


def _any_clause(queries: list[QueryClause]) -> QueryClause:
    return {"bool": {"should": queries, "minimum_should_match": 1}} if queries else MATCH_NONE


def _terms_clause(field: str, values: tuple[str, ...]) -> QueryClause:
    path = "_id" if field == "event_id" else field_path(field)
    terms = [_indexed_text(field, value) for value in values if len(value) <= VALUE_MAX_CHARACTERS]
    queries: list[QueryClause] = [
        {"terms": {path: terms[start : start + MAX_TERMS]}} for start in range(0, len(terms), MAX_TERMS)
    ]
    return queries[0] if len(queries) == 1 else _any_clause(queries)


def _prefix_clause(field: str, text: str) -> QueryClause:
    if field == "event_id":
        raise InvalidQuery("cannot filter event_id by prefix: use whole IDs")
    if len(text) > VALUE_MAX_CHARACTERS:
        return MATCH_NONE
    path, prefix = field_path(field), _indexed_text(field, text)
    if len(path.encode()) + len(prefix.encode()) > PREFIX_MAX_BYTES:
        raise InvalidQuery(f"the prefix {text[:20]}… is too long: shorten it to 500 bytes")
    return {"prefix": {path: prefix}}


def _exists_clause(field: str) -> QueryClause:
    if field == "event_id":
        return MATCH_ALL
    # `exists` reads a `*` in the name as a pattern, and does not find keys that contain one.
    path = field_path(field)
    return {"exists": {"field": path}} if is_top_level_name(field) else {"prefix": {path: ""}}


def _range_clause(where: Range) -> QueryClause:
    all_bounds = {"gt": where.above, "gte": where.at_least, "lt": where.below, "lte": where.at_most}
    bounds = {name: bound for name, bound in all_bounds.items() if bound is not None}
    if any(map(math.isnan, bounds.values())) or not is_top_level_name(where.field):
        return MATCH_NONE
    # Stored numbers are finite, and JSON has no infinity.
    if math.inf in (where.above, where.at_least) or -math.inf in (where.below, where.at_most):
        return MATCH_NONE
    finite = {name: bound for name, bound in bounds.items() if math.isfinite(bound)}
    return {"range": {number_path(where.field): finite}}


def _indexed_text(field: str, value: str) -> str:
    text = replace_lone_surrogates(value)
    return text if is_top_level_name(field) else text.replace("\0", "\ufffd")


def build_day_counts_search(
    field: str, where: Filter | None, start: datetime | None, end: datetime | None
) -> SearchBody:
    """Return the search that counts the events with a value of each day.

    Raises:
        InvalidQuery: the field is not at the top level of documents.

    """
    days = {"field": "@timestamp", "fixed_interval": "1d", "min_doc_count": 1}
    query = build_query(_with_field(require_top_level_field(field), where), start, end)
    return {"size": 0, "track_total_hits": False, "query": query, "aggs": {_DAYS_AGGREGATION: {"date_histogram": days}}}


def build_newest_search(
    field: str, limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> SearchBody:
    """Return the search for the newest event of each value."""
    path = keyword_path(field)
    return {
        "size": limit,
        "track_total_hits": False,
        "_source": False,
        "stored_fields": "_none_",
        "query": build_query(_with_field(field, where), start, end),
        "collapse": {"field": path},
        "sort": [{"@timestamp": "desc"}, {path: {"order": "desc", "unmapped_type": "keyword"}}],
    }


def build_newest_documents_search(
    limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> SearchBody:
    """Return the search for the documents of the newest events."""
    return {
        "size": limit,
        "track_total_hits": False,
        "query": build_query(where, start, end),
        "sort": [{"@timestamp": {"order": "desc", "unmapped_type": "date"}}],
    }


def window_starts(day_counts: dict[str, Any], limit: int, start: datetime | None) -> Iterator[datetime | None]:
    """Yield from what time on to search: first for the newest days only, at last for all.

    Args:
        day_counts: the response to `build_day_counts_search`; without events there is nothing to search.
        limit: the requested number of values.
        start: the start of the time range.

    """
    days = day_counts.get("aggregations", {}).get(_DAYS_AGGREGATION, {}).get("buckets", [])
    if not days or not limit:
        return
    expected_events, events = EXPECTED_EVENTS_PER_VALUE * limit, 0
    for day in reversed(days[1:]):
        events += day["doc_count"]
        if events >= expected_events:
            midnight = from_milliseconds(day["key"])
            yield midnight if start is None else max(midnight, start)
            expected_events *= WINDOW_GROWTH
    yield start


def read_newest_values(response: dict[str, Any]) -> tuple[str, ...]:
    """Return the values in a response to `build_newest_search`, the one with the newest event first."""
    return tuple(hit["sort"][1] for hit in response.get("hits", {}).get("hits", ()))


def _with_field(field: str, where: Filter | None) -> Filter:
    return Exists(field) if where is None else AllOf((Exists(field), where))


@dataclass(frozen=True, slots=True)
class TotalPlan:
    """All events as one group."""


@dataclass(frozen=True, slots=True)
class TermsPlan:
    """All groups as nested aggregations, or the groups in one partition of the outermost field's values."""

    partition: int = 0
    partitions: int = 1


@dataclass(frozen=True, slots=True)
class CompositePlan:
    """The next *size* groups after a group."""

    after: dict[str, Any] | None
    size: int


SearchPlan = TotalPlan | TermsPlan | CompositePlan


def first_plan(query: Query) -> SearchPlan:
    """Return the plan of the first search for a query."""
    if not query.group_by:
        return TotalPlan()
    if groups_by_params(query) or (len(query.group_by) == 1 and _fits_terms_plan(query)):
        return TermsPlan()
    return next_composite_plan(query, None, 0)


def smaller_plan(query: Query, plan: TermsPlan) -> SearchPlan | None:
    """Return the first of several smaller plans for a `TermsPlan` with too many groups; None if there is none."""
    if not groups_by_params(query):
        return next_composite_plan(query, None, 0)
    if plan.partitions >= MAX_PARTITIONS:
        return None
    return TermsPlan(0, plan.partitions * PARTITIONS_FACTOR)


def next_composite_plan(query: Query, after: dict[str, Any] | None, known_groups: int) -> CompositePlan:
    """Return the next page after *known_groups* groups; all pages have one group more than the limit."""
    is_heavy = any(metric.kind in APPROXIMATE_METRICS for metric in query.metrics)
    size = HEAVY_COMPOSITE_SIZE if is_heavy else COMPOSITE_SIZE
    return CompositePlan(after, min(size, MAX_GROUPS + 1 - known_groups))


def groups_by_params(query: Query) -> bool:
    """Return whether a query groups by a field in ``params``."""
    return any(_is_param(name) for name in query.group_by)


def aggregation_levels(query: Query) -> list[int]:
    """Return the indices of the query's groups, from the outermost aggregation to the innermost.

    Fields in ``params`` come first.
    """
    return sorted(range(len(query.group_by)), key=lambda index: not _is_param(query.group_by[index]))


def build_search(store_query: Query, plan: SearchPlan) -> SearchBody:
    """Return the search for one plan of a query.

    Raises:
        InvalidQuery: the query uses a field that is not indexed, or a filter that Elasticsearch cannot evaluate.

    """
    query = build_query(store_query.where, store_query.start, store_query.end)
    groups = _group_aggregation(store_query, plan, _metric_aggregations(store_query))
    return {"size": 0, "track_total_hits": False, "query": query, "aggs": {GROUPS_AGGREGATION: groups}}


def merge_searches(searches: Sequence[SearchBody]) -> tuple[list[SearchBody], list[tuple[int, str]]]:
    """Merge searches of the same events into one with the aggregations of all, unless they page through groups.

    Args:
        searches: of `build_search`.

    Returns:
        The merged searches; and for each given one, the index of its merged search and the name of its aggregation.

    """
    merged: list[SearchBody] = []
    places: list[tuple[int, str]] = []
    index_by_events: dict[bytes, int] = {}
    for search in searches:
        groups = search["aggs"][GROUPS_AGGREGATION]
        events = None if "composite" in groups else _encode_events(search)
        at = None if events is None else index_by_events.get(events)
        if at is None:
            at, name = len(merged), GROUPS_AGGREGATION
            merged.append(search)
            if events is not None:
                index_by_events[events] = at
        else:
            aggregations = merged[at]["aggs"]
            name = f"{GROUPS_AGGREGATION}{len(aggregations)}"
            merged[at] = {**merged[at], "aggs": {**aggregations, name: groups}}
        places.append((at, name))
    return merged, places


def _encode_events(search: SearchBody) -> bytes | None:
    """Return what says which events a search is about; None if it is nested too deeply, which the search rejects."""
    try:
        return orjson.dumps({name: value for name, value in search.items() if name != "aggs"})
    except TypeError:
        return None


def aggregation_key(metric: Metric) -> tuple[str, str]:
    """Return the aggregation that computes a metric: its kind and field, or the event that it counts."""
    match metric.kind:
        case MetricKind.UNIQUE:
            return "cardinality", metric.field
        case MetricKind.PERCENTILE:
            return "percentiles", metric.field
        case MetricKind.FIRST:
            return "min", "@timestamp"
        case MetricKind.LAST:
            return "max", "@timestamp"
        case MetricKind.VIEWS | MetricKind.DOWNLOADS as kind:
            return "filter", EVENT_BY_METRIC[kind]
        case _:
            return "stats", metric.field


def aggregation_names(metrics: tuple[Metric, ...]) -> dict[tuple[str, str], str]:
    """Return the name of each aggregation that the metrics need."""
    keys = dict.fromkeys(aggregation_key(metric) for metric in metrics if metric.kind is not MetricKind.COUNT)
    return {key: f"m{number}" for number, key in enumerate(keys)}


def _is_param(name: str) -> bool:
    return name not in TIME_UNITS and not is_top_level_name(name)


def _fits_terms_plan(query: Query) -> bool:
    """Return whether a single time unit has few enough groups; for other fields, the response shows it."""
    length = _UNIT_LENGTHS.get(query.group_by[0])
    if length is None:
        return True
    if query.start is None or query.end is None:
        return False
    return (query.end - query.start) / length < TERMS_SIZE


def _group_aggregation(query: Query, plan: SearchPlan, metrics: SearchBody) -> SearchBody:
    match plan:
        case TotalPlan():
            return {"filter": MATCH_ALL, **metrics}
        case TermsPlan():
            return _terms_aggregation(query, plan, metrics)
        case CompositePlan(after, size):
            sources = [{str(index): _group_source(query, name)} for index, name in enumerate(query.group_by)]
            start = {} if after is None else {"after": after}
            return {"composite": {"size": size, "sources": sources, **start}, **metrics}


def _terms_aggregation(query: Query, plan: TermsPlan, metrics: SearchBody) -> SearchBody:
    levels = aggregation_levels(query)
    inner = metrics
    for index in reversed(levels):
        group = _group_source(query, query.group_by[index])
        if "terms" in group:
            group["terms"].update(size=TERMS_SIZE, shard_size=TERMS_SIZE)
            if index == levels[0] and plan.partitions > 1:
                group["terms"]["include"] = {"partition": plan.partition, "num_partitions": plan.partitions}
        else:
            group["date_histogram"]["min_doc_count"] = 1
        inner = {"aggs": {GROUPS_AGGREGATION: {**group, **inner}}}
    outermost: SearchBody = inner["aggs"][GROUPS_AGGREGATION]
    return outermost


def _group_source(query: Query, name: str) -> SearchBody:
    if name not in TIME_UNITS:
        return {"terms": {"field": keyword_path(name)}}
    zone = java_zone(query.time_zone)
    return {"date_histogram": {"field": "@timestamp", "calendar_interval": name, "time_zone": zone}}


def java_zone(name: str) -> str:
    """Return what Java calls a time zone."""
    return _ZONE_REPLACEMENTS.get(name, name)


def _metric_aggregations(query: Query) -> SearchBody:
    # By default Elasticsearch allocates memory for each group as if it had very many values.
    hint = {} if _LONG_UNITS.issuperset(query.group_by) else {"execution_hint": "direct"}
    aggregations: SearchBody = {}
    for (kind, field), name in aggregation_names(query.metrics).items():
        match kind:
            case "cardinality":
                options = {"field": keyword_path(field), "precision_threshold": PRECISION_THRESHOLD, **hint}
            case "percentiles":
                percents = {metric.percentile for metric in query.metrics if aggregation_key(metric) == (kind, field)}
                options = {"field": number_path(field), "percents": sorted(percents), "keyed": False}
            case "min" | "max":
                options = {"field": field}
            case "filter":
                options = {"term": {"event": field}}
            case _:
                options = {"field": number_path(field)}
        aggregations[name] = {kind: options}
    return {"aggs": aggregations} if aggregations else {}
