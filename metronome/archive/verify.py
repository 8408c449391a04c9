"""Count the distinct events in an archive day by day, and compare them with those in a store."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from metronome.archive.base import Archive
from metronome.archive.inventory import ArchiveObject, read_objects
from metronome.errors import ArchiveDamaged
from metronome.server_client import EventLoopThread

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

EventCounts = Counter[str]
"""Number of events by event name."""

Period = Literal["day", "month"]

_LABEL_LENGTHS: Final = {"day": len("2015-01-22"), "month": len("2015-01")}
_MEMORY_LIMIT: Final = "256MB"
_COUNT_QUERY: Final = """
    SELECT day, event, count(*)
    FROM (
        SELECT min(day) AS day, arg_min(event, day) AS event
        FROM (
            SELECT event_id, event, "@timestamp"[:10] AS day
            FROM read_json(?, format='newline_delimited', ignore_errors=true,
                columns={'@timestamp': 'VARCHAR', 'event_id': 'VARCHAR', 'event': 'VARCHAR'})
        )
        WHERE event_id IS NOT NULL AND event IS NOT NULL AND day IS NOT NULL
        GROUP BY event_id
    )
    GROUP BY ALL
"""
"""Documents of a period with the same ``event_id`` are one event, as in `metronome.stores.base.Sink.write`."""


class DayComparison(NamedTuple):
    """Events of a UTC day in the archive and in the store."""

    day: str
    archive: EventCounts
    store: EventCounts

    @property
    def missing_in_store(self) -> int:
        """Number of events that only the archive has."""
        return (self.archive - self.store).total()

    @property
    def missing_in_archive(self) -> int:
        """Number of events that only the store has."""
        return (self.store - self.archive).total()

    @property
    def is_different(self) -> bool:
        """Whether archive and store have different events."""
        return self.archive != self.store


def compare_days(
    archived: dict[str, EventCounts], stored: dict[str, EventCounts], period: Period = "day"
) -> list[DayComparison]:
    """Return the comparison of each day that has events in the archive or in the store, oldest first.

    Args:
        archived: the events in the archive by day.
        stored: the events in the store by day.
        period: the UTC period in which an ``event_id`` counts once. If an ID is used on several days of a month, the
            store need not have the event of the day that was counted, so the days of a month are equal if their sums
            are.

    """
    comparisons = []
    for _, days in groupby(sorted(archived.keys() | stored.keys()), lambda day: day[: _LABEL_LENGTHS[period]]):
        of_period = [DayComparison(day, archived.get(day, Counter()), stored.get(day, Counter())) for day in days]
        sums = [sum((comparison[at] for comparison in of_period), Counter[str]()) for at in (1, 2)]
        if sums[0] == sums[1]:
            of_period = [comparison._replace(archive=comparison.store) for comparison in of_period]
        comparisons += of_period
    return comparisons


def count_archived_events(
    loop_thread: EventLoopThread,
    archive: Archive,
    objects: Iterable[ArchiveObject],
    errors: list[str],
    on_read: Callable[[ArchiveObject], None],
    period: Period = "day",
) -> dict[str, EventCounts]:
    """Count the distinct events of each UTC day.

    The objects of one period at a time are downloaded to a temporary folder (``TMPDIR``), compressed as they are.
    Memory is limited: DuckDB counts on disk where it needs more.

    Args:
        loop_thread: runs the downloads.
        archive: the archive.
        objects: the objects to count.
        errors: a sentence is added for each damaged object, whose events are not counted.
        on_read: called after each object.
        period: the UTC period in which an ``event_id`` counts once.

    Raises:
        ArchiveUnavailable: the archive does not respond.
        ArchiveAccessDenied: the archive denies access.

    """
    counts: dict[str, EventCounts] = {}
    with TemporaryDirectory(prefix="metronome-verify-") as name, open_database(Path(name)) as database:
        folder = Path(name)
        for _, of_period in groupby(
            sorted(objects, key=_day),
            lambda archive_object: archive_object.day.isoformat()[: _LABEL_LENGTHS[period]],
        ):
            files: list[Path] = []
            for archive_object, body in read_objects(loop_thread, archive, of_period, decompress=False):
                if isinstance(body, ArchiveDamaged):
                    errors.append(str(body))
                else:
                    files.append(folder / f"{len(files)}.ndjson.gz")
                    files[-1].write_bytes(body)
                on_read(archive_object)
            counts |= count_events(database, files)
            for file in files:
                file.unlink()
    return counts


def open_database(folder: Path) -> "DuckDBPyConnection":
    """Open a database in memory that spills to a folder."""
    import duckdb  # noqa: PLC0415  # it takes 0.1 s, and is only needed once there are objects to count

    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": _MEMORY_LIMIT,
        "preserve_insertion_order": False,
        "temp_directory": str(folder / "duckdb"),
    }
    return duckdb.connect(config=settings)


def count_events(database: "DuckDBPyConnection", files: Sequence[Path]) -> dict[str, EventCounts]:
    """Count the distinct events in the gzipped NDJSON files of a period, by day and name.

    Lines that are not documents do not count. An event of several days counts on the first of them.
    """
    counts: dict[str, EventCounts] = {}
    if files:
        for day, event, count in database.execute(_COUNT_QUERY, [[str(file) for file in files]]).fetchall():
            counts.setdefault(day, Counter())[event] = count
    return counts


def _day(archive_object: ArchiveObject) -> date:
    return archive_object.day
