"""The performance dashboard: web vitals, Matomo's page timings, and durations."""

from typing import Final

from kibana.lens import (
    EVENT_CONTROL,
    ITEM_CONTROL,
    Column,
    Control,
    Dashboard,
    Panel,
    SeriesType,
    count_events,
    count_values,
    date_histogram,
    equal_row,
    metric_panel,
    percentile,
    table_panel,
    top_values,
    two_panel_row,
    xy_panel,
)
from metronome.fields import FIELDS, FIELDS_BY_NAME, Timing

_GOOD_UP_TO: Final = {"LCP": "2.5 s", "INP": "200 ms", "CLS": "0.1", "FCP": "1.8 s", "TTFB": "0.8 s"}
"""Web vitals in the order of the dashboard, with the thresholds of https://web.dev/articles/vitals."""

_MATOMO_TIMINGS: Final = tuple(field for field in FIELDS if field.timing is Timing.MATOMO)


def _label(name: str) -> str:
    return FIELDS_BY_NAME[name].label


def _percentiles(field: str) -> tuple[Column, ...]:
    return tuple(percentile(f"p{percent}", f"{field}.num", percent) for percent in (50, 75, 95))


def _has_number(*fields: str) -> str:
    """Return a KQL query for the events that have a number in one of the fields."""
    return " or ".join(f"{field}.num : *" for field in fields)


def _p75_column(field: str) -> Column:
    return percentile(f"{field}, p75", f"{field}.num", 75)


def _vital_panel(name: str) -> Panel:
    return metric_panel(
        name.lower(),
        _label(name),
        "Three quarters of page loads are at or below it.",
        _has_number(name),
        _p75_column(name),
        subtitle=f"75th percentile, good up to {_GOOD_UP_TO[name]}",
    )


def _percentiles_by_day(
    name: str, title: str, description: str = "Half, three quarters and 95 % are below these."
) -> Panel:
    columns = _percentiles(name)
    return xy_panel(
        f"{name.lower()}-by-day",
        f"{title} by day",
        description,
        _has_number(name),
        SeriesType.LINES,
        date_histogram(),
        *columns,
    )


_LCP_P75: Final = _p75_column("LCP")
_DURATION_P95: Final = percentile("p95", "duration.num", 95)

PERFORMANCE: Final = Dashboard(
    "performance",
    "performance",
    "How fast pages and responses are, as percentiles: web vitals and timings that browsers report, and durations. "
    "Bots are left out: to count them too, switch off the filter 'bots left out'.",
    (ITEM_CONTROL, EVENT_CONTROL, Control("device", "Device"), Control("country", "Country")),
    (
        equal_row(6, *map(_vital_panel, _GOOD_UP_TO)),
        equal_row(12, *(_percentiles_by_day(name, _label(name)) for name in ("LCP", "INP"))),
        equal_row(12, *(_percentiles_by_day(name, _label(name)) for name in ("CLS", "FCP", "TTFB"))),
        two_panel_row(
            16,
            30,
            table_panel(
                "slow-items",
                "Items with the slowest pages",
                "75th percentiles, the slowest first. Of few loads they say little.",
                _has_number(*_GOOD_UP_TO),
                top_values("id", "Item", 100, _LCP_P75),
                _LCP_P75,
                *(_p75_column(name) for name in _GOOD_UP_TO if name != "LCP"),
                count_values("Loads", "LCP.num"),
            ),
            xy_panel(
                "lcp-by-device",
                "Largest contentful paint by device",
                "75th percentiles.",
                _has_number("LCP"),
                SeriesType.HORIZONTAL_BARS,
                top_values("device", "Device", 8, _LCP_P75),
                _LCP_P75,
            ),
        ),
        equal_row(
            12,
            _percentiles_by_day(
                "duration", "Durations", "Of all events that say how long they took; choose an event above."
            ),
            table_panel(
                "durations-by-event",
                "Durations by event",
                "An event's duration is its sender's: of a request, of a session, of a stay.",
                _has_number("duration"),
                top_values("event", "Event", 20, count_events("Events")),
                count_events("Events"),
                *_percentiles("duration"),
            ),
        ),
        equal_row(
            14,
            table_panel(
                "slow-answers",
                "Items with the slowest responses",
                "By the 95th percentile of their durations.",
                _has_number("duration"),
                top_values("id", "Item", 100, _DURATION_P95),
                _DURATION_P95,
                percentile("p50", "duration.num", 50),
                count_values("Responses", "duration.num"),
            ),
            xy_panel(
                "matomo-by-day",
                "Matomo's page timings by day",
                "75th percentiles of what Matomo's tracker reports.",
                _has_number(*(field.name for field in _MATOMO_TIMINGS)),
                SeriesType.LINES,
                date_histogram(),
                *(percentile(field.label, f"{field.name}.num", 75) for field in _MATOMO_TIMINGS),
            ),
        ),
        equal_row(
            12,
            table_panel(
                "vitals-by-country",
                "Web vitals by country",
                "75th percentiles of the countries with most loads.",
                _has_number(*_GOOD_UP_TO),
                top_values("country", "Country", 30, count_events("Events")),
                count_events("Events"),
                *map(_p75_column, _GOOD_UP_TO),
            ),
            table_panel(
                "vitals-by-browser",
                "Web vitals by browser",
                "75th percentiles.",
                _has_number(*_GOOD_UP_TO),
                top_values("browser", "Browser", 20, count_events("Events")),
                count_events("Events"),
                *map(_p75_column, _GOOD_UP_TO),
            ),
        ),
    ),
)
