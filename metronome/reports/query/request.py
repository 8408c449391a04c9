"""Queries as clients write them, and the checks that turn them into queries for a store."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import Final, NamedTuple

from metronome.enrich.addresses import normalize_address
from metronome.enrich.referrers import normalize_referrer
from metronome.errors import InvalidQuery
from metronome.reports.parameters import (
    ReportParameters,
    excerpt,
    parse_boolean,
    parse_choice,
    parse_report_parameters,
    parse_whole_number,
)
from metronome.reports.query.compare import CHANGE_SUFFIX, COMPARISONS, earlier_range, earlier_range_to_now
from metronome.stores.query import (
    EXCLUDE_BOTS,
    MAX_GROUPS,
    TIME_UNITS,
    AllOf,
    AnyOf,
    Equals,
    FieldFilter,
    Filter,
    Metric,
    MetricKind,
    Not,
    OneOf,
    Prefix,
    Query,
    Range,
    SortKey,
    iterate_field_filters,
    parse_time_zone,
)

MAX_ROWS: Final = MAX_GROUPS
DEFAULT_ROWS: Final = 1000
MAX_METRICS: Final = 20
MAX_GROUP_FIELDS: Final = 4
MAX_FILTERS: Final = 100
"""Maximum number of filters, including nested ones."""
MAX_FILTER_DEPTH: Final = 8
"""Maximum nesting of filters."""
MAX_FILTER_VALUES: Final = 10_000
"""Maximum number of values in all filters together."""
NAME_MAX_CHARACTERS: Final = 256
PREFIX_MAX_BYTES: Final = 500
"""Stores need not find longer prefixes."""

QUERY_PARAMETERS: Final = ("metrics", "by", "from", "to", "tz", "order", "limit", "offset", "compare", "fill", "bots")
"""The parameters of a query; in a query string, every other name is that of a field to filter by."""

LIST_PARAMETERS: Final = frozenset({"metrics", "by", "order"})
"""The parameters with lists; the others have single values."""

_NUMERIC_METRICS: Final = frozenset(
    {MetricKind.VALUE_COUNT, MetricKind.SUM, MetricKind.AVG, MetricKind.MIN, MetricKind.MAX, MetricKind.PERCENTILE}
)
_COMMON_PARAMETERS: Final = frozenset({"from", "to", "tz", "bots"})
_BOT_FIELDS: Final = frozenset({"bot", "bot_kind"})
_URL_START: Final = re.compile(r"https?://(?:www\.)?", re.IGNORECASE)
COUNTRY_CODE_LENGTH: Final = 2
_NORMALIZED_FIELDS: Final[dict[str, Callable[[str], str | None]]] = {
    "format": str.lower,
    "referer": lambda value: normalize_referrer(value, frozenset()),
    "clientip": normalize_address,
    "country": lambda value: value.upper() if len(value) == COUNTRY_CODE_LENGTH else value,
}
"""What ingest does to the values of some fields; None if a value is not valid."""
_EVENT_ID: Final = "event_id"


@dataclass(frozen=True, slots=True)
class RawQuery:
    """A query as the client wrote it, not validated.

    Attributes:
        lists: values by their names, of `LIST_PARAMETERS`.
        scalars: values by their names, of the other `QUERY_PARAMETERS`.
        filters: an event must match all of them.

    """

    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    filters: tuple[Filter, ...] = ()


class ComparisonRange(NamedTuple):
    """The range that a query compares with.

    Attributes:
        name: one of `COMPARISONS`.
        start: aware; events from then on.
        end: aware; events before then.

    """

    name: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A valid query.

    Attributes:
        query: describes the result: with the columns of the comparison, the order, limit and offset.
        metrics: without the columns of the comparison.
        comparison: the range to compare with, if any.
        fill: whether time units without events have rows, too.

    """

    query: Query
    metrics: tuple[Metric, ...]
    comparison: ComparisonRange | None = None
    fill: bool = False

    @property
    def is_single_query(self) -> bool:
        """Whether the store's result is the result of the query."""
        return self.comparison is None and not self.fill

    @property
    def fields(self) -> frozenset[str]:
        """The names of all fields in the query."""
        measured = {metric.field for metric in self.metrics if metric.field}
        grouped = {name for name in self.query.group_by if name not in TIME_UNITS}
        filtered = {field_filter.field for field_filter in iterate_field_filters(self.query.where)}
        return frozenset(measured | grouped | filtered)

    @property
    def numeric_fields(self) -> frozenset[str]:
        """The names of the fields that the query needs numbers of."""
        bounded = {
            field_filter.field
            for field_filter in iterate_field_filters(self.query.where)
            if isinstance(field_filter, Range)
        }
        return frozenset(bounded | {metric.field for metric in self.metrics if metric.kind in _NUMERIC_METRICS})

    def store_queries(self) -> tuple[Query, ...]:
        """Return the queries for the store: one, or two with a comparison."""
        if self.is_single_query:
            return (self.query,)
        # Rows are sorted and limited after they are combined or filled.
        query = replace(self.query, metrics=self.metrics, sort_keys=(), limit=MAX_ROWS, offset=0)
        if self.comparison is None:
            return (query,)
        return (query, replace(query, start=self.comparison.start, end=self.comparison.end))


def parse_query(
    raw: RawQuery, now: datetime, *, max_rows: int = MAX_ROWS, default_rows: int = DEFAULT_ROWS
) -> ParsedQuery:
    """Validate a query.

    Args:
        raw: the query as the client wrote it.
        now: aware; the time that relative times count from.
        max_rows: the maximum limit.
        default_rows: the limit if there is none.

    Raises:
        InvalidQuery: a name or value is invalid, or there are too many.

    """
    scalars = raw.scalars
    common = parse_report_parameters(
        {name: scalars[name] for name in _COMMON_PARAMETERS & scalars.keys()}, now, _COMMON_PARAMETERS
    )
    raw_filters = tuple(map(normalize_filter, raw.filters))
    metrics = tuple(map(Metric.parse, _limit_length("metrics", raw.lists.get("metrics") or ("count",), MAX_METRICS)))
    group_by = _limit_length("by", raw.lists.get("by", ()), MAX_GROUP_FIELDS)
    validate_field_names((*group_by, *(metric.field for metric in metrics if metric.field)))
    field_filters = [*iterate_field_filters(AllOf(raw_filters))]
    _validate_filters(field_filters)
    _validate_event_id_use(metrics, group_by, field_filters)
    fill = parse_boolean("fill", scalars.get("fill"))
    if fill and sum(name in TIME_UNITS for name in group_by) != 1:
        raise InvalidQuery(f"fill=1 needs a series: group by exactly one of {', '.join(TIME_UNITS)}")
    comparison = _parse_comparison(scalars.get("compare", ""), common, now)
    named_fields = {*group_by, *(metric.field for metric in metrics), *(each.field for each in field_filters)}
    # A query that names a field of bots includes them.
    include_bots = common.include_bots or not named_fields.isdisjoint(_BOT_FIELDS)
    filters = raw_filters if include_bots else (*raw_filters, EXCLUDE_BOTS)
    query = Query(
        metrics=metrics if comparison is None else tuple(_add_comparison_columns(metrics, comparison.name)),
        group_by=group_by,
        where=AllOf(filters) if filters else None,
        start=common.start,
        end=now if comparison is not None and common.end is None else common.end,
        time_zone=common.tz,
        sort_keys=tuple(map(SortKey.parse, raw.lists.get("order", ()))),
        limit=_parse_limit(scalars.get("limit"), max_rows, default_rows),
        offset=parse_whole_number("offset", scalars.get("offset"), 0),
    )
    return ParsedQuery(query, metrics, comparison, fill)


def normalize_filter(where: Filter) -> Filter:  # noqa: PLR0911  # one for each kind of filter
    """Return a filter with values as ingest normalizes them: ``format=CSV`` finds ``csv``.

    Of referrers and IP addresses, the value as it is written is found as well: older events may have it.
    """
    match where:
        case Equals(field, value) if field in _NORMALIZED_FIELDS:
            values = _normalized_values(field, (value,))
            return Equals(field, values[0]) if len(values) == 1 else OneOf(field, values)
        case OneOf(field, values) if field in _NORMALIZED_FIELDS:
            return OneOf(field, _normalized_values(field, values))
        case Prefix(field, text) if field == "format":
            return Prefix(field, text.lower())
        case Prefix(field, text) if field == "referer" and (match := _URL_START.match(text)):
            host, slash, path = text[match.end() :].partition("/")
            return Prefix(field, f"{host.lower()}{slash}{path}")
        case Not(inner):
            return Not(normalize_filter(inner))
        case AllOf(inners):
            return AllOf(tuple(map(normalize_filter, inners)))
        case AnyOf(inners):
            return AnyOf(tuple(map(normalize_filter, inners)))
    return where


def _normalized_values(field: str, values: tuple[str, ...]) -> tuple[str, ...]:
    normalize = _NORMALIZED_FIELDS[field]
    normalized = (normalize(value) or value for value in values)
    return tuple(
        dict.fromkeys(normalized if field == "format" else chain.from_iterable(zip(normalized, values, strict=True)))
    )


def validate_field_names(names: Iterable[str]) -> None:
    """Check the length of field names.

    Raises:
        InvalidQuery: one is empty or too long.

    """
    for name in names:
        if not 0 < len(name) <= NAME_MAX_CHARACTERS:
            raise InvalidQuery(f"invalid field name {excerpt(name)!r}: expected 1 to {NAME_MAX_CHARACTERS} characters")


def _validate_filters(field_filters: list[FieldFilter]) -> None:
    validate_field_names(each.field for each in field_filters)
    for each in field_filters:
        if isinstance(each, Prefix) and len(each.text.encode(errors="replace")) > PREFIX_MAX_BYTES:
            raise InvalidQuery(f"the prefix {excerpt(each.text)}… is over {PREFIX_MAX_BYTES} bytes: shorten it")
    value_count = sum(len(each.values) for each in field_filters if isinstance(each, OneOf))
    if len(field_filters) > MAX_FILTERS or value_count > MAX_FILTER_VALUES:
        raise InvalidQuery(
            f"the query has {len(field_filters):,} filters with {value_count:,} values: "
            f"use at most {MAX_FILTERS} filters and {MAX_FILTER_VALUES:,} values"
        )


def _validate_event_id_use(
    metrics: tuple[Metric, ...], group_by: tuple[str, ...], field_filters: list[FieldFilter]
) -> None:
    """Reject uses of ``event_id`` that not every store supports."""
    if _EVENT_ID in {*group_by, *(metric.field for metric in metrics)}:
        raise InvalidQuery("event_id is different for each event: group by another field, or use the metric count")
    if any(each.field == _EVENT_ID and isinstance(each, (Prefix, Range)) for each in field_filters):
        raise InvalidQuery("event_id has only whole values: filter by event_id=…")


def _parse_comparison(name: str, common: ReportParameters, now: datetime) -> ComparisonRange | None:
    if not name:
        return None
    parse_choice("compare", name, COMPARISONS, name)
    if common.start is None:
        raise InvalidQuery(f"compare={name} needs a range: add from, such as from=-30d")
    end, zone = common.end or now, parse_time_zone(common.tz)
    if end <= common.start:
        raise InvalidQuery(f"compare={name} needs a range, but from is not before to")
    if name == "previous" and common.end is None:
        return ComparisonRange(name, *earlier_range_to_now(common.start, now, zone))
    return ComparisonRange(name, *earlier_range(name, common.start, end, zone))


def _add_comparison_columns(metrics: tuple[Metric, ...], name: str) -> Iterator[Metric]:
    for metric in metrics:
        yield metric
        yield replace(metric, name=f"{metric.name}:{name}")
        # Like an average, a relative change has no value if there is nothing to relate to.
        yield Metric(MetricKind.AVG, metric.field, name=f"{metric.name}:{CHANGE_SUFFIX}")


def _limit_length(name: str, entries: tuple[str, ...], max_length: int) -> tuple[str, ...]:
    if len(entries) > max_length:
        raise InvalidQuery(f"{name} has {len(entries):,} entries: use at most {max_length}")
    return entries


def _parse_limit(text: str | None, max_rows: int, default_rows: int) -> int:
    limit = parse_whole_number("limit", text, default_rows) or max_rows
    if limit > max_rows:
        raise InvalidQuery(f"limit={limit} is over the maximum of {max_rows:,} rows: use a smaller limit, and offset")
    return limit
