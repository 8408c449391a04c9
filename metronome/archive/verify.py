"""Count the distinct events in an archive day by day, and compare them with those in a store."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

from metronome.archive.base import Archive
from metronome.archive.inventory import ArchiveObject, read_objects
from metronome.errors import ArchiveDamaged
from metronome.server_client import EventLoopThread

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

EventCounts = Counter[str]
"""Number of events by event name."""

_MEMORY_LIMIT: Final = "256MB"
_COUNT_QUERY: Final = """
    SELECT event, count(*)
    FROM (
        SELECT event_id, any_value(event) AS event
        FROM read_json(?, format='newline_delimited', ignore_errors=true,
            columns={'event_id': 'VARCHAR', 'event': 'VARCHAR'})
        WHERE event_id IS NOT NULL AND event IS NOT NULL
        GROUP BY event_id
    )
    GROUP BY event
"""
"""Documents of a day with the same ``event_id`` are one event, as in `metronome.stores.base.Sink.write`."""


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


def compare_days(archived: dict[str, EventCounts], stored: dict[str, EventCounts]) -> list[DayComparison]:
    """Return the comparison of each day that has events in the archive or in the store, oldest first."""
    return [
        DayComparison(day, archived.get(day, Counter()), stored.get(day, Counter()))
        for day in sorted(archived.keys() | stored.keys())
    ]


def count_archived_events(
    loop_thread: EventLoopThread,
    archive: Archive,
    objects: Iterable[ArchiveObject],
    errors: list[str],
    on_read: Callable[[ArchiveObject], None],
) -> dict[str, EventCounts]:
    """Count the distinct events of each UTC day.

    The objects of one day at a time are downloaded to a temporary folder (``TMPDIR``), compressed as they are. Memory
    is limited: DuckDB counts on disk where it needs more.

    Args:
        loop_thread: runs the downloads.
        archive: the archive.
        objects: the objects to count.
        errors: a sentence is added for each damaged object, whose events are not counted.
        on_read: called after each object.

    Raises:
        ArchiveUnavailable: the archive does not respond.
        ArchiveAccessDenied: the archive denies access.

    """
    counts: dict[str, EventCounts] = {}
    with TemporaryDirectory(prefix="metronome-verify-") as name, open_database(Path(name)) as database:
        folder = Path(name)
        for day, objects_of_day in groupby(sorted(objects, key=_day), key=_day):
            files: list[Path] = []
            for archive_object, body in read_objects(loop_thread, archive, objects_of_day, decompress=False):
                if isinstance(body, ArchiveDamaged):
                    errors.append(str(body))
                else:
                    files.append(folder / f"{len(files)}.ndjson.gz")
                    files[-1].write_bytes(body)
                on_read(archive_object)
            counts[day.isoformat()] = count_events(database, files)
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


def count_events(database: "DuckDBPyConnection", files: Sequence[Path]) -> EventCounts:
    """Count the distinct events in gzipped NDJSON files by name; lines that are not documents do not count."""
    if not files:
        return Counter()
    return Counter(dict(database.execute(_COUNT_QUERY, [[str(file) for file in files]]).fetchall()))


def _day(archive_object: ArchiveObject) -> date:
    return archive_object.day
