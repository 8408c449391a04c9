"""From a question to the searches that answer it.

A question without groups is one search. One field or one time unit is one `Tree`, which holds all
groups or says that it does not; else groups are paged through, which is always right (`Page`), but
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

from metronome.errors import Unaskable
from metronome.event import is_plain, param_name
from metronome.stores.elasticsearch.template import VALUE_MAX_CHARACTERS
from metronome.stores.query import (
    MAX_GROUPS,
    TIME_UNITS,
    AllOf,
    AnyOf,
    Equals,
    Exists,
    Filter,
    Kind,
    Metric,
    Not,
    OneOf,
    Prefix,
    Question,
    Range,
)

Query = dict[str, Any]

EVERYTHING: Final[Query] = {"match_all": {}}
NOTHING: Final[Query] = {"match_none": {}}

TERMS_MAX: Final = 50_000
"""How many values go into one ``terms`` query: Elasticsearch takes 65,536."""

PREFIX_MAX_BYTES: Final = 980
"""The longest prefix, with its key in ``params``: Elasticsearch's automata have up to 1,000 states."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def field_name(field: str) -> str:
    """Return where a field lies: at the top level, or in ``params``."""
    return field if is_plain(field) else f"params.{param_name(_printable(field))}"


def number_name(field: str) -> str:
    """Return where the numbers of a field lie; values in ``params`` have none."""
    return f"{field_name(field)}.num" if is_plain(field) else "params_have_no_numbers"


def group_name(field: str) -> str:
    """Return where the values lie that a field is grouped or counted by.

    Raises:
        Unaskable: its values are only kept, not indexed.

    """
    if field == "event_id":
        raise Unaskable("events cannot be grouped or counted by event_id: count them, each has its own")
    return field_name(field)


def query_of(where: Filter | None, start: datetime | None = None, end: datetime | None = None) -> Query:
    """Return the query for the events that a filter and a range of time let through."""
    conditions = []
    if where is not None:
        conditions.append(filter_query(where))
    bounds = {}
    if start is not None:
        bounds["gte"] = _milliseconds(start)
    if end is not None:
        bounds["lt"] = _milliseconds(end)
    if bounds:
        conditions.append({"range": {"@timestamp": {**bounds, "format": "epoch_millis"}}})
    return {"bool": {"filter": conditions}} if conditions else EVERYTHING


def filter_query(where: Filter) -> Query:  # noqa: PLR0911  # one for each kind of filter
    """Return the query for one filter.

    Raises:
        Unaskable: it looks for the beginning of an ``event_id``, or a beginning that is too long.

    """
    match where:
        case Equals(field, value):
            return _one_of(field, (value,))
        case OneOf(field, values):
            return _one_of(field, values)
        case Prefix(field, text):
            return _prefix(field, text)
        case Exists(field):
            return _exists(field)
        case Range():
            return _range(where)
        case Not(inner):
            return {"bool": {"must_not": [filter_query(inner)]}}
        case AllOf(inner):
            return {"bool": {"filter": [filter_query(each) for each in inner]}} if inner else EVERYTHING
        case AnyOf(inner):
            return _any_of([filter_query(each) for each in inner])


def _any_of(queries: list[Query]) -> Query:
    return {"bool": {"should": queries, "minimum_should_match": 1}} if queries else NOTHING


def _one_of(field: str, values: tuple[str, ...]) -> Query:
    name = "_id" if field == "event_id" else field_name(field)
    findable = [_value(field, value) for value in values if len(value) <= VALUE_MAX_CHARACTERS]
    chunks = [findable[at : at + TERMS_MAX] for at in range(0, len(findable), TERMS_MAX)]
    queries: list[Query] = [{"terms": {name: chunk}} for chunk in chunks]
    return queries[0] if len(queries) == 1 else _any_of(queries)


def _prefix(field: str, text: str) -> Query:
    if field == "event_id":
        raise Unaskable("event_id can be looked for only as a whole")
    if len(text) > VALUE_MAX_CHARACTERS:
        return NOTHING
    name, value = field_name(field), _value(field, text)
    if len(name.encode()) + len(value.encode()) > PREFIX_MAX_BYTES:
        raise Unaskable(f"{text[:20]}… is too long to be looked for as a beginning: shorten it to 500 bytes")
    return {"prefix": {name: value}}


def _exists(field: str) -> Query:
    if field == "event_id":
        return EVERYTHING
    # `exists` would read a `*` in the name as a pattern, and does not find keys that have one.
    name = field_name(field)
    return {"exists": {"field": name}} if is_plain(field) else {"prefix": {name: ""}}


def _range(where: Range) -> Query:
    bounds = {"gt": where.above, "gte": where.at_least, "lt": where.below, "lte": where.at_most}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    if any(math.isnan(bound) for bound in given.values()) or not is_plain(where.field):
        return NOTHING
    # Stored numbers are finite; JSON has no infinity.
    if math.inf in (where.above, where.at_least) or -math.inf in (where.below, where.at_most):
        return NOTHING
    finite = {name: bound for name, bound in given.items() if math.isfinite(bound)}
    return {"range": {number_name(where.field): finite}}


def _value(field: str, value: str) -> str:
    printable = _printable(value)
    return printable if is_plain(field) else printable.replace("\0", "\ufffd")


def _printable(text: str) -> str:
    """Put U+FFFD in place of lone surrogates, as documents have it."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _milliseconds(moment: datetime) -> int:
    # Documents have whole milliseconds: the first one that is not before the moment.
    return -(-((moment - _EPOCH) // _MICROSECOND) // 1000)


Body = dict[str, Any]

EVENTS_EACH: Final = 8
"""How many events one value has, at a first guess."""
MORE: Final = 4

_DAYS: Final = "days"


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


GROUPS: Final = "groups"
"""The name of the outermost aggregation."""

TREE_SIZE: Final = 50_000
"""How many groups a tree may have on each level: Elasticsearch answers with up to 65,536 buckets."""
PAGE_SIZE: Final = 20_000
HEAVY_PAGE_SIZE: Final = 2_000
"""Each group of a page with distinct values or percentiles takes memory of its own."""
PARTS_STEP: Final = 8
PARTS_MAX: Final = 512
CLOSE_COUNT: Final = 40_000
"""Up to about this many distinct values are counted almost exactly; Elasticsearch takes no more."""

APPROXIMATE: Final = frozenset({Kind.UNIQUE, Kind.PERCENTILE})
_LONG_UNITS: Final = frozenset({"day", "week", "month"})
"""Of these, each index has one, or few."""
_UNIT_LENGTHS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
_ZONES = {"EST": "-05:00", "MST": "-07:00", "HST": "-10:00", "ROC": "Asia/Taipei"}
"""Names that Java does not have."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Everything as one group."""


@dataclass(frozen=True, slots=True)
class Tree:
    """All groups as one tree, or that part of it in whose outermost field every n-th value is."""

    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Page:
    """The next *size* groups after one."""

    after: dict[str, Any] | None
    size: int


Step = Whole | Tree | Page


def first_step(question: Question) -> Step:
    """Return how to begin."""
    if not question.by:
        return Whole()
    if has_params(question) or (len(question.by) == 1 and _fits(question)):
        return Tree()
    return next_page(question, None, 0)


def wider_step(question: Question, tree: Tree) -> Step | None:
    """Return how to begin again where a tree did not hold all groups; None where there is no way."""
    if not has_params(question):
        return next_page(question, None, 0)
    if tree.parts >= PARTS_MAX:
        return None
    return Tree(0, tree.parts * PARTS_STEP)


def next_page(question: Question, after: dict[str, Any] | None, known: int) -> Page:
    """Return the page after those whose groups are *known*: in all, one group more than are answered."""
    size = HEAVY_PAGE_SIZE if any(metric.kind in APPROXIMATE for metric in question.metrics) else PAGE_SIZE
    return Page(after, min(size, MAX_GROUPS + 1 - known))


def has_params(question: Question) -> bool:
    """Return whether a question groups by a field in ``params``."""
    return any(_is_param(name) for name in question.by)


def levels(question: Question) -> list[int]:
    """Return which of the question's ``by`` is on which level of a tree: fields in ``params`` come first."""
    return sorted(range(len(question.by)), key=lambda at: not _is_param(question.by[at]))


def search_body(question: Question, step: Step) -> Body:
    """Return the search for one step.

    Raises:
        Unaskable: the question asks for what is not indexed.

    """
    query = query_of(question.where, question.start, question.end)
    groups = _groups(question, step, _measures(question))
    return {"size": 0, "track_total_hits": False, "query": query, "aggs": {GROUPS: groups}}


def measure_of(metric: Metric) -> tuple[str, str]:
    """Return which measure holds a metric's number: its kind, and of which field."""
    match metric.kind:
        case Kind.UNIQUE:
            return "cardinality", metric.field
        case Kind.PERCENTILE:
            return "percentiles", metric.field
        case Kind.FIRST:
            return "min", "@timestamp"
        case Kind.LAST:
            return "max", "@timestamp"
        case _:
            return "stats", metric.field


def measure_names(metrics: tuple[Metric, ...]) -> dict[tuple[str, str], str]:
    """Return how the aggregation is called that works out each measure."""
    measures = dict.fromkeys(measure_of(metric) for metric in metrics if metric.kind is not Kind.COUNT)
    return {measure: f"m{at}" for at, measure in enumerate(measures)}


def _is_param(name: str) -> bool:
    return name not in TIME_UNITS and not is_plain(name)


def _fits(question: Question) -> bool:
    """Return whether a tree of one time unit has few enough groups; other fields are tried."""
    length = _UNIT_LENGTHS.get(question.by[0])
    if length is None:
        return True
    if question.start is None or question.end is None:
        return False
    return (question.end - question.start) / length < TREE_SIZE


def _groups(question: Question, step: Step, inner: Body) -> Body:
    match step:
        case Whole():
            return {"filter": EVERYTHING, **inner}
        case Tree():
            return _tree(question, step, inner)
        case Page(after, size):
            sources = [{str(at): _source(question, at)} for at in range(len(question.by))]
            start = {} if after is None else {"after": after}
            return {"composite": {"size": size, "sources": sources, **start}, **inner}


def _tree(question: Question, tree: Tree, inner: Body) -> Body:
    node = inner
    outermost = levels(question)[0]
    for at in reversed(levels(question)):
        group = _source(question, at)
        if "terms" in group:
            group["terms"].update(size=TREE_SIZE, shard_size=TREE_SIZE)
            if at == outermost and tree.parts > 1:
                group["terms"]["include"] = {"partition": tree.part, "num_partitions": tree.parts}
        else:
            group["date_histogram"]["min_doc_count"] = 1
        node = {"aggs": {GROUPS: {**group, **node}}}
    whole: Body = node["aggs"][GROUPS]
    return whole


def _source(question: Question, at: int) -> Body:
    name = question.by[at]
    if name not in TIME_UNITS:
        return {"terms": {"field": group_name(name)}}
    zone = _ZONES.get(question.tz, question.tz)
    return {"date_histogram": {"field": "@timestamp", "calendar_interval": name, "time_zone": zone}}


def _measures(question: Question) -> Body:
    metrics = question.metrics
    # Elasticsearch would take memory for each group as if it held all values, be they two.
    sparing = {} if _LONG_UNITS.issuperset(question.by) else {"execution_hint": "direct"}
    aggs: Body = {}
    for (kind, field), name in measure_names(metrics).items():
        match kind:
            case "cardinality":
                aggs[name] = {kind: {"field": group_name(field), "precision_threshold": CLOSE_COUNT, **sparing}}
            case "percentiles":
                percents = sorted({m.percent for m in metrics if measure_of(m) == (kind, field)})
                aggs[name] = {kind: {"field": number_name(field), "percents": percents, "keyed": False}}
            case "min" | "max":
                aggs[name] = {kind: {"field": field}}
            case _:
                aggs[name] = {kind: {"field": number_name(field)}}
    return {"aggs": aggs} if aggs else {}
