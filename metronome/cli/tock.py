"""``metronome tock``: asks a Metronome server how an item is used."""

from collections.abc import Mapping
from typing import Annotated, Final

import typer

from metronome.cli.output import ResultPrinter, print_note
from metronome.cli.query import fill_series
from metronome.errors import MetronomeError
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

DEFAULT_ROWS: Final = 10


def tock_command(  # noqa: PLR0913  # one argument for each option
    item: Annotated[str, typer.Argument(metavar="ID", help="The item.")],
    *,
    start: FromOption = None,
    end: ToOption = None,
    tz: TimeZoneOption = "UTC",
    interval: Annotated[str, typer.Option(metavar="UNIT", help="minute, hour, day, week or month.")] = "day",
    limit: Annotated[int, typer.Option(min=0, help="How many rows each table has; 0 for all.")] = DEFAULT_ROWS,
    bots: BotsOption = False,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
) -> None:
    """Show how an item is used: its views by day, its downloads by format, and where people came from."""
    try:
        server = ServerClient(url, key)
        if as_json:
            print_response(server.get(_build_path(item, start, end, tz, interval, limit, bots=bots)))
            return
        # One more than is shown, to know whether there are more.
        path = _build_path(item, start, end, tz, interval, limit and limit + 1, bots=bots)
        answer = server.get_json(path, "views", "downloads", "referers")
        if any(answer[name] for name in ("views", "downloads", "referers")):
            with server.parsing_response(path):
                _print_result(answer, interval, tz, limit)
        else:
            print_note(f"{item!r} was neither viewed nor downloaded in that range of time")
    except MetronomeError as error:
        print_note(f"metronome tock: {error}")
        raise typer.Exit(EXIT_FAILED) from None
    if answer.get("exact") is False:
        print_note("estimated: some of these numbers are not right to the last count")


def _build_path(
    item: str, start: str | None, end: str | None, tz: str, interval: str, limit: int, *, bots: bool
) -> str:
    parameters = [
        ("from", start),
        ("to", end),
        ("tz", tz),
        ("interval", interval),
        ("limit", str(limit)),
        ("bots", "1" if bots else None),
    ]
    return f"/tock/{percent_encode(item)}.json?{'&'.join(encode_parameters(parameters))}"


def _print_result(result: Mapping[str, Mapping[str, int]], interval: str, tz: str, limit: int) -> None:
    sheet = ResultPrinter()
    sections = (("views", interval, "views"), ("downloads", "format", "downloads"), ("referers", "referer", "count"))
    for name, group, column in sections:
        counts = result[name]
        if not counts:
            continue
        rows = [*counts.items()]
        sheet.print_table((group, column), rows[: limit or None], 1, 1)
        if limit and len(rows) > limit:
            print_note(f"there are more {group}s; --limit 0 shows all")
        if name == "views":
            series = fill_series(counts, interval, tz)
            sheet.print_plot(f"{sum(counts.values()):,} views", [*series], [*series.values()])
        sheet.print_blank_line()
