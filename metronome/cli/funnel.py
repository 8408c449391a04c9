"""``metronome funnel``: print how many sessions take each of several steps."""

from typing import Annotated, Any, Final

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
from metronome.cli.tables import ResultPrinter
from metronome.server_client import ServerClient, encode_parameters

_COLUMNS: Final = ("step", "sessions", "visitors", "share", "of first", "median time")
_MINUTE_SECONDS: Final = 60
_HOUR_SECONDS: Final = 3600


def funnel_command(  # noqa: PLR0913  # one argument for each option
    steps: Annotated[
        list[str],
        typer.Argument(
            metavar="STEP...",
            help="At least two steps, such as event:view,id:home event:download. An event takes a step if it matches "
            "all of its conditions: field:value, field!:value, field^:prefix or 'field:*' (present). A field with "
            "several values takes any of them; a comma in a value is written \\,.",
        ),
    ],
    *,
    within: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time from the first step to the last: 90s, 30m, 2h or 1d.",
            show_default="until the session ends",
        ),
    ] = None,
    start: FromOption = None,
    end: ToOption = None,
    tz: TimeZoneOption = "UTC",
    bots: BotsOption = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the funnel as CSV.")] = False,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
) -> None:
    """Show how many sessions take several steps, one after the other.

    Prints for each step the sessions and visitors that got there, the share of the sessions of the step before and of
    the first, and the median time since the step before.
    """
    parameters = [
        *(("step", step) for step in steps),
        ("within", within),
        ("from", start),
        ("to", end),
        ("tz", tz),
        ("bots", "1" if bots else None),
    ]
    with reporting_errors("funnel"):
        require_one_format(as_json=as_json, as_csv=as_csv)
        path = f"/funnel.{'csv' if as_csv else 'json'}?{'&'.join(encode_parameters(parameters))}"
        client = ServerClient(url, key, note_pending)
        if as_json or as_csv:
            print_response(client.get(path))
            return
        result = client.get_json(path, "steps")
        with client.parsing_response(path):
            rows = [_format_step(step) for step in result["steps"]]
            ResultPrinter().print_table(_COLUMNS, rows, 1, 1)
        if "sessions_looked_at" in result:
            print_note(f"of the newest {result['sessions_looked_at']:,} sessions; a shorter range shows all of its own")


def _format_step(step: dict[str, Any]) -> tuple[Any, ...]:
    return (
        step["step"],
        step["sessions"],
        step["visitors"],
        _format_share(step["share"]),
        _format_share(step["share_of_first"]),
        format_duration(step["median_ms"]),
    )


def _format_share(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def format_duration(milliseconds: float | None) -> str | None:
    """Return a time such as ``4.2 s``, ``3:05 min`` or ``1:02 h``; None for None."""
    if milliseconds is None:
        return None
    seconds = milliseconds / 1000
    if seconds < _MINUTE_SECONDS:
        return f"{seconds:.1f} s"
    if seconds < _HOUR_SECONDS:
        return f"{int(seconds // _MINUTE_SECONDS)}:{int(seconds % _MINUTE_SECONDS):02} min"
    return f"{int(seconds // _HOUR_SECONDS)}:{int(seconds % _HOUR_SECONDS // _MINUTE_SECONDS):02} h"
