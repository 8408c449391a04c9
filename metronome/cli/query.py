"""``metronome query``: asks a Metronome server a question, and shows the answer as a table.

Series as they are drawn: with a place for each unit of time, also for those in which nothing was.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final

import typer

from metronome.cli.output import Sheet, note
from metronome.errors import Malformed, MetronomeError, TooCostly
from metronome.reports.query.parse import split_filter
from metronome.reports.query.request import PARAMETERS
from metronome.reports.query.series import begin_of, units, zero
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
from metronome.stores.query import TIME_UNITS, Metric, read_zone

_LEAST: Final = timedelta(microseconds=1)


def whole_series(
    values: Mapping[str, float | None], unit: str, tz: str, nothing: float | None = 0
) -> dict[str, float | None]:
    """Return a series in the order of time, from its first unit to its last, with all that lie between.

    Args:
        values: by the units that have any.
        unit: minute, hour, day, week or month.
        tz: the zone that these are in.
        nothing: the value of the others. Where they are far too many, they are left out.

    """
    zone = read_zone(tz)
    begins = {label: begin_of(label, unit, zone) for label in values}
    if not begins:
        return {}
    try:
        between = units(unit, min(begins.values()), max(begins.values()) + _LEAST, zone)
    except TooCostly:
        between = []
    begins |= {label: begin_of(label, unit, zone) for label in between}
    return {label: values.get(label, nothing) for label in sorted(begins, key=begins.__getitem__)}


CSV: Final = "text/csv"
RANKED: Final = 50
"""So many groups are shown if nothing is said of that, most first."""

TIMES: Final = frozenset(TIME_UNITS)

_PATH: Final = "/query"


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
    start: From = None,
    end: To = None,
    tz: Zone = "UTC",
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
        typer.Option(min=0, help="How many rows; 0 for all.", show_default=f"{RANKED}; of a series, 1000"),
    ] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="How many of the first rows to leave out.")] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="previous|year", help="Compare with the time just before, or with the year before."),
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Have a row for each minute, day, … even without events.")
    ] = False,
    bots: Bots = False,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write the answer as CSV.")] = False,
    url: Url = USUAL_URL,
    key: Key = None,
) -> None:
    """Ask any question: measure events, group them by fields or by time, and filter them."""
    groups = [name for name in (by or "").split(",") if name]
    is_ranking = bool(groups) and TIMES.isdisjoint(groups)
    parameters = [
        ("metrics", metrics),
        ("by", by),
        ("from", start),
        ("to", end),
        ("tz", tz),
        ("order", order or (f"-{metrics.partition(',')[0]}" if is_ranking else None)),
        ("limit", _number(RANKED if limit is None and is_ranking else limit)),
        ("offset", _number(offset)),
        ("compare", compare),
        ("fill", "1" if fill else None),
        ("bots", "1" if bots else None),
    ]
    try:
        if as_json and as_csv:
            raise Malformed("--json and --csv exclude each other: choose one")
        path = f"{_PATH}?{'&'.join([*encoded(parameters), *map(_encoded_filter, filters or ())])}"
        server = Server(url, key)
        if as_csv:
            printed(server.ask(path, CSV))
        elif as_json:
            printed(server.ask(path))
        else:
            answer = server.ask_for(path, "columns", "rows", "total")
            with server.read(path):
                _show(answer, groups, tz)
    except MetronomeError as error:
        note(f"metronome query: {error}")
        raise typer.Exit(EXIT_FAILED) from None


def _number(number: int | None) -> str | None:
    return None if number is None else str(number)


def _encoded_filter(text: str) -> str:
    """Write a filter for an address.

    Raises:
        Malformed: it is none, or a parameter.

    """
    part = split_filter(text)
    if part is None:
        raise Malformed(f"{text!r} is no filter: write event=view, 'LCP>=100' or the like")
    if part.name in PARAMETERS:
        raise Malformed(f"{text!r} is no filter: {part.name} is an option, so write --{part.name}")
    return f"{percent(part.name)}{percent(part.sign, safe='=')}{percent(part.value)}"


def _show(answer: Mapping[str, Any], by: Sequence[str], tz: str) -> None:
    names, rows = answer["columns"], answer["rows"]
    if not rows:
        note("nothing was found: no event is like that, in that range of time")
        return
    sheet = Sheet()
    measured = next((at for at in range(len(by), len(names)) if any(_is_number(row[at]) for row in rows)), None)
    if len(by) == 1 and by[0] in TIMES and measured is not None:
        sheet.table(names, rows, len(by))
        nothing = zero(Metric.parse(names[measured]))
        series = whole_series({row[0]: row[measured] for row in rows}, by[0], tz, nothing)
        # Below the table, whose beginning may be out of sight.
        sheet.plot(names[measured], [*series], [*series.values()])
    else:
        sheet.table(names, rows, len(by), measured)
    if answer["total"] > len(rows):
        note(f"{len(rows):,} of {answer['total']:,} rows; --limit 0 shows all")
    if answer.get("exact") is False:
        note("estimated: some of these numbers are not right to the last count")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))
