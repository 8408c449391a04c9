"""Queries: what a store can compute.

A query counts or measures the events that a filter and a time range let through, grouped by fields or time units.
Every report is built from queries, and every back end gives the same results. For all queries:

* A field has the name that its sender gave it. A name that cannot be at a document's top level, such as one with a
  dot, refers to a value in ``params``.
* Values compare as text: ``1`` and ``"1"`` are the same. A value of over 1,024 characters counts as missing.
* Numbers are values that are a number or the text of one; metrics of numbers skip all other values.
* A group that lacks a value in one of the ``group_by`` fields is omitted.
* Days, weeks (from Monday), months, quarters and years are those of ``time_zone``; hours and minutes carry its offset.
  ``all`` is one unit of all time.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from metronome.errors import InvalidQuery

TIME_UNITS: Final = ("minute", "hour", "day", "week", "month", "quarter", "year", "all")
"""The ``group_by`` names that group by time; fields with these names cannot be grouped by."""
MAX_GROUPS: Final = 100_000
"""A store may stop after this many groups; its result is then not exact."""

_EXACT_INTEGERS: Final = 2**53
"""Integers below this one are exact as floating-point numbers."""
_INTEGERS_END: Final = 2**64
_SUBDAY_UNITS: Final = frozenset({"minute", "hour"})
_MIN_DATETIME: Final = datetime(1, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)

_METRIC_PATTERN = re.compile(
    r"(?P<kind>count|views|downloads|first|last|visitors|sessions|unique|sum|avg|min|max|p(?P<percent>\d{1,2}(?:\.\d+)?))"
    r"(?::(?P<field>.+))?"
)
_METRIC_ALIASES = {"visitors": "visitor", "sessions": "session"}
_FIELDLESS_METRICS = frozenset({"views", "downloads", "first", "last", *_METRIC_ALIASES})
_NON_ZONE_FILES = re.compile(r"(?:posix|right)/.*|posixrules|localtime|Factory", re.DOTALL)
"""Files next to those of time zones that many machines have and no store knows."""
_EXCERPT_CHARACTERS: Final = 60


class MetricKind(StrEnum):
    """How a metric aggregates events."""

    COUNT = "count"
    VIEWS = "views"
    DOWNLOADS = "downloads"
    VALUE_COUNT = "values"
    FIRST = "first"
    LAST = "last"
    UNIQUE = "unique"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    PERCENTILE = "percentile"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number or time to compute for each group.

    Attributes:
        kind: the aggregation. ``VIEWS`` and ``DOWNLOADS`` are the numbers of these events, ``VALUE_COUNT`` is the
            number of events with a number in the field, ``FIRST`` and ``LAST`` are the times of the oldest and the
            newest event.
        field: the aggregated field; empty for ``COUNT``, ``VIEWS``, ``DOWNLOADS``, ``FIRST`` and ``LAST``.
        percentile: above 0 and below 100; 0 for every other kind.
        name: the name of the result's column.

    """

    kind: MetricKind
    field: str = ""
    percentile: float = 0.0
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Metric":
        """Parse a metric.

        Args:
            text: ``count``, ``views``, ``downloads``, ``first``, ``last``, ``visitors``, ``sessions``, or one of
                ``count``, ``unique``, ``sum``, ``avg``, ``min``, ``max`` and ``pNN`` (the NNth percentile) with a
                colon and a field.

        Raises:
            InvalidQuery: the text is not a metric.

        """
        match = _METRIC_PATTERN.fullmatch(text)
        if match is None:
            raise InvalidQuery(_invalid_metric_message(text))
        kind, name, percent = match["kind"], match["field"] or "", match["percent"]
        if kind != "count" and (kind in _FIELDLESS_METRICS) == bool(name):
            raise InvalidQuery(_invalid_metric_message(text))
        if kind == "count" and name:
            return cls(MetricKind.VALUE_COUNT, name, name=text)
        if percent is not None:
            if float(percent) == 0:  # The pattern allows at most two digits before the point.
                raise InvalidQuery(_invalid_metric_message(text))
            return cls(MetricKind.PERCENTILE, name, float(percent), text)
        if kind in _METRIC_ALIASES:
            return cls(MetricKind.UNIQUE, _METRIC_ALIASES[kind], name=text)
        return cls(MetricKind(kind), name, name=text)


def _invalid_metric_message(text: str) -> str:
    return (
        f"invalid metric {text[:_EXCERPT_CHARACTERS]!r}: expected count, views, downloads, first, last, visitors, "
        "sessions, or count|unique|sum|avg|min|max|pNN:FIELD"
    )


COUNT: Final = Metric(MetricKind.COUNT, name="count")
EVENT_BY_METRIC: Final = {MetricKind.VIEWS: "view", MetricKind.DOWNLOADS: "download"}
"""The metrics that count the events of one name."""
EVENT_COUNTS: Final = frozenset({MetricKind.COUNT, *EVENT_BY_METRIC})
"""The metrics that count events, and need nothing of them but their name."""


@dataclass(frozen=True, slots=True)
class Equals:
    """The field's text is *value*."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field's text is one of *values*; false if there are none."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """The field's text begins with *text*."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value."""

    field: str


@dataclass(frozen=True, slots=True)
class Range:
    """The field's number is within all bounds."""

    field: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Not:
    """The inner filter is false, or the event lacks its field."""

    negated: "Filter"


@dataclass(frozen=True, slots=True)
class AllOf:
    """All inner filters are true; true if there are none."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one inner filter is true; false if there are none."""

    filters: tuple["Filter", ...]


FieldFilter = Equals | OneOf | Prefix | Exists | Range
"""A filter of one field."""
Filter = FieldFilter | Not | AllOf | AnyOf

_ROUNDED_METRICS: Final = frozenset(
    {MetricKind.SUM, MetricKind.AVG, MetricKind.MIN, MetricKind.MAX, MetricKind.PERCENTILE}
)

EXCLUDE_BOTS: Final = Not(Exists("bot"))


def iterate_field_filters(where: Filter | None) -> Iterator[FieldFilter]:
    """Yield the filters of single fields in a filter, at any depth."""
    match where:
        case None:
            return
        case Not(inner):
            yield from iterate_field_filters(inner)
        case AllOf(inners) | AnyOf(inners):
            for inner in inners:
                yield from iterate_field_filters(inner)
        case _:
            yield where


@dataclass(frozen=True, slots=True)
class SortKey:
    """A column to sort by: a ``group_by`` name or the name of a metric."""

    column: str
    descending: bool = False

    @classmethod
    def parse(cls, text: str) -> "SortKey":
        """Parse ``column``, or ``-column`` for descending order."""
        return cls(text.removeprefix("-"), text.startswith("-"))


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a store.

    Attributes:
        metrics: what to compute for each group; at least one.
        group_by: fields and time units to group by; without any, all events are one group.
        where: which events count; None for all.
        start: aware; older events do not count. None for no limit.
        end: aware; events from then on do not count. None for no limit.
        time_zone: the IANA name of the time zone that days belong to.
        sort_keys: columns to sort rows by; rows that are equal in these are sorted by their groups,
            smallest text first.
        limit: the maximum number of rows; None for all.
        offset: the number of rows to skip.

    Raises:
        InvalidQuery: there is no metric, the time zone or a sorted column is unknown, a column occurs twice, or limit
            or offset is negative.

    """

    metrics: tuple[Metric, ...] = (COUNT,)
    group_by: tuple[str, ...] = ()
    where: Filter | None = None
    start: datetime | None = None
    end: datetime | None = None
    time_zone: str = "UTC"
    sort_keys: tuple[SortKey, ...] = ()
    limit: int | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        """Reject a query that no back end can run."""
        if not self.metrics:
            raise InvalidQuery("a query needs a metric, such as count")
        parse_time_zone(self.time_zone)
        if (self.limit is not None and self.limit < 0) or self.offset < 0:
            raise InvalidQuery("limit and offset cannot be negative")
        columns = self.columns
        if len(set(columns)) < len(columns):
            raise InvalidQuery(f"a column occurs twice: {', '.join(columns)}")
        for key in self.sort_keys:
            if key.column not in columns:
                raise InvalidQuery(f"cannot sort by {key.column!r}: expected one of {', '.join(columns)}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the result's columns: those of the groups, then the metrics."""
        return (*self.group_by, *(metric.name for metric in self.metrics))


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of a query.

    Attributes:
        columns: see `Query.columns`.
        rows: one for each group, values in the order of *columns*: text for what is grouped by (time units
            as `metronome.times.format_time_unit` formats them), whole numbers for ``count``, ``values`` and ``unique``,
            timestamps as ``2015-01-22T09:00:00.000Z`` for ``first`` and ``last``, else numbers, or None
            if no event has one (a sum is then 0.0).
        total: the number of rows without limit and offset.
        exact: whether every number and the choice of rows is exact, not estimated or rounded.
        is_complete: whether no group is missing because there are too many; if false, the result is not exact.

    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    total: int
    exact: bool = True
    is_complete: bool = True

    def to_dict(self) -> dict[str, int | float | None]:
        """Return the rows of a query with one group and one metric as a mapping, in their order."""
        return {str(row[0]): row[1] for row in self.rows}  # type: ignore[misc]  # a metric's value is a number


def parse_time_zone(name: str) -> ZoneInfo:
    """Return the time zone with an IANA name.

    Raises:
        InvalidQuery: there is no such time zone.

    """
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        zone = None
    if zone is None or _NON_ZONE_FILES.fullmatch(name):
        raise InvalidQuery(
            f"unknown time zone {name[:_EXCERPT_CHARACTERS]!r}: expected a name such as Europe/Zurich or UTC"
        )
    return zone


def replace_lone_surrogates(text: str) -> str:
    """Return a text with U+FFFD in place of lone surrogates, as documents store it."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def build_result(
    query: Query, rows: list[tuple[str | int | float | None, ...]], *, exact: bool = True, is_complete: bool = True
) -> QueryResult:
    """Return the result of a query from all its rows: sort them, and apply limit and offset."""
    width = len(query.group_by)
    rows.sort(key=lambda row: tuple(_group_sort_key(name, str(row[at])) for at, name in enumerate(query.group_by)))
    for key in reversed(query.sort_keys):
        at = query.columns.index(key.column)
        name = query.group_by[at] if at < width else ""
        rows.sort(key=lambda row, at=at, name=name: _value_sort_key(row[at], name), reverse=key.descending)  # type: ignore[misc]
    end = None if query.limit is None else query.offset + query.limit
    shown = tuple(rows[query.offset : end])
    exact = exact and is_complete and not has_rounded_integers(query, shown)
    return QueryResult(query.columns, shown, len(rows), exact=exact, is_complete=is_complete)


def has_rounded_integers(query: Query, rows: Sequence[tuple[str | int | float | None, ...]]) -> bool:
    """Return whether the rows of a query depend on integers that stores round: those above 2⁵³.

    Stores compute with floating-point numbers, but events have integers of up to 64 bits.
    """
    at = [index for index, metric in enumerate(query.metrics, len(query.group_by)) if metric.kind in _ROUNDED_METRICS]
    if at and any(abs(value) >= _EXACT_INTEGERS for row in rows for index in at if (value := row[index]) is not None):  # type: ignore[arg-type]  # the value of a metric is a number
        return True
    return any(
        bound is not None and _EXACT_INTEGERS <= abs(bound) <= _INTEGERS_END
        for each in iterate_field_filters(query.where)
        if isinstance(each, Range)
        for bound in (each.above, each.at_least, each.below, each.at_most)
    )


def _group_sort_key(name: str, text: str) -> str:
    if name not in _SUBDAY_UNITS:
        return text
    # By time, not by text: an hour that clocks repeat has two labels. A difference, because times near the first and
    # last year cannot be converted to another time zone.
    return f"{(datetime.fromisoformat(text) - _MIN_DATETIME + _DAY).total_seconds():020.0f}"


def _value_sort_key(value: str | float | None, name: str) -> tuple[int, float, str]:
    if isinstance(value, str):
        return (1, 0.0, _group_sort_key(name, value))
    return (0, 0.0, "") if value is None else (1, value, "")
