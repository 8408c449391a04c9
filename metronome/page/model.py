"""What a page shows, ready to be rendered: numbers, a chart and tables, without HTML.

`metronome.page.overview` and `metronome.page.item` build these from results of queries; the templates render them.
Every text is plain text, every address an absolute path that includes the base path. Rendering escapes both.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Unit(StrEnum):
    """What a number counts, which decides how it is written."""

    COUNT = "count"
    MILLISECONDS = "ms"
    SCORE = "score"


@dataclass(frozen=True, slots=True)
class Link:
    """A link to another view.

    Attributes:
        text: what the link says.
        href: where it leads.
        is_current: whether it leads to the view that is shown.

    """

    text: str
    href: str
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter that is on.

    Attributes:
        text: the filter in words, such as ``Country: CH``.
        href: the view without the filter.
        item: the ID of the item that it filters by; empty for another filter.
        page_href: the item's page; empty for another filter.

    """

    text: str
    href: str
    item: str = ""
    page_href: str = ""


@dataclass(frozen=True, slots=True)
class Headline:
    """One of the numbers at the top of a page.

    Attributes:
        key: ``views``, ``downloads``, ``visitors``, ``time`` or ``errors``.
        label: such as ``Views``.
        value: the number; None if there is nothing to measure.
        previous: the number of the earlier period; None without one.
        change: the relative change, 0.25 for a quarter more; None if there is nothing to relate to.
        unit: what the number counts.
        href: the view whose chart shows this number; empty where no chart can.
        exact: whether the numbers are exact, not estimated.
        note: why they are not exact, or what they mean, as a sentence; empty for nothing.
        is_selected: whether the chart shows this number.
        more_is_better: whether a rise is good news; None where it is neither.
        is_locked: whether the number needs a key that the request did not have; the value is then None.

    """

    key: str
    label: str
    value: float | None
    previous: float | None
    change: float | None
    unit: Unit
    href: str
    exact: bool = True
    note: str = ""
    is_selected: bool = False
    more_is_better: bool | None = True
    is_locked: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One time unit of a chart.

    Attributes:
        label: the unit in words, such as ``1 Nov 2026`` or ``1 Nov 2026, 14:00``.
        tick: the short label for the axis, such as ``1 Nov``.
        value: the number; None if there is nothing to measure.
        previous: the number of the corresponding unit of the earlier period; None without one.
        href: the view of this unit alone.
        is_weekend: whether the unit is a day of a weekend.
        is_incomplete: whether the unit is not over yet, or the range includes only a part of it.

    """

    label: str
    tick: str
    value: float | None
    previous: float | None
    href: str
    is_weekend: bool = False
    is_incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A number over time.

    Attributes:
        title: such as ``Views by day``.
        description: the whole chart in a sentence, for those who do not see it.
        unit: what the numbers count.
        bars: one for each time unit, oldest first, without gaps.
        previous_label: the earlier period in words, such as ``October``; empty without one.
        intervals: links to the same chart by other time units.

    """

    title: str
    description: str
    unit: Unit
    bars: tuple[Bar, ...]
    previous_label: str = ""
    intervals: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """A number in a table.

    Attributes:
        value: the number; None is shown as a dash.
        unit: what it counts.
        href: a view that shows what the number counts; empty for none.

    """

    value: float | None
    unit: Unit = Unit.COUNT
    href: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        name: what the row is about, such as ``CH`` or an item ID.
        text: what the row says, such as ``Switzerland`` or an item's title; the name if they are the same.
        href: the view that is filtered by the row.
        cells: the numbers, in the order of the table's columns.
        share: the first number's share of all, from 0 to 1; None where shares mean nothing.
        note: a small text after the name, such as a channel; empty for none.
        page_href: the item's own page; empty if the row is not about an item.

    """

    name: str
    text: str
    href: str
    cells: tuple[Cell, ...]
    share: float | None = None
    note: str = ""
    page_href: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page: at most ten rows, or a whole page of one on a page of its own.

    Attributes:
        key: the name in paths and for fragments, such as ``countries``.
        caption: such as ``Countries``.
        columns: the names of the numbers, such as ``Views``; the first one has the bars behind it.
        rows: the rows, in order.
        total: the number of all rows; None if unknown.
        more: leads to the whole table; None if all rows are shown.
        csv_href: the table as CSV; empty if there is none.
        orders: links to the same table in other orders, such as by downloads.
        exact: whether the numbers and the choice of rows are exact.
        note: why not, or what the numbers mean, as a sentence; empty for nothing.
        empty: a sentence to show if there are no rows.

    """

    key: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    total: int | None = None
    more: Link | None = None
    csv_href: str = ""
    orders: tuple[Link, ...] = ()
    exact: bool = True
    note: str = ""
    empty: str = "No matching events in this range."


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice in a form, such as a time zone.

    Attributes:
        name: the parameter.
        label: what the control is called.
        options: values and what they are called, in order.
        value: the chosen value.

    """

    name: str
    label: str
    options: tuple[tuple[str, str], ...]
    value: str


@dataclass(frozen=True, slots=True)
class Controls:
    """How a page can be changed: the line at its top.

    Attributes:
        ranges: links to the usual ranges.
        range_text: the range in words, such as ``1-30 Nov 2026``, with an en dash.
        start: the first day, as ``2026-11-01``, for the form.
        end: the last day, as ``2026-11-30``.
        compares: links to comparisons, among them that to none.
        compare_text: the comparison in words, such as ``vs. October``; empty for none.
        time_zone: the choice of time zone.
        compare_note: what the comparison leaves out, as a sentence; empty for nothing.
        hidden: all parameters of the view: names and values in order. Each form keeps those that it does not set.
        chips: the filters that are on.
        bots: the link that includes robots or leaves them out; None where it means nothing.
        widen: the same view over a longer range, to offer where this one has no events; None if there is none.

    """

    ranges: tuple[Link, ...]
    range_text: str
    start: str
    end: str
    compares: tuple[Link, ...]
    compare_text: str
    time_zone: Choice
    compare_note: str = ""
    hidden: tuple[tuple[str, str], ...] = ()
    chips: tuple[Chip, ...] = ()
    bots: Link | None = None
    widen: Link | None = None


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One of the newest events: when it happened, what, to which item, and where its visitor came from."""

    time: datetime
    time_text: str
    event: str
    item: str
    href: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Live:
    """The last 30 minutes.

    Attributes:
        minutes: the number of views and downloads in each minute, oldest first.
        total: their sum.
        href: where the script reads them anew.
        events: the newest ten events, newest first; empty without the right to see them.
        is_locked: whether events need a key that the request did not have.

    """

    minutes: tuple[int, ...]
    total: int
    href: str
    events: tuple[LiveEvent, ...] = ()
    is_locked: bool = False


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at the page.

    Attributes:
        is_signed_in: whether the request had the cookie of a key.
        can_query: whether errors, live events and custom filters may be shown.
        sign_in_href: where to sign in, and come back; empty where no key exists that could be used.

    """

    is_signed_in: bool = False
    can_query: bool = True
    sign_in_href: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The overview, or the page of an item.

    Attributes:
        heading: ``All items``, or the item's title or ID.
        item: the item's ID; None for the overview.
        controls: how the page can be changed.
        headlines: the numbers at the top.
        chart: the selected number over time.
        tables: the tables, in the order of the page.
        viewer: who looks at it.
        live: the last 30 minutes; None where they are not shown.
        links: other forms of the same, such as an item's tock and badge.
        stored_events: whether the store has any event at all; without, the page says what to do next.
        computed_at: when the numbers were read.
        stale_since: when they were read if the store is unavailable now; None if they are current.
        notices: what else to know about the numbers, in whole sentences.

    """

    heading: str
    item: str | None
    controls: Controls
    headlines: tuple[Headline, ...]
    chart: Chart
    tables: tuple[Table, ...]
    viewer: Viewer
    computed_at: datetime
    live: Live | None = None
    links: tuple[Link, ...] = ()
    stored_events: bool = True
    stale_since: datetime | None = None
    notices: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class TablePage:
    """A whole table on a page of its own, with search and paging.

    Attributes:
        heading: ``All items``, or the item's title or ID.
        item: the item's ID; None for all items.
        controls: how the page can be changed.
        table: the rows of this page; its `more` is None.
        back: leads to the page that shows the start of this table.
        viewer: who looks at it.
        computed_at: when the numbers were read.
        search: the text that rows are filtered by; empty for none.
        first: the number of the first row, from 1.
        previous: leads to the rows before; None on the first page.
        following: leads to the rows after; None on the last page.
        stale_since: when the numbers were read if the store is unavailable now; None if they are current.
        notices: what else to know about the numbers, in whole sentences.

    """

    heading: str
    item: str | None
    controls: Controls
    table: Table
    back: Link
    viewer: Viewer
    computed_at: datetime
    search: str = ""
    first: int = 1
    previous: Link | None = None
    following: Link | None = None
    stale_since: datetime | None = None
    notices: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Embed:
    """An item's usage, to be shown on the item's own page.

    Attributes:
        item: the item's ID.
        headlines: views and downloads.
        chart: views by day.
        tables: downloads by format, and referrers.
        href: the item's page.

    """

    item: str
    headlines: tuple[Headline, ...]
    chart: Chart
    tables: tuple[Table, ...]
    href: str
