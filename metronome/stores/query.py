"""What a store can be asked, and what it answers.

A question counts or measures events, grouped by fields or by time, of those that a filter and a range
of time let through. Every report is made of questions, and every store answers each alike.

What holds for all of them:

* A field is named as its sender named it. A name that no document has at its top level (a dotted one)
  is looked for in ``params``.
* Values compare as text: ``1`` and ``"1"`` are the same. A value of over 1,024 characters counts as missing.
* Numbers are what a field holds as a number (or as a number's text); measures skip everything else.
* A group that lacks a value in one of its ``by`` fields is left out.
* Days, weeks (from Monday) and months are those of ``tz``; hours and minutes carry its offset.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from metronome.errors import InvalidQuery

TIME_UNITS: Final = ("minute", "hour", "day", "week", "month")
"""The ``by`` names that group by time: a field of one of these names cannot be grouped by."""

_SUBDAY_UNITS: Final = frozenset({"minute", "hour"})
_MIN_DATETIME: Final = datetime(1, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)

MAX_GROUPS: Final = 100_000
"""A store may stop at so many groups; its answer is then not exact."""

_METRIC_PATTERN = re.compile(
    r"(?P<kind>count|first|last|visitors|sessions|unique|sum|avg|min|max|p(?P<percent>\d{1,2}(?:\.\d+)?))"
    r"(?::(?P<field>.+))?"
)
_METRIC_ALIASES = {"visitors": "visitor", "sessions": "session"}
_FIELDLESS_METRICS = frozenset({"first", "last", *_METRIC_ALIASES})
"""The metrics that take no field."""
_NON_ZONE_FILES = re.compile(r"(?:posix|right)/.*|posixrules|localtime|Factory", re.DOTALL)
"""Files beside those of zones, which many machines have and no store knows."""


class MetricKind(StrEnum):
    """How a metric makes one number of many events."""

    COUNT = "count"
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
    """One number, or time, to work out for each group.

    Attributes:
        kind: how. ``VALUES`` is how many events hold a number in the field, ``FIRST`` and ``LAST`` are the times
            of the oldest and the newest event.
        field: of which field; empty for ``COUNT``, ``FIRST`` and ``LAST``.
        percent: which percentile, above 0 and below 100; 0 for every other kind.
        name: how the answer's column is called, as it was asked for.

    """

    kind: MetricKind
    field: str = ""
    percentile: float = 0.0
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Metric":
        """Read ``count``, ``count:F``, ``first``, ``last``, ``visitors``, ``sessions``, ``unique:F`` and the like.

        Besides these there are ``sum:F``, ``avg:F``, ``min:F``, ``max:F`` and ``pNN:F``, the NNth percentile.

        Raises:
            InvalidQuery: it is none of these.

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
            if float(percent) == 0:  # The pattern has two digits at most before the point.
                raise InvalidQuery(_invalid_metric_message(text))
            return cls(MetricKind.PERCENTILE, name, float(percent), text)
        if kind in _METRIC_ALIASES:
            return cls(MetricKind.UNIQUE, _METRIC_ALIASES[kind], name=text)
        return cls(MetricKind(kind), name, name=text)


def _invalid_metric_message(text: str) -> str:
    return (
        f"{text[:100]!r} is no metric: ask for count, first, last, visitors, sessions, "
        "or count|unique|sum|avg|min|max|pNN:FIELD"
    )


COUNT: Final = Metric(MetricKind.COUNT, name="count")


@dataclass(frozen=True, slots=True)
class Equals:
    """The field's text is *value*."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field's text is one of *values*; never, if there are none."""

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
    """The field's number lies within the bounds that are given."""

    field: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Not:
    """The inner filter does not hold; so it does for an event that lacks the field."""

    negated: "Filter"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Each of the inner filters holds; so it does if there are none."""

    filters: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the inner filters holds; never, if there are none."""

    filters: tuple["Filter", ...]


Filter = Equals | OneOf | Prefix | Exists | Range | Not | AllOf | AnyOf

EXCLUDE_BOTS: Final = Not(Exists("bot"))


@dataclass(frozen=True, slots=True)
class SortKey:
    """One column to sort by: a ``by`` name or a metric's name."""

    column: str
    descending: bool = False

    @classmethod
    def parse(cls, text: str) -> "SortKey":
        """Read ``column`` or, to sort from the greatest down, ``-column``."""
        return cls(text.removeprefix("-"), text.startswith("-"))


@dataclass(frozen=True, slots=True)
class Query:
    """One question to a store.

    Attributes:
        metrics: at least one.
        by: fields and time units to group by; none makes one row of everything.
        where: which events count; None for all.
        start: aware; events from then on count. None for all that are older.
        end: aware; events before then count. None for all that are newer.
        tz: the IANA name of the zone that days belong to.
        order: columns to sort rows by; rows that are equal in these come in the order of their
            groups, smallest text first.
        limit: how many rows at most; None for all.
        offset: how many of the first rows to leave out.

    Raises:
        InvalidQuery: it has no metric, names an unknown zone or column, or a negative limit.

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
        """Refuse what no store could answer."""
        if not self.metrics:
            raise InvalidQuery("a question needs a metric, such as count")
        parse_time_zone(self.time_zone)
        if (self.limit is not None and self.limit < 0) or self.offset < 0:
            raise InvalidQuery("limit and offset count rows: they cannot be negative")
        columns = self.columns
        if len(set(columns)) < len(columns):
            raise InvalidQuery(f"each column can be asked for once: {', '.join(columns)}")
        for order in self.sort_keys:
            if order.column not in columns:
                raise InvalidQuery(
                    f"{order.column!r} is no column of this question: order by one of {', '.join(columns)}"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the answer's columns: what it is grouped by, then the metrics."""
        return (*self.group_by, *(metric.name for metric in self.metrics))


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a store answers to one question.

    Attributes:
        columns: the question's `Question.columns`.
        rows: one for each group, values in the order of *columns*: text for what it is grouped by (days
            as ``2015-01-22``, weeks by their Monday, months as ``2015-01``, hours and minutes as
            ``2015-01-22T09:00:00+01:00``, with ``Z`` for UTC), whole numbers for ``count``, ``values`` and
            ``unique``, stamps as ``2015-01-22T09:00:00.000Z`` for ``first`` and ``last``, else numbers, or None
            where no event had one (a sum is then 0.0).
        total: how many rows there are without limit and offset.
        exact: whether each number and the choice of rows is right to the last count.

    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    total: int
    exact: bool = True

    def to_dict(self) -> dict[str, int | float | None]:
        """Return the rows of a question with one group and one metric as a mapping, in their order."""
        return {str(row[0]): row[1] for row in self.rows}  # type: ignore[misc]  # a metric's value is a number


def parse_time_zone(name: str) -> ZoneInfo:
    """Return the time zone of that IANA name.

    Raises:
        InvalidQuery: there is none.

    """
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        zone = None
    if zone is None or _NON_ZONE_FILES.fullmatch(name):
        raise InvalidQuery(f"{name[:60]!r} is no time zone: name one as Europe/Zurich or UTC")
    return zone


def build_result(query: Query, rows: list[tuple[str | int | float | None, ...]], *, exact: bool = True) -> QueryResult:
    """Make the answer of a question's unsorted rows: sort them, and cut out what was asked for."""
    places = range(len(query.group_by))
    rows.sort(key=lambda row: tuple(_group_sort_key(query.group_by[at], str(row[at])) for at in places))
    for order in reversed(query.sort_keys):
        at = query.columns.index(order.column)
        name = query.group_by[at] if at in places else ""
        rows.sort(key=lambda row, at=at, name=name: _value_sort_key(row[at], name), reverse=order.descending)  # type: ignore[misc]
    end = None if query.limit is None else query.offset + query.limit
    return QueryResult(query.columns, tuple(rows[query.offset : end]), len(rows), exact=exact)


def _group_sort_key(name: str, text: str) -> str:
    """Return what groups are sorted by: their text, but of two hours that one clock shows the older one first."""
    if name not in _SUBDAY_UNITS:
        return text
    # A difference, since moments at the ends of time cannot be told in another zone.
    return f"{(datetime.fromisoformat(text) - _MIN_DATETIME + _DAY).total_seconds():020.0f}"


def _value_sort_key(value: str | float | None, name: str) -> tuple[int, float, str]:
    if isinstance(value, str):
        return (1, 0.0, _group_sort_key(name, value))
    return (0, 0.0, "") if value is None else (1, value, "")
