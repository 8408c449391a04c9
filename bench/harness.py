"""What the benchmarks share: rows of the table, events, and load by `wrk`."""

import contextlib
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import orjson

_WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
wrk.headers["Host"] = "127.0.0.1"
local bodies = {{}}
for number = 0, {count} - 1 do
  local file = io.open("{folder}/" .. number, "rb")
  bodies[number] = wrk.format(nil, "{path}", nil, file:read("*a"))
  file:close()
end
local sent = 0
request = function() sent = sent + 1; return bodies[sent % {count}] end
"""


QUICK: Final = "--quick" in sys.argv
"""Whether to check only that the benchmarks run, with little data."""
ITEMS: Final = 1000
REFERERS: Final = (
    "https://www.google.com/search?q=open+data",
    "https://www.arcgis.com/home/item.html?id=7",
    "https://www.washingtonpost.com/articles/dc-news/",
    "https://github.com/",
    "https://example.org/blog/2026/new-datasets/",
    *(f"https://site{number}.example.net/links?page={number}" for number in range(25)),
)
FORMATS: Final = ("kml", "csv", "geojson", "shp", "xlsx")


def sized(full: int, quick: int) -> int:
    """Return an amount of data, seconds or rounds for this run."""
    return quick if QUICK else full


class BenchmarkRow(NamedTuple):
    """A row of the table."""

    name: str
    measured: str
    reference: str
    ratio: str
    target: str


def write_between_markers(path: Path, name: str, text: str) -> None:
    """Replace the text between ``<!-- name -->`` and ``<!-- /name -->`` of a file.

    Raises:
        SystemExit: the file has no such markers.

    """
    before, start, rest = path.read_text().partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not (start and end):
        raise SystemExit(f"{path} has no markers {f'<!-- {name} -->'} and {f'<!-- /{name} -->'}")
    path.write_text(f"{before}{start}\n{text}\n{end}{after}")


def spread(rates: Sequence[float]) -> str:
    """Return the median of several measurements, and in parentheses the lowest and the highest."""
    middle = f"{statistics.median(rates):,.0f}"
    return f"{middle} ({min(rates):,.0f} to {max(rates):,.0f})" if len(rates) > 1 else middle


class LoadResult(NamedTuple):
    """The result of `wrk`."""

    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


@contextlib.contextmanager
def pinned_to_core(number: int | None) -> Iterator[None]:
    """Pin processes started in the block to one core; None means any."""
    previous = os.sched_getaffinity(0)
    if number is not None and number in previous:
        os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, previous)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder for the duration of the block."""
    with tempfile.TemporaryDirectory(prefix="metronome-bench-") as folder:
        yield Path(folder)


def run_load(url: str, bodies: Sequence[bytes], content_type: str, connections: int, seconds: int) -> LoadResult:
    """Send prepared bodies repeatedly with `wrk`, which is fast enough not to be the limit.

    Raises:
        SystemExit: `wrk` is not installed, or a request failed.

    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed: install your system's package of that name")
    with temporary_folder() as folder:
        for number, body in enumerate(bodies):
            (folder / str(number)).write_bytes(body)
        script = folder / "post.lua"
        path = urlsplit(url).path
        script.write_text(_WRK_SCRIPT.format(content_type=content_type, path=path, count=len(bodies), folder=folder))
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in report or "Socket errors" in report:
        raise SystemExit(f"requests failed:\n{report}")
    match = re.search(r"(\d+) requests in ([\d.]+)(m?)s", report)
    if match is None:
        raise SystemExit(f"unexpected output of wrk:\n{report}")
    return LoadResult(int(match[1]), float(match[2]) * (60 if match[3] else 1))


def build_events(count: int, seed: int = 1) -> list[bytes]:
    """Return the same JSON events in every run: 10 % of item ``doc0``, 20 % downloads, 40 % with a referrer."""
    draw = random.Random(seed)
    events = []
    for _ in range(count):
        item = 0 if draw.random() < 0.1 else draw.randrange(1, ITEMS)
        fields: dict[str, object] = {"id": f"doc{item}", "event": "view"}
        if draw.random() < 0.2:
            fields |= {"event": "download", "format": draw.choice(FORMATS)}
        if draw.random() < 0.4:
            fields["referer"] = draw.choice(REFERERS)
        fields |= {
            "url": f"https://data.example.org/datasets/doc{item}",
            "title": f"Dataset number {item}",
            "session": f"{draw.getrandbits(64):016x}",
            "duration": draw.randrange(1, 3000),
        }
        events.append(orjson.dumps(fields))
    return events


def build_ndjson_bodies(count: int, events_per_body: int, seed: int = 1) -> list[bytes]:
    """Return NDJSON bodies of *count* events in all."""
    events = build_events(count, seed)
    return [b"\n".join(events[start : start + events_per_body]) + b"\n" for start in range(0, count, events_per_body)]
