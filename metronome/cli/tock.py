"""``metronome tock``: print how an item is used, as tables."""

from collections.abc import Mapping
from typing import Annotated, Final

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
)
from metronome.cli.output import note_pending, print_note, print_response
from metronome.cli.query import ESTIMATED_NOTE, fill_series, fit_series
from metronome.cli.tables import ResultPrinter
from metronome.server_client import ServerClient, encode_parameters, percent_encode

DEFAULT_ROWS: Final = 10
MAX_UNITS: Final = 100
"""Without `--interval`, the unit is the shortest of which the range has at most so many."""
_SECTIONS: Final = ("views", "downloads", "referers")


def tock_command(  # noqa: PLR0913  # one argument for each option
    item: Annotated[str, typer.Argument(metavar="ID", help="ID of the item.")],
    *,
    start: FromOption = None,
    end: ToOption = None,
    tz: TimeZoneOption = "UTC",
    interval: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT",
            help="minute, hour, day, week, month, quarter, year or all.",
            show_default="day, or longer for longer ranges",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Maximum number of rows in each table; 0 for all.")
    ] = DEFAULT_ROWS,
    bots: BotsOption = False,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
) -> None:
    """Show how an item is used.

    Prints its views by day, its downloads by format, and its referers.
    """
    # One row more than is shown, to know whether there are more.
    row_limit = limit if as_json or not limit else limit + 1
    parameters = [
        ("from", start),
        ("to", end),
        ("tz", tz),
        ("interval", interval),
        ("limit", str(row_limit)),
        ("bots", "1" if bots else None),
    ]
    with reporting_errors("tock"):
        path = f"/tock/{percent_encode(item)}.json?{'&'.join(encode_parameters(parameters))}"
        client = ServerClient(url, key, note_pending)
        if as_json:
            print_response(client.get(path))
            return
        result = client.get_json(path, *_SECTIONS)
        if any(result[name] for name in _SECTIONS):
            with client.parsing_response(path):
                _print_result(result, interval, tz, limit)
        else:
            print_note(f"{item!r} has no views or downloads in this time range")
        if result.get("exact") is False:
            print_note(ESTIMATED_NOTE)


def _print_result(result: Mapping[str, Mapping[str, int]], interval: str | None, tz: str, limit: int) -> None:
    printer = ResultPrinter()
    if interval is None:
        interval, views = fit_series(result["views"], "day", tz, MAX_UNITS, are_sums=True)
        result = {**result, "views": {label: int(views[label] or 0) for label in reversed(views)}}
    for name, group, column in zip(
        _SECTIONS, (interval, "format", "referer"), ("views", "downloads", "count"), strict=True
    ):
        counts = result[name]
        if not counts:
            continue
        rows = [*counts.items()]
        printer.print_table((group, column), rows[: limit or None], 1, 1)
        if limit and len(rows) > limit:
            print_note(f"there are more {group}s; use --limit 0 to show all")
        if name == "views" and interval != "all":
            unit, values = fit_series(counts, interval, tz, printer.plot_columns, are_sums=True)
            series = fill_series(values, unit, tz)
            printer.print_plot(
                f"{sum(counts.values()):,} views by {unit}", [*series], [*series.values()], are_sums=True
            )
        printer.print_blank_line()
