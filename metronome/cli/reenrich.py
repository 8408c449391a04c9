"""``metronome reenrich``: works out anew what Metronome adds to events, for those that are stored."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import Progress, TaskProgressColumn, TextColumn

from metronome.cli.options import FirstDayOption, LastDayOption, parse_day_range
from metronome.cli.output import progress_bar
from metronome.config import Settings, read_settings
from metronome.enrich.enrichment import Enrichment
from metronome.enrich.reenrich import list_changed_fields, reenrich_document
from metronome.errors import ConfigurationError, MetronomeError, describe
from metronome.files import FolderLock
from metronome.importer.summary import sanitize_for_terminal
from metronome.server.bootstrap import build_enrichment, open_store
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.query import Query

EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130
_DAY: Final = timedelta(days=1)

AdvanceCallback = Callable[[], None]


@dataclass(slots=True)
class ReenrichSummary:
    """What was done.

    Attributes:
        seen: how many events were looked at.
        changed: how many have changed, or would have.
        fields: in how many of these each field has.

    """

    read: int = 0
    changed: int = 0
    fields: Counter[str] = field(default_factory=Counter)

    def format(self, *, dry_run: bool) -> str:
        """Tell it in a few lines."""
        lines = [f"{self.read:>12,}  looked at", f"{self.changed:>12,}  {'would change' if dry_run else 'changed'}"]
        return "\n".join([*lines, *(f"{count:>12,}    {name}" for name, count in self.fields.most_common())])


def reenrich_command(  # noqa: PLR0913  # one argument for each option
    *,
    first: FirstDayOption = None,
    last: LastDayOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look and count, but change nothing.")] = False,
    data: Annotated[
        Path | None, typer.Option(envvar="METRONOME_DATA", help="The server's data folder.", show_default="data")
    ] = None,
    store: Annotated[
        str | None, typer.Option(envvar="METRONOME_STORE", help="The server's store.", show_default="duckdb")
    ] = None,
    countries: Annotated[
        str | None,
        typer.Option(envvar="METRONOME_COUNTRIES", help="As the server's setting.", show_default="built-in"),
    ] = None,
    referer_spam: Annotated[
        Path | None,
        typer.Option(envvar="METRONOME_REFERER_SPAM", help="As the server's setting.", show_default="none"),
    ] = None,
    own_hosts: Annotated[
        str | None, typer.Option(envvar="METRONOME_OWN_HOSTS", help="As the server's setting.", show_default="none")
    ] = None,
) -> None:
    """Work out anew browser, bot, country, channel and the like of stored events, from what was kept of them.

    Visitors and sessions stay as they are, and so does what senders gave themselves. With the embedded store, stop
    the server first; with Elasticsearch it may run.
    """
    done = ReenrichSummary()
    try:
        start, end = _parse_time_range(first, last)
        settings = read_settings(
            {
                "data": data,
                "store": store,
                "countries": countries,
                "referer_spam": referer_spam,
                "own_hosts": own_hosts,
            }
        )
        enrichment = build_enrichment(settings)
        if enrichment is None:
            raise ConfigurationError("METRONOME_ENRICH is off, so there is nothing to add to events")
        with _lock_data_folder(settings), _show_progress() as meter:
            asyncio.run(_reenrich_range(settings, enrichment, done, meter, (start, end), dry_run=dry_run))
    except KeyboardInterrupt:
        _print_error(f"interrupted after {done.changed:,} changes; run it again to change the rest")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        _print_error(describe(error))
        raise typer.Exit(EXIT_FAILED) from None
    typer.echo(done.format(dry_run=dry_run))


TimeRange = tuple[datetime | None, datetime | None]


async def _reenrich_range(
    settings: Settings,
    enrichment: Enrichment,
    summary: ReenrichSummary,
    progress: "_ReenrichProgress",
    time_range: TimeRange,
    *,
    dry_run: bool,
) -> None:
    store = open_store(settings)
    try:
        await store.setup()
        days = await _count_by_day(store, time_range)
        progress.start(sum(days.values()))
        for day in days:
            async for changed in _iterate_changed(store, day, enrichment, summary, progress.advance):
                if not dry_run:
                    await store.replace(DocumentBatch.from_documents(changed))
    finally:
        await store.close()


async def _count_by_day(store: Store, time_range: TimeRange) -> dict[date, int]:
    """Return the UTC days that have events, oldest first, with how many."""
    (answer,) = await store.query(Query(group_by=("day",), start=time_range[0], end=time_range[1]))
    return {date.fromisoformat(day): int(count or 0) for day, count in answer.to_dict().items()}


async def _iterate_changed(
    store: Store, day: date, enrichment: Enrichment, summary: ReenrichSummary, advance: AdvanceCallback
) -> AsyncIterator[list[bytes]]:
    """Yield the documents that take the place of a day's, as many at once as the store takes best."""
    start = datetime.combine(day, time(), UTC)
    changed: list[bytes] = []
    size = 0
    async for document in store.iterate_documents(start=start, end=start + _DAY):
        summary.read += 1
        advance()
        after = reenrich_document(document, enrichment)
        if after is None:
            continue
        summary.changed += 1
        summary.fields.update(list_changed_fields(document, after))
        changed.append(after)
        size += len(after) + 1
        if size >= store.preferred_batch_bytes:
            yield changed
            changed, size = [], 0
    if changed:
        yield changed


def _parse_time_range(first: str | None, last: str | None) -> TimeRange:
    days = parse_day_range(first, last)
    start, end = (None if day is None else datetime.combine(day, time(), UTC) for day in days)
    return start, None if end is None else end + _DAY


@contextmanager
def _lock_data_folder(settings: Settings) -> Iterator[None]:
    """Keep servers from the file of the embedded store, which belongs to one process."""
    if settings.store != "duckdb":
        yield
        return
    if not settings.data.is_dir():
        raise ConfigurationError(f"there is no data folder {settings.data}: name the server's with --data")
    lock = FolderLock(settings.data)
    try:
        yield
    finally:
        lock.release()


class _ReenrichProgress:
    """The progress bar, in events, with the rate; it is drawn seldom, since that takes longer than an event."""

    UPDATE_INTERVAL: Final = 1000

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reenrich", total=None)
        self._count = 0

    def start(self, total: int) -> None:
        self._progress.update(self._task, total=total)

    def advance(self) -> None:
        self._count += 1
        if self._count % self.UPDATE_INTERVAL == 0:
            self._progress.update(self._task, completed=self._count)


@contextmanager
def _show_progress() -> Iterator[_ReenrichProgress]:
    with progress_bar(TaskProgressColumn(show_speed=True), TextColumn("events")) as progress:
        yield _ReenrichProgress(progress)


def _print_error(sentence: str) -> None:
    typer.echo(f"metronome reenrich: {sanitize_for_terminal(sentence)}", err=True)
