"""``metronome verify``: compares what an archive holds with what a server's store does, day by day."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import groupby
from typing import Annotated, Final, NamedTuple
from urllib.parse import quote

import typer
from rich.progress import Progress, TaskProgressColumn, TextColumn

from metronome.archive.base import Archive
from metronome.archive.inventory import ArchiveArgument, ArchiveObject, DateRange, list_objects, read_objects
from metronome.archive.objects import open_archive
from metronome.archive.verify import DistinctEventCounter, merge_counts, required_shards
from metronome.cli.options import FirstDayOption, LastDayOption, parse_day_range
from metronome.cli.output import progress_bar
from metronome.errors import ArchiveDamaged, ConfigurationError, MetronomeError, describe
from metronome.importer.summary import sanitize_for_terminal
from metronome.server_client import DEFAULT_SERVER_URL, EventLoopThread, KeyOption, ServerClient

EventCounts = Counter[str]
"""How many events there are, by their names."""

EXIT_DIFFERENT: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
_MAX_LISTED_DAYS: Final = 40
_MIN_DOCUMENT_BYTES: Final = 20
"""So many bytes at the least a document has in an object, where no manifest says how many there are."""


class DayComparison(NamedTuple):
    """What archive and store hold of a UTC day."""

    day: str
    archive: EventCounts
    store: EventCounts

    @property
    def missing_in_store(self) -> int:
        """How many events only the archive has."""
        return (self.archive - self.store).total()

    @property
    def missing_in_archive(self) -> int:
        """How many events only the store has."""
        return (self.store - self.archive).total()


def verify_command(
    archive: ArchiveArgument,
    *,
    url: Annotated[str, typer.Option(help="The Metronome server whose store is compared.")] = DEFAULT_SERVER_URL,
    first: FirstDayOption = None,
    last: LastDayOption = None,
    key: KeyOption = None,
) -> None:
    """Compare an archive with the store of a Metronome server, day by day, and say what is missing in which."""
    damages: list[str] = []
    try:
        days, server = parse_day_range(first, last), ServerClient(url, key)
        opened = open_archive(archive)
        stored = _count_stored(server, days)
        with EventLoopThread("archive") as background, _show_progress() as bar:
            stock = background.run(list_objects(opened, days))
            damages += stock.errors
            bar.start(stock.objects)
            archived = _count_archived(background, opened, stock.objects, damages, bar)
        found = [
            DayComparison(day, archived.get(day, Counter()), stored.get(day, Counter())) for day in {*archived, *stored}
        ]
        waiting = _count_pending(server)
    except KeyboardInterrupt:
        _print_error("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        _print_error(describe(error) if not isinstance(error, ConfigurationError) else str(error))
        raise typer.Exit(EXIT_USAGE) from None
    typer.echo(format_report(sorted(found)))
    for damage in damages:
        _print_error(f"{damage}; {ArchiveDamaged.advice}")
    if waiting:
        typer.echo(f"{waiting:,} events wait for the archive or the store still, and may be missing above")
    if damages or any(day.missing_in_store or day.missing_in_archive for day in found):
        raise typer.Exit(EXIT_DIFFERENT)


def format_report(days: Sequence[DayComparison]) -> str:
    """Write what is missing as a table: the days that differ, and a line for all."""
    different = [day for day in days if day.missing_in_store or day.missing_in_archive]
    head = f"{'day':<12}{'archive':>14}{'store':>14}{'only archive':>14}{'only store':>14}"
    rows = [
        f"{name:<12}{archive:>14,}{store:>14,}{only_archive:>14,}{only_store:>14,}"
        for name, archive, store, only_archive, only_store in (
            *(_row(day.day, [day]) for day in different[:_MAX_LISTED_DAYS]),
            _row("all", days),
        )
    ]
    more = len(different) - _MAX_LISTED_DAYS
    if more > 0:
        rows.insert(-1, f"and {more:,} more days that differ")
    told = f"{len(days):,} days, {len(days) - len(different):,} of them alike"
    return "\n".join([head, *rows, told])


def _row(name: str, days: Sequence[DayComparison]) -> tuple[str, int, int, int, int]:
    return (
        name,
        sum(day.archive.total() for day in days),
        sum(day.store.total() for day in days),
        sum(day.missing_in_store for day in days),
        sum(day.missing_in_archive for day in days),
    )


def _count_stored(server: ServerClient, days: DateRange) -> dict[str, EventCounts]:
    """Ask how many events the store has by days and names, those of robots too."""
    limits = [("from", days.first), ("to", days.last)]
    given = "".join(f"&{name}={quote(day.isoformat())}" for name, day in limits if day is not None)
    path = f"/query?by=day,event&bots=1&limit=0{given}"
    answer = server.get_json(path, "rows")
    found: dict[str, EventCounts] = {}
    with server.parsing_response(path):
        for day, event, count in answer["rows"]:
            found.setdefault(day, Counter())[event] += int(count)
    return found


def _count_pending(server: ServerClient) -> int:
    """Ask how many events have not reached the store or the archive yet."""
    answer = server.get_json("/health/ready", "store")
    with server.parsing_response("/health/ready"):
        return max(int(answer[part]["events"]) for part in ("store", "archive") if part in answer)
    return 0


def _count_archived(
    loop_thread: EventLoopThread,
    archive: Archive,
    objects: Sequence[ArchiveObject],
    damaged: list[str],
    progress: "_VerifyProgress",
) -> dict[str, EventCounts]:
    """Count what the archive holds, a day at a time."""
    found: dict[str, EventCounts] = {}
    for day, some in groupby(sorted(objects, key=_day_of), key=_day_of):
        # In the order in which they arrived, which the sorting has kept.
        of_day = list(some)
        shares = required_shards(
            sum(one.manifest_entry.events if one.manifest_entry else one.size // _MIN_DOCUMENT_BYTES for one in of_day)
        )
        censuses = [DistinctEventCounter(share, shares) for share in range(shares)]
        for share, census in enumerate(censuses):
            for holding, lines in read_objects(loop_thread, archive, of_day):
                if isinstance(lines, ArchiveDamaged):
                    damaged += [] if share else [str(lines)]
                else:
                    census.add(lines)
                progress.advance(holding.size / shares)
        found[day.isoformat()] = merge_counts(censuses)
    return found


def _day_of(holding: ArchiveObject) -> date:
    return holding.day


class _VerifyProgress:
    """The progress bar, in bytes of objects."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("verify", total=None)

    def start(self, holdings: Sequence[ArchiveObject]) -> None:
        self._progress.update(self._task, total=sum(holding.size for holding in holdings))

    def advance(self, size: float) -> None:
        self._progress.update(self._task, advance=size)


@contextmanager
def _show_progress() -> Iterator[_VerifyProgress]:
    with progress_bar(TaskProgressColumn(), TextColumn("of the archive")) as progress:
        yield _VerifyProgress(progress)


def _print_error(sentence: str) -> None:
    typer.echo(f"metronome verify: {sanitize_for_terminal(sentence)}", err=True)
