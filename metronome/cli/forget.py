"""``metronome forget``: delete events wherever a running server has them."""

from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any, Final

import typer

from metronome.cli.errors import EXIT_FAILED, print_error, reporting_errors, retry_notifier
from metronome.cli.options import DEFAULT_SERVER_URL, KeyOption, UrlOption
from metronome.cli.output import Progress, print_lines, show_progress
from metronome.errors import ArchiveDamaged, ConfigurationError, RequestError, ServerUnavailable
from metronome.importer.batches import identify_log
from metronome.server_client import RETRY_TIMEOUT_SECONDS, ServerClient

FORGET_PATH: Final = "/forget"
_POLL_SECONDS: Final = 0.25
_LONGEST_POLL_SECONDS: Final = 2.0
_STATES: Final = {
    "waiting": "waiting",
    "store": "forgetting in the store and the spool",
    "archive": "forgetting in the archive",
}
_PLACES: Final = {
    "store": "events forgotten in the store",
    "spool": "  in the spool, not stored or archived yet",
    "dead_letters": "  in dead letters",
    "archive": "  in the archive",
}


def forget_command(  # noqa: PLR0913  # one argument for each option
    *,
    item: Annotated[
        str | None, typer.Option(metavar="ID", help="Forget the events of this item.", show_default="none")
    ] = None,
    visitor: Annotated[
        str | None, typer.Option(metavar="ID", help="Forget the events of this visitor.", show_default="none")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="DAY", help="Forget all events before this UTC day, such as 2015-01-22.", show_default="none"
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--import",
            metavar="LOG",
            help="Forget what was imported from this log: a file, or the value of the field import.",
            show_default="none",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the events, but forget nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
) -> None:
    """Forget events: of an item, of a visitor, of an imported log, or all before a day.

    They are deleted from the store, the spool, dead letters and the archive of a running server.

    Needs a key with the scope admin. Ends when the events are gone everywhere. If interrupted, the server goes on.
    """
    with reporting_errors("forget", lambda: "the server goes on; GET /forget.json shows how far it is"):
        selection = {"item": item, "visitor": visitor, "before": before, "import": log}
        given = {name: value for name, value in selection.items() if value is not None}
        if len(given) != 1:
            raise ConfigurationError("expected exactly one of --item, --visitor, --before and --import")
        if log is not None and Path(log).is_file():
            given["import"] = identify_log(log)
        client = ServerClient(url, key)
        preview = client.post_json(FORGET_PATH, {**given, "dry_run": True}, "events")
        print_lines([_format_preview(preview)])
        if dry_run:
            return
        if not yes and not typer.confirm("Forget them? This cannot be undone"):
            raise typer.Exit(EXIT_FAILED)
        with show_progress() as progress:
            result = forget(client, given, progress)
    print_lines(_format_result(result))
    if not report_damage("forget", result):
        raise typer.Exit(EXIT_FAILED)


def forget(client: ServerClient, selection: Mapping[str, str], progress: Progress) -> dict[str, Any]:
    """Have a server forget events, and return its description of the request once they are gone.

    Args:
        client: the server.
        selection: as in the body of ``POST /forget``.
        progress: shows how far it is.

    Raises:
        RequestError: the server cannot forget them; the message has the reason.

    """
    request = client.post_json(FORGET_PATH, selection, "id", "state")
    path = f"{FORGET_PATH}/{request['id']}.json"
    notify, failed_at, seconds = retry_notifier("forget"), 0.0, _POLL_SECONDS
    while request["state"] in _STATES:
        sleep(seconds)
        seconds = min(2 * seconds, _LONGEST_POLL_SECONDS)
        try:
            request = client.get_json(path, "state", "forgotten")
        except ServerUnavailable as error:
            failed_at = failed_at or monotonic()
            if monotonic() - failed_at > RETRY_TIMEOUT_SECONDS:
                raise
            notify(str(error))
            continue
        failed_at = 0.0
        text = _describe_state(request)
        progress.advance(0, lambda text=text: text)  # type: ignore[misc]  # bound at once
        if request["state"] in _STATES and request.get("error"):
            notify(str(request["error"]))
    if request["state"] != "done":
        raise RequestError(f"the server could not forget the events: {request.get('error', '')}")
    return request


def report_damage(command: str, result: Mapping[str, Any]) -> bool:
    """Print which objects of the archive could not be read; return whether there are none."""
    damaged = result.get("damaged", ())
    for damage in damaged:
        print_error(command, f"{damage}; it may still have such events: {ArchiveDamaged.advice}")
    return not damaged


def _describe_state(request: Mapping[str, Any]) -> str:
    archive = request.get("archive")
    text = _STATES.get(request["state"], "")
    return f"{text}: {archive['searched']:,} of {archive['objects']:,} objects" if archive else text


def _format_preview(preview: Mapping[str, Any]) -> str:
    events = preview["events"]
    if events is None:
        return "an unknown number of events: counting them takes too long"
    days = f", from {preview['from']} to {preview['to']} (UTC)" if "from" in preview else ""
    return f"{events:,} event{'' if events == 1 else 's'} in the store{days}"


def _format_result(result: Mapping[str, Any]) -> list[str]:
    forgotten = result["forgotten"]
    return [f"{forgotten[place]:>12,}  {label}" for place, label in _PLACES.items() if place in forgotten]
