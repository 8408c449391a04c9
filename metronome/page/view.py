"""The state of a page, as its URL holds it: range, time zone, interval, metric, comparison and filters.

A URL has the parameters in `PARAMETERS`, and filters in the grammar of ``/query`` (see
`metronome.reports.query.parse`). Parameters with their default value are left out, so that URLs stay short.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from metronome.errors import InvalidQuery
from metronome.reports.parameters import (
    ReportParameters,
    excerpt,
    parse_boolean,
    parse_bound,
    parse_choice,
    parse_whole_number,
)
from metronome.reports.query.compare import earlier_range
from metronome.reports.query.parse import QueryPart, build_filters, parse_query_parts
from metronome.reports.query.request import QUERY_PARAMETERS, ParsedQuery, RawQuery, parse_query
from metronome.stores.query import Equals, Filter, parse_time_zone
from metronome.times import add_months, parse_period, start_of_day

RANGES: Final = ("today", "7d", "30d", "month", "last-month", "12m", "all")
DEFAULT_RANGE: Final = "30d"
METRICS: Final = ("views", "downloads", "visitors", "time", "errors")
COMPARISONS: Final = ("previous", "year", "none")
PARAMETERS: Final = ("range", "from", "to", "tz", "interval", "metric", "compare", "bots", "order", "offset", "search")
"""Every other name is that of a field to filter by."""
MAX_BARS: Final = 800
"""Maximum number of time units in a chart."""

_DAYS: Final = frozenset({"today", "7d", "30d"})
_PERIODS: Final = {
    "today": ("today", "today"),
    "7d": ("-6d", "today"),
    "30d": ("-29d", "today"),
    "month": ("this-month", "this-month"),
    "last-month": ("last-month", "last-month"),
    "12m": ("", "this-month"),
    "all": ("", "today"),
}
"""The first and the last period of each range (see `metronome.times.parse_period`)."""
_YEAR_MONTHS: Final = 12
_DAY: Final = timedelta(days=1)
_INTERVALS: Final = (
    ("minute", timedelta(hours=3)),
    ("hour", timedelta(hours=50)),
    ("day", timedelta(days=120)),
    ("week", timedelta(days=400)),
)
"""The default intervals, each up to which length of the range; months beyond."""
_UNIT_LENGTHS: Final = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": _DAY,
    "week": timedelta(days=7),
    "month": timedelta(days=28),
}
_DOT_SEGMENTS: Final = frozenset({".", ".."})
_SAFE_IN_VALUES: Final = "/:,*"
_RANGE_FIELDS: Final = frozenset({"range", "since", "until"})
_BOT_FIELDS: Final = frozenset({"bot", "bot_kind"})


@dataclass(frozen=True, slots=True)
class Period:
    """A range of time.

    Attributes:
        start: aware; None if the range has no start.
        end: aware; the first moment after the range.

    """

    start: datetime | None
    end: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """A range of time with a start.

    Attributes:
        start: aware.
        end: aware; the first moment after the range.

    """

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Earlier:
    """The range that another one is compared with.

    Attributes:
        whole: the whole earlier range, which the chart shows.
        elapsed: the part of it that corresponds to the part of the range that is over; totals are compared with it.

    """

    whole: Span
    elapsed: Span

    @property
    def is_partial(self) -> bool:
        """Whether totals are compared with only a part of the earlier range."""
        return self.elapsed != self.whole


@dataclass(frozen=True, slots=True)
class View:
    """What a page shows.

    Attributes:
        now: aware; the time that relative ranges count from.
        base_path: what precedes the path of every address, such as ``/metronome``; empty for nothing.
        default_time_zone: the IANA name of the time zone of views that do not name one.
        item: the item that the page is about; None for all.
        table: the key of the table that the page shows; empty for a page of all tables.
        range: one of `RANGES`; empty where *since* or *until* is set.
        since: the start as the URL has it (see `metronome.reports.parameters`); empty for none.
        until: the end as the URL has it; empty for the end of today.
        time_zone: the IANA name of the time zone that days belong to.
        chosen_interval: the time unit of the chart; empty to take it from the range.
        metric: one of `METRICS`, which the chart shows and tables count.
        compare: one of `COMPARISONS`.
        bots: whether the URL includes robots; filters may, too.
        filters: the filters, in the order of the URL.
        order: what a table is ordered by; empty for its default.
        offset: how many rows of a table to skip.
        search: what the names of a table's rows contain; empty for all.

    """

    now: datetime
    base_path: str = ""
    default_time_zone: str = "UTC"
    item: str | None = None
    table: str = ""
    range: str = DEFAULT_RANGE
    since: str = ""
    until: str = ""
    time_zone: str = "UTC"
    chosen_interval: str = ""
    metric: str = METRICS[0]
    compare: str = COMPARISONS[0]
    bots: bool = False
    filters: tuple[QueryPart, ...] = ()
    order: str = ""
    offset: int = 0
    search: str = ""

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that days belong to."""
        return parse_time_zone(self.time_zone)

    @property
    def needs_query(self) -> bool:
        """Whether the view shows more than the scope ``tock`` allows: errors, or events filtered by other than item."""
        return self.metric == "errors" or any(part.name != "id" or part.operator != "=" for part in self.filters)

    @property
    def include_bots(self) -> bool:
        """Whether robots count: if the URL says so, or if a filter names a field of robots, as in ``/query``."""
        return self.bots or any(part.name in _BOT_FIELDS for part in self.filters)

    @property
    def parsed_filters(self) -> tuple[Filter, ...]:
        """The filters for a store, with that of the item."""
        return build_filters(self.parts)

    @property
    def parts(self) -> tuple[QueryPart, ...]:
        """The filters as parts of a query string, with that of the item."""
        return self.filters if self.item is None else (QueryPart("id", "=", self.item), *self.filters)

    @property
    def item_filters(self) -> tuple[Filter, ...]:
        """The filter for the events of the item; nothing on a page about all items."""
        return () if self.item is None else (Equals("id", self.item),)

    @property
    def period(self) -> Period:
        """The range."""
        return resolve_range(self)

    def parse_filters(self) -> ParsedQuery:
        """Return the view's filters as a query, whose fields can be checked.

        Raises:
            InvalidQuery: a filter is invalid, or there are too many.

        """
        return parse_query(RawQuery(filters=self.parsed_filters), self.now)

    def parameters(self, start: datetime | None, end: datetime, limit: int | None = 10) -> ReportParameters:
        """Return the view as the parameters of a report about a range; filters do not include that of the item."""
        return ReportParameters(
            start=start,
            end=end,
            tz=self.time_zone,
            limit=limit,
            include_bots=self.include_bots,
            filters=build_filters(self.filters),
        )

    def change(self, **changes: Any) -> "View":
        """Return another view; another range resets the interval, and every change but one of the offset resets it."""
        if changes.keys() & _RANGE_FIELDS:
            changes = {"range": "", "since": "", "until": "", "chosen_interval": "", **changes}
        return replace(self, **{"offset": 0, **changes})

    def filter_by(self, name: str, value: str) -> "View":
        """Return the page of all tables where a field has one value."""
        view = self.leave_table()
        if name == "id":
            view = view.change(item=None)
        others = tuple(part for part in view.filters if part.name != name or part.operator != "=")
        return view.change(filters=(*others, QueryPart(name, "=", value)))

    def open_item(self, item: str) -> "View":
        """Return the page of an item, with the same range and filters."""
        others = tuple(part for part in self.filters if part.name != "id")
        return self.leave_table().change(item=item, filters=others)

    def leave_table(self) -> "View":
        """Return the page that a table's page belongs to."""
        return replace(self, table="", order="", offset=0, search="") if self.table else self

    def href(self, **changes: Any) -> str:
        """Return the address of this view, or of another one (see `change`)."""
        view = self.change(**changes) if changes else self
        query = "&".join(_query_parts(view))
        return f"{view.base_path}{_path(view)}{'?' if query else ''}{query}"

    def form_fields(self) -> tuple[tuple[str, str], ...]:
        """Return all parameters and filters as the fields of a form: names and values, in the order of the URL."""
        # A field without a value can hold a filter whose operator has no `=`: `LCP>100=`.
        filters = (
            (f"{part.name}{part.operator}{part.value}", "")
            if part.operator in {"<", ">"}
            else (f"{part.name}{part.operator[:-1]}", part.value)
            for part in (self.parts if self.table else self.filters)
        )
        return (*_parameters(self), *filters)

    def csv_href(self, table: str) -> str:
        """Return the address of a table as CSV."""
        path, _, query = self.href(table=table).partition("?")
        return f"{path}.csv{'?' if query else ''}{query}"

    def live_href(self) -> str:
        """Return the address of the last half hour of this view; an item is its filter ``id``."""
        _, _, query = self.leave_table().href(table="live").partition("?")
        return f"{self.base_path}/live{'?' if query else ''}{query}"

    def api_href(self, path: str) -> str:
        """Return the address of a report about the same range, such as ``/tock/rivers.json``."""
        period = self.period
        parameters = [
            *([f"from={format_bound(period.start, self.zone, is_end=False)}"] if period.start else []),
            f"to={format_bound(period.end, self.zone, is_end=True)}",
            *([f"tz={_encode(self.time_zone)}"] if self.time_zone != "UTC" else []),
            *(["bots=1"] if self.bots else []),
        ]
        return f"{self.base_path}{path}?{'&'.join(parameters)}"


def parse_view(
    query: str,
    now: datetime,
    *,
    item: str | None = None,
    table: str = "",
    base_path: str = "",
    default_time_zone: str = "UTC",
) -> View:
    """Parse the view of a page.

    Args:
        query: the query string, percent-encoded.
        now: aware; the time that relative ranges count from.
        item: the item that the page is about; None for all. A table's page has it as the filter ``id``.
        table: the key of the table that the page shows; empty for a page of all tables.
        base_path: what precedes the path of every address; empty for nothing.
        default_time_zone: the IANA name of the time zone of views that do not name one.

    Raises:
        Malformed: the percent-encoding is not valid UTF-8.
        InvalidQuery: a parameter or filter is invalid.

    """
    scalars: dict[str, str] = {}
    filters: list[QueryPart] = []
    for part in parse_query_parts(query):
        if part.name not in PARAMETERS:
            if part.name in QUERY_PARAMETERS:
                raise InvalidQuery(f"{part.name} is a parameter of /query, not of a page: remove it")
            filters.append(part)
        elif part.operator != "=":
            raise InvalidQuery(f"{part.name} is a parameter: write {part.name}=…")
        elif part.name in scalars:
            raise InvalidQuery(f"the parameter {part.name} is repeated: use it once")
        else:
            scalars[part.name] = part.value
    since, until = scalars.get("from", ""), scalars.get("to", "")
    if (since or until) and scalars.get("range"):
        raise InvalidQuery("range and from or to exclude each other: remove one")
    view = View(
        now=now,
        base_path=base_path,
        default_time_zone=default_time_zone,
        item=item,
        table=table,
        range="" if since or until else parse_choice("range", scalars.get("range"), RANGES, DEFAULT_RANGE),
        since=since,
        until=until,
        time_zone=scalars.get("tz") or default_time_zone,
        chosen_interval=parse_choice("interval", scalars.get("interval"), ("", *_UNIT_LENGTHS), ""),
        metric=parse_choice("metric", scalars.get("metric"), METRICS, METRICS[0]),
        compare=parse_choice("compare", scalars.get("compare"), COMPARISONS, COMPARISONS[0]),
        bots=parse_boolean("bots", scalars.get("bots")),
        filters=tuple(filters),
        order=scalars.get("order", ""),
        offset=parse_whole_number("offset", scalars.get("offset"), 0),
        search=scalars.get("search", ""),
    )
    if table and item is None:
        view = _lift_item(view)
    _check(view)
    return view


def resolve_range(view: View) -> Period:
    """Return the range of a view.

    Raises:
        InvalidQuery: it ends before it starts, or has an invalid time.

    """
    zone = view.zone
    if not view.range:
        start = parse_bound("from", view.since, zone, view.now)
        end = parse_bound("to", view.until or "today", zone, view.now) or view.now
        if start is not None and start >= end:
            raise InvalidQuery(f"the range is empty: from={excerpt(view.since)} is not before its end")
        return Period(start, end)
    first, last = _PERIODS[view.range]
    end = parse_period(last, zone, view.now).end
    if view.range == "12m":
        return Period(start_of_day(add_months(end.astimezone(zone).date(), -_YEAR_MONTHS), zone), end)
    return Period(parse_period(first, zone, view.now).start if first else None, end)


def resolve_earlier(view: View, span: Span) -> Earlier | None:
    """Return the range that a view is compared with; None if there is no comparison.

    A range of whole calendar months is compared with the same number of months before it, other ranges with the same
    length of time. If a part of the range is still to come, totals are compared with the part of the earlier range up
    to the corresponding time, so that they cover the same length of time.
    """
    if view.compare == "none" or view.range == "all":
        return None
    zone = view.zone
    months = 0 if view.range in _DAYS else count_whole_months(span, zone)
    try:
        if view.compare == "year":
            whole = Span(*earlier_range("year", span.start, span.end, zone))
        elif months:
            first = add_months(span.start.astimezone(zone).date(), -months)
            whole = Span(start_of_day(first, zone), span.start)
        else:
            whole = Span(*earlier_range("previous", span.start, span.end, zone))
        if not span.start < view.now < span.end:
            return Earlier(whole, whole)
        now, start = view.now.astimezone(zone), span.start.astimezone(zone)
        if view.compare == "year" or months:
            back = _YEAR_MONTHS if view.compare == "year" else months
            elapsed_end = datetime.combine(add_months(now.date(), -back), now.time(), zone)
        else:
            elapsed = now.replace(tzinfo=None) - start.replace(tzinfo=None)
            elapsed_end = (whole.start.astimezone(zone).replace(tzinfo=None) + elapsed).replace(tzinfo=zone)
        end = min(max(elapsed_end.astimezone(UTC), whole.start), whole.end)
    except (OverflowError, ValueError):
        raise InvalidQuery(
            f"compare={view.compare} needs a range before the start of the calendar: use a later from"
        ) from None
    return Earlier(whole, Span(whole.start, end))


def resolve_interval(view: View, span: Span) -> str:
    """Return the time unit of a view's chart.

    A range without a start always has one: it starts with the first event, which is after 1970.

    Raises:
        InvalidQuery: the chart would have over `MAX_BARS` bars.

    """
    length = span.end - span.start
    default = next((unit for unit, longest in _INTERVALS if length <= longest), "month")
    unit = view.chosen_interval or default
    if length / _UNIT_LENGTHS[unit] <= MAX_BARS:
        return unit
    if unit != "month":
        raise InvalidQuery(f"the range has over {MAX_BARS} {unit}s: use a longer interval")
    if view.period.start is not None:
        raise InvalidQuery(f"the range has over {MAX_BARS} months: use a later from or an earlier to")
    return unit


def possible_intervals(span: Span) -> list[str]:
    """Return the time units that a chart of a range can have: of at least two and at most `MAX_BARS` bars."""
    length = span.end - span.start
    return [unit for unit in _UNIT_LENGTHS if 1 < length / _UNIT_LENGTHS[unit] <= MAX_BARS]


def count_whole_months(span: Span, zone: ZoneInfo) -> int:
    """Return of how many whole calendar months a range consists; 0 if it does not."""
    start, end = span.start.astimezone(zone), span.end.astimezone(zone)
    if not (start.day == end.day == 1 and start.time() == end.time() == time()):
        return 0
    return (end.year - start.year) * _YEAR_MONTHS + end.month - start.month


def format_bound(moment: datetime, zone: ZoneInfo, *, is_end: bool) -> str:
    """Return a bound of a range as ``from`` or ``to`` in a URL: a day if it is one, which *to* includes, or a time."""
    local = moment.astimezone(zone)
    if local.time() == time():
        return (local.date() - (_DAY if is_end else timedelta())).isoformat()
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").replace(".000Z", "Z")


def _lift_item(view: View) -> View:
    items = [part for part in view.filters if part.name == "id"]
    if len(items) != 1 or items[0].operator != "=" or items[0].value == "*":
        return view
    return replace(view, item=items[0].value, filters=tuple(part for part in view.filters if part.name != "id"))


def _check(view: View) -> None:
    period = resolve_range(view)
    view.parse_filters()
    if period.start is not None:
        span = Span(period.start, period.end)
        resolve_interval(view, span)
        resolve_earlier(view, span)


def _path(view: View) -> str:
    if view.table:
        return f"/tables/{quote(view.table, safe='')}"
    return "/" if view.item is None or _has_item_as_filter(view) else f"/items/{quote(view.item, safe='')}"


def _has_item_as_filter(view: View) -> bool:
    """Return whether the address has the item as a filter: browsers remove dots from paths."""
    return bool(view.table) or view.item in _DOT_SEGMENTS


def _query_parts(view: View) -> Iterator[str]:
    for name, value in _parameters(view):
        yield f"{name}={_encode(value)}"
    for part in view.parts if _has_item_as_filter(view) else view.filters:
        yield f"{_encode(part.name)}{_encode_operator(part.operator)}{_encode(part.value)}"


def _parameters(view: View) -> Iterator[tuple[str, str]]:
    """Yield the parameters whose values are not the defaults."""
    for name, value, default in (
        ("range", view.range, DEFAULT_RANGE if view.range else ""),
        ("from", view.since, ""),
        ("to", view.until, ""),
        ("tz", view.time_zone, view.default_time_zone),
        ("interval", view.chosen_interval, ""),
        ("metric", view.metric, METRICS[0]),
        ("compare", view.compare, COMPARISONS[0]),
        ("bots", "1" if view.bots else "", ""),
        ("order", view.order, ""),
        ("offset", str(view.offset or ""), ""),
        ("search", view.search, ""),
    ):
        if value != default:
            yield name, value


def _encode(text: str) -> str:
    return quote(text, safe=_SAFE_IN_VALUES)


def _encode_operator(operator: str) -> str:
    return operator.replace("<", "%3C").replace(">", "%3E").replace("^", "%5E")
