"""How long ticks and health checks wait while 20 connections request an expensive report, again and again."""

from typing import Final

from bench.harness import BenchmarkRow, sized, temporary_folder
from tests.faults.floods import CONNECTIONS, PATHS, flood, full_server, measure_waits

SECONDS: Final = sized(10, 1)


def measure() -> list[BenchmarkRow]:
    """Measure each report."""
    with temporary_folder() as folder, full_server(folder / "data") as server:
        usual = measure_waits(server, SECONDS)
        rows = []
        for path in PATHS[: sized(len(PATHS), 2)]:
            with flood(server, path):
                waits = measure_waits(server, SECONDS)
            rows.append(
                BenchmarkRow(
                    f"`/tick` and `/health/ready` while {CONNECTIONS} connections request `{path}`, p99",
                    f"{waits.tick * 1000:.0f} ms, {waits.ready * 1000:.0f} ms",
                    f"{usual.tick * 1000:.0f} ms, {usual.ready * 1000:.0f} ms (no other clients)",
                    "",
                    "< 50 ms, < 100 ms",
                )
            )
    return rows
