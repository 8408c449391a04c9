"""The tables of a page: usage by item, referrer, country and so on.

A table on a page of all tables has the ten greatest rows of one measure. A table's own page has all measures, search
and paging.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from metronome.errors import NotFound
from metronome.page.labels import ESTIMATED_NOTE, VISITORS_NOTE, value_text
from metronome.page.model import Cell, Link, Row, Table, Viewer
from metronome.page.view import Span, View, resolve_range
from metronome.reports.csv import format_csv
from metronome.reports.items import rising_items
from metronome.reports.parameters import ReportParameters, excerpt
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.series import list_time_units
from metronome.stores.base import Store
from metronome.stores.query import (
    COUNT,
    MAX_GROUPS,
    Equals,
    Exists,
    Filter,
    Metric,
    OneOf,
    Query,
    QueryResult,
    SortKey,
)

ROWS_ON_PAGE: Final = 10
ROWS_ON_TABLE_PAGE: Final = 100
CSV_MAX_ROWS: Final = 50_000
"""Elasticsearch accepts at most 65,536 values in a filter, and the columns of rows are queried by their names."""
_THREAD_MIN_ROWS: Final = 500
"""Building fewer rows takes less time than other requests would notice."""
RISING: Final = "rising"
_MAX_RISING: Final = 500


@dataclass(frozen=True, slots=True)
class Measure:
    """What a column of a table counts.

    Attributes:
        key: its name as an order in URLs; that of views, downloads, visitors and errors is a metric of the chart.
        label: the title of the column.
        metric: what is counted.
        events: of which events.

    """

    key: str
    label: str
    metric: Metric
    events: tuple[str, ...]

    @property
    def event_filter(self) -> Filter:
        """The filter for the events that count."""
        return Equals("event", self.events[0]) if len(self.events) == 1 else OneOf("event", self.events)


VIEWS: Final = Measure("views", "Views", COUNT, ("view",))
DOWNLOADS: Final = Measure("downloads", "Downloads", COUNT, ("download",))
VISITORS: Final = Measure("visitors", "Visitors", Metric.parse("visitors"), ("view", "download"))
ERRORS: Final = Measure("errors", "Errors", COUNT, ("error",))
SESSIONS: Final = Measure("sessions", "Sessions", Metric.parse("sessions"), ("error",))
MEASURES: Final = {measure.key: measure for measure in (VIEWS, DOWNLOADS, VISITORS, ERRORS, SESSIONS)}
_USE: Final = (VIEWS, DOWNLOADS, VISITORS)


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """What a table counts.

    Attributes:
        key: its name in URLs.
        caption: its title.
        field: what events are grouped by.
        measures: its possible columns; the first one is the default order.
        needs_query: whether it shows more than the scope ``tock`` allows.
        only_bots: whether it counts robots, which other tables leave out.
        within: a field that the view must be filtered by for the table to be shown; empty if it always is.
        on_overview: whether it is on the overview.
        on_item_page: whether it is on the pages of items.

    """

    key: str
    caption: str
    field: str
    measures: tuple[Measure, ...] = _USE
    needs_query: bool = False
    only_bots: bool = False
    within: str = ""
    on_overview: bool = True
    on_item_page: bool = True


ITEMS: Final = TableDefinition("items", "Items", "id", on_item_page=False)
DAYS: Final = TableDefinition("days", "Days", "day", on_overview=False, on_item_page=False)
TABLES: Final = (
    ITEMS,
    TableDefinition("referrers", "Referrers", "referer_group"),
    TableDefinition("pages", "Referring pages", "referer", within="referer_group"),
    TableDefinition("channels", "Channels", "channel"),
    TableDefinition("countries", "Countries", "country"),
    TableDefinition("formats", "Formats", "format", (DOWNLOADS, VISITORS)),
    TableDefinition("browsers", "Browsers", "browser"),
    TableDefinition("versions", "Browser versions", "browser_version", within="browser"),
    TableDefinition("devices", "Devices", "device"),
    TableDefinition("systems", "Operating systems", "os"),
    TableDefinition("campaigns", "Campaigns", "utm_campaign"),
    TableDefinition("sources", "Campaign sources", "utm_source", within="utm_campaign"),
    TableDefinition("errors", "Errors", "error_group", (ERRORS, SESSIONS), needs_query=True),
    TableDefinition("robots", "Robots", "bot", (VIEWS, DOWNLOADS), only_bots=True),
    DAYS,
)
TABLES_BY_KEY: Final = {table.key: table for table in TABLES}


def tables_of(view: View, viewer: Viewer) -> tuple[TableDefinition, ...]:
    """Return the tables of a page of all tables."""
    filtered = {part.name for part in view.filters}
    return tuple(
        table
        for table in TABLES
        if (viewer.can_query or not table.needs_query)
        and (not table.within or table.within in filtered)
        and (table.on_overview if view.item is None else table.on_item_page)
    )


def measure_of(table: TableDefinition, view: View) -> Measure:
    """Return what a table counts on a page of all tables: the view's metric if the table has it."""
    measures = measures_of(table, view)
    return next((measure for measure in measures if measure.key == view.metric), measures[0])


def measures_of(table: TableDefinition, view: View) -> tuple[Measure, ...]:
    """Return the possible columns of a table; items have their errors where the view is of errors."""
    return (*table.measures, ERRORS) if table is ITEMS and view.metric == ERRORS.key else table.measures


def group_query(
    table: TableDefinition,
    measure: Measure,
    view: View,
    span: Span,
    *filters: Filter,
    limit: int | None = None,
    offset: int = 0,
) -> Query:
    """Return the query for the greatest groups of a table, by one measure."""
    parameters = table_parameters(table, view, span)
    item = view.item_filters
    only_bots = (Exists("bot"),) if table.only_bots else ()
    return Query(
        metrics=(measure.metric,),
        group_by=(table.field,),
        where=parameters.build_filter(measure.event_filter, *item, *only_bots, *filters),
        start=span.start,
        end=span.end,
        time_zone=view.time_zone,
        sort_keys=(SortKey(measure.metric.name, descending=True),),
        limit=limit,
        offset=offset,
    )


def table_parameters(table: TableDefinition, view: View, span: Span) -> ReportParameters:
    """Return the parameters that a table's queries have in common."""
    parameters = view.parameters(span.start, span.end)
    return replace(parameters, include_bots=True) if table.only_bots else parameters


def top_table(table: TableDefinition, measure: Measure, view: View, result: QueryResult, whole: float) -> Table | None:
    """Return the first rows of a table for a page of all tables; None if there are none.

    Args:
        table: the table.
        measure: its only column.
        view: the view.
        result: of `group_query`.
        whole: the measure of all events, which shares are of; 0 if shares mean nothing.

    """
    if not result.rows:
        return None
    rows = tuple(
        _row(table, view, str(name), (measure,), (value,), whole) for name, value in result.rows[:ROWS_ON_PAGE]
    )
    return Table(
        key=table.key,
        caption=table.caption,
        columns=(measure.label,),
        rows=rows,
        total=result.total,
        more=_more(view, table, result.total, len(rows)),
        csv_href=view.csv_href(table.key),
        exact=result.exact,
        note=_note((measure,), exact=result.exact),
    )


def _row(
    table: TableDefinition,
    view: View,
    name: str,
    measures: tuple[Measure, ...],
    values: tuple[Any, ...],
    whole: float,
    *,
    has_links: bool = True,
) -> Row:
    if not has_links:
        return Row(name, value_text(table.field, name), "", tuple(map(Cell, values)))
    filtered = view.filter_by(table.field, name)
    cells = tuple(
        Cell(value, href=filtered.href(metric=measure.key) if measure.key in _CHART_METRICS else filtered.href())
        for measure, value in zip(measures, values, strict=True)
    )
    return Row(
        name=name,
        text=value_text(table.field, name),
        href=cells[0].href if table.key in _OWN_METRIC else filtered.href(),
        cells=cells,
        share=min(1.0, (values[0] or 0) / whole) if whole else None,
        page_href=view.open_item(name).href() if table.field == "id" else "",
    )


_CHART_METRICS: Final = frozenset({"views", "downloads", "visitors", "errors"})
_OWN_METRIC: Final = frozenset({"formats", "errors"})
"""Tables whose rows lead to a chart of what they count: views by format or by error mean nothing."""


def _more(view: View, table: TableDefinition, total: int, shown: int) -> Link | None:
    return Link(f"All {total:,}", view.href(table=table.key, order="")) if total > shown else None


def _note(measures: tuple[Measure, ...], *, exact: bool) -> str:
    notes = [] if exact else [ESTIMATED_NOTE]
    if VISITORS in measures:
        notes.append(VISITORS_NOTE)
    return " ".join(notes)


# Items, and pages of whole tables: several measures.


def choose_order(table: TableDefinition, view: View) -> Measure | None:
    """Return the measure that a table is ordered by; None for rising items.

    Raises:
        NotFound: the table has no such order.

    """
    if table is ITEMS and view.order == RISING:
        return None
    if not view.order:
        return measure_of(table, view)
    for measure in measures_of(table, view):
        if measure.key == view.order:
            return measure
    raise NotFound(
        f"the table {table.key} cannot be ordered by {excerpt(view.order)!r}: "
        f"expected one of {', '.join(_order_names(table, view))}"
    )


def _order_names(table: TableDefinition, view: View) -> list[str]:
    return [*(measure.key for measure in measures_of(table, view)), *([RISING] if table is ITEMS else [])]


def order_links(table: TableDefinition, view: View, order: Measure | None) -> tuple[Link, ...]:
    """Return links to a table in its orders."""
    current = RISING if order is None else order.key
    labels = {measure.key: measure.label for measure in measures_of(table, view)} | {RISING: "Rising"}
    default = measure_of(table, view).key
    return tuple(
        Link(labels[name], view.href(order="" if name == default else name), is_current=name == current)
        for name in _order_names(table, view)
    )


def measure_queries(
    table: TableDefinition, order: Measure, view: View, span: Span, names: tuple[str, ...]
) -> dict[str, Query]:
    """Return the queries for the other measures of some groups of a table, by the measures' keys."""
    only = OneOf(table.field, names)
    return {
        measure.key: group_query(table, measure, view, span, only) for measure in other_measures(table, order, view)
    }


def other_measures(table: TableDefinition, order: Measure, view: View) -> tuple[Measure, ...]:
    """Return the columns of a table after that which orders it.

    Counting the visitors of each row takes long, so a page of all tables has them only in their own order. Filters of
    errors leave no views.
    """
    if table is ITEMS and order is ERRORS:
        return ()
    return tuple(
        measure
        for measure in measures_of(table, view)
        if measure is not order and (view.table or measure.metric is COUNT)
    )


def measured_table(
    table: TableDefinition,
    order: Measure,
    view: View,
    ranking: QueryResult,
    others: dict[str, QueryResult],
    whole: float,
    *,
    has_links: bool = True,
) -> Table:
    """Return a table with all measures; the one that orders it comes first.

    Args:
        table: the table.
        order: what it is ordered by.
        view: the view.
        ranking: of `group_query`.
        others: of `measure_queries`.
        whole: as for `top_table`.
        has_links: whether rows have links, which take most of the time.

    """
    measures = (order, *other_measures(table, order, view))
    numbers = {key: result.to_dict() for key, result in others.items()}
    rows = tuple(
        _row(
            table,
            view,
            str(name),
            measures,
            (value, *(numbers[measure.key].get(str(name), 0) for measure in measures[1:])),
            whole,
            has_links=has_links,
        )
        for name, value in ranking.rows
    )
    exact = ranking.exact and all(result.exact for result in others.values())
    return Table(
        key=table.key,
        caption=table.caption,
        columns=tuple(measure.label for measure in measures),
        rows=rows,
        total=ranking.total,
        more=_more(view, table, ranking.total, len(rows)),
        csv_href=view.csv_href(table.key),
        orders=order_links(table, view, order),
        exact=exact,
        note=_note(measures, exact=exact),
    )


async def rising_table(store: Store, view: View, span: Span, limit: int, now: datetime) -> Table:
    """Return the items whose use rises most."""
    is_part = bool(view.search or view.offset)
    parameters = view.parameters(span.start, span.end, _MAX_RISING if is_part else limit)
    report = await rising_items(store, parameters, now) if span.start < now else {"items": []}
    wanted = view.search.casefold()
    risen = [item for item in report["items"] if item["change"] > 0 and wanted in item["id"].casefold()]
    rows = []
    for item in risen[view.offset : view.offset + limit]:
        row = _row(ITEMS, view, item["id"], (VIEWS, DOWNLOADS), (item["views"], item["downloads"]), 0)
        rows.append(replace(row, cells=(Cell(item["change"], href=row.href), Cell(item["before"]), *row.cells)))
    return Table(
        key=ITEMS.key,
        caption=ITEMS.caption,
        columns=("More", "Before", "Views", "Downloads"),
        rows=tuple(rows),
        csv_href=view.csv_href(ITEMS.key),
        orders=order_links(ITEMS, view, None),
        exact=report.get("exact", True),
        note=(
            "Views and downloads in the second half of the range, and how many more they are than in the first half "
            "(Before); the most significant rise first."
        ),
        empty="No item is used more than before in this range.",
    )


async def days_table(store: Store, view: View, span: Span, limit: int, *, has_links: bool = True) -> Table:
    """Return views, downloads and visitors by day, newest first, without gaps."""
    queries = [replace(group_query(DAYS, measure, view, span), sort_keys=()) for measure in DAYS.measures]
    results = await store.query(*queries)
    # A range of centuries has tens of thousands of days.
    rows, total = await asyncio.to_thread(_days_rows, view, span, results, limit, has_links=has_links)
    exact = all(result.exact for result in results)
    return Table(
        key=DAYS.key,
        caption=DAYS.caption,
        columns=tuple(measure.label for measure in DAYS.measures),
        rows=rows,
        total=total,
        csv_href=view.csv_href(DAYS.key),
        exact=exact,
        note=_note(DAYS.measures, exact=exact),
    )


def _days_rows(
    view: View, span: Span, results: Sequence[QueryResult], limit: int, *, has_links: bool
) -> tuple[tuple[Row, ...], int]:
    """Return the rows of some days, and how many days there are."""
    numbers = [result.to_dict() for result in results]
    labels = [label for label in list_time_units("day", span.start, span.end, view.zone)[::-1] if view.search in label]
    page = view.leave_table()

    def href(label: str, **changes: str) -> str:
        return page.href(since=label, until=label, **changes) if has_links else ""

    rows = tuple(
        Row(
            name=label,
            text=label,
            href=href(label),
            cells=tuple(
                Cell(values.get(label, 0), href=href(label, metric=measure.key))
                for measure, values in zip(DAYS.measures, numbers, strict=True)
            ),
        )
        for label in labels[view.offset : view.offset + limit]
    )
    return rows, len(labels)


async def build_table(
    store: Store,
    field_checker: FieldChecker,
    view: View,
    viewer: Viewer,
    now: datetime,
    *,
    limit: int = ROWS_ON_TABLE_PAGE,
    has_links: bool = True,
) -> Table:
    """Build a page of a whole table; `View` has its key, order, search and offset.

    Args:
        store: runs the queries.
        field_checker: knows the fields of the store.
        view: the view.
        viewer: who looks at it; whether they may is for the caller to check (see `table_needs_query`).
        now: aware.
        limit: the maximum number of rows.
        has_links: whether rows have links; a file needs none.

    Raises:
        NotFound: there is no such table, or it has no such order.
        InvalidQuery: no event has the field of a filter.

    """
    del viewer
    table = find_table(view.table)
    await field_checker.check(view.parse_filters())
    span = await resolve_span(store, view)
    if span is None:
        return Table(table.key, table.caption, tuple(measure.label for measure in table.measures), ())
    if table is DAYS:
        return _name_search(await days_table(store, view, span, limit, has_links=has_links), view)
    order = choose_order(table, view)
    if order is None:
        return _name_search(await rising_table(store, view, span, min(limit, _MAX_RISING), now), view)
    if view.search:
        (everything,) = await store.query(group_query(table, order, view, span, limit=MAX_GROUPS))
        ranking = await asyncio.to_thread(_search, everything, table, view.search, view.offset, limit)
    else:
        (ranking,) = await store.query(group_query(table, order, view, span, limit=limit, offset=view.offset))
    names = tuple(str(row[0]) for row in ranking.rows)
    queries = measure_queries(table, order, view, span, names) if names else {}
    whole_query = replace(group_query(table, order, view, span), group_by=(), sort_keys=())
    whole, *results = await store.query(whole_query, *queries.values())
    others = dict(zip(queries, results, strict=True))
    build = partial(
        measured_table, table, order, view, ranking, others, float(whole.rows[0][0] or 0), has_links=has_links
    )
    result = build() if len(ranking.rows) < _THREAD_MIN_ROWS else await asyncio.to_thread(build)
    return replace(_name_search(result, view), more=None)


def _name_search(table: Table, view: View) -> Table:
    """Return a table that says what was searched for in vain."""
    if not view.search or table.rows:
        return table
    return replace(table, empty=f"No {table.caption.lower()} contain “{excerpt(view.search)}”.")


def as_number(value: str | float | None) -> float | None:
    """Return a metric's value, whose type the column does not say; texts are times, which a table does not have."""
    return None if isinstance(value, str) else value


def find_table(key: str) -> TableDefinition:
    """Return a table.

    Raises:
        NotFound: there is no such table.

    """
    if key not in TABLES_BY_KEY:
        raise NotFound(f"unknown table {excerpt(key)!r}: expected one of {', '.join(TABLES_BY_KEY)}")
    return TABLES_BY_KEY[key]


def table_needs_query(view: View) -> bool:
    """Return whether a table's page shows more than the scope ``tock`` allows.

    Raises:
        NotFound: there is no such table.

    """
    return view.needs_query or find_table(view.table).needs_query


def table_csv(table: Table) -> bytes:
    """Return a table as CSV, with the names and, where they differ, the texts of its rows."""
    has_texts = any(row.text != row.name for row in table.rows)
    columns = ("name", *(("text",) if has_texts else ()), *(column.lower() for column in table.columns))
    rows = ((row.name, *((row.text,) if has_texts else ()), *(cell.value for cell in row.cells)) for row in table.rows)
    return format_csv(columns, rows).encode()


def _search(result: QueryResult, table: TableDefinition, search: str, offset: int, limit: int) -> QueryResult:
    wanted = search.casefold()
    rows = tuple(
        row
        for row in result.rows
        if wanted in str(row[0]).casefold() or wanted in value_text(table.field, str(row[0])).casefold()
    )
    return replace(result, rows=rows[offset : offset + limit], total=len(rows))


async def resolve_span(store: Store, view: View) -> Span | None:
    """Return the range of a view, which starts with its first event if it has no start; None if it is empty then."""
    period = resolve_range(view)
    start = period.start
    if start is None:
        (first,) = await store.query(
            Query(
                metrics=(Metric.parse("first"),),
                where=view.parameters(None, period.end).build_filter(*view.item_filters),
                end=period.end,
            )
        )
        first_at = first.rows[0][0]
        if first_at is None:
            return None
        local = datetime.fromisoformat(str(first_at)).astimezone(view.zone)
        start = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return Span(start, period.end)
