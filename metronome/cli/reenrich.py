"""``metronome reenrich``: add to stored events what current enrichment rules add to new ones."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from metronome.cli.errors import reporting_errors
from metronome.cli.options import DataOption, FirstDayOption, LastDayOption, StoreOption, parse_day_range
from metronome.cli.output import Progress, print_lines, show_progress
from metronome.config import Settings, read_settings
from metronome.enrich.enrichment import Enrichment
from metronome.enrich.reenrich import list_changed_fields, reenrich_document
from metronome.errors import ConfigurationError
from metronome.files import FolderLock, make_new_files_private
from metronome.server.bootstrap import build_enrichment, open_store
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.query import Query

TimeRange = tuple[datetime | None, datetime | None]

_DAY: Final = timedelta(days=1)


@dataclass(slots=True)
class ReenrichSummary:
    """Counts of a run.

    Attributes:
        read: events read.
        changed: events that changed, or would change.
        fields: how many of them changed in each field.

    """

    read: int = 0
    changed: int = 0
    fields: Counter[str] = field(default_factory=Counter)

    def format(self, *, dry_run: bool) -> list[str]:
        """Return all counts as lines of a table."""
        return [
            f"{self.read:>12,}  events read",
            f"{self.changed:>12,}  {'would change' if dry_run else 'changed'}",
            *(f"{count:>12,}    {name}" for name, count in self.fields.most_common()),
        ]


def reenrich_command(  # noqa: PLR0913  # one argument for each option
    *,
    first: FirstDayOption = None,
    last: LastDayOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the events that would change, but change nothing.")
    ] = False,
    data: DataOption = None,
    store: StoreOption = None,
    countries: Annotated[
        str | None,
        typer.Option(
            metavar="DATABASE",
            envvar="METRONOME_COUNTRIES",
            help="Same as the setting of the server.",
            show_default="built-in",
        ),
    ] = None,
    referer_spam: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="METRONOME_REFERER_SPAM",
            help="Same as the setting of the server.",
            show_default="none",
        ),
    ] = None,
    own_hosts: Annotated[
        str | None,
        typer.Option(
            metavar="HOSTS",
            envvar="METRONOME_OWN_HOSTS",
            help="Same as the setting of the server.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Enrich stored events again.

    Derives browser, bot, country and others from stored events, by current rules.

    Visitors, sessions and fields that senders set themselves do not change.

    With DuckDB, stop the server first; with Elasticsearch, it may run.
    """
    summary = ReenrichSummary()
    options = {
        "data": data,
        "store": store,
        "countries": countries,
        "referer_spam": referer_spam,
        "own_hosts": own_hosts,
    }
    with reporting_errors("reenrich", lambda: f"{summary.changed:,} events were changed; run it again for the rest"):
        time_range = _parse_time_range(first, last)
        settings = read_settings(options)
        enrichment = build_enrichment(settings)
        if enrichment is None:
            raise ConfigurationError("METRONOME_ENRICH is off: there is nothing to add to events")
        with _lock_data_folder(settings), show_progress() as progress:
            asyncio.run(_reenrich_range(settings, enrichment, summary, progress, time_range, dry_run=dry_run))
    print_lines(summary.format(dry_run=dry_run))


async def _reenrich_range(
    settings: Settings,
    enrichment: Enrichment,
    summary: ReenrichSummary,
    progress: Progress,
    time_range: TimeRange,
    *,
    dry_run: bool,
) -> None:
    store = open_store(settings)
    try:
        await store.setup()
        counts = await _count_by_month(store, time_range)
        progress.start(sum(counts.values()))
        for period in counts:
            async for changed in _iterate_changed(store, period, enrichment, summary, progress):
                if not dry_run:
                    await store.replace(DocumentBatch.from_documents(changed))
    finally:
        await store.close()


async def _count_by_month(store: Store, time_range: TimeRange) -> dict[tuple[datetime, datetime], int]:
    """Return the number of events by time range: the UTC months, which stores keep together."""
    start, end = time_range
    (result,) = await store.query(Query(group_by=("month",), start=start, end=end))
    counts: dict[tuple[datetime, datetime], int] = {}
    for label, count in result.to_dict().items():
        first = datetime.fromisoformat(f"{label}-01").replace(tzinfo=UTC)
        after = (first + 31 * _DAY).replace(day=1)
        counts[first if start is None else max(first, start), after if end is None else min(after, end)] = int(
            count or 0
        )
    return counts


async def _iterate_changed(
    store: Store,
    period: tuple[datetime, datetime],
    enrichment: Enrichment,
    summary: ReenrichSummary,
    progress: Progress,
) -> AsyncIterator[list[bytes]]:
    """Yield the changed documents of a time range, in batches of the size that the store prefers."""
    changed: list[bytes] = []
    size = 0
    async for document in store.iterate_documents(start=period[0], end=period[1]):
        summary.read += 1
        progress.advance(1, lambda: f"{progress.rate(summary.read):,.0f} events/s")
        reenriched = reenrich_document(document, enrichment)
        if reenriched is None:
            continue
        summary.changed += 1
        summary.fields.update(list_changed_fields(document, reenriched))
        changed.append(reenriched)
        size += len(reenriched) + 1
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
    """Lock the data folder if the store is embedded: its file belongs to one process."""
    if settings.store != "duckdb":
        yield
        return
    if not settings.data.is_dir():
        raise ConfigurationError(
            f"the data folder {settings.data} does not exist: set the one of the server with --data"
        )
    make_new_files_private(settings.data_group)
    lock = FolderLock(settings.data)
    try:
        yield
    finally:
        lock.release()
