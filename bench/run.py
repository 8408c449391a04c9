"""Measure Metronome beside its limits, and print the table in docs/performance.md.

Each row is a ratio of two figures of the same run, or a figure beside its bound, so that it means something on any
machine. ``python -m bench.run`` runs all; ``python -m bench.run tick tock`` runs some;
``--write FILE`` puts the table between the marks ``<!-- bench -->`` of a file.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import archives, away, batches, elastic, enrichment, imports, middleware, questions, tick, tocks, wires
from bench.figures import BenchmarkRow

BENCHMARKS: Final[dict[str, Callable[[], list[BenchmarkRow]]]] = {
    "tick": tick.measure,
    "batches": batches.measure,
    "wires": wires.measure,
    "enrichment": enrichment.measure,
    "import": imports.measure,
    "archive": archives.measure,
    "elasticsearch": elastic.measure,
    "tock": tocks.measure,
    "questions": questions.measure,
    "away": away.measure,
    "middleware": middleware.measure,
}
_MARKERS: Final = ("<!-- bench -->", "<!-- /bench -->")


def table(rows: list[BenchmarkRow]) -> str:
    """Write rows as a table in Markdown, and say where they were measured."""
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


def write_into(path: Path, text: str) -> None:
    """Put a table between the marks of a file."""
    before, mark, rest = path.read_text().partition(_MARKERS[0])
    _, end, after = rest.partition(_MARKERS[1])
    if not (mark and end):
        raise SystemExit(f"{path} has no marks {_MARKERS[0]} and {_MARKERS[1]}")
    path.write_text(f"{before}{mark}\n{text}\n{end}{after}")


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--write", type=Path, metavar="FILE", help="a file with the marks to put the table between")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(BENCHMARKS):
        parser.error(f"there is no {', '.join(unknown)}; choose of {', '.join(BENCHMARKS)}")
    rows: list[BenchmarkRow] = []
    for name in asked.parts or BENCHMARKS:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        found = BENCHMARKS[name]()
        rows += found
        print("\n".join(f"  {row.name}: {row.measured}, {row.ratio}" for row in found), file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    if asked.write:
        write_into(asked.write, text)


if __name__ == "__main__":
    main()
