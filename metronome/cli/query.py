"""``metronome query``: asks a Metronome server a question, and shows the answer as a table.

Series as they are drawn: with a place for each unit of time, also for those in which nothing was.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final

import typer

from metronome.cli.output import ResultPrinter, print_note
from metronome.errors import Malformed, MetronomeError, QueryTooExpensive
from metronome.reports.query.parse import parse_filter_expression
from metronome.reports.query.request import QUERY_PARAMETERS
from metronome.reports.query.series import empty_value, list_time_units
from metronome.server_client import (
    DEFAULT_SERVER_URL,
    EXIT_FAILED,
    BotsOption,
    FromOption,
    JsonOption,
    KeyOption,
    ServerClient,
    TimeZoneOption,
    ToOption,
    UrlOption,
    encode_parameters,
    percent_encode,
    print_response,
)
from metronome.stores.query import TIME_UNITS, Metric, parse_time_zone
from metronome.times import parse_time_unit

_RESOLUTION: Final = timedelta(microseconds=1)


def fill_series(
    values: Mapping[str, float | None], unit: str, tz: str, empty_value: float | None = 0
) -> dict[str, float | None]:
    """Return a series in the order of time, from its first unit to its last, with all that lie between.

    Args:
        values: by the units that have any.
        unit: minute, hour, day, week or month.
        tz: the zone that these are in.
        empty_value: the value of the others. Where they are far too many, they are left out.

    """
    zone = parse_time_zone(tz)
    begins = {label: parse_time_unit(label, unit, zone) for label in values}
    if not begins:
        return {}
    try:
        between = list_time_units(unit, min(begins.values()), max(begins.values()) + _RESOLUTION, zone)
    except QueryTooExpensive:
        between = []
    begins |= {label: parse_time_unit(label, unit, zone) for label in between}
    return {label: values.get(label, empty_value) for label in sorted(begins, key=begins.__getitem__)}


CSV_MEDIA_TYPE: Final = "text/csv"
DEFAULT_RANKING_ROWS: Final = 50
"""So many groups are shown if nothing is said of that, most first."""

TIME_GROUPS: Final = frozenset(TIME_UNITS)

_QUERY_PATH: Final = "/query"


def query_command(  # noqa: PLR0913  # one argument for each option
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILTER",
            help="Which events count: event=view, format!=csv, 'LCP>=100', referer^=arcgis (begins with), 'session=*' "
            "(is there). Of one field given several times with =, any value will do.",
            show_default="all but those of bots",
        ),
    ] = None,
    *,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="What to measure, with commas between: count, visitors, sessions, first, last, unique:FIELD, "
            "count|sum|avg|min|max:FIELD, p95:FIELD.",
        ),
    ] = "count",
    by: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="What to group by: fields, or minute, hour, day, week, month."),
    ] = None,
    start: FromOption = None,
    end: ToOption = None,
    tz: TimeZoneOption = "UTC",
    order: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Columns to sort by, as -count for most first.",
            show_default="most first; of a series, oldest first",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0, help="How many rows; 0 for all.", show_default=f"{DEFAULT_RANKING_ROWS}; of a series, 1000"
        ),
    ] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="How many of the first rows to leave out.")] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="previous|year", help="Compare with the time just before, or with the year before."),
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Have a row for each minute, day, … even without events.")
    ] = False,
    bots: BotsOption = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write the answer as CSV.")] = False,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
) -> None:
    """Ask any question: measure events, group them by fields or by time, and filter them."""
    groups = [name for name in (by or "").split(",") if name]
    is_ranking = bool(groups) and TIME_GROUPS.isdisjoint(groups)
    parameters = [
        ("metrics", metrics),
        ("by", by),
        ("from", start),
        ("to", end),
        ("tz", tz),
        ("order", order or (f"-{metrics.partition(',')[0]}" if is_ranking else None)),
        ("limit", _optional_text(DEFAULT_RANKING_ROWS if limit is None and is_ranking else limit)),
        ("offset", _optional_text(offset)),
        ("compare", compare),
        ("fill", "1" if fill else None),
        ("bots", "1" if bots else None),
    ]
    try:
        if as_json and as_csv:
            raise Malformed("--json and --csv exclude each other: choose one")
        path = f"{_QUERY_PATH}?{'&'.join([*encode_parameters(parameters), *map(_encode_filter, filters or ())])}"
        server = ServerClient(url, key)
        if as_csv:
            print_response(server.get(path, CSV_MEDIA_TYPE))
        elif as_json:
            print_response(server.get(path))
        else:
            answer = server.get_json(path, "columns", "rows", "total")
            with server.parsing_response(path):
                _print_result(answer, groups, tz)
    except MetronomeError as error:
        print_note(f"metronome query: {error}")
        raise typer.Exit(EXIT_FAILED) from None


def _optional_text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _encode_filter(text: str) -> str:
    """Write a filter for an address.

    Raises:
        Malformed: it is none, or a parameter.

    """
    part = parse_filter_expression(text)
    if part is None:
        raise Malformed(f"{text!r} is no filter: write event=view, 'LCP>=100' or the like")
    if part.name in QUERY_PARAMETERS:
        raise Malformed(f"{text!r} is no filter: {part.name} is an option, so write --{part.name}")
    return f"{percent_encode(part.name)}{percent_encode(part.operator, safe='=')}{percent_encode(part.value)}"


def _print_result(result: Mapping[str, Any], by: Sequence[str], tz: str) -> None:
    names, rows = result["columns"], result["rows"]
    if not rows:
        print_note("nothing was found: no event is like that, in that range of time")
        return
    sheet = ResultPrinter()
    measured = next((at for at in range(len(by), len(names)) if any(_is_number(row[at]) for row in rows)), None)
    if len(by) == 1 and by[0] in TIME_GROUPS and measured is not None:
        sheet.print_table(names, rows, len(by))
        nothing = empty_value(Metric.parse(names[measured]))
        series = fill_series({row[0]: row[measured] for row in rows}, by[0], tz, nothing)
        # Below the table, whose beginning may be out of sight.
        sheet.print_plot(names[measured], [*series], [*series.values()])
    else:
        sheet.print_table(names, rows, len(by), measured)
    if result["total"] > len(rows):
        print_note(f"{len(rows):,} of {result['total']:,} rows; --limit 0 shows all")
    if result.get("exact") is False:
        print_note("estimated: some of these numbers are not right to the last count")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))
