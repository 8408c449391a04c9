"""Run the benchmarks and print the table of docs/performance.md.

Each row compares two measurements of the same run, or one with a limit, so that it is meaningful on any machine.
``python -m bench.run`` runs all benchmarks; ``python -m bench.run tick tock`` runs some; ``--quick`` only checks that
they run; ``--json FILE`` keeps the rows; ``--write FILE`` replaces the table between the markers ``<!-- bench -->`` in
a file.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from bench import (
    batches,
    enrichment,
    exports,
    floods,
    imports,
    middleware,
    outage,
    protocols,
    reports,
    startup,
    steps,
    tick,
)
from bench.harness import BenchmarkRow, write_between_markers

BENCHMARKS: Final[dict[str, Callable[[], list[BenchmarkRow]]]] = {
    "startup": startup.measure,
    "tick": tick.measure,
    "batches": batches.measure_duckdb,
    "protocols": protocols.measure,
    "enrichment": enrichment.measure,
    "steps": steps.measure,
    "import": imports.measure_import,
    "archive": imports.measure_archive,
    "middleware": middleware.measure,
    "elasticsearch": batches.measure_elasticsearch,
    "tock": reports.measure_tock,
    "queries": reports.measure_queries,
    "outage": outage.measure,
    "exports": exports.measure,
    "floods": floods.measure,
}


def table(rows: list[BenchmarkRow]) -> str:
    """Return rows as a Markdown table, followed by a description of the machine."""
    lines = ["| What | Metronome | Compared with | Ratio | Goal |", "|---|---|---|---|---|"]
    lines += [f"| {row.name} | {row.measured} | {row.reference} | {row.ratio} | {row.target} |" for row in rows]
    return "\n".join([*lines, "", _describe_machine()])


def _describe_machine() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    models = [line.partition(":")[2].strip() for line in _read_cpuinfo() if line.startswith("model name")]
    return (
        f"Measured by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores"
        f"{f' ({models[0]})' if models else ''}, {round(pages / 2**30)} GiB, {platform.system()}, "
        f"Python {platform.python_version()}; clients and servers on the same machine."
    )


def _read_cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Run the benchmarks that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--write", type=Path, metavar="FILE", help="a file with the markers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file to keep the rows in")
    parser.add_argument("--quick", action="store_true", help="run with little data, to check that nothing is broken")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(BENCHMARKS):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}: expected some of {', '.join(BENCHMARKS)}")
    rows: list[BenchmarkRow] = []
    for name in arguments.parts or BENCHMARKS:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        new_rows = BENCHMARKS[name]()
        rows += new_rows
        print("\n".join(f"  {row.name}: {row.measured}, {row.ratio}" for row in new_rows), file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps([row._asdict() for row in rows], option=orjson.OPT_INDENT_2))
    if arguments.write:
        write_between_markers(arguments.write, "bench", text)


if __name__ == "__main__":
    main()
