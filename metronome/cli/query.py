"""``metronome query``: query a Metronome server, and print the result as a table."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from metronome.cli.errors import reporting_errors
from metronome.cli.options import (
    DEFAULT_SERVER_URL,
    BotsOption,
    FromOption,
    JsonOption,
    KeyOption,
    TimeZoneOption,
    ToOption,
    UrlOption,
    require_one_format,
)
from metronome.cli.output import note_pending, print_note, print_response
from metronome.cli.tables import ResultPrinter, combine_values
from metronome.errors import ConfigurationError, QueryTooExpensive
from metronome.reports.query.parse import parse_filter_expression
from metronome.reports.query.request import QUERY_PARAMETERS
from metronome.reports.query.series import empty_value, list_time_units
from metronome.server_client import ServerClient, encode_parameters, percent_encode
from metronome.stores.query import TIME_UNITS, Metric, MetricKind, parse_time_zone
from metronome.times import parse_time_unit

CSV_MEDIA_TYPE: Final = "text/csv"
DEFAULT_RANKING_ROWS: Final = 50
"""Number of groups that are shown by default, those with most events first."""
TIME_GROUPS: Final = frozenset(TIME_UNITS) - {"all"}
ESTIMATED_NOTE: Final = "estimated: some of these numbers are approximate"

_RESOLUTION: Final = timedelta(microseconds=1)
_UNITS: Final = ("minute", "hour", "day", "week", "month", "quarter", "year")
_SUMMED_METRICS: Final = frozenset(
    {MetricKind.COUNT, MetricKind.VIEWS, MetricKind.DOWNLOADS, MetricKind.VALUE_COUNT, MetricKind.SUM}
)


def query_command(  # noqa: PLR0913  # one argument for each option
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILTER",
            help="Events to include: event=view, format!=csv, 'LCP>=100', referer^=arcgis (prefix), 'session=*' "
            "(present). Several values of a field with = are alternatives.",
            show_default="all events except those of bots",
        ),
    ] = None,
    *,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Metrics, separated by commas: count (all events), views, downloads, visitors (of several days: the "
            "sum of daily visitors), sessions, first, last, unique:FIELD, count|sum|avg|min|max:FIELD, p95:FIELD.",
        ),
    ] = "count",
    by: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Group by fields, or by minute, hour, day, week, month, quarter, year or all."
        ),
    ] = None,
    start: FromOption = None,
    end: ToOption = None,
    tz: TimeZoneOption = "UTC",
    order: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Columns to sort by; -count for descending.",
            show_default="descending; time series: oldest first",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Maximum number of rows; 0 for all.",
            show_default=f"{DEFAULT_RANKING_ROWS}; time series: 1000; --csv and --json: all",
        ),
    ] = None,
    offset: Annotated[int | None, typer.Option(min=0, metavar="N", help="Number of rows to skip.")] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="previous|year", help="Compare with the previous period, or with the year before."),
    ] = None,
    fill: Annotated[bool, typer.Option("--fill", help="Include time units without events.")] = False,
    bots: BotsOption = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV.")] = False,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
) -> None:
    """Count, group and filter events.

    Prints any metric of any events, grouped by fields or by time.
    """
    groups = [name for name in (by or "").split(",") if name]
    is_ranking = bool(groups) and TIME_GROUPS.isdisjoint(groups)
    default_rows = DEFAULT_RANKING_ROWS if is_ranking else None
    parameters = [
        ("metrics", metrics),
        ("by", by),
        ("from", start),
        ("to", end),
        ("tz", tz),
        ("order", order or (f"-{metrics.partition(',')[0]}" if is_ranking else None)),
        ("limit", _optional_text(limit if limit is not None or as_csv else 0 if as_json else default_rows)),
        ("offset", _optional_text(offset)),
        ("compare", compare),
        ("fill", "1" if fill else None),
        ("bots", "1" if bots else None),
    ]
    with reporting_errors("query"):
        require_one_format(as_json=as_json, as_csv=as_csv)
        query = "&".join([*encode_parameters(parameters), *map(encode_filter, filters or ())])
        path = f"/query{'.csv' if as_csv else ''}?{query}"
        client = ServerClient(url, key, note_pending)
        if as_csv:
            print_response(client.get(path, CSV_MEDIA_TYPE))
        elif as_json:
            print_response(client.get(path))
        else:
            result = client.get_json(path, "columns", "rows", "total")
            with client.parsing_response(path):
                _print_result(result, groups, tz)


def _optional_text(number: int | None) -> str | None:
    return None if number is None else str(number)


def encode_filter(text: str) -> str:
    """Encode a filter for the query of a URL; its operator stays readable."""
    part = parse_filter_expression(text)
    if part is None:
        raise ConfigurationError(f"invalid filter {text!r}: expected an expression such as event=view or 'LCP>=100'")
    if part.name in QUERY_PARAMETERS:
        raise ConfigurationError(f"invalid filter {text!r}: {part.name} is an option, so use --{part.name}")
    return f"{percent_encode(part.name)}{percent_encode(part.operator, safe='=')}{percent_encode(part.value)}"


def _print_result(result: Mapping[str, Any], groups: Sequence[str], tz: str) -> None:
    names, rows = result["columns"], result["rows"]
    if not rows:
        print_note("no events match in this time range")
        return
    printer = ResultPrinter()
    indexes = range(len(groups), len(names))
    metric_index = next((index for index in indexes if any(isinstance(row[index], (int, float)) for row in rows)), None)
    if len(groups) == 1 and groups[0] in TIME_GROUPS and metric_index is not None:
        printer.print_table(names, rows, len(groups))
        metric = Metric.parse(names[metric_index])
        are_sums = metric.kind in _SUMMED_METRICS
        unit, values = fit_series(
            {row[0]: row[metric_index] for row in rows}, groups[0], tz, printer.plot_columns, are_sums=are_sums
        )
        series = fill_series(values, unit, tz, empty_value(metric))
        title = names[metric_index] if unit == groups[0] else f"{names[metric_index]} by {unit}"
        # Below the table, whose beginning may have scrolled away.
        printer.print_plot(title, [*series], [*series.values()], are_sums=are_sums)
    else:
        printer.print_table(names, rows, len(groups), metric_index)
    if result["total"] > len(rows):
        print_note(f"{len(rows):,} of {result['total']:,} rows; use --limit 0 to show all")
    if result.get("exact") is False:
        print_note(ESTIMATED_NOTE)


def fit_series(
    values: Mapping[str, float | None], unit: str, tz: str, max_units: int, *, are_sums: bool
) -> tuple[str, dict[str, float | None]]:
    """Return a time series by a unit of which few enough lie between its first and its last value, and that unit.

    Args:
        values: values by the labels of time units.
        unit: their unit: minute, hour, day, week, month, quarter or year. The result has this one or a longer one.
        tz: time zone of the labels.
        max_units: how many units there may be; years may be more.
        are_sums: whether the values of a longer unit are added up; otherwise it has their mean.

    """
    zone = parse_time_zone(tz)
    starts = {label: parse_time_unit(label, unit, zone) for label in values}
    if not starts:
        return unit, {}
    first, end = min(starts.values()), max(starts.values()) + _RESOLUTION
    units = _UNITS[_UNITS.index(unit) :]
    unit = next((longer for longer in units if _count_units(longer, first, end, zone) <= max_units), units[-1])
    grouped: dict[str, list[float | None]] = {}
    for label in sorted(starts, key=starts.__getitem__):
        (longer_label, *_) = list_time_units(unit, starts[label], starts[label] + _RESOLUTION, zone)
        grouped.setdefault(longer_label, []).append(values[label])
    return unit, {label: combine_values(group, are_sums=are_sums) for label, group in grouped.items()}


def _count_units(unit: str, start: datetime, end: datetime, zone: ZoneInfo) -> float:
    try:
        return len(list_time_units(unit, start, end, zone))
    except QueryTooExpensive:
        return math.inf


def fill_series(
    values: Mapping[str, float | None], unit: str, tz: str, empty_value: float | None = 0
) -> dict[str, float | None]:
    """Return a time series in order, from its first to its last time unit, including those without events.

    Args:
        values: values by the labels of time units.
        unit: minute, hour, day, week, month, quarter or year.
        tz: time zone of the labels.
        empty_value: value of the other time units; if they are too many, they are left out.

    """
    zone = parse_time_zone(tz)
    starts = {label: parse_time_unit(label, unit, zone) for label in values}
    if not starts:
        return {}
    try:
        labels = list_time_units(unit, min(starts.values()), max(starts.values()) + _RESOLUTION, zone)
    except QueryTooExpensive:
        labels = []
    starts |= {label: parse_time_unit(label, unit, zone) for label in labels}
    return {label: values.get(label, empty_value) for label in sorted(starts, key=starts.__getitem__)}
