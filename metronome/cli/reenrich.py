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

from metronome.cli.options import FirstDay, LastDay, read_days
from metronome.cli.output import progress_bar
from metronome.config import Settings, read_settings
from metronome.enrich.enrichment import Enrichment
from metronome.enrich.reenrich import changed_fields, enriched_again
from metronome.errors import MetronomeError, Misconfigured
from metronome.files import FolderLock
from metronome.importer.summary import printable
from metronome.server.bootstrap import open_enrichment, open_store
from metronome.stores.base import Batch, Store
from metronome.stores.query import Question

EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130
_DAY: Final = timedelta(days=1)

Advance = Callable[[], None]


@dataclass(slots=True)
class Done:
    """What was done.

    Attributes:
        seen: how many events were looked at.
        changed: how many have changed, or would have.
        fields: in how many of these each field has.

    """

    seen: int = 0
    changed: int = 0
    fields: Counter[str] = field(default_factory=Counter)

    def summary(self, *, dry_run: bool) -> str:
        """Tell it in a few lines."""
        lines = [f"{self.seen:>12,}  looked at", f"{self.changed:>12,}  {'would change' if dry_run else 'changed'}"]
        return "\n".join([*lines, *(f"{count:>12,}    {name}" for name, count in self.fields.most_common())])


def reenrich(  # noqa: PLR0913  # one argument for each option
    *,
    first: FirstDay = None,
    last: LastDay = None,
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
    done = Done()
    try:
        start, end = _range(first, last)
        settings = read_settings(
            {
                "data": data,
                "store": store,
                "countries": countries,
                "referer_spam": referer_spam,
                "own_hosts": own_hosts,
            }
        )
        enrichment = open_enrichment(settings)
        if enrichment is None:
            raise Misconfigured("METRONOME_ENRICH is off, so there is nothing to add to events")
        with _to_itself(settings), _progress() as meter:
            asyncio.run(_work(settings, enrichment, done, meter, (start, end), dry_run=dry_run))
    except KeyboardInterrupt:
        _complain(f"interrupted after {done.changed:,} changes; run it again to change the rest")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except MetronomeError as error:
        _complain(f"{error}; {error.advice}")
        raise typer.Exit(EXIT_FAILED) from None
    typer.echo(done.summary(dry_run=dry_run))


Span = tuple[datetime | None, datetime | None]


async def _work(
    settings: Settings, enrichment: Enrichment, done: Done, meter: "_Meter", span: Span, *, dry_run: bool
) -> None:
    store = open_store(settings)
    try:
        await store.setup()
        days = await _days(store, span)
        meter.start(sum(days.values()))
        for day in days:
            async for changed in _changed_of(store, day, enrichment, done, meter.advance):
                if not dry_run:
                    await store.replace(Batch.of(changed))
    finally:
        await store.close()


async def _days(store: Store, span: Span) -> dict[date, int]:
    """Return the UTC days that have events, oldest first, with how many."""
    (answer,) = await store.ask(Question(by=("day",), start=span[0], end=span[1]))
    return {date.fromisoformat(day): int(count or 0) for day, count in answer.mapping().items()}


async def _changed_of(
    store: Store, day: date, enrichment: Enrichment, done: Done, advance: Advance
) -> AsyncIterator[list[bytes]]:
    """Yield the documents that take the place of a day's, as many at once as the store takes best."""
    start = datetime.combine(day, time(), UTC)
    changed: list[bytes] = []
    size = 0
    async for document in store.documents(start=start, end=start + _DAY):
        done.seen += 1
        advance()
        after = enriched_again(document, enrichment)
        if after is None:
            continue
        done.changed += 1
        done.fields.update(changed_fields(document, after))
        changed.append(after)
        size += len(after) + 1
        if size >= store.batch_bytes:
            yield changed
            changed, size = [], 0
    if changed:
        yield changed


def _range(first: str | None, last: str | None) -> Span:
    days = read_days(first, last)
    start, end = (None if day is None else datetime.combine(day, time(), UTC) for day in days)
    return start, None if end is None else end + _DAY


@contextmanager
def _to_itself(settings: Settings) -> Iterator[None]:
    """Keep servers from the file of the embedded store, which belongs to one process."""
    if settings.store != "duckdb":
        yield
        return
    if not settings.data.is_dir():
        raise Misconfigured(f"there is no data folder {settings.data}: name the server's with --data")
    lock = FolderLock(settings.data)
    try:
        yield
    finally:
        lock.release()


class _Meter:
    """The progress bar, in events, with the rate; it is drawn seldom, since that takes longer than an event."""

    EACH: Final = 1000

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reenrich", total=None)
        self._seen = 0

    def start(self, total: int) -> None:
        self._progress.update(self._task, total=total)

    def advance(self) -> None:
        self._seen += 1
        if self._seen % self.EACH == 0:
            self._progress.update(self._task, completed=self._seen)


@contextmanager
def _progress() -> Iterator[_Meter]:
    with progress_bar(TaskProgressColumn(show_speed=True), TextColumn("events")) as progress:
        yield _Meter(progress)


def _complain(sentence: str) -> None:
    typer.echo(f"metronome reenrich: {printable(sentence)}", err=True)
