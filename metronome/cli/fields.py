"""``metronome fields``: print the fields that events have."""

from typing import Annotated, Any

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


def fields_command(  # noqa: PLR0913  # one argument for each option
    *,
    start: FromOption = None,
    end: ToOption = None,
    tz: TimeZoneOption = "UTC",
    bots: BotsOption = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the fields as CSV.")] = False,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
) -> None:
    """Show the fields that events have.

    Prints the name that queries use, the type, the share of events with a value, and the most frequent values.
    """
    parameters = [("from", start), ("to", end), ("tz", tz), ("bots", "1" if bots else None)]
    with reporting_errors("fields"):
        require_one_format(as_json=as_json, as_csv=as_csv)
        path = f"/fields{'.csv' if as_csv else ''}?{'&'.join(encode_parameters(parameters))}"
        client = ServerClient(url, key, note_pending)
        if as_json or as_csv:
            print_response(client.get(path))
            return
        result = client.get_json(path, "fields", "events")
        with client.parsing_response(path):
            if not result["fields"]:
                print_note("no event has a field in this time range")
                return
            rows = [_format_field(field) for field in result["fields"]]
            ResultPrinter().print_table(("field", "type", "share", "examples"), rows, 4)
        if "events_looked_at" in result:
            print_note(f"estimated from {result['events_looked_at']:,} of {result['events']:,} events")


def _format_field(field: dict[str, Any]) -> tuple[str, ...]:
    return field["name"], field["type"] or "-", f"{field['share']:.1%}", ", ".join(field["examples"])
