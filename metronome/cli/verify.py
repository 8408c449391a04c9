"""``metronome verify``: compare an archive with a server's store, day by day."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import typer

from metronome.archive.base import DateRange
from metronome.archive.inventory import list_objects
from metronome.archive.objects import open_archive
from metronome.archive.verify import DayComparison, EventCounts, Period, compare_days, count_archived_events
from metronome.cli.errors import EXIT_FAILED, print_error, reporting_errors
from metronome.cli.options import (
    DEFAULT_SERVER_URL,
    ArchiveArgument,
    FirstDayOption,
    KeyOption,
    LastDayOption,
    UrlOption,
    parse_day_range,
)
from metronome.cli.output import print_lines, show_progress
from metronome.errors import ArchiveDamaged
from metronome.server_client import EventLoopThread, ServerClient, encode_parameters

_MAX_LISTED_DAYS: Final = 40


def verify_command(
    archive: ArchiveArgument,
    *,
    url: UrlOption = DEFAULT_SERVER_URL,
    first: FirstDayOption = None,
    last: LastDayOption = None,
    key: KeyOption = None,
) -> None:
    """Compare an archive with a server's store.

    Lists the UTC days on which they differ, and how many events are missing in each.
    """
    errors: list[str] = []
    with reporting_errors("verify"):
        days, client, opened_archive = parse_day_range(first, last), ServerClient(url, key), open_archive(archive)
        period = _read_period(client)
        stored = _count_stored(client, days)
        with EventLoopThread("archive") as loop_thread, show_progress() as progress:
            inventory = loop_thread.run(list_objects(opened_archive, days))
            errors += inventory.errors
            objects = inventory.objects
            progress.start(sum(archive_object.size for archive_object in objects), f"{len(objects):,} objects")
            archived = count_archived_events(
                loop_thread,
                opened_archive,
                objects,
                errors,
                lambda archive_object: progress.advance(archive_object.size),
                period,
            )
        pending = _count_pending(client)
    comparisons = compare_days(archived, stored, period)
    print_lines(format_comparisons(comparisons))
    for error in errors:
        print_error("verify", f"{error}; {ArchiveDamaged.advice}")
    if pending:
        print_lines([f"{pending:,} events have not reached the archive or the store yet, and may be missing above"])
    if errors or any(comparison.is_different for comparison in comparisons):
        raise typer.Exit(EXIT_FAILED)


def format_comparisons(comparisons: Sequence[DayComparison]) -> list[str]:
    """Return a table of the days that differ, with a total of all days."""
    different = [comparison for comparison in comparisons if comparison.is_different]
    more = len(different) - _MAX_LISTED_DAYS
    return [
        f"{'day':<12}{'archive':>14}{'store':>14}{'only archive':>14}{'only store':>14}",
        *(_format_row(comparison.day, [comparison]) for comparison in different[:_MAX_LISTED_DAYS]),
        *([f"and {more:,} more days that differ"] if more > 0 else []),
        _format_row("all", comparisons),
        f"{len(comparisons):,} days, {len(comparisons) - len(different):,} of them equal",
    ]


def _format_row(name: str, comparisons: Sequence[DayComparison]) -> str:
    counts = (
        sum(comparison.archive.total() for comparison in comparisons),
        sum(comparison.store.total() for comparison in comparisons),
        sum(comparison.missing_in_store for comparison in comparisons),
        sum(comparison.missing_in_archive for comparison in comparisons),
    )
    return f"{name:<12}{''.join(f'{count:>14,}' for count in counts)}"


def _count_stored(client: ServerClient, days: DateRange) -> dict[str, EventCounts]:
    """Return the number of stored events by day and name, including those of bots."""
    limits = [
        (name, None if day is None else day.isoformat()) for name, day in (("from", days.first), ("to", days.last))
    ]
    path = f"/query?{'&'.join(['by=day,event', 'bots=1', 'limit=0', *encode_parameters(limits)])}"
    result = client.get_json(path, "rows")
    counts: dict[str, EventCounts] = {}
    with client.parsing_response(path):
        for day, event, count in result["rows"]:
            counts.setdefault(day, Counter())[event] += int(count)
    return counts


def _read_period(client: ServerClient) -> Period:
    """Return the period in which the store counts an ``event_id`` once."""
    path = "/health/ready"
    status = client.get_json(path, "store")
    with client.parsing_response(path):
        return "month" if status["store"].get("identity_period") == "month" else "day"


def _count_pending(client: ServerClient) -> int:
    """Return the number of events that have not reached the store or the archive yet."""
    path = "/health/ready"
    status = client.get_json(path, "store")
    with client.parsing_response(path):
        return max(int(status[part]["events"]) for part in ("store", "archive") if part in status)
