"""From a question to the searches that answer it.

A question without groups is one search. One field or one time unit is one `TermsPlan`, which holds all
groups or says that it does not; else groups are paged through, which is always right (`CompositePlan`), but
not for fields in ``params``: Elasticsearch 8.19 pages through these wrongly (it takes the values of other
keys for theirs), so a tree with these that is too large is asked for in parts.

Filters and ranges of time as Elasticsearch queries, and fields as the names that it has for them.

The values of a field whose newest events are newest: pure functions.

Elasticsearch finds them in one search, but that looks at every event. The newest ones lie within the newest days, so
days are counted first, which is quick, and then as many of them searched as should be enough; if they were not,
four times as many.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from metronome.errors import InvalidQuery
from metronome.fields import is_top_level_name, param_name
from metronome.stores.elasticsearch.template import VALUE_MAX_CHARACTERS
from metronome.stores.query import (
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
)

QueryClause = dict[str, Any]

MATCH_ALL: Final[QueryClause] = {"match_all": {}}
MATCH_NONE: Final[QueryClause] = {"match_none": {}}

MAX_TERMS: Final = 50_000
"""How many values go into one ``terms`` query: Elasticsearch takes 65,536."""

PREFIX_MAX_BYTES: Final = 980
"""The longest prefix, with its key in ``params``: Elasticsearch's automata have up to 1,000 states."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def field_path(field: str) -> str:
    """Return where a field lies: at the top level, or in ``params``."""
    return field if is_top_level_name(field) else f"params.{param_name(_replace_surrogates(field))}"


def number_path(field: str) -> str:
    """Return where the numbers of a field lie; values in ``params`` have none."""
    return f"{field_path(field)}.num" if is_top_level_name(field) else "params_have_no_numbers"


def keyword_path(field: str) -> str:
    """Return where the values lie that a field is grouped or counted by.

    Raises:
        InvalidQuery: its values are only kept, not indexed.

    """
    if field == "event_id":
        raise InvalidQuery("events cannot be grouped or counted by event_id: count them, each has its own")
    return field_path(field)


def build_query(where: Filter | None, start: datetime | None = None, end: datetime | None = None) -> QueryClause:
    """Return the query for the events that a filter and a range of time let through."""
    conditions = []
    if where is not None:
        conditions.append(build_filter(where))
    bounds = {}
    if start is not None:
        bounds["gte"] = _epoch_milliseconds(start)
    if end is not None:
        bounds["lt"] = _epoch_milliseconds(end)
    if bounds:
        conditions.append({"range": {"@timestamp": {**bounds, "format": "epoch_millis"}}})
    return {"bool": {"filter": conditions}} if conditions else MATCH_ALL


def build_filter(where: Filter) -> QueryClause:  # noqa: PLR0911  # one for each kind of filter
    """Return the query for one filter.

    Raises:
        InvalidQuery: it looks for the beginning of an ``event_id``, or a beginning that is too long.

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
        case AllOf(inner):
            return {"bool": {"filter": [build_filter(each) for each in inner]}} if inner else MATCH_ALL
        case AnyOf(inner):
            return _any_clause([build_filter(each) for each in inner])


def _any_clause(queries: list[QueryClause]) -> QueryClause:
    return {"bool": {"should": queries, "minimum_should_match": 1}} if queries else MATCH_NONE


def _terms_clause(field: str, values: tuple[str, ...]) -> QueryClause:
    name = "_id" if field == "event_id" else field_path(field)
    findable = [_indexed_text(field, value) for value in values if len(value) <= VALUE_MAX_CHARACTERS]
    chunks = [findable[at : at + MAX_TERMS] for at in range(0, len(findable), MAX_TERMS)]
    queries: list[QueryClause] = [{"terms": {name: chunk}} for chunk in chunks]
    return queries[0] if len(queries) == 1 else _any_clause(queries)


def _prefix_clause(field: str, text: str) -> QueryClause:
    if field == "event_id":
        raise InvalidQuery("event_id can be looked for only as a whole")
    if len(text) > VALUE_MAX_CHARACTERS:
        return MATCH_NONE
    name, value = field_path(field), _indexed_text(field, text)
    if len(name.encode()) + len(value.encode()) > PREFIX_MAX_BYTES:
        raise InvalidQuery(f"{text[:20]}… is too long to be looked for as a beginning: shorten it to 500 bytes")
    return {"prefix": {name: value}}


def _exists_clause(field: str) -> QueryClause:
    if field == "event_id":
        return MATCH_ALL
    # `exists` would read a `*` in the name as a pattern, and does not find keys that have one.
    name = field_path(field)
    return {"exists": {"field": name}} if is_top_level_name(field) else {"prefix": {name: ""}}


def _range_clause(where: Range) -> QueryClause:
    bounds = {"gt": where.above, "gte": where.at_least, "lt": where.below, "lte": where.at_most}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    if any(math.isnan(bound) for bound in given.values()) or not is_top_level_name(where.field):
        return MATCH_NONE
    # Stored numbers are finite; JSON has no infinity.
    if math.inf in (where.above, where.at_least) or -math.inf in (where.below, where.at_most):
        return MATCH_NONE
    finite = {name: bound for name, bound in given.items() if math.isfinite(bound)}
    return {"range": {number_path(where.field): finite}}


def _indexed_text(field: str, value: str) -> str:
    printable = _replace_surrogates(value)
    return printable if is_top_level_name(field) else printable.replace("\0", "\ufffd")


def _replace_surrogates(text: str) -> str:
    """Put U+FFFD in place of lone surrogates, as documents have it."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _epoch_milliseconds(moment: datetime) -> int:
    # Documents have whole milliseconds: the first one that is not before the moment.
    return -(-((moment - _EPOCH) // _MICROSECOND) // 1000)


Body = dict[str, Any]

EXPECTED_EVENTS_PER_VALUE: Final = 8
"""How many events one value has, at a first guess."""
WINDOW_GROWTH: Final = 4

_DAYS_AGGREGATION: Final = "days"


def build_day_counts_search(field: str, where: Filter | None, start: datetime | None, end: datetime | None) -> Body:
    """Return the search that counts the events of each day that have a value.

    Raises:
        InvalidQuery: the field does not stand at a document's top level.

    """
    if not is_top_level_name(field):
        raise InvalidQuery(f"{field[:60]!r} does not stand at the top level of documents: ask for one that does")
    days = {"field": "@timestamp", "fixed_interval": "1d", "min_doc_count": 1}
    query = build_query(_with_field(field, where), start, end)
    return {"size": 0, "track_total_hits": False, "query": query, "aggs": {_DAYS_AGGREGATION: {"date_histogram": days}}}


def build_newest_search(
    field: str, limit: int, where: Filter | None, start: datetime | None, end: datetime | None
) -> Body:
    """Return the search for the newest event of each value."""
    name = keyword_path(field)
    return {
        "size": limit,
        "track_total_hits": False,
        "_source": False,
        "stored_fields": "_none_",
        "query": build_query(_with_field(field, where), start, end),
        "collapse": {"field": name},
        "sort": [{"@timestamp": "desc"}, {name: {"order": "desc", "unmapped_type": "keyword"}}],
    }


def window_starts(day_counts: dict[str, Any], limit: int, start: datetime | None) -> Iterator[datetime | None]:
    """Yield from when on to search, at first for the newest days only, and at last for all.

    Args:
        day_counts: that of `build_day_counts_search`; without a single event nothing is to be searched.
        limit: how many values are wanted.
        start: from when on events count.

    """
    days = day_counts.get("aggregations", {}).get(_DAYS_AGGREGATION, {}).get("buckets", [])
    if not days or not limit:
        return
    wanted, events = EXPECTED_EVENTS_PER_VALUE * limit, 0
    for day in reversed(days[1:]):
        events += day["doc_count"]
        if events >= wanted:
            midnight = _EPOCH + timedelta(milliseconds=day["key"])
            yield midnight if start is None else max(midnight, start)
            wanted *= WINDOW_GROWTH
    yield start


def read_newest_values(response: dict[str, Any]) -> tuple[str, ...]:
    """Return the values, that with the newest event first."""
    return tuple(hit["sort"][1] for hit in response.get("hits", {}).get("hits", ()))


def _with_field(field: str, where: Filter | None) -> Filter:
    return Exists(field) if where is None else AllOf((Exists(field), where))


GROUPS_AGGREGATION: Final = "groups"
"""The name of the outermost aggregation."""

TERMS_SIZE: Final = 50_000
"""How many groups a tree may have on each level: Elasticsearch answers with up to 65,536 buckets."""
COMPOSITE_SIZE: Final = 20_000
HEAVY_COMPOSITE_SIZE: Final = 2_000
"""Each group of a page with distinct values or percentiles takes memory of its own."""
PARTITIONS_FACTOR: Final = 8
MAX_PARTITIONS: Final = 512
PRECISION_THRESHOLD: Final = 40_000
"""Up to about this many distinct values are counted almost exactly; Elasticsearch takes no more."""

APPROXIMATE_METRICS: Final = frozenset({MetricKind.UNIQUE, MetricKind.PERCENTILE})
_LONG_UNITS: Final = frozenset({"day", "week", "month"})
"""Of these, each index has one, or few."""
_UNIT_LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
_ZONE_REPLACEMENTS = {"EST": "-05:00", "MST": "-07:00", "HST": "-10:00", "ROC": "Asia/Taipei"}
"""Names that Java does not have."""


@dataclass(frozen=True, slots=True)
class TotalPlan:
    """Everything as one group."""


@dataclass(frozen=True, slots=True)
class TermsPlan:
    """All groups as one tree, or that part of it in whose outermost field every n-th value is."""

    partition: int = 0
    partitions: int = 1


@dataclass(frozen=True, slots=True)
class CompositePlan:
    """The next *size* groups after one."""

    after: dict[str, Any] | None
    size: int


SearchPlan = TotalPlan | TermsPlan | CompositePlan


def first_plan(query: Query) -> SearchPlan:
    """Return how to begin."""
    if not query.group_by:
        return TotalPlan()
    if groups_by_params(query) or (len(query.group_by) == 1 and _fits_terms_plan(query)):
        return TermsPlan()
    return next_composite_plan(query, None, 0)


def smaller_plan(query: Query, plan: TermsPlan) -> SearchPlan | None:
    """Return how to begin again where a tree did not hold all groups; None where there is no way."""
    if not groups_by_params(query):
        return next_composite_plan(query, None, 0)
    if plan.partitions >= MAX_PARTITIONS:
        return None
    return TermsPlan(0, plan.partitions * PARTITIONS_FACTOR)


def next_composite_plan(query: Query, after: dict[str, Any] | None, known_groups: int) -> CompositePlan:
    """Return the page after those whose groups are *known_groups*: in all, one group more than are answered."""
    size = (
        HEAVY_COMPOSITE_SIZE if any(metric.kind in APPROXIMATE_METRICS for metric in query.metrics) else COMPOSITE_SIZE
    )
    return CompositePlan(after, min(size, MAX_GROUPS + 1 - known_groups))


def groups_by_params(query: Query) -> bool:
    """Return whether a question groups by a field in ``params``."""
    return any(_is_param(name) for name in query.group_by)


def aggregation_levels(query: Query) -> list[int]:
    """Return which of the question's ``by`` is on which level of a tree: fields in ``params`` come first."""
    return sorted(range(len(query.group_by)), key=lambda at: not _is_param(query.group_by[at]))


def build_search(store_query: Query, plan: SearchPlan) -> Body:
    """Return the search for one step.

    Raises:
        InvalidQuery: the question asks for what is not indexed.

    """
    query = build_query(store_query.where, store_query.start, store_query.end)
    groups = _group_aggregation(store_query, plan, _metric_aggregations(store_query))
    return {"size": 0, "track_total_hits": False, "query": query, "aggs": {GROUPS_AGGREGATION: groups}}


def aggregation_key(metric: Metric) -> tuple[str, str]:
    """Return which measure holds a metric's number: its kind, and of which field."""
    match metric.kind:
        case MetricKind.UNIQUE:
            return "cardinality", metric.field
        case MetricKind.PERCENTILE:
            return "percentiles", metric.field
        case MetricKind.FIRST:
            return "min", "@timestamp"
        case MetricKind.LAST:
            return "max", "@timestamp"
        case _:
            return "stats", metric.field


def aggregation_names(metrics: tuple[Metric, ...]) -> dict[tuple[str, str], str]:
    """Return how the aggregation is called that works out each measure."""
    measures = dict.fromkeys(aggregation_key(metric) for metric in metrics if metric.kind is not MetricKind.COUNT)
    return {measure: f"m{at}" for at, measure in enumerate(measures)}


def _is_param(name: str) -> bool:
    return name not in TIME_UNITS and not is_top_level_name(name)


def _fits_terms_plan(query: Query) -> bool:
    """Return whether a tree of one time unit has few enough groups; other fields are tried."""
    length = _UNIT_LENGTHS.get(query.group_by[0])
    if length is None:
        return True
    if query.start is None or query.end is None:
        return False
    return (query.end - query.start) / length < TERMS_SIZE


def _group_aggregation(query: Query, plan: SearchPlan, inner: Body) -> Body:
    match plan:
        case TotalPlan():
            return {"filter": MATCH_ALL, **inner}
        case TermsPlan():
            return _terms_aggregation(query, plan, inner)
        case CompositePlan(after, size):
            sources = [{str(at): _group_source(query, at)} for at in range(len(query.group_by))]
            start = {} if after is None else {"after": after}
            return {"composite": {"size": size, "sources": sources, **start}, **inner}


def _terms_aggregation(query: Query, plan: TermsPlan, inner: Body) -> Body:
    node = inner
    outermost = aggregation_levels(query)[0]
    for at in reversed(aggregation_levels(query)):
        group = _group_source(query, at)
        if "terms" in group:
            group["terms"].update(size=TERMS_SIZE, shard_size=TERMS_SIZE)
            if at == outermost and plan.partitions > 1:
                group["terms"]["include"] = {"partition": plan.partition, "num_partitions": plan.partitions}
        else:
            group["date_histogram"]["min_doc_count"] = 1
        node = {"aggs": {GROUPS_AGGREGATION: {**group, **node}}}
    whole: Body = node["aggs"][GROUPS_AGGREGATION]
    return whole


def _group_source(query: Query, at: int) -> Body:
    name = query.group_by[at]
    if name not in TIME_UNITS:
        return {"terms": {"field": keyword_path(name)}}
    zone = _ZONE_REPLACEMENTS.get(query.time_zone, query.time_zone)
    return {"date_histogram": {"field": "@timestamp", "calendar_interval": name, "time_zone": zone}}


def _metric_aggregations(query: Query) -> Body:
    metrics = query.metrics
    # Elasticsearch would take memory for each group as if it held all values, be they two.
    sparing = {} if _LONG_UNITS.issuperset(query.group_by) else {"execution_hint": "direct"}
    aggs: Body = {}
    for (kind, field), name in aggregation_names(metrics).items():
        match kind:
            case "cardinality":
                aggs[name] = {
                    kind: {"field": keyword_path(field), "precision_threshold": PRECISION_THRESHOLD, **sparing}
                }
            case "percentiles":
                percents = sorted({m.percentile for m in metrics if aggregation_key(m) == (kind, field)})
                aggs[name] = {kind: {"field": number_path(field), "percents": percents, "keyed": False}}
            case "min" | "max":
                aggs[name] = {kind: {"field": field}}
            case _:
                aggs[name] = {kind: {"field": number_path(field)}}
    return {"aggs": aggs} if aggs else {}
