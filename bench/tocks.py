"""Tock of an item with a tenth of a million events over ninety days, on the embedded store."""

import statistics
import time
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Final

import orjson

from bench.events import build_events
from bench.figures import BenchmarkRow, temporary_folder
from tests.servers import Server, running_server

EVENTS: Final = 1_000_000
DAYS: Final = 90
EVENTS_PER_REQUEST: Final = 5000
REPETITIONS: Final = 200


def measure() -> list[BenchmarkRow]:
    """Fill a store and ask it."""
    with temporary_folder() as folder, running_server(folder / "data") as server:
        _fill(server)
        server.wait_until_shipped(600)
        line = HTTPConnection("127.0.0.1", server.port)
        took = [_measure_seconds(line, "/tock/doc0.json") for _ in range(REPETITIONS)]
        line.close()
        views = sum(server.get("/tock/doc0.json")["views"].values())
    p50, p95 = statistics.median(took) * 1000, statistics.quantiles(took, n=20)[-1] * 1000
    return [
        BenchmarkRow(
            f"tock of an item with 10 % of {EVENTS:,} events ({views:,} views), DuckDB, over HTTP",
            f"p50 {p50:.1f} ms, p95 {p95:.1f} ms",
            "",
            "",
            "p50 < 5 ms",
        )
    ]


def _fill(server: Server) -> None:
    start = datetime.now(UTC) - timedelta(days=DAYS)
    step = timedelta(days=DAYS) / EVENTS
    made = build_events(100_000)
    for first in range(0, EVENTS, EVENTS_PER_REQUEST):
        batch = [
            made[number % len(made)][:-1] + f',"ts":"{(start + step * number).isoformat()}"}}'.encode()
            for number in range(first, first + EVENTS_PER_REQUEST)
        ]
        server.post_events(b"\n".join(batch), **{"Content-Type": "application/x-ndjson"})


def _measure_seconds(connection: HTTPConnection, path: str) -> float:
    began = time.perf_counter()
    connection.request("GET", path)
    orjson.loads(connection.getresponse().read())
    return time.perf_counter() - began
