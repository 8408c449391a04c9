"""The overview: what is used, by whom, and from where."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from metronome.page.labels import (
    COMPARISON_LABELS,
    ESTIMATED_NOTE,
    METRIC_LABELS,
    PARTIAL_NOTE,
    RANGE_LABELS,
    VISITORS_NOTE,
    comparison_text,
    earlier_text,
    filter_text,
    is_weekend,
    range_text,
    unit_label,
    unit_tick,
)
from metronome.page.live import build_live
from metronome.page.model import (
    Bar,
    Chart,
    Chip,
    Choice,
    Controls,
    Headline,
    Link,
    Page,
    Table,
    TablePage,
    Unit,
    Viewer,
)
from metronome.page.stays import CHART_LIMITS, Stays, newest_units, read_stays
from metronome.page.tables import (
    ITEMS,
    MEASURES,
    ROWS_ON_PAGE,
    ROWS_ON_TABLE_PAGE,
    TABLES_BY_KEY,
    as_number,
    build_table,
    choose_order,
    group_query,
    measure_of,
    measure_queries,
    measured_table,
    resolve_span,
    rising_table,
    tables_of,
    top_table,
)
from metronome.page.view import (
    METRICS,
    RANGES,
    Earlier,
    Span,
    View,
    format_bound,
    possible_intervals,
    resolve_earlier,
    resolve_interval,
    resolve_range,
)
from metronome.reports.query.compare import has_whole_days, match_time_units
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.series import list_time_units
from metronome.stores.base import Store
from metronome.stores.query import COUNT, Filter, Metric, OneOf, Query, QueryResult
from metronome.times import parse_time_unit

_EVENTS: Final = {"views": "view", "downloads": "download", "errors": "error"}
_LONGEST_UNIT: Final = timedelta(days=32)
_TIME_ZONES: Final = (
    *("UTC", "Europe/London", "Europe/Berlin", "Europe/Paris", "Europe/Zurich", "Europe/Athens", "Africa/Lagos"),
    *("Africa/Nairobi", "Asia/Dubai", "Asia/Kolkata", "Asia/Shanghai", "Asia/Tokyo", "Australia/Sydney"),
    *("Pacific/Auckland", "America/Sao_Paulo", "America/New_York", "America/Chicago", "America/Denver"),
    "America/Los_Angeles",
)


@dataclass(frozen=True, slots=True)
class Frame:
    """A view with its range, that to compare with, and the time unit of its chart.

    Attributes:
        view: the view.
        span: its range.
        earlier: what it is compared with; None for nothing.
        interval: the time unit of its chart.

    """

    view: View
    span: Span
    earlier: Earlier | None
    interval: str


def frame_view(view: View, span: Span) -> Frame:
    """Return a view with all that follows from its range.

    Raises:
        InvalidQuery: the chart would have too many bars, or the earlier range is before the calendar.

    """
    return Frame(view, span, resolve_earlier(view, span), resolve_interval(view, span))


# What every page has at its top: planned as queries, then built from their results.


def headline_queries(frame: Frame, viewer: Viewer) -> dict[str, Query]:
    """Return the queries for the numbers at the top of a page, and for the chart.

    Views, downloads and errors are counted by the chart's time units, so that the same events are counted only once:
    as ``units``, and of the earlier range as ``units:earlier``, and what is too late to be compared with, as
    ``late:earlier``. ``visitors`` and ``visitors:earlier`` are those of the whole ranges, and ``chart`` and
    ``chart:earlier`` those by time unit.
    """
    view, earlier = frame.view, frame.earlier
    names = tuple(event for key, event in _EVENTS.items() if viewer.can_query or key != "errors")
    counted, visitors = OneOf("event", names), MEASURES["visitors"]

    def query(metric: Metric, event_filter: Filter, span: Span, *group_by: str) -> Query:
        where = view.parameters(span.start, span.end).build_filter(event_filter, *view.item_filters)
        return Query((metric,), group_by, where, span.start, span.end, view.time_zone)

    queries = {
        "units": query(COUNT, counted, frame.span, frame.interval, "event"),
        "visitors": query(visitors.metric, visitors.event_filter, frame.span),
    }
    if earlier is not None:
        queries["units:earlier"] = query(COUNT, counted, earlier.whole, frame.interval, "event")
        queries["visitors:earlier"] = query(visitors.metric, visitors.event_filter, earlier.elapsed)
        if earlier.is_partial:
            queries["late:earlier"] = query(COUNT, counted, Span(earlier.elapsed.end, earlier.whole.end), "event")
    if view.metric == "visitors":
        queries["chart"] = query(visitors.metric, visitors.event_filter, frame.span, frame.interval)
        if earlier is not None:
            queries["chart:earlier"] = query(visitors.metric, visitors.event_filter, earlier.whole, frame.interval)
    return queries


def unit_counts(result: QueryResult, event: str) -> dict[str, float | None]:
    """Return how often an event occurred in each time unit, by the unit's label."""
    return {str(label): as_number(count) for label, name, count in result.rows if name == event}


def _total(results: Mapping[str, QueryResult], suffix: str, event: str) -> float:
    total = sum(count or 0 for count in unit_counts(results[f"units{suffix}"], event).values())
    late = results[f"late{suffix}"].to_dict() if f"late{suffix}" in results else {}
    return total - float(late.get(event) or 0)


def build_headlines(
    frame: Frame, viewer: Viewer, results: Mapping[str, QueryResult], stays: Stays, earlier_stays: Stays | None
) -> tuple[Headline, ...]:
    """Return the numbers at the top of a page."""
    headlines = []
    for key in METRICS:
        headline = Headline(
            key=key,
            label=METRIC_LABELS[key],
            value=None,
            previous=None,
            change=None,
            unit=Unit.MILLISECONDS if key == "time" else Unit.COUNT,
            href=frame.view.href(metric=key),
            is_selected=key == frame.view.metric,
            more_is_better={"time": None, "errors": False}.get(key, True),
        )
        if key == "visitors":
            visitors, *earlier = (results[name] for name in ("visitors", "visitors:earlier") if name in results)
            exact = all(result.exact for result in (visitors, *earlier))
            headline = replace(
                headline,
                value=_single_number(visitors),
                previous=_single_number(earlier[0]) if earlier else None,
                exact=exact,
                note=VISITORS_NOTE if exact else f"{ESTIMATED_NOTE} {VISITORS_NOTE}",
            )
        elif key == "time":
            headline = replace(
                headline,
                value=stays.median,
                previous=earlier_stays.median if earlier_stays else None,
                exact=stays.is_complete and (earlier_stays is None or earlier_stays.is_complete),
                note=stays.note(frame.view),
            )
        elif key == "errors" and not viewer.can_query:
            headline = replace(headline, is_locked=True)
        elif key in _EVENTS:
            previous = _total(results, ":earlier", _EVENTS[key]) if frame.earlier else None
            headline = replace(headline, value=_total(results, "", _EVENTS[key]), previous=previous)
        headlines.append(replace(headline, change=relative_change(headline.value, headline.previous)))
    return tuple(headlines)


def relative_change(value: float | None, previous: float | None) -> float | None:
    """Return a relative change, 0.25 for a quarter more; None if there is nothing to relate to."""
    return None if value is None or not previous else (value - previous) / abs(previous)


def _single_number(result: QueryResult) -> float:
    return float(result.rows[0][0] or 0)


def build_chart(
    frame: Frame, now: datetime, results: Mapping[str, QueryResult], stays: Stays, earlier_stays: Stays | None
) -> Chart:
    """Return the chart of the view's metric."""
    view, span, zone = frame.view, frame.span, frame.view.zone
    values, earlier_values = _chart_values(frame, results, stays, earlier_stays)
    empty = None if view.metric == "time" else 0
    labels = list_time_units(frame.interval, span.start, span.end, zone)
    previous = _earlier_values(frame, labels, earlier_values, empty)
    starts = [parse_time_unit(label, frame.interval, zone) for label in labels]
    bars = []
    for at, (label, start) in enumerate(zip(labels, starts, strict=True)):
        end = starts[at + 1] if at + 1 < len(starts) else _unit_end(frame.interval, start, view)
        first, last = max(start, span.start), min(end, span.end)
        bars.append(
            Bar(
                label=unit_label(label, frame.interval, zone),
                tick=unit_tick(label, frame.interval),
                value=values.get(label, empty),
                previous=previous.get(label),
                href=view.href(
                    since=format_bound(first, zone, is_end=False), until=format_bound(last, zone, is_end=True)
                ),
                is_weekend=is_weekend(label, frame.interval),
                is_incomplete=start < span.start or end > min(span.end, now),
            )
        )
    title = f"{METRIC_LABELS[view.metric]} by {frame.interval}"
    return Chart(
        title=title,
        description=_describe(title, frame, bars),
        unit=Unit.MILLISECONDS if view.metric == "time" else Unit.COUNT,
        bars=tuple(bars),
        previous_label=earlier_text(view, span, frame.earlier) if frame.earlier else "",
        intervals=tuple(
            Link(unit.capitalize(), view.href(chosen_interval=unit), is_current=unit == frame.interval)
            for unit in possible_intervals(span)
        ),
    )


def _chart_values(
    frame: Frame, results: Mapping[str, QueryResult], stays: Stays, earlier_stays: Stays | None
) -> tuple[Mapping[str, float | None], Mapping[str, float | None] | None]:
    """Return the values of the chart by time unit, and those of the earlier range; None without a comparison."""
    view, has_earlier = frame.view, frame.earlier is not None
    if view.metric == "time":
        earlier_medians = earlier_stays.medians_by(frame.interval, view) if earlier_stays else None
        return stays.medians_by(frame.interval, view), earlier_medians
    if view.metric == "visitors":
        return results["chart"].to_dict(), results["chart:earlier"].to_dict() if has_earlier else None
    event = _EVENTS[view.metric]
    earlier_counts = unit_counts(results["units:earlier"], event) if has_earlier else None
    return unit_counts(results["units"], event), earlier_counts


def _earlier_values(
    frame: Frame, labels: list[str], values: Mapping[str, float | None] | None, empty: float | None
) -> dict[str, float | None]:
    if frame.earlier is None or values is None:
        return {}
    zone, whole = frame.view.zone, frame.earlier.whole
    mapping = match_time_units(
        frame.view.compare,
        frame.interval,
        labels,
        list_time_units(frame.interval, whole.start, whole.end, zone),
        whole_days=has_whole_days(frame.span.start, frame.span.end, zone),
    )
    return {label: values.get(earlier, empty) for earlier, label in mapping.items()}


def _unit_end(unit: str, start: datetime, view: View) -> datetime:
    """Return when the time unit that starts at a time ends."""
    following = list_time_units(unit, start, start + _LONGEST_UNIT, view.zone)
    return parse_time_unit(following[1], unit, view.zone)


def _describe(title: str, frame: Frame, bars: list[Bar]) -> str:
    text = f"{title}, {range_text(frame.span.start, frame.span.end, frame.view.zone)}"
    known = [bar for bar in bars if bar.value]
    if not known:
        return f"{text}: none."
    highest = max(known, key=lambda bar: bar.value or 0)
    if frame.view.metric == "time":
        return f"{text}: longest in {highest.label}."
    text += f": most in {highest.label} ({highest.value:,.0f})"
    return (
        f"{text}, compared with {earlier_text(frame.view, frame.span, frame.earlier)}." if frame.earlier else f"{text}."
    )


def build_controls(frame: Frame) -> Controls:
    """Return how the page can be changed."""
    view, span, zone = frame.view, frame.span, frame.view.zone
    zones = dict.fromkeys((view.default_time_zone, view.time_zone, *_TIME_ZONES))
    is_bot_filter = view.include_bots and not view.bots
    return Controls(
        ranges=tuple(Link(RANGE_LABELS[name], view.href(range=name), is_current=name == view.range) for name in RANGES),
        range_text=range_text(span.start, span.end, zone),
        start=span.start.astimezone(zone).date().isoformat(),
        end=format_bound(span.end, zone, is_end=True)[:10],
        compares=tuple(
            Link(label, view.href(compare=name), is_current=name == view.compare)
            for name, label in COMPARISON_LABELS.items()
        ),
        compare_text=comparison_text(view, span, frame.earlier),
        compare_note=PARTIAL_NOTE if frame.earlier and frame.earlier.is_partial else "",
        time_zone=Choice("tz", "Time zone", tuple((name, name.replace("_", " ")) for name in zones), view.time_zone),
        hidden=view.form_fields(),
        chips=tuple(_filter_chip(view, at) for at in range(len(view.filters))),
        widen=_widen(view),
        bots=None
        if is_bot_filter
        else Link("Leave robots out" if view.bots else "Include robots", view.href(bots=not view.bots), view.bots),
    )


def _filter_chip(view: View, at: int) -> Chip:
    part = view.filters[at]
    text, href = filter_text(part), view.href(filters=(*view.filters[:at], *view.filters[at + 1 :]))
    if (part.name, part.operator) != ("id", "=") or part.value == "*":
        return Chip(text, href)
    return Chip(text, href, part.value, view.open_item(part.value).href())


def _widen(view: View) -> Link | None:
    return None if view.range == "all" else Link("Show all time", view.href(range="all"))


# The tables.


def table_queries(frame: Frame, viewer: Viewer) -> dict[str, Query]:
    """Return the queries for the first rows of all tables but that of items."""
    return {
        f"table:{table.key}": group_query(
            table,
            measure_of(table, frame.view),
            frame.view,
            frame.span,
            limit=None if table.only_bots else ROWS_ON_PAGE,
        )
        for table in tables_of(frame.view, viewer)
        if table is not ITEMS
    }


def build_tables(frame: Frame, results: Mapping[str, QueryResult], headlines: tuple[Headline, ...]) -> list[Table]:
    """Return the tables that have rows, but that of items."""
    totals = {headline.key: headline.value or 0 for headline in headlines}
    tables = []
    for name, result in results.items():
        kind, _, key = name.partition(":")
        if kind != "table":
            continue
        table = TABLES_BY_KEY[key]
        measure = measure_of(table, frame.view)
        whole = totals.get(measure.key, 0.0)
        robots = sum(float(row[1] or 0) for row in result.rows) if table.only_bots else 0.0
        if table.only_bots and not frame.view.include_bots:
            whole += robots
        built = top_table(table, measure, frame.view, result, whole)
        if built is not None and table.only_bots:
            verb = "included" if frame.view.include_bots else "left out"
            share = f"{robots / whole:.0%}".replace("%", " %") if whole else "0 %"
            built = replace(built, note=f"{share} of {measure.label.lower()} are by robots, which are {verb}.")
        if built is not None:
            tables.append(built)
    return order_tables(tables, totals)


def order_tables(tables: list[Table], totals: Mapping[str, float]) -> list[Table]:
    """Return tables in the order of the page: where downloads prevail, formats come first."""
    if totals.get("downloads", 0) <= totals.get("views", 0):
        return tables
    return sorted(tables, key=lambda table: table.key != "formats")


async def build_items(store: Store, frame: Frame, results: Mapping[str, QueryResult], now: datetime) -> Table:
    """Return the first rows of the table of items.

    Args:
        store: runs further queries.
        frame: the view.
        results: those of `page_queries`, and as ``items`` that of `group_query`, unless it is in the order of rising
            items.
        now: aware.

    """
    view = frame.view
    order = choose_order(ITEMS, view)
    if order is None:
        return await rising_table(store, view, frame.span, ROWS_ON_PAGE, now)
    ranking = results["items"]
    is_event = order.key in _EVENTS
    whole = _total(results, "", _EVENTS[order.key]) if is_event else _single_number(results["visitors"])
    names = tuple(str(row[0]) for row in ranking.rows)
    others = measure_queries(ITEMS, order, view, frame.span, names) if names else {}
    return measured_table(ITEMS, order, view, ranking, await run_named(store, others), whole)


async def build_overview(store: Store, field_checker: FieldChecker, view: View, viewer: Viewer, now: datetime) -> Page:
    """Build the overview.

    Args:
        store: runs the queries.
        field_checker: knows the fields of the store.
        view: what to show.
        viewer: who looks at it; whether they may is for the caller to check (see `View.needs_query`).
        now: aware.

    Raises:
        InvalidQuery: no event has the field of a filter.
        NotFound: the order of items is unknown.

    """
    await field_checker.check(view.parse_filters())
    order = choose_order(ITEMS, view)
    frame = await frame_in_store(store, view)
    queries = page_queries(frame, viewer)
    if order is not None:
        queries["items"] = group_query(ITEMS, order, view, frame.span, limit=ROWS_ON_PAGE)
    results, live = await asyncio.gather(run_named(store, queries), build_live(store, view, viewer, now))
    stays, earlier_stays, items = await asyncio.gather(
        read_frame_stays(store, frame, results),
        read_earlier_stays(store, frame, results),
        build_items(store, frame, results, now),
    )
    headlines = build_headlines(frame, viewer, results, stays, earlier_stays)
    return Page(
        heading="All items",
        item=None,
        controls=build_controls(frame),
        headlines=headlines,
        chart=build_chart(frame, now, results, stays, earlier_stays),
        tables=(items, *build_tables(frame, results, headlines)),
        viewer=viewer,
        computed_at=now,
        live=live,
        stored_events=await has_events(store, headlines),
    )


def page_queries(frame: Frame, viewer: Viewer) -> dict[str, Query]:
    """Return the queries that the overview and the pages of items have in common."""
    return headline_queries(frame, viewer) | table_queries(frame, viewer)


def newest_span(frame: Frame, span: Span, result: QueryResult) -> Span:
    """Return the end of a range with enough views to tell how people move between items.

    Args:
        frame: the view.
        span: the range.
        result: the views by time unit, of `headline_queries`.

    """
    return newest_units(frame.view, span, frame.interval, unit_counts(result, "view"))


async def read_frame_stays(store: Store, frame: Frame, results: Mapping[str, QueryResult]) -> Stays:
    """Read the stays of a view: for a chart of them those of many sessions, else of the newest days."""
    if frame.view.metric == "time":
        return await read_stays(store, frame.view, frame.span, frame.span, CHART_LIMITS)
    newest = newest_span(frame, frame.span, results["units"])
    return await read_stays(store, frame.view, frame.span, newest)


async def read_earlier_stays(store: Store, frame: Frame, results: Mapping[str, QueryResult]) -> Stays | None:
    """Read the stays that a view is compared with; None if there is no comparison."""
    if frame.earlier is None:
        return None
    span = frame.earlier.elapsed
    if frame.view.metric == "time":
        return await read_stays(store, frame.view, span, span, CHART_LIMITS)
    newest = newest_span(frame, span, results["units:earlier"])
    return await read_stays(store, frame.view, span, newest)


async def frame_in_store(store: Store, view: View) -> Frame:
    """Return a view with its range, which starts with the first event if it has no start."""
    span = await resolve_span(store, view)
    if span is None:
        end = resolve_range(view).end
        span = Span(end - _LONGEST_UNIT, end)
    return frame_view(view, span)


async def run_named(store: Store, queries: Mapping[str, Query]) -> dict[str, QueryResult]:
    """Run queries, each once, and return their results by the same names.

    Those that count distinct visitors take as long as all others together, so both run at the same time.
    """
    distinct = dict.fromkeys(queries.values())
    quick = [query for query in distinct if query.metrics == (COUNT,)]
    slow = [query for query in distinct if query.metrics != (COUNT,)]
    parts = [part for part in (slow, quick) if part]
    results = await asyncio.gather(*(store.query(*part) for part in parts))
    by_query = {
        query: result
        for part, part_results in zip(parts, results, strict=True)
        for query, result in zip(part, part_results, strict=True)
    }
    return {name: by_query[query] for name, query in queries.items()}


async def has_events(store: Store, headlines: tuple[Headline, ...]) -> bool:
    """Return whether the store has any event; it is not asked if the page shows some."""
    return any(headline.value for headline in headlines) or not await is_empty(store)


async def is_empty(store: Store) -> bool:
    """Return whether the store has no event."""
    (result,) = await store.query(Query())
    return not result.rows[0][0]


async def build_table_page(
    store: Store, field_checker: FieldChecker, view: View, viewer: Viewer, now: datetime
) -> TablePage:
    """Build a page of a whole table, with search and paging.

    Args:
        store: runs the queries.
        field_checker: knows the fields of the store.
        view: has the table's key, order, search and offset.
        viewer: who looks at it; whether they may is for the caller to check (see `tables.table_needs_query`).
        now: aware.

    Raises:
        NotFound: there is no such table, or it has no such order.
        InvalidQuery: no event has the field of a filter.

    """
    table = await build_table(store, field_checker, view, viewer, now)
    frame = await frame_in_store(store, view)
    heading = view.item or "All items"
    previous, end = max(0, view.offset - ROWS_ON_TABLE_PAGE), view.offset + len(table.rows)
    return TablePage(
        heading=heading,
        item=view.item,
        controls=build_controls(frame),
        table=table,
        back=Link(heading, view.leave_table().href()),
        viewer=viewer,
        computed_at=now,
        search=view.search,
        first=view.offset + 1,
        previous=Link("Previous", view.href(offset=previous)) if view.offset else None,
        following=Link("Next", view.href(offset=end)) if table.total is not None and end < table.total else None,
    )
