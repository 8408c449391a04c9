"""Fields that the mapping of an index lacks, and queries that read them from the documents instead.

Each month's index takes the type of a field from its first value. So there are two gaps: an index with as many fields
as its mapping may have only stores further ones, and a field whose first value of the month is a text has no numbers in
that index. Elasticsearch counts neither, and says so only if it is asked. A query of such a field reads it from the
documents, as a runtime field: slower, but nothing is missing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from metronome.fields import FIELDS_BY_NAME, is_top_level_name
from metronome.stores.elasticsearch.queries import SearchBody, build_query, number_path
from metronome.stores.query import TIME_UNITS, MetricKind, Query, Range, iterate_field_filters

MAX_STORED_ONLY_FIELDS: Final = 10_000
"""Maximum number of fields that are listed although no mapping has them."""

_MAX_INDICES: Final = 10_000
_NAMES_AGGREGATION: Final = "names"
_INDICES_AGGREGATION: Final = "indices"
_NO_NUMBER_METRICS: Final = frozenset(
    {
        *(MetricKind.COUNT, MetricKind.VIEWS, MetricKind.DOWNLOADS),
        *(MetricKind.FIRST, MetricKind.LAST, MetricKind.UNIQUE),
    }
)


@dataclass(frozen=True, slots=True)
class FieldUse:
    """The fields of a query whose type depends on their first value.

    Attributes:
        texts: those that it needs the texts of.
        numbers: those that it needs the numbers of.

    """

    texts: frozenset[str]
    numbers: frozenset[str]

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return self.texts | self.numbers


NO_FIELDS: Final = FieldUse(frozenset(), frozenset())


def find_untyped_fields(query: Query) -> FieldUse:
    """Return the fields of a query whose type depends on their first value."""
    filters = list(iterate_field_filters(query.where))
    texts = {
        *(name for name in query.group_by if name not in TIME_UNITS),
        *(metric.field for metric in query.metrics if metric.kind is MetricKind.UNIQUE),
        *(where.field for where in filters if not isinstance(where, Range)),
    }
    numbers = {
        *(metric.field for metric in query.metrics if metric.kind not in _NO_NUMBER_METRICS),
        *(where.field for where in filters if isinstance(where, Range)),
    }
    return FieldUse(frozenset(filter(_is_untyped, texts)), frozenset(filter(_is_untyped, numbers)))


def _is_untyped(name: str) -> bool:
    known = FIELDS_BY_NAME.get(name)
    return is_top_level_name(name) and (known is None or known.type is None)


def build_ignored_search(names: Iterable[str], queries: Iterable[Query]) -> SearchBody:
    """Return the search for the indices in which documents have fields with values that are only stored."""
    starts, ends = zip(*((query.start, query.end) for query in queries), strict=True)
    start = None if None in starts else min(starts)
    end = None if None in ends else max(ends)
    indices = {_INDICES_AGGREGATION: {"terms": {"field": "_index", "size": _MAX_INDICES}}}
    filters = {name: {"term": {"_ignored": name}} for name in sorted(names)}
    return {
        "size": 0,
        "track_total_hits": False,
        "query": {"bool": {"filter": [build_query(None, start, end), {"terms": {"_ignored": sorted(names)}}]}},
        "aggs": {_NAMES_AGGREGATION: {"filters": {"filters": filters}, "aggs": indices}},
    }


def read_ignored(response: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the indices in a response to `build_ignored_search`, by the name of the field."""
    buckets = response.get("aggregations", {}).get(_NAMES_AGGREGATION, {}).get("buckets", {})
    return {
        name: {index["key"] for index in bucket[_INDICES_AGGREGATION]["buckets"]}
        for name, bucket in buckets.items()
        if bucket["doc_count"]
    }


def list_capability_fields(use: FieldUse) -> list[str]:
    """Return the paths whose capabilities `find_gaps` needs."""
    return sorted({*use.names, *map(number_path, use.numbers)})


def find_gaps(use: FieldUse, ignored: Mapping[str, set[str]], capabilities: Mapping[str, Any]) -> FieldUse:
    """Return the fields that some index with values of them does not have in its mapping.

    Args:
        use: the fields of a query.
        ignored: see `read_ignored`.
        capabilities: what Elasticsearch returns about `list_capability_fields`, with unmapped ones.

    """
    indices, fields = set(capabilities.get("indices", ())), capabilities.get("fields", {})
    mapped = {path: _mapped_indices(fields.get(path, {}), indices) for path in list_capability_fields(use)}
    overflowing = {name for name in use.names if ignored.get(name, set()) - mapped[name]}
    without_numbers = {name for name in use.numbers if mapped[name] - mapped[number_path(name)]}
    return FieldUse(use.texts & overflowing, use.numbers & (overflowing | without_numbers))


def _mapped_indices(types: Mapping[str, Any], indices: set[str]) -> set[str]:
    """Return the indices that have a field in their mapping; the names are only listed where they differ."""
    mapped = {name: capabilities for name, capabilities in types.items() if name != "unmapped"}
    if not mapped:
        return set()
    return set[str]().union(*(capabilities.get("indices", indices) for capabilities in mapped.values()))


def read_from_documents(search: SearchBody, gaps: FieldUse) -> SearchBody:
    """Return a search that reads fields from the documents; those of texts and of numbers must differ."""
    paths = {number_path(name): name for name in gaps.numbers}
    runtime = dict.fromkeys(sorted(gaps.texts), "keyword") | dict.fromkeys(sorted(gaps.numbers), "double")
    return {
        **_replace_paths(search, paths),
        "runtime_mappings": {name: {"type": kind} for name, kind in runtime.items()},
    }


def _replace_paths(part: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(part, list):
        return [_replace_paths(each, paths) for each in part]
    if not isinstance(part, dict):
        return part
    replaced: dict[str, Any] = {}
    for key, value in part.items():
        if key == "field":
            replaced[key] = paths.get(value, value)
        elif key == "range":
            replaced[key] = {paths.get(path, path): bounds for path, bounds in value.items()}
        else:
            replaced[key] = _replace_paths(value, paths)
    return replaced


STORED_ONLY_SEARCH: Final[SearchBody] = {
    "size": 0,
    "track_total_hits": False,
    "aggs": {_NAMES_AGGREGATION: {"terms": {"field": "_ignored", "size": MAX_STORED_ONLY_FIELDS}}},
}
"""The search for the names of fields with values that are only stored."""


def read_stored_only(response: Mapping[str, Any]) -> frozenset[str]:
    """Return the names in a response to `STORED_ONLY_SEARCH`."""
    buckets = response.get("aggregations", {}).get(_NAMES_AGGREGATION, {}).get("buckets", ())
    return frozenset(bucket["key"] for bucket in buckets if _is_untyped(bucket["key"]))
