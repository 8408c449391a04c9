"""``metronome demo``: send a quarter of a year of an invented data portal to a Metronome server."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, NamedTuple

import orjson
import typer

from metronome.cli.errors import EXIT_FAILED, print_error, reporting_errors, retry_notifier
from metronome.cli.options import DEFAULT_SERVER_URL, KeyOption, UrlOption
from metronome.cli.output import can_open_browser, open_browser, print_lines, show_progress
from metronome.demo import DEFAULT_SEED, DEMO_DAYS, DemoEvent, demo_days, demo_items, generate_day
from metronome.errors import ConfigurationError, RequestError
from metronome.server_client import BatchSender, SendResult, ServerClient

_STORE_TIMEOUT_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.1


class _DayBatch(NamedTuple):
    """The events of one day as NDJSON."""

    day: str
    body: bytes

    def location(self, index: int) -> str:
        """Return where an event is."""
        return f"{self.day}, event {index + 1:,}"


def demo_command(
    *,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Number that the events follow from: another one gives other events.")
    ] = (DEFAULT_SEED),
    yes: Annotated[
        bool, typer.Option("--yes", help="Add the demo without looking whether the server has other items.")
    ] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the page in a browser.")] = False,
) -> None:
    """Fill a server with demo data: a quarter of a year of a data portal.

    About 100,000 events of the last 90 days: 40 items with views, downloads, campaigns, robots and errors. The same
    events have the same IDs, so a repetition adds only what has happened since. They cannot be removed again: use a
    server for trying things out, such as that of `metronome serve --demo`.
    """
    page = f"{url.rstrip('/')}/"
    rejected: list[tuple[str, str]] = []
    with reporting_errors("demo"):
        now = datetime.now(UTC)
        client = ServerClient(url, key)
        if not yes:
            _require_no_other_items(client)
        total = _send_events(client, now, seed, rejected)
    if rejected:
        place, reason = rejected[0]
        print_error("demo", f"the server rejected {len(rejected):,} events; the first one, {place}: {reason}")
        raise typer.Exit(EXIT_FAILED)
    print_lines([f"{total:,} events of {len(demo_items())} items in the last {DEMO_DAYS} days: see {page}"])
    if not no_open and can_open_browser():
        open_browser(page)


def _require_no_other_items(client: ServerClient) -> None:
    """Raise `ConfigurationError` if the server has items that are not the demo's."""
    known = demo_items()
    path = f"/items.json?limit={len(known) + 1}"
    with client.parsing_response(path):
        items = [item["id"] for item in client.get_json(path, "items")["items"]]
    other = next((item for item in items if item not in known), None)
    if other is not None:
        raise ConfigurationError(
            f"{client.url} has items of its own, such as {other!r}, and the demo's events cannot be removed again; "
            "use another server, such as that of `metronome serve --demo`, or add --yes"
        )


def _send_events(client: ServerClient, now: datetime, seed: int, rejected: list[tuple[str, str]]) -> int:
    """Send all events, wait until they are in the store, and return their number."""
    accepted = 0

    def count(result: SendResult[_DayBatch]) -> None:
        nonlocal accepted
        accepted += result.accepted
        rejected.extend(result.rejected)

    with BatchSender[_DayBatch](client, count, on_retry=retry_notifier("demo")) as sender, show_progress() as progress:
        progress.start(DEMO_DAYS)
        for number, day in enumerate(demo_days(now)):
            events = generate_day(day, now, seed)
            if number == 0:
                # Before anything else is sent: a part of the demo would be of no use.
                sender.send(_encode_batch(events[:1]))
                sender.flush()
                _require_old_events_accepted(client, rejected)
            sender.send(_encode_batch(events[1:] if number == 0 else events))
            progress.advance(1, lambda: f"{accepted:,} events")
        sender.flush()
        _wait_until_stored(client, lambda count: progress.advance(0, lambda: f"{count:,} events on their way"))
    return accepted


def _encode_batch(events: Sequence[DemoEvent]) -> _DayBatch:
    body = b"".join(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE) for event in events)
    return _DayBatch(f"{datetime.fromtimestamp(events[0]['ts'] / 1000, UTC):%Y-%m-%d}", body)


def _require_old_events_accepted(client: ServerClient, rejected: Sequence[tuple[str, str]]) -> None:
    """Raise `RequestError` if the server rejected the oldest event."""
    if rejected:
        raise RequestError(
            f"{client.url} rejects events that are {DEMO_DAYS} days old ({rejected[0][1]}); nothing was sent: create a "
            "key with `metronome keys create demo --scope import`, and set it with METRONOME_KEY or --key-file, or set "
            "METRONOME_TICK_MAX_AGE=0 for the server"
        )


def _wait_until_stored(client: ServerClient, show: Callable[[int], None]) -> None:
    """Wait until the server's spool is empty, so that the page shows everything, but not for long."""
    path = "/health/ready"
    deadline = time.monotonic() + _STORE_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        with client.parsing_response(path):
            waiting = int(client.get_json(path, "store")["store"]["events"])
        if not waiting:
            return
        show(waiting)
        time.sleep(_POLL_SECONDS)
