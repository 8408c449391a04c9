"""From a question to the searches that answer it.

A question without groups is one search. One field or one time unit is one `Tree`, which holds all
groups or says that it does not; else groups are paged through, which is always right (`Page`), but
not for fields in ``params``: Elasticsearch 8.19 pages through these wrongly (it takes the values of other
keys for theirs), so a tree with these that is too large is asked for in parts.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from metronome.event import is_plain
from metronome.question import MAX_GROUPS, TIME_UNITS, Kind, Metric, Question
from metronome.stores.elasticsearch.filters import EVERYTHING, group_name, number_name, query_of

Body = dict[str, Any]

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
