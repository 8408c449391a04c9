"""What somebody's own question asks for, in whichever way it was written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

from metronome.errors import InvalidQuery
from metronome.reports.parameters import ReportParameters, parse_boolean, parse_report_parameters
from metronome.reports.query.compare import CHANGE_SUFFIX, COMPARISONS, earlier_range
from metronome.stores.query import (
    EXCLUDE_BOTS,
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
    SortKey,
    parse_time_zone,
)

FieldFilter = Equals | OneOf | Prefix | Exists | Range
"""A filter that is about a field itself."""

MAX_ROWS: Final = MAX_GROUPS
"""How many rows an answer may have."""
DEFAULT_ROWS: Final = 1000
MAX_METRICS: Final = 20
MAX_GROUP_FIELDS: Final = 4
MAX_FILTERS: Final = 100
"""How many filters a question may have, the inner ones included."""
MAX_FILTER_DEPTH: Final = 8
"""How deep filters may stand in each other."""
MAX_FILTER_VALUES: Final = 10_000
"""How many values may be compared with, in all filters together."""
NAME_MAX_CHARACTERS: Final = 256
PREFIX_MAX_BYTES: Final = 500
"""How long a beginning may be that is looked for: no store has to find longer ones."""

QUERY_PARAMETERS: Final = ("metrics", "by", "from", "to", "tz", "order", "limit", "offset", "compare", "fill", "bots")
"""What a question says beside its filters."""

LIST_PARAMETERS: Final = frozenset({"metrics", "by", "order"})
"""Those that are lists; the others are single values."""

NUMERIC_METRICS: Final = frozenset(
    {MetricKind.VALUE_COUNT, MetricKind.SUM, MetricKind.AVG, MetricKind.MIN, MetricKind.MAX, MetricKind.PERCENTILE}
)
"""The metrics that only numbers have."""

_COMMON_PARAMETERS: Final = frozenset({"from", "to", "tz", "bots"})
_BOT_FIELDS: Final = frozenset({"bot", "bot_kind"})
_EVENT_ID: Final = "event_id"
_NUMBER_MAX_DIGITS: Final = 9
_EXCERPT_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class RawQuery:
    """A question as it was written, before it is known whether it can be asked.

    Attributes:
        lists: what was given for each of `LIST_PARAMETERS`.
        texts: what was given for each other one of `QUERY_PARAMETERS`.
        filters: all of them have to hold.

    """

    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    filters: tuple[Filter, ...] = ()


class ComparisonRange(NamedTuple):
    """The range that is compared with.

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
    """A question that can be asked.

    Attributes:
        question: as the answer is to look: with the columns that compare, the order, limit and offset.
        metrics: what is measured, without the columns that compare.
        before: what is compared with; None for nothing.
        fill: whether units of time without an event have rows too.

    """

    query: Query
    metrics: tuple[Metric, ...]
    comparison: ComparisonRange | None = None
    fill: bool = False

    @property
    def is_single_query(self) -> bool:
        """Whether the store's answer is the answer, as it is."""
        return self.comparison is None and not self.fill

    @property
    def fields(self) -> frozenset[str]:
        """The names of all fields that the question is about."""
        measured = {metric.field for metric in self.metrics if metric.field}
        grouped = {name for name in self.query.group_by if name not in TIME_UNITS}
        return frozenset(measured | grouped | {one.field for one in iterate_field_filters(self.query.where)})

    @property
    def numeric_fields(self) -> frozenset[str]:
        """The names of the fields whose numbers the question is about."""
        ranged = {one.field for one in iterate_field_filters(self.query.where) if isinstance(one, Range)}
        return frozenset(ranged | {metric.field for metric in self.metrics if metric.kind in NUMERIC_METRICS})

    def store_queries(self) -> tuple[Query, ...]:
        """Return what the store is to answer: one question, or with the range that is compared with two."""
        if self.is_single_query:
            return (self.query,)
        # Rows that are put together of two answers, or put in between, are sorted and cut afterwards.
        now = replace(self.query, metrics=self.metrics, sort_keys=(), limit=MAX_ROWS, offset=0)
        return (
            (now,)
            if self.comparison is None
            else (now, replace(now, start=self.comparison.start, end=self.comparison.end))
        )


def parse_query(raw: RawQuery, now: datetime) -> ParsedQuery:
    """Read what was written as a question.

    Args:
        raw: as it was written.
        now: what relative times count from, aware.

    Raises:
        InvalidQuery: a value cannot be; the message says which.

    """
    texts = raw.scalars
    common = parse_report_parameters(
        {name: texts[name] for name in _COMMON_PARAMETERS & texts.keys()}, now, _COMMON_PARAMETERS
    )
    metrics = tuple(map(Metric.parse, _limit_length("metrics", raw.lists.get("metrics") or ("count",), MAX_METRICS)))
    by = _limit_length("by", raw.lists.get("by", ()), MAX_GROUP_FIELDS)
    validate_field_names((*by, *(metric.field for metric in metrics if metric.field)))
    _validate_filters(raw.filters)
    _validate_event_id_use(metrics, by, raw.filters)
    fill = parse_boolean("fill", texts.get("fill"))
    if fill and sum(name in TIME_UNITS for name in by) != 1:
        raise InvalidQuery(f"fill=1 is for a series of time: group by just one of {', '.join(TIME_UNITS)}")
    before = _parse_comparison(texts.get("compare", ""), common, now)
    question = Query(
        metrics=metrics if before is None else tuple(_add_comparison_columns(metrics, before.name)),
        group_by=by,
        where=_build_where(raw.filters, metrics, by, include_bots=common.include_bots),
        start=common.start,
        end=now if before is not None and common.end is None else common.end,
        time_zone=common.tz,
        sort_keys=tuple(map(SortKey.parse, raw.lists.get("order", ()))),
        limit=_parse_limit(texts.get("limit")),
        offset=_parse_row_number("offset", texts.get("offset"), 0),
    )
    return ParsedQuery(question, metrics, before, fill)


def validate_field_names(names: Iterable[str]) -> None:
    """See that each can be a field's name.

    Raises:
        InvalidQuery: one is empty or too long.

    """
    for name in names:
        if not 0 < len(name) <= NAME_MAX_CHARACTERS:
            shown = f"{name[:_EXCERPT_CHARACTERS]}…" if name else repr(name)
            raise InvalidQuery(f"{shown} is no field's name: it has 1 to {NAME_MAX_CHARACTERS} characters")


def iterate_field_filters(where: Filter | None) -> Iterator[FieldFilter]:
    """Yield the filters that are each about a field."""
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


def _validate_filters(filters: tuple[Filter, ...]) -> None:
    found = [*iterate_field_filters(AllOf(filters))]
    validate_field_names(one.field for one in found)
    for one in found:
        if isinstance(one, Prefix) and len(one.text.encode(errors="replace")) > PREFIX_MAX_BYTES:
            raise InvalidQuery(
                f"{one.text[:_EXCERPT_CHARACTERS]}… is too long to be looked for as a beginning: "
                f"shorten it to {PREFIX_MAX_BYTES} bytes"
            )
    values = sum(len(one.values) for one in found if isinstance(one, OneOf))
    if len(found) > MAX_FILTERS or values > MAX_FILTER_VALUES:
        raise InvalidQuery(
            f"the question has {len(found):,} filters with {values:,} values to choose from: "
            f"ask with up to {MAX_FILTERS} filters and {MAX_FILTER_VALUES:,} values"
        )


def _validate_event_id_use(metrics: tuple[Metric, ...], by: tuple[str, ...], filters: tuple[Filter, ...]) -> None:
    """See that no more is asked of an event's identity than every store can tell."""
    if _EVENT_ID in {*by, *(metric.field for metric in metrics)}:
        raise InvalidQuery("each event has an event_id of its own: group by something else, or ask for count")
    if any(
        one.field == _EVENT_ID and isinstance(one, (Prefix, Range)) for one in iterate_field_filters(AllOf(filters))
    ):
        raise InvalidQuery("event_id can be looked for only as a whole: ask for event_id=…")


def _build_where(
    filters: tuple[Filter, ...], metrics: tuple[Metric, ...], by: tuple[str, ...], *, include_bots: bool
) -> Filter | None:
    named = {*by, *(metric.field for metric in metrics), *(one.field for one in iterate_field_filters(AllOf(filters)))}
    # Whoever names bots means them.
    together = filters if include_bots or named & _BOT_FIELDS else (*filters, EXCLUDE_BOTS)
    return AllOf(together) if together else None


def _parse_comparison(name: str, common: ReportParameters, now: datetime) -> ComparisonRange | None:
    if not name:
        return None
    if name not in COMPARISONS:
        raise InvalidQuery(f"compare={name[:_EXCERPT_CHARACTERS]} is not known: choose one of {', '.join(COMPARISONS)}")
    if common.start is None:
        raise InvalidQuery(f"compare={name} needs a range: say from when on with from, as from=-30d")
    end = common.end or now
    if end <= common.start:
        raise InvalidQuery(f"compare={name} needs a range, and from lies after to: turn them round")
    return ComparisonRange(name, *earlier_range(name, common.start, end, parse_time_zone(common.tz)))


def _add_comparison_columns(metrics: tuple[Metric, ...], name: str) -> Iterator[Metric]:
    for metric in metrics:
        yield metric
        yield replace(metric, name=f"{metric.name}:{name}")
        # A share of the earlier value: as an average, it is none where there is nothing to be a share of.
        yield Metric(MetricKind.AVG, metric.field, name=f"{metric.name}:{CHANGE_SUFFIX}")


def _limit_length(name: str, entries: tuple[str, ...], max_length: int) -> tuple[str, ...]:
    if len(entries) > max_length:
        raise InvalidQuery(f"{name} has {len(entries):,} entries: ask for up to {max_length} at once")
    return entries


def _parse_limit(text: str | None) -> int:
    limit = _parse_row_number("limit", text, DEFAULT_ROWS) or MAX_ROWS
    if limit > MAX_ROWS:
        raise InvalidQuery(f"limit={limit} is too many: an answer has up to {MAX_ROWS:,} rows, and offset skips some")
    return limit


def _parse_row_number(name: str, text: str | None, default: int) -> int:
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_MAX_DIGITS):
        raise InvalidQuery(f"{name}={text[:_EXCERPT_CHARACTERS]} is no number of rows: write 0, 10 or 1000")
    return int(text)
