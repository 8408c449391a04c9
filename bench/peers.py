"""Other programs that do a part of the same: chDB (ClickHouse in a process), goaccess, and the disk itself."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from bench.harness import temporary_folder
from bench.realistic import draw_documents

GROUPINGS: Final = 11
"""How often the query is run."""
_CREATE: Final = """
CREATE TABLE events (event_id String, at DateTime64(3), item String, doc JSON)
ENGINE = MergeTree PARTITION BY toYYYYMM(at) ORDER BY (item, at)
"""
_INSERT: Final = """
INSERT INTO events SELECT JSONExtractString(json, 'event_id'),
    parseDateTime64BestEffort(JSONExtractString(json, '@timestamp'), 3), JSONExtractString(json, 'id'), json::JSON
FROM file('{file}', 'JSONAsString', 'json String')
"""
_GROUP: Final = "SELECT doc.topic.:String, count() FROM events GROUP BY 1 ORDER BY 2 DESC LIMIT {limit}"


class ChDBResult(NamedTuple):
    """What chDB needs for documents.

    Attributes:
        documents: how many were inserted.
        rate: documents inserted a second.
        bytes_per_document: on disk, after all parts were merged.
        group_milliseconds: median duration of counting by the sender's own field.

    """

    documents: int
    rate: float
    bytes_per_document: float
    group_milliseconds: float

    def describe(self) -> str:
        """Return a sentence."""
        return (
            f"chDB, {self.documents:,} of the same documents: {self.rate:,.0f} inserted a second, "
            f"{self.bytes_per_document:.0f} bytes each on disk, count by the sender's own field in "
            f"{self.group_milliseconds:.1f} ms ({self.group_milliseconds / self.documents * 1e6:.0f} ns an event)."
        )


def measure_chdb(documents: int) -> ChDBResult:
    """Insert documents into chDB as one file of NDJSON, and query them."""
    from chdb.session import Session  # noqa: PLC0415  # large, and installed for this only

    now = datetime.now(UTC)
    with temporary_folder() as folder:
        file = folder / "documents.ndjson"
        with file.open("wb") as lines:
            for document in draw_documents(documents, now - timedelta(days=365), timedelta(days=365)):
                lines.write(document + b"\n")
        session = Session(str(folder / "chdb"))
        session.query(_CREATE)
        started = time.monotonic()
        session.query(_INSERT.format(file=file))
        rate = documents / (time.monotonic() - started)
        session.query("OPTIMIZE TABLE events FINAL")
        durations = []
        for number in range(GROUPINGS):
            started = time.perf_counter()
            session.query(_GROUP.format(limit=100 + number))
            durations.append((time.perf_counter() - started) * 1000)
        size = int(
            str(session.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'events'", "CSV"))
        )
        session.close()
    return ChDBResult(documents, rate, size / documents, statistics.median(durations))


def goaccess_rate(log: Path, lines: int) -> float:
    """Return how many lines of an access log goaccess parses a second.

    Raises:
        SystemExit: it is not installed, or failed.

    """
    goaccess = shutil.which("goaccess")
    if goaccess is None:
        raise SystemExit("goaccess is not installed: install your system's package of that name")
    with temporary_folder() as folder:
        started = time.monotonic()
        subprocess.run(
            [goaccess, str(log), "--log-format=COMBINED", "--no-global-config", "-o", str(folder / "report.json")],
            check=True,
            capture_output=True,
        )
        return lines / (time.monotonic() - started)


def sync_rate(bodies: Sequence[bytes], seconds: float = 3.0) -> float:
    """Return how many bodies a second can be appended to a file, each followed by ``fdatasync``."""
    with temporary_folder() as folder, (folder / "file").open("wb") as file:
        written, started = 0, time.monotonic()
        for body in _repeat(bodies):
            file.write(body)
            file.flush()
            os.fdatasync(file.fileno())
            written += 1
            if time.monotonic() - started > seconds:
                break
        return written / (time.monotonic() - started)


def _repeat(bodies: Sequence[bytes]) -> Iterator[bytes]:
    while True:
        yield from bodies
