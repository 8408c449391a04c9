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
from metronome.archive.inventory import Days, Holding, Where, fetched, take_stock
from metronome.archive.objects import open_archive
from metronome.archive.verify import Census, shares_of, together
from metronome.cli.options import FirstDay, LastDay, read_days
from metronome.cli.output import progress_bar
from metronome.errors import Damaged, MetronomeError, Misconfigured
from metronome.importer.summary import printable
from metronome.server_client import USUAL_URL, Background, Key, Server

Events = Counter[str]
"""How many events there are, by their names."""

EXIT_DIFFERENT: Final = 1
EXIT_MISUSED: Final = 2
EXIT_INTERRUPTED: Final = 130
_SHOWN_DAYS: Final = 40
_UNLISTED_EVENTS: Final = 20
"""So many bytes at the least a document has in an object, where no manifest says how many there are."""


class Day(NamedTuple):
    """What archive and store hold of a UTC day."""

    day: str
    archive: Events
    store: Events

    @property
    def missing_in_store(self) -> int:
        """How many events only the archive has."""
        return (self.archive - self.store).total()

    @property
    def missing_in_archive(self) -> int:
        """How many events only the store has."""
        return (self.store - self.archive).total()


def verify(
    archive: Where,
    *,
    url: Annotated[str, typer.Option(help="The Metronome server whose store is compared.")] = USUAL_URL,
    first: FirstDay = None,
    last: LastDay = None,
    key: Key = None,
) -> None:
    """Compare an archive with the store of a Metronome server, day by day, and say what is missing in which."""
    damages: list[str] = []
    try:
        days, server = read_days(first, last), Server(url, key)
        opened = open_archive(archive)
        stored = _stored(server, days)
        with Background("archive") as background, _bar() as bar:
            stock = background.run(take_stock(opened, days))
            damages += stock.damages
            bar.start(stock.holdings)
            archived = _archived(background, opened, stock.holdings, damages, bar)
        found = [Day(day, archived.get(day, Counter()), stored.get(day, Counter())) for day in {*archived, *stored}]
        waiting = _waiting(server)
    except KeyboardInterrupt:
        _complain("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        _complain(f"{error}; {error.advice}" if not isinstance(error, Misconfigured) else str(error))
        raise typer.Exit(EXIT_MISUSED) from None
    typer.echo(report(sorted(found)))
    for damage in damages:
        _complain(f"{damage}; {Damaged.advice}")
    if waiting:
        typer.echo(f"{waiting:,} events wait for the archive or the store still, and may be missing above")
    if damages or any(day.missing_in_store or day.missing_in_archive for day in found):
        raise typer.Exit(EXIT_DIFFERENT)


def report(days: Sequence[Day]) -> str:
    """Write what is missing as a table: the days that differ, and a line for all."""
    different = [day for day in days if day.missing_in_store or day.missing_in_archive]
    head = f"{'day':<12}{'archive':>14}{'store':>14}{'only archive':>14}{'only store':>14}"
    rows = [
        f"{name:<12}{archive:>14,}{store:>14,}{only_archive:>14,}{only_store:>14,}"
        for name, archive, store, only_archive, only_store in (
            *(_row(day.day, [day]) for day in different[:_SHOWN_DAYS]),
            _row("all", days),
        )
    ]
    more = len(different) - _SHOWN_DAYS
    if more > 0:
        rows.insert(-1, f"and {more:,} more days that differ")
    told = f"{len(days):,} days, {len(days) - len(different):,} of them alike"
    return "\n".join([head, *rows, told])


def _row(name: str, days: Sequence[Day]) -> tuple[str, int, int, int, int]:
    return (
        name,
        sum(day.archive.total() for day in days),
        sum(day.store.total() for day in days),
        sum(day.missing_in_store for day in days),
        sum(day.missing_in_archive for day in days),
    )


def _stored(server: Server, days: Days) -> dict[str, Events]:
    """Ask how many events the store has by days and names, those of robots too."""
    limits = [("from", days.first), ("to", days.last)]
    given = "".join(f"&{name}={quote(day.isoformat())}" for name, day in limits if day is not None)
    path = f"/query?by=day,event&bots=1&limit=0{given}"
    answer = server.ask_for(path, "rows")
    found: dict[str, Events] = {}
    with server.read(path):
        for day, event, count in answer["rows"]:
            found.setdefault(day, Counter())[event] += int(count)
    return found


def _waiting(server: Server) -> int:
    """Ask how many events have not reached the store or the archive yet."""
    answer = server.ask_for("/health/ready", "store")
    with server.read("/health/ready"):
        return max(int(answer[part]["events"]) for part in ("store", "archive") if part in answer)
    return 0


def _archived(
    background: Background, archive: Archive, holdings: Sequence[Holding], damages: list[str], bar: "_Bar"
) -> dict[str, Events]:
    """Count what the archive holds, a day at a time."""
    found: dict[str, Events] = {}
    for day, some in groupby(sorted(holdings, key=_day_of), key=_day_of):
        # In the order in which they arrived, which the sorting has kept.
        of_day = list(some)
        shares = shares_of(sum(one.listed.events if one.listed else one.bytes // _UNLISTED_EVENTS for one in of_day))
        censuses = [Census(share, shares) for share in range(shares)]
        for share, census in enumerate(censuses):
            for holding, lines in fetched(background, archive, of_day):
                if isinstance(lines, Damaged):
                    damages += [] if share else [str(lines)]
                else:
                    census.add(lines)
                bar.advance(holding.bytes / shares)
        found[day.isoformat()] = together(censuses)
    return found


def _day_of(holding: Holding) -> date:
    return holding.day


class _Bar:
    """The progress bar, in bytes of objects."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("verify", total=None)

    def start(self, holdings: Sequence[Holding]) -> None:
        self._progress.update(self._task, total=sum(holding.bytes for holding in holdings))

    def advance(self, size: float) -> None:
        self._progress.update(self._task, advance=size)


@contextmanager
def _bar() -> Iterator[_Bar]:
    with progress_bar(TaskProgressColumn(), TextColumn("of the archive")) as progress:
        yield _Bar(progress)


def _complain(sentence: str) -> None:
    typer.echo(f"metronome verify: {printable(sentence)}", err=True)
