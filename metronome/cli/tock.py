"""``metronome tock``: asks a Metronome server how an item is used."""

from collections.abc import Mapping
from typing import Annotated, Final

import typer

from metronome.cli.output import Sheet, note
from metronome.cli.query import whole_series
from metronome.errors import MetronomeError
from metronome.server_client import (
    EXIT_FAILED,
    USUAL_URL,
    AsJson,
    Bots,
    From,
    Key,
    Server,
    To,
    Url,
    Zone,
    encoded,
    percent,
    printed,
)

ROWS: Final = 10


def tock_command(  # noqa: PLR0913  # one argument for each option
    item: Annotated[str, typer.Argument(metavar="ID", help="The item.")],
    *,
    start: From = None,
    end: To = None,
    tz: Zone = "UTC",
    interval: Annotated[str, typer.Option(metavar="UNIT", help="minute, hour, day, week or month.")] = "day",
    limit: Annotated[int, typer.Option(min=0, help="How many rows each table has; 0 for all.")] = ROWS,
    bots: Bots = False,
    as_json: AsJson = False,
    url: Url = USUAL_URL,
    key: Key = None,
) -> None:
    """Show how an item is used: its views by day, its downloads by format, and where people came from."""
    try:
        server = Server(url, key)
        if as_json:
            printed(server.ask(_path(item, start, end, tz, interval, limit, bots=bots)))
            return
        # One more than is shown, to know whether there are more.
        path = _path(item, start, end, tz, interval, limit and limit + 1, bots=bots)
        answer = server.ask_for(path, "views", "downloads", "referers")
        if any(answer[name] for name in ("views", "downloads", "referers")):
            with server.read(path):
                _show(answer, interval, tz, limit)
        else:
            note(f"{item!r} was neither viewed nor downloaded in that range of time")
    except MetronomeError as error:
        note(f"metronome tock: {error}")
        raise typer.Exit(EXIT_FAILED) from None
    if answer.get("exact") is False:
        note("estimated: some of these numbers are not right to the last count")


def _path(item: str, start: str | None, end: str | None, tz: str, interval: str, limit: int, *, bots: bool) -> str:
    parameters = [
        ("from", start),
        ("to", end),
        ("tz", tz),
        ("interval", interval),
        ("limit", str(limit)),
        ("bots", "1" if bots else None),
    ]
    return f"/tock/{percent(item)}.json?{'&'.join(encoded(parameters))}"


def _show(answer: Mapping[str, Mapping[str, int]], interval: str, tz: str, limit: int) -> None:
    sheet = Sheet()
    sections = (("views", interval, "views"), ("downloads", "format", "downloads"), ("referers", "referer", "count"))
    for name, group, column in sections:
        counts = answer[name]
        if not counts:
            continue
        rows = [*counts.items()]
        sheet.table((group, column), rows[: limit or None], 1, 1)
        if limit and len(rows) > limit:
            note(f"there are more {group}s; --limit 0 shows all")
        if name == "views":
            series = whole_series(counts, interval, tz)
            sheet.plot(f"{sum(counts.values()):,} views", [*series], [*series.values()])
        sheet.gap()
