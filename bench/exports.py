"""A million rows as CSV: how fast, in how much memory, and how long ticks wait meanwhile."""

import threading
import time
import urllib.request
from contextlib import suppress
from typing import Final

import orjson

from bench.growth import post
from bench.harness import BenchmarkRow, sized, temporary_folder
from tests.faults.floods import measure_waits
from tests.servers import Server, running_server

ROWS: Final = sized(1_000_000, 20_000)
EVENTS_PER_REQUEST: Final = 10_000
SECONDS: Final = sized(20, 2)
_PATH: Final = "/query.csv?by=number&metrics=count&limit=0"


def measure() -> list[BenchmarkRow]:
    """Fill a store with events that differ in a field, and download one row for each while ticks are sent."""
    with temporary_folder() as folder, running_server(folder / "data") as server:
        for start in range(0, ROWS, EVENTS_PER_REQUEST):
            lines = (orjson.dumps({"id": "x", "number": number}) for number in range(start, start + EVENTS_PER_REQUEST))
            post(f"{server.url}/tick", b"\n".join(lines))
        server.wait_until_shipped(600, 0.2)
        usual = measure_waits(server, SECONDS)
        before = server.memory()
        started = time.monotonic()
        rows = _download(server)
        rate = rows / (time.monotonic() - started)
        stop = threading.Event()
        reader = threading.Thread(target=_download_repeatedly, args=(server, stop))
        reader.start()
        waits = measure_waits(server, SECONDS)
        stop.set()
        reader.join()
        added = server.peak_memory() - before
    if rows != ROWS + 1:
        raise SystemExit(f"{rows} lines instead of {ROWS + 1}")
    return [
        BenchmarkRow(
            f"`/query.csv` of {ROWS:,} rows, DuckDB; p99 of `/tick` meanwhile",
            f"{rate:,.0f} rows/s, at most {added / 2**20:,.0f} MB more memory; {waits.tick * 1000:.0f} ms",
            f"{usual.tick * 1000:.0f} ms (no other clients)",
            "",
            "≤ 100 MB, < 50 ms",
        )
    ]


def _download(server: Server) -> int:
    """Return the number of lines."""
    lines = 0
    with urllib.request.urlopen(server.url + _PATH, timeout=300) as response:  # noqa: S310  # our own server
        while chunk := response.read(1 << 16):
            lines += chunk.count(b"\n")
    return lines


def _download_repeatedly(server: Server, stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(OSError), urllib.request.urlopen(server.url + _PATH, timeout=300) as response:  # noqa: S310  # our own server
            while not stop.is_set() and response.read(1 << 16):
                pass
