"""One event a request, durable: beside a bare handler, each on the same single core."""

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.events import build_events
from bench.figures import BenchmarkRow, pinned_to_core, run_load, temporary_folder
from tests.servers import free_port, running_server

ROUNDS: Final = 5
SECONDS: Final = 5
CONNECTIONS: Final = 128


def measure() -> list[BenchmarkRow]:
    """Alternate between the two, and compare the medians."""
    bodies = build_events(1000)
    with (
        temporary_folder() as folder,
        pinned_to_core(0),
        _bare_server() as bare,
        running_server(folder / "data") as server,
    ):
        rates: dict[str, list[float]] = {bare: [], server.url: []}
        for _ in range(ROUNDS):
            for url, found in rates.items():
                with pinned_to_core(1):
                    load = run_load(f"{url}/tick", bodies, "application/json", CONNECTIONS, SECONDS)
                found.append(load.rate)
                server.wait_until_shipped()
    limit, own = (statistics.median(found) for found in rates.values())
    return [
        BenchmarkRow(
            f"`POST /tick`, one event a request, {CONNECTIONS} connections, server on one core",
            f"{own:,.0f} requests/s",
            f"{limit:,.0f} (bare aiohttp handler)",
            f"{own / limit:.2f}",
            "≥ 0.65",
        )
    ]


@contextlib.contextmanager
def _bare_server() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
